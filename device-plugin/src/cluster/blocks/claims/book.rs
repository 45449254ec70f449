//! The ledger as the registrar of a pool sees it.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use zerobridge_blocks::{PodName, ReservationLedger, Wish};
use zerobridge_ledger::{ClaimedPod, Ledger, LedgerError};

/// The pods with addresses of their own in one pool, in the ledger.
#[derive(Debug)]
pub(super) struct ClaimBook {
    ledger: Ledger,
    pool: String,
    boot_id: String,
    /// The right to act for the ledger. Here, because a write that has begun goes on after its agent was stopped.
    _lock: Arc<File>,
}

impl ClaimBook {
    pub(super) fn open(
        state_dir: &Path,
        lock: Arc<File>,
        pool: &str,
        boot_id: &str,
    ) -> Result<Self, LedgerError> {
        let ledger = Ledger::open(state_dir)?;
        Ok(Self { ledger, pool: pool.to_owned(), boot_id: boot_id.to_owned(), _lock: lock })
    }
}

impl ReservationLedger for ClaimBook {
    type Error = LedgerError;

    fn name(&mut self, pods: &BTreeMap<PodName, Wish>) -> Result<(), LedgerError> {
        let named = pods
            .iter()
            .map(|(pod, wish)| (pod.namespace.clone(), pod.name.clone(), wish.claim.clone()))
            .collect::<Vec<_>>();
        let known = self.ledger.claims_of(&self.pool)?;
        let is_known = |(namespace, name, claim): &(String, String, String)| {
            known.iter().any(|pod| (&pod.namespace, &pod.name, &pod.claim) == (namespace, name, claim))
        };
        if known.len() == named.len() && named.iter().all(is_known) {
            return Ok(());
        }
        let mut transaction = self.ledger.begin()?;
        transaction.name_claims(&self.pool, &named)?;
        transaction.commit()
    }

    fn entered(&mut self) -> Result<BTreeMap<PodName, (String, IpAddr)>, LedgerError> {
        self.ledger.require_in_place()?;
        let pods = self.ledger.claims_of(&self.pool)?.into_iter().filter_map(|pod| {
            let name = PodName { namespace: pod.namespace, name: pod.name };
            pod.address.map(|address| (name, (pod.claim, address)))
        });
        Ok(pods.collect())
    }

    fn enter(&mut self, pod: &PodName, claim: &str, address: IpAddr) -> Result<(), LedgerError> {
        let mut transaction = self.ledger.begin()?;
        transaction.enter_claim(&ClaimedPod {
            pool: self.pool.clone(),
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            claim: claim.to_owned(),
            address: Some(address),
        })?;
        transaction.commit()
    }

    fn leave(&mut self, pod: &PodName) -> Result<bool, LedgerError> {
        // Asked first without a transaction: one wakes whoever watches the ledger, this agent too.
        let known = self.ledger.claim_of(&self.pool, &pod.namespace, &pod.name)?;
        let Some(known) = known else { return Ok(true) };
        if self.ledger.lease_of_claim(&known, &self.boot_id)?.is_some() {
            return Ok(false);
        }
        let mut transaction = self.ledger.begin()?;
        let in_the_way = transaction.leave_claim(&self.pool, &pod.namespace, &pod.name, &self.boot_id)?;
        transaction.commit()?;
        Ok(in_the_way.is_none())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use zerobridge_ledger::{Lease, Owner, UnixSeconds};

    use super::*;

    #[test]
    fn asking_whether_an_address_can_leave_writes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(folder.path()).unwrap();
        let address: IpAddr = "10.0.0.9".parse().unwrap();
        let mut transaction = ledger.begin().unwrap();
        transaction.put_pool("gold", "{}", UnixSeconds(1)).unwrap();
        assert_eq!(transaction.bind_pool("gold", "blue").unwrap(), None);
        let owner = Owner { container_id: "c1".to_owned(), ifname: "eth0".to_owned() };
        let (network, boot_id) = ("blue".to_owned(), "b1".to_owned());
        let (pod, device, mac, vlan, rdma) = (None, None, None, None, None);
        let created_at = UnixSeconds(2);
        transaction
            .insert_lease(&Lease {
                network,
                address,
                owner,
                pod,
                device,
                mac,
                vlan,
                rdma,
                boot_id,
                created_at,
            })
            .unwrap();
        transaction.commit().unwrap();

        let lock = Arc::new(tempfile::tempfile().unwrap());
        let mut book = ClaimBook::open(folder.path(), lock, "gold", "b1").unwrap();
        let pod = PodName { namespace: "team".to_owned(), name: "web-0".to_owned() };
        book.enter(&pod, "u", address).unwrap();
        let written = || {
            let of = |name: &str| std::fs::metadata(folder.path().join(name)).unwrap();
            ["ledger.db", "ledger.db-wal", "ledger.lock"].map(|name| (of(name).mtime_nsec(), of(name).len()))
        };
        let before = written();
        assert!(!book.leave(&pod).unwrap(), "a container has it");
        assert_eq!(written(), before);
        assert_eq!(book.entered().unwrap()[&pod], ("u".to_owned(), address));
    }
}
