//! Addresses that are leased, and those that rest after it.
//!
//! Which address to lease, how long one rests and when a rest is cut short is the caller's business.

use std::net::IpAddr;

use rusqlite::{Row, params};
use zerobridge_proto::{Mac, PciAddress};

use crate::address::{family, from_key, key};
use crate::records::Records;
use crate::{LedgerError, Owner, Pod, SetAside, Transaction, UnixSeconds, chunk};

/// An address that belongs to an owner. Within a network an address is leased at most once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The network's name: the space in which the address is unique.
    pub network: String,
    /// The address.
    pub address: IpAddr,
    /// Who has it.
    pub owner: Owner,
    /// The pod, where the runtime named one: by it the address is found for the pod's next sandbox.
    pub pod: Option<Pod>,
    /// The device that carries it, where one is known.
    pub device: Option<PciAddress>,
    /// The Ethernet address of the interface that carries it, where one is known.
    pub mac: Option<Mac>,
    /// The VLAN that the PF puts its frames into, 1 to 4094; `None` for none, and where that is not known.
    pub vlan: Option<u16>,
    /// The RDMA device beside the interface, such as `mlx5_2`, by its name on the host; where one is known.
    pub rdma: Option<String>,
    /// The boot in which it was leased; no owner outlives its boot.
    pub boot_id: String,
    /// When it was leased.
    pub created_at: UnixSeconds,
}

/// An address that was released and is kept back for a while, because peers and switches still know its last owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resting {
    /// What was released.
    pub lease: Lease,
    /// When.
    pub released_at: UnixSeconds,
}

const COLUMNS: &str = "network, key, container_id, ifname, device, boot_id, created_at, released_at,
                       pod_namespace, pod_name, pod_uid, mac, vlan, rdma";

impl Records {
    /// All leases, by network and address.
    ///
    /// # Errors
    /// [`LedgerError::Storage`]; [`LedgerError::UnreadableRow`] when somebody edited the file.
    pub fn leases(&self) -> Result<Vec<Lease>, LedgerError> {
        self.read_leases("released_at IS NULL ORDER BY network, family, key", [])
    }

    /// The leases of one network, by address.
    ///
    /// # Errors
    /// As [`leases`](Self::leases).
    pub fn leases_in(&self, network: &str) -> Result<Vec<Lease>, LedgerError> {
        self.read_leases("network = ?1 AND released_at IS NULL ORDER BY family, key", [network])
    }

    /// The leases of one owner in all networks.
    ///
    /// # Errors
    /// As [`leases`](Self::leases).
    pub fn leases_of(&self, owner: &Owner) -> Result<Vec<Lease>, LedgerError> {
        let condition =
            "container_id = ?1 AND ifname = ?2 AND released_at IS NULL ORDER BY network, family, key";
        self.read_leases(condition, [&owner.container_id, &owner.ifname])
    }

    /// The leases of the node's legs in all networks, by leg.
    ///
    /// # Errors
    /// As [`leases`](Self::leases).
    pub fn leases_of_legs(&self) -> Result<Vec<Lease>, LedgerError> {
        let condition = "container_id = ?1 AND released_at IS NULL ORDER BY ifname, network, family, key";
        self.read_leases(condition, [Owner::leg("").container_id])
    }

    /// The lease of one address; `None` also while it rests.
    ///
    /// # Errors
    /// As [`leases`](Self::leases).
    pub fn lease_at(&self, network: &str, address: IpAddr) -> Result<Option<Lease>, LedgerError> {
        let holder = self.holder(network, address)?;
        Ok(holder.filter(|(_, released_at)| released_at.is_none()).map(|(lease, _)| lease))
    }

    /// All addresses that rest, by network and address.
    ///
    /// # Errors
    /// As [`leases`](Self::leases).
    pub fn resting(&self) -> Result<Vec<Resting>, LedgerError> {
        self.read_resting("released_at IS NOT NULL ORDER BY network, family, key", [])
    }

    /// The addresses of one network that rest, the longest released first.
    ///
    /// # Errors
    /// As [`leases`](Self::leases).
    pub fn resting_in(&self, network: &str) -> Result<Vec<Resting>, LedgerError> {
        let condition = "network = ?1 AND released_at IS NOT NULL ORDER BY released_at, family, key";
        self.read_resting(condition, [network])
    }

    /// The leases of a pod's interface in one network, for all of its sandboxes and for all pods that had its name.
    ///
    /// # Errors
    /// As [`leases`](Self::leases).
    pub fn leases_of_pod(&self, network: &str, pod: &Pod, ifname: &str) -> Result<Vec<Lease>, LedgerError> {
        let condition = "network = ?1 AND pod_namespace = ?2 AND pod_name = ?3 AND ifname = ?4
                         AND released_at IS NULL ORDER BY family, key";
        self.read_leases(condition, [network, &pod.namespace, &pod.name, ifname])
    }

    /// The addresses of a pod's interface in one network that rest, the last released first; of all pods that had its name.
    ///
    /// # Errors
    /// As [`leases`](Self::leases).
    pub fn resting_of_pod(
        &self,
        network: &str,
        pod: &Pod,
        ifname: &str,
    ) -> Result<Vec<Resting>, LedgerError> {
        let condition = "network = ?1 AND pod_namespace = ?2 AND pod_name = ?3 AND ifname = ?4
                         AND released_at IS NOT NULL ORDER BY released_at DESC, created_at DESC, family, key";
        self.read_resting(condition, [network, &pod.namespace, &pod.name, ifname])
    }

    /// A lease from `low` to `high`, both included, that a container was given in another boot than `boot_id`: nobody uses it.
    /// Reads none of this boot's leases, so that it costs nothing where there is nothing to find.
    ///
    /// # Errors
    /// As [`leases`](Self::leases).
    pub fn lease_of_another_boot(
        &self,
        network: &str,
        low: IpAddr,
        high: IpAddr,
        boot_id: &str,
    ) -> Result<Option<Lease>, LedgerError> {
        // The plus signs keep SQLite from choosing the primary key, which would make it read every lease of the stretch.
        for other in ["boot_id < ?5", "boot_id > ?5"] {
            let condition = format!(
                "network = ?1 AND +family = ?2 AND +key BETWEEN ?3 AND ?4 AND released_at IS NULL AND {other}
                 AND +container_id <> ?6 LIMIT 1"
            );
            let leg = Owner::leg("").container_id;
            let stretch = params![network, family(low), key(low), key(high), boot_id, leg];
            if let Some(lease) = self.read_leases(&condition, stretch)?.into_iter().next() {
                return Ok(Some(lease));
            }
        }
        Ok(None)
    }

    /// Everything that `leases` holds: what is leased and what rests.
    pub(crate) fn all_addresses(&self) -> Result<Vec<(Lease, Option<UnixSeconds>)>, LedgerError> {
        self.read_rows("true ORDER BY network, family, key", [])
    }

    fn holder(
        &self,
        network: &str,
        address: IpAddr,
    ) -> Result<Option<(Lease, Option<UnixSeconds>)>, LedgerError> {
        let condition = "network = ?1 AND family = ?2 AND key = ?3";
        Ok(self.read_rows(condition, params![network, family(address), key(address)])?.into_iter().next())
    }

    fn read_leases(
        &self,
        condition: &str,
        parameters: impl rusqlite::Params,
    ) -> Result<Vec<Lease>, LedgerError> {
        Ok(self.read_rows(condition, parameters)?.into_iter().map(|(lease, _)| lease).collect())
    }

    fn read_resting(
        &self,
        condition: &str,
        parameters: impl rusqlite::Params,
    ) -> Result<Vec<Resting>, LedgerError> {
        let rows = self.read_rows(condition, parameters)?;
        Ok(rows
            .into_iter()
            .filter_map(|(lease, released_at)| released_at.map(|released_at| Resting { lease, released_at }))
            .collect())
    }

    fn read_rows(
        &self,
        condition: &str,
        parameters: impl rusqlite::Params,
    ) -> Result<Vec<(Lease, Option<UnixSeconds>)>, LedgerError> {
        let sql = format!("SELECT {COLUMNS} FROM leases WHERE {condition}");
        self.rows("reading leases", &sql, parameters, read_row)
    }
}

impl Transaction<'_> {
    /// Leases an address.
    ///
    /// # Errors
    /// [`LedgerError::AddressHeld`] with the holder when it is leased or resting; [`LedgerError::SetAside`] with the
    /// foreign host when it is that; [`LedgerError::Storage`].
    pub fn insert_lease(&mut self, lease: &Lease) -> Result<(), LedgerError> {
        let (network, address) = (&lease.network, lease.address);
        let is_marked =
            self.write("marking an address", |connection| chunk::mark(connection, network, address, true))?;
        // Who has it is asked only where the bit says that somebody does; where the bit is wrong the schema says no.
        if is_marked {
            self.require_free(network, address)?;
        }
        let pod = lease.pod.as_ref();
        let sql = "INSERT INTO leases (network, family, key, address, container_id, ifname, device, boot_id, created_at,
                   pod_namespace, pod_name, pod_uid, mac, vlan, rdma)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";
        self.write("leasing an address", |connection| {
            connection
                .execute(
                    sql,
                    params![
                        network,
                        family(address),
                        key(address),
                        address.to_string(),
                        lease.owner.container_id,
                        lease.owner.ifname,
                        lease.device.map(|device| device.to_string()),
                        lease.boot_id,
                        lease.created_at.0,
                        pod.map(|pod| &pod.namespace),
                        pod.map(|pod| &pod.name),
                        pod.and_then(|pod| pod.uid.as_ref()),
                        lease.mac.map(|mac| mac.to_string()),
                        lease.vlan,
                        lease.rdma,
                    ],
                )
                .map(drop)
        })
    }

    /// Leases an address that somebody was found to use: that it rests, or was seen with a foreign host, is no longer true.
    ///
    /// # Errors
    /// [`LedgerError::AddressHeld`] with the holder when it is leased; [`LedgerError::Storage`].
    pub fn insert_lease_in_use(&mut self, lease: &Lease) -> Result<(), LedgerError> {
        if self.lease_at(&lease.network, lease.address)?.is_none() {
            self.free_address(&lease.network, lease.address)?;
            self.readmit(&lease.network, lease.address)?;
        }
        self.insert_lease(lease)
    }

    fn require_free(&self, network: &str, address: IpAddr) -> Result<(), LedgerError> {
        if let Some((holder, released_at)) = self.holder(network, address)? {
            let (network, resting) = (holder.network, released_at.is_some());
            return Err(LedgerError::AddressHeld { network, address, holder: holder.owner, resting });
        }
        match self.set_aside_at(network, address)? {
            Some(SetAside { network, address, mac, .. }) => {
                Err(LedgerError::SetAside { network, address, mac })
            }
            None => Ok(()),
        }
    }

    /// Ends an owner's leases, in one network or in all, and lets the addresses rest from `now` on. Returns what was
    /// released; an owner without leases is no error.
    ///
    /// # Errors
    /// [`LedgerError::Storage`]; [`LedgerError::UnreadableRow`].
    pub fn release_leases(
        &mut self,
        owner: &Owner,
        network: Option<&str>,
        now: UnixSeconds,
    ) -> Result<Vec<Lease>, LedgerError> {
        let mut leases = self.leases_of(owner)?;
        leases.retain(|lease| network.is_none_or(|network| lease.network == network));
        if leases.is_empty() {
            return Ok(leases);
        }
        let sql = "UPDATE leases SET released_at = ?1
                   WHERE container_id = ?2 AND ifname = ?3 AND released_at IS NULL AND network = ifnull(?4, network)";
        self.write("releasing leases", |connection| {
            connection.execute(sql, params![now.0, owner.container_id, owner.ifname, network])
        })?;
        Ok(leases)
    }

    /// Ends the lease of one address, which rests from `now` on. Returns the lease; an address without one is no error.
    ///
    /// # Errors
    /// [`LedgerError::Storage`]; [`LedgerError::UnreadableRow`].
    pub fn release_address(
        &mut self,
        network: &str,
        address: IpAddr,
        now: UnixSeconds,
    ) -> Result<Option<Lease>, LedgerError> {
        let Some(lease) = self.lease_at(network, address)? else {
            return Ok(None);
        };
        let sql = "UPDATE leases SET released_at = ?4 WHERE network = ?1 AND family = ?2 AND key = ?3";
        self.write("releasing an address", |connection| {
            connection.execute(sql, params![network, family(address), key(address), now.0])
        })?;
        Ok(Some(lease))
    }

    /// Takes an address out of the ledger, leased or resting, so that it is free at once. Returns what was there.
    ///
    /// # Errors
    /// [`LedgerError::Storage`]; [`LedgerError::UnreadableRow`].
    pub fn free_address(&mut self, network: &str, address: IpAddr) -> Result<Option<Lease>, LedgerError> {
        let Some((lease, _)) = self.holder(network, address)? else {
            return Ok(None);
        };
        let sql = "DELETE FROM leases WHERE network = ?1 AND family = ?2 AND key = ?3";
        self.write("freeing an address", |connection| {
            connection.execute(sql, params![network, family(address), key(address)])?;
            chunk::mark(connection, network, address, false).map(|_| ())
        })?;
        Ok(Some(lease))
    }

    /// Frees the addresses of `network` that were released at or before `until`, the longest released first, but not
    /// more than `limit` of them. Returns how many.
    ///
    /// A release that lies after `now` was recorded by a clock that has been set back since; it counts as of `now`, so
    /// that such an address does not rest for years.
    ///
    /// # Errors
    /// [`LedgerError::Storage`]; [`LedgerError::UnreadableRow`].
    pub fn end_rest(
        &mut self,
        network: &str,
        until: UnixSeconds,
        now: UnixSeconds,
        limit: u32,
    ) -> Result<usize, LedgerError> {
        self.write("setting back releases from the future", |connection| {
            let sql = "UPDATE leases SET released_at = ?2 WHERE network = ?1 AND released_at > ?2";
            connection.execute(sql, params![network, now.0])
        })?;
        let condition =
            "network = ?1 AND released_at IS NOT NULL AND released_at <= ?2 ORDER BY released_at LIMIT ?3";
        let over = self.read_leases(condition, params![network, until.0, limit])?;
        for lease in &over {
            self.free_address(network, lease.address)?;
        }
        Ok(over.len())
    }
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<Result<(Lease, Option<UnixSeconds>), LedgerError>> {
    let key: Vec<u8> = row.get("key")?;
    let device: Option<String> = row.get("device")?;
    let Some(address) = from_key(&key) else {
        return Ok(Err(unreadable("key", format!("{key:02x?}"))));
    };
    let device = match device.map(|text| text.parse().map_err(|_| text)).transpose() {
        Ok(device) => device,
        Err(text) => return Ok(Err(unreadable("device", text))),
    };
    let mac: Option<String> = row.get("mac")?;
    let mac = match mac.map(|text| text.parse().map_err(|_| text)).transpose() {
        Ok(mac) => mac,
        Err(text) => return Ok(Err(unreadable("mac", text))),
    };
    let owner = Owner { container_id: row.get("container_id")?, ifname: row.get("ifname")? };
    let lease = Lease {
        network: row.get("network")?,
        address,
        owner,
        pod: Pod::from_row(row)?,
        device,
        mac,
        vlan: row.get("vlan")?,
        rdma: row.get("rdma")?,
        boot_id: row.get("boot_id")?,
        created_at: UnixSeconds(row.get("created_at")?),
    };
    Ok(Ok((lease, row.get::<_, Option<i64>>("released_at")?.map(UnixSeconds))))
}

fn unreadable(column: &'static str, value: String) -> LedgerError {
    LedgerError::UnreadableRow { table: "leases", column, value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ledger;
    use crate::fixture::{ip, lease, owner};

    /// A ledger in a directory of its own, with `leases` in it.
    fn ledger_with(leases: &[Lease]) -> (tempfile::TempDir, Ledger) {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(directory.path()).unwrap();
        let mut transaction = ledger.begin().unwrap();
        leases.iter().for_each(|lease| transaction.insert_lease(lease).unwrap());
        transaction.commit().unwrap();
        (directory, ledger)
    }

    #[test]
    fn leases_are_listed_in_the_order_of_their_addresses() {
        let unsorted = ["fd00::9", "10.0.0.10", "10.0.0.9", "fd00::10"].map(|address| lease(address, "c1"));
        let green = Lease { network: "green".to_owned(), device: None, ..lease("10.0.0.9", "c2") };
        let (_directory, ledger) = ledger_with(&[&unsorted[..], std::slice::from_ref(&green)].concat());
        let in_blue: Vec<String> =
            ledger.leases_in("blue").unwrap().iter().map(|lease| lease.address.to_string()).collect();
        assert_eq!(in_blue, ["10.0.0.9", "10.0.0.10", "fd00::9", "fd00::10"]);
        assert_eq!(ledger.leases_of(&owner("c2")).unwrap(), [green]);
        assert_eq!(ledger.leases().unwrap().len(), 5);
    }

    #[test]
    fn an_address_is_leased_once_in_a_network_and_rests_after_release() {
        let (_directory, mut ledger) = ledger_with(&[lease("10.0.0.9", "c1")]);
        let mut transaction = ledger.begin().unwrap();
        let error = transaction.insert_lease(&lease("10.0.0.9", "c2")).unwrap_err().to_string();
        assert_eq!(error, "10.0.0.9 of network blue is leased to eth0 of container c1");

        assert_eq!(transaction.release_leases(&owner("c1"), Some("green"), UnixSeconds(20)).unwrap(), []);
        let released = transaction.release_leases(&owner("c1"), None, UnixSeconds(20)).unwrap();
        assert_eq!(released, [lease("10.0.0.9", "c1")]);
        assert_eq!(transaction.release_leases(&owner("c1"), None, UnixSeconds(30)).unwrap(), []);
        let error = transaction.insert_lease(&lease("10.0.0.9", "c2")).unwrap_err().to_string();
        assert_eq!(error, "10.0.0.9 of network blue is resting after eth0 of container c1");
        let resting = transaction.resting_in("blue").unwrap();
        assert_eq!(resting, [Resting { lease: lease("10.0.0.9", "c1"), released_at: UnixSeconds(20) }]);
        assert!(transaction.chunk("blue", ip("10.0.0.9")).unwrap().is_taken(ip("10.0.0.9")));

        assert_eq!(transaction.end_rest("blue", UnixSeconds(19), UnixSeconds(79), 9).unwrap(), 0);
        assert_eq!(transaction.end_rest("blue", UnixSeconds(20), UnixSeconds(80), 9).unwrap(), 1);
        assert!(!transaction.chunk("blue", ip("10.0.0.9")).unwrap().is_taken(ip("10.0.0.9")));
        transaction.insert_lease(&lease("10.0.0.9", "c2")).unwrap();
    }

    #[test]
    fn an_address_in_use_is_leased_though_it_rests_but_not_taken_from_who_has_it() {
        let (_directory, mut ledger) = ledger_with(&[lease("10.0.0.9", "c1")]);
        let mut transaction = ledger.begin().unwrap();
        let error = transaction.insert_lease_in_use(&lease("10.0.0.9", "c2")).unwrap_err();
        assert!(matches!(error, LedgerError::AddressHeld { resting: false, .. }), "{error}");
        transaction.release_leases(&owner("c1"), None, UnixSeconds(20)).unwrap();
        transaction.insert_lease_in_use(&lease("10.0.0.9", "c2")).unwrap();
        assert_eq!(transaction.leases().unwrap(), [lease("10.0.0.9", "c2")]);
        assert_eq!(transaction.audit().unwrap(), []);
    }

    #[test]
    fn a_rest_that_began_in_the_future_begins_now() {
        let (_directory, mut ledger) = ledger_with(&[lease("10.0.0.9", "c1")]);
        let mut transaction = ledger.begin().unwrap();
        transaction.release_leases(&owner("c1"), None, UnixSeconds(4_000_000_000)).unwrap();
        assert_eq!(transaction.end_rest("blue", UnixSeconds(40), UnixSeconds(100), 9).unwrap(), 0);
        assert_eq!(transaction.end_rest("blue", UnixSeconds(100), UnixSeconds(160), 9).unwrap(), 1);
    }

    #[test]
    fn rests_end_in_the_order_of_release_and_not_more_than_asked() {
        let (_directory, mut ledger) =
            ledger_with(&[lease("10.0.0.1", "c1"), lease("10.0.0.2", "c2"), lease("10.0.0.3", "c3")]);
        let mut transaction = ledger.begin().unwrap();
        for (container_id, now) in [("c2", 20), ("c3", 21), ("c1", 22)] {
            transaction.release_leases(&owner(container_id), None, UnixSeconds(now)).unwrap();
        }
        assert_eq!(transaction.end_rest("blue", UnixSeconds(99), UnixSeconds(99), 2).unwrap(), 2);
        assert_eq!(transaction.resting_in("blue").unwrap()[0].lease.owner, owner("c1"));
    }

    #[test]
    fn a_pods_addresses_are_found_by_its_name_and_interface_whoever_its_sandbox_is() {
        let of = |address: &str, container_id: &str, name: &str| {
            let pod =
                Pod { namespace: "team".to_owned(), name: name.to_owned(), uid: Some("u-1".to_owned()) };
            Lease { pod: Some(pod), ..lease(address, container_id) }
        };
        let other_interface = {
            let lease = of("10.0.0.5", "c1", "db-0");
            Lease { owner: Owner { ifname: "net1".to_owned(), ..lease.owner.clone() }, ..lease }
        };
        let leases = [
            of("10.0.0.1", "c1", "db-0"),
            of("10.0.0.2", "c2", "db-0"),
            of("10.0.0.3", "c3", "db-0"),
            of("10.0.0.4", "c4", "db-1"),
            other_interface,
        ];
        let (_directory, mut ledger) = ledger_with(&leases);
        let pod = leases[0].pod.clone().unwrap();
        let mut transaction = ledger.begin().unwrap();
        for (container_id, now) in [("c2", 20), ("c1", 21), ("c4", 22)] {
            transaction.release_leases(&owner(container_id), None, UnixSeconds(now)).unwrap();
        }
        assert_eq!(transaction.leases_of_pod("blue", &pod, "eth0").unwrap(), [leases[2].clone()]);
        let resting = transaction.resting_of_pod("blue", &pod, "eth0").unwrap();
        assert_eq!(
            resting.into_iter().map(|it| it.lease).collect::<Vec<_>>(),
            [leases[0].clone(), leases[1].clone()]
        );
        assert_eq!(transaction.leases_of_pod("green", &pod, "eth0").unwrap(), []);
    }

    #[test]
    fn a_lease_of_another_boot_is_found_within_its_stretch_only() {
        let old = Lease { boot_id: "b0".to_owned(), ..lease("10.0.0.5", "c0") };
        let (_directory, mut ledger) = ledger_with(&[old.clone(), lease("10.0.0.6", "c1")]);
        let found = |ledger: &Ledger, low, high| {
            ledger.lease_of_another_boot("blue", ip(low), ip(high), "b1").unwrap()
        };
        assert_eq!(found(&ledger, "10.0.0.1", "10.0.0.9"), Some(old));
        let before = ledger.lease_of_another_boot("blue", ip("10.0.0.1"), ip("10.0.0.9"), "b0").unwrap();
        assert_eq!(before, Some(lease("10.0.0.6", "c1")));
        assert_eq!(found(&ledger, "10.0.0.6", "10.0.0.9"), None);
        let mut transaction = ledger.begin().unwrap();
        assert!(transaction.free_address("blue", ip("10.0.0.5")).unwrap().is_some());
        assert!(transaction.free_address("blue", ip("10.0.0.5")).unwrap().is_none());
        transaction.commit().unwrap();
        assert_eq!(found(&ledger, "10.0.0.1", "10.0.0.9"), None);
    }

    #[test]
    fn what_is_not_committed_has_not_happened() {
        let (_directory, mut ledger) = ledger_with(&[]);
        ledger.begin().unwrap().insert_lease(&lease("10.0.0.9", "c1")).unwrap();
        assert_eq!(ledger.leases().unwrap(), []);
        assert!(!ledger.chunk("blue", ip("10.0.0.9")).unwrap().is_taken(ip("10.0.0.9")));
    }

    #[test]
    fn a_step_that_failed_half_way_cannot_be_committed() {
        let (_directory, mut ledger) = ledger_with(&[]);
        ledger.run("test", |connection| connection.execute_batch("DROP TABLE chunks")).unwrap();
        let mut transaction = ledger.begin().unwrap();
        transaction.insert_lease(&lease("10.0.0.9", "c1")).unwrap_err();
        assert!(matches!(transaction.commit().unwrap_err(), LedgerError::Broken { .. }));
        assert_eq!(ledger.leases().unwrap(), []);
    }
}
