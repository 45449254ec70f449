//! Pods that have addresses of their own in cluster-wide pools, by the pods' names.
//!
//! While an address is here, this node may lease it to that pod and to nobody else. Whether it may be entered is the caller's
//! business; that it leaves only when no container of this boot has it is seen to here, in the same transaction.

use std::net::IpAddr;

use rusqlite::{Row, params};

use crate::address::{family, from_key, key};
use crate::records::Records;
use crate::{Lease, LedgerError, Transaction};

/// A pod that an IPClaim names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClaimedPod {
    /// The pool.
    pub pool: String,
    /// The pod's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The IPClaim's UID.
    pub claim: String,
    /// The pod's address; `None` while that is not on this node: then the pod gets none.
    pub address: Option<IpAddr>,
}

const COLUMNS: &str = "pool, pod_namespace, pod_name, claim, key";

impl Records {
    /// The pods with addresses of their own in a pool, by name.
    ///
    /// # Errors
    /// [`LedgerError::Storage`], [`LedgerError::Corrupt`]; [`LedgerError::UnreadableRow`] when somebody edited the file.
    pub fn claims_of(&self, pool: &str) -> Result<Vec<ClaimedPod>, LedgerError> {
        self.read_claims("pool = ?1 ORDER BY pod_namespace, pod_name", [pool])
    }

    /// One of them.
    ///
    /// # Errors
    /// As [`claims_of`](Self::claims_of).
    pub fn claim_of(
        &self,
        pool: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<ClaimedPod>, LedgerError> {
        let condition = "pool = ?1 AND pod_namespace = ?2 AND pod_name = ?3";
        Ok(self.read_claims(condition, [pool, namespace, name])?.into_iter().next())
    }

    /// The lease that keeps a pod's address from leaving: one of the boot `boot_id`.
    ///
    /// # Errors
    /// As [`claims_of`](Self::claims_of).
    pub fn lease_of_claim(&self, pod: &ClaimedPod, boot_id: &str) -> Result<Option<Lease>, LedgerError> {
        let network = self.pool(&pod.pool)?.and_then(|pool| pool.network);
        let Some((network, address)) = network.zip(pod.address) else { return Ok(None) };
        Ok(self.lease_at(&network, address)?.filter(|lease| lease.boot_id == boot_id))
    }

    pub(crate) fn all_claims(&self) -> Result<Vec<ClaimedPod>, LedgerError> {
        self.read_claims("true", [])
    }

    fn read_claims(
        &self,
        condition: &str,
        parameters: impl rusqlite::Params,
    ) -> Result<Vec<ClaimedPod>, LedgerError> {
        let sql = format!("SELECT {COLUMNS} FROM claims WHERE {condition}");
        self.rows("reading claims", &sql, parameters, read_row)
    }
}

impl Transaction<'_> {
    /// Says which pods have addresses of their own in a pool: `(namespace, name, claim)`. A pod that is no longer among them
    /// stays for as long as its address is here.
    ///
    /// # Errors
    /// [`LedgerError::Storage`]; [`LedgerError::UnreadableRow`].
    pub fn name_claims(&mut self, pool: &str, pods: &[(String, String, String)]) -> Result<(), LedgerError> {
        for known in self.claims_of(pool)? {
            let is_named =
                pods.iter().any(|(namespace, name, _)| (namespace, name) == (&known.namespace, &known.name));
            if !is_named && known.address.is_none() {
                self.forget_claim(pool, &known.namespace, &known.name)?;
            }
        }
        // Whose address it is that a pod has here is not changed before that has left.
        let sql = "INSERT INTO claims (pool, pod_namespace, pod_name, claim) VALUES (?1, ?2, ?3, ?4)
                   ON CONFLICT DO UPDATE SET claim = excluded.claim
                       WHERE claims.address IS NULL AND claims.claim <> excluded.claim";
        for (namespace, name, claim) in pods {
            self.write("naming a claim's pod", |connection| {
                connection.execute(sql, params![pool, namespace, name, claim]).map(drop)
            })?;
        }
        Ok(())
    }

    /// Enters a pod's address: from the commit on, it is leased to that pod.
    ///
    /// # Errors
    /// [`LedgerError::Invalid`] without an address; [`LedgerError::Storage`] when the address is another pod's here, or the
    /// pool is not recorded.
    pub fn enter_claim(&mut self, pod: &ClaimedPod) -> Result<(), LedgerError> {
        let Some(address) = pod.address else {
            let value = format!("that of {}/{}", pod.namespace, pod.name);
            return Err(LedgerError::Invalid { field: "claim", value, rule: "it must have an address" });
        };
        let sql = "INSERT INTO claims (pool, pod_namespace, pod_name, claim, family, key, address)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                   ON CONFLICT (pool, pod_namespace, pod_name) DO UPDATE
                   SET claim = excluded.claim, family = excluded.family, key = excluded.key, address = excluded.address";
        self.write("entering a claim", |connection| {
            let row = params![
                pod.pool,
                pod.namespace,
                pod.name,
                pod.claim,
                family(address),
                key(address),
                address.to_string(),
            ];
            connection.execute(sql, row).map(drop)
        })
    }

    /// Takes a pod's address out, unless a container of the boot `boot_id` has it: nobody can lease it here after the
    /// commit. Returns the lease that is in the way. A lease of an earlier boot ends with that, and so does a rest: the
    /// address goes to a pod of the same name, or its claim has ended.
    ///
    /// # Errors
    /// [`LedgerError::Storage`]; [`LedgerError::UnreadableRow`].
    pub fn leave_claim(
        &mut self,
        pool: &str,
        namespace: &str,
        name: &str,
        boot_id: &str,
    ) -> Result<Option<Lease>, LedgerError> {
        let Some(pod) = self.claim_of(pool, namespace, name)? else { return Ok(None) };
        let in_the_way = self.lease_of_claim(&pod, boot_id)?;
        if in_the_way.is_some() {
            return Ok(in_the_way);
        }
        let network = self.pool(pool)?.and_then(|pool| pool.network);
        if let Some((network, address)) = network.zip(pod.address) {
            self.free_address(&network, address)?;
        }
        let sql = "UPDATE claims SET (family, key, address) = (NULL, NULL, NULL)
                   WHERE pool = ?1 AND pod_namespace = ?2 AND pod_name = ?3";
        self.write("taking a claim out", |connection| {
            connection.execute(sql, params![pool, namespace, name]).map(drop)
        })?;
        Ok(None)
    }

    fn forget_claim(&mut self, pool: &str, namespace: &str, name: &str) -> Result<(), LedgerError> {
        let sql = "DELETE FROM claims WHERE pool = ?1 AND pod_namespace = ?2 AND pod_name = ?3";
        self.write("forgetting a claim", |connection| {
            connection.execute(sql, params![pool, namespace, name]).map(drop)
        })
    }
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<Result<ClaimedPod, LedgerError>> {
    let key: Option<Vec<u8>> = row.get("key")?;
    let address = key.as_deref().map(from_key);
    if address == Some(None) {
        let value = format!("{:02x?}", key.unwrap_or_default());
        return Ok(Err(LedgerError::UnreadableRow { table: "claims", column: "key", value }));
    }
    Ok(Ok(ClaimedPod {
        pool: row.get("pool")?,
        namespace: row.get("pod_namespace")?,
        name: row.get("pod_name")?,
        claim: row.get("claim")?,
        address: address.flatten(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{ip, lease, owner};
    use crate::{Ledger, UnixSeconds};

    fn pod(name: &str, address: Option<&str>) -> ClaimedPod {
        ClaimedPod {
            pool: "gold".to_owned(),
            namespace: "team".to_owned(),
            name: name.to_owned(),
            claim: "u1".to_owned(),
            address: address.map(ip),
        }
    }

    fn named(names: &[&str]) -> Vec<(String, String, String)> {
        names.iter().map(|name| ("team".to_owned(), (*name).to_owned(), "u1".to_owned())).collect()
    }

    /// A ledger with the pool `gold`, which gives its addresses to network `blue`.
    fn ledger() -> (tempfile::TempDir, Ledger) {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(directory.path()).unwrap();
        let mut transaction = ledger.begin().unwrap();
        transaction.put_pool("gold", r#"{"subnet":"10.0.0.0/24"}"#, UnixSeconds(1)).unwrap();
        assert_eq!(transaction.bind_pool("gold", "blue").unwrap(), None);
        transaction.commit().unwrap();
        (directory, ledger)
    }

    #[test]
    fn a_pod_is_named_before_its_address_is_here_and_stays_while_it_is() {
        let (_directory, mut ledger) = ledger();
        let mut transaction = ledger.begin().unwrap();
        transaction.name_claims("gold", &named(&["web-0", "web-1"])).unwrap();
        assert_eq!(transaction.claims_of("gold").unwrap(), [pod("web-0", None), pod("web-1", None)]);
        transaction.enter_claim(&pod("web-0", Some("10.0.0.9"))).unwrap();
        transaction.name_claims("gold", &named(&["web-2"])).unwrap();
        assert_eq!(
            transaction.claims_of("gold").unwrap(),
            [pod("web-0", Some("10.0.0.9")), pod("web-2", None)]
        );
        assert_eq!(transaction.claim_of("gold", "team", "web-2").unwrap(), Some(pod("web-2", None)));
        assert_eq!(transaction.claim_of("gold", "other", "web-2").unwrap(), None);
        // Another claim of the same name does not take over what is here.
        transaction.name_claims("gold", &[("team".into(), "web-0".into(), "u2".into())]).unwrap();
        assert_eq!(transaction.claims_of("gold").unwrap(), [pod("web-0", Some("10.0.0.9"))]);
        assert_eq!(transaction.leave_claim("gold", "team", "web-0", "b1").unwrap(), None);
        transaction.name_claims("gold", &[("team".into(), "web-0".into(), "u2".into())]).unwrap();
        assert_eq!(transaction.claims_of("gold").unwrap()[0].claim, "u2");
        transaction.name_claims("gold", &[]).unwrap();
        assert_eq!(transaction.claims_of("gold").unwrap(), []);
    }

    #[test]
    fn an_address_stays_while_a_container_of_this_boot_has_it() {
        let (_directory, mut ledger) = ledger();
        let mut transaction = ledger.begin().unwrap();
        transaction.enter_claim(&pod("web-0", Some("10.0.0.9"))).unwrap();
        transaction.insert_lease(&lease("10.0.0.9", "c1")).unwrap();
        let in_the_way = transaction.leave_claim("gold", "team", "web-0", "b1").unwrap();
        assert_eq!(in_the_way, Some(lease("10.0.0.9", "c1")));
        assert_eq!(
            transaction.bind_pool("gold", "green").unwrap(),
            Some("blue".to_owned()),
            "promised in blue"
        );
        transaction.release_leases(&owner("c1"), None, UnixSeconds(20)).unwrap();
        assert_eq!(transaction.leave_claim("gold", "team", "web-0", "b1").unwrap(), None, "it only rests");
        assert_eq!(transaction.claims_of("gold").unwrap(), [pod("web-0", None)]);
        assert_eq!((transaction.resting().unwrap(), transaction.audit().unwrap()), (vec![], vec![]));

        transaction.enter_claim(&pod("web-0", Some("10.0.0.9"))).unwrap();
        transaction.insert_lease(&lease("10.0.0.9", "c1")).unwrap();
        assert_eq!(transaction.leave_claim("gold", "team", "web-0", "b2").unwrap(), None, "another boot");
        assert_eq!((transaction.leases().unwrap(), transaction.audit().unwrap()), (vec![], vec![]));
    }

    #[test]
    fn an_address_is_at_most_one_pods_own() {
        let (_directory, mut ledger) = ledger();
        let mut transaction = ledger.begin().unwrap();
        transaction.enter_claim(&pod("web-0", Some("10.0.0.9"))).unwrap();
        transaction.commit().unwrap();
        let mut transaction = ledger.begin().unwrap();
        assert!(transaction.enter_claim(&pod("web-1", Some("10.0.0.9"))).is_err());
        drop(transaction);
        let mut transaction = ledger.begin().unwrap();
        assert!(transaction.enter_claim(&pod("web-1", None)).unwrap_err().to_string().contains("web-1"));
        assert!(
            transaction
                .enter_claim(&ClaimedPod { pool: "silver".into(), ..pod("a", Some("10.0.0.8")) })
                .is_err()
        );
    }
}
