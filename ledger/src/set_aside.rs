//! Addresses that somebody else was found to have on the link: not ours to give out for a while.
//!
//! How long one is kept back, and when that is cut short, is the caller's business.

use std::net::IpAddr;

use rusqlite::{Row, params};
use zerobridge_proto::Mac;

use crate::address::{family, from_key, key};
use crate::records::Records;
use crate::{LedgerError, Owner, Transaction, UnixSeconds, chunk};

/// An address of a network that a foreign host has. It is neither leased nor free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// The network.
    pub network: String,
    /// The address.
    pub address: IpAddr,
    /// The foreign host's Ethernet address.
    pub mac: Mac,
    /// Who was to have the address.
    pub found_for: Owner,
    /// When the foreign host was last seen with it.
    pub seen_at: UnixSeconds,
}

const COLUMNS: &str = "network, key, mac, container_id, ifname, seen_at";

impl Records {
    /// All addresses that are set aside, by network and address.
    ///
    /// # Errors
    /// [`LedgerError::Storage`]; [`LedgerError::UnreadableRow`] when somebody edited the file.
    pub fn set_aside(&self) -> Result<Vec<SetAside>, LedgerError> {
        self.read_set_aside("true ORDER BY network, family, key", [])
    }

    /// Those of one network, the one that was seen longest ago first.
    ///
    /// # Errors
    /// As [`set_aside`](Self::set_aside).
    pub fn set_aside_in(&self, network: &str) -> Result<Vec<SetAside>, LedgerError> {
        self.read_set_aside("network = ?1 ORDER BY seen_at, family, key", [network])
    }

    /// Whether, and since when, one address is set aside.
    ///
    /// # Errors
    /// As [`set_aside`](Self::set_aside).
    pub fn set_aside_at(&self, network: &str, address: IpAddr) -> Result<Option<SetAside>, LedgerError> {
        let condition = "network = ?1 AND family = ?2 AND key = ?3";
        let rows = self.read_set_aside(condition, params![network, family(address), key(address)])?;
        Ok(rows.into_iter().next())
    }

    fn read_set_aside(
        &self,
        condition: &str,
        parameters: impl rusqlite::Params,
    ) -> Result<Vec<SetAside>, LedgerError> {
        let sql = format!("SELECT {COLUMNS} FROM set_aside WHERE {condition}");
        self.rows("reading addresses set aside", &sql, parameters, read_row)
    }
}

impl Transaction<'_> {
    /// Sets an address aside. Its owner's lease, when it has one, ends with that and does not rest; another owner's stays,
    /// and is an error. An address that is set aside already gets the newer facts.
    ///
    /// # Errors
    /// [`LedgerError::AddressHeld`] when it is leased to another owner; [`LedgerError::Storage`];
    /// [`LedgerError::UnreadableRow`].
    pub fn insert_set_aside(&mut self, found: &SetAside) -> Result<(), LedgerError> {
        let (network, address) = (&found.network, found.address);
        if let Some(lease) = self.lease_at(network, address)?
            && lease.owner != found.found_for
        {
            let (network, holder) = (network.clone(), lease.owner);
            return Err(LedgerError::AddressHeld { network, address, holder, resting: false });
        }
        self.free_address(network, address)?;
        let sql = "INSERT INTO set_aside (network, family, key, address, mac, container_id, ifname, seen_at)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
                   ON CONFLICT DO UPDATE SET mac = excluded.mac, container_id = excluded.container_id,
                                             ifname = excluded.ifname, seen_at = excluded.seen_at";
        self.write("setting an address aside", |connection| {
            connection.execute(
                sql,
                params![
                    network,
                    family(address),
                    key(address),
                    address.to_string(),
                    found.mac.to_string(),
                    found.found_for.container_id,
                    found.found_for.ifname,
                    found.seen_at.0,
                ],
            )?;
            chunk::mark(connection, network, address, true).map(|_| ())
        })
    }

    /// Makes an address free that was set aside, and returns what was known of it.
    ///
    /// # Errors
    /// [`LedgerError::Storage`]; [`LedgerError::UnreadableRow`].
    pub fn readmit(&mut self, network: &str, address: IpAddr) -> Result<Option<SetAside>, LedgerError> {
        let Some(found) = self.set_aside_at(network, address)? else {
            return Ok(None);
        };
        let sql = "DELETE FROM set_aside WHERE network = ?1 AND family = ?2 AND key = ?3";
        self.write("readmitting an address", |connection| {
            connection.execute(sql, params![network, family(address), key(address)])?;
            chunk::mark(connection, network, address, false).map(|_| ())
        })?;
        Ok(Some(found))
    }

    /// Readmits the addresses of `network` that were last seen with a foreign host at or before `until`, the longest ago
    /// first, but not more than `limit` of them. Returns how many.
    ///
    /// A sighting that lies after `now` was recorded by a clock that has been set back since; it counts as of `now`.
    ///
    /// # Errors
    /// [`LedgerError::Storage`]; [`LedgerError::UnreadableRow`].
    pub fn end_set_aside(
        &mut self,
        network: &str,
        until: UnixSeconds,
        now: UnixSeconds,
        limit: u32,
    ) -> Result<usize, LedgerError> {
        self.write("setting back sightings from the future", |connection| {
            let sql = "UPDATE set_aside SET seen_at = ?2 WHERE network = ?1 AND seen_at > ?2";
            connection.execute(sql, params![network, now.0])
        })?;
        let condition = "network = ?1 AND seen_at <= ?2 ORDER BY seen_at LIMIT ?3";
        let over = self.read_set_aside(condition, params![network, until.0, limit])?;
        for found in &over {
            self.readmit(network, found.address)?;
        }
        Ok(over.len())
    }
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<Result<SetAside, LedgerError>> {
    let (key, mac): (Vec<u8>, String) = (row.get("key")?, row.get("mac")?);
    let unreadable =
        |column, value| Ok(Err(LedgerError::UnreadableRow { table: "set_aside", column, value }));
    let Some(address) = from_key(&key) else { return unreadable("key", format!("{key:02x?}")) };
    let Ok(mac) = mac.parse() else { return unreadable("mac", mac) };
    Ok(Ok(SetAside {
        network: row.get("network")?,
        address,
        mac,
        found_for: Owner { container_id: row.get("container_id")?, ifname: row.get("ifname")? },
        seen_at: UnixSeconds(row.get("seen_at")?),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ledger;
    use crate::fixture::{ip, lease, owner};

    fn found(address: &str, seen_at: i64) -> SetAside {
        SetAside {
            network: "blue".to_owned(),
            address: ip(address),
            mac: "02:00:00:00:00:09".parse().unwrap(),
            found_for: owner("c1"),
            seen_at: UnixSeconds(seen_at),
        }
    }

    fn ledger() -> (tempfile::TempDir, Ledger) {
        let directory = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(directory.path()).unwrap();
        (directory, ledger)
    }

    #[test]
    fn an_address_that_is_set_aside_is_no_longer_leased_and_cannot_be() {
        let (_directory, mut ledger) = ledger();
        let mut transaction = ledger.begin().unwrap();
        transaction.insert_lease(&lease("10.0.0.9", "c1")).unwrap();
        transaction.insert_set_aside(&found("10.0.0.9", 20)).unwrap();
        transaction.commit().unwrap();
        assert_eq!((ledger.leases().unwrap(), ledger.resting_in("blue").unwrap()), (vec![], vec![]));
        assert_eq!(ledger.set_aside().unwrap(), [found("10.0.0.9", 20)]);
        assert!(ledger.chunk("blue", ip("10.0.0.9")).unwrap().is_taken(ip("10.0.0.9")));
        assert_eq!(ledger.audit().unwrap(), []);

        let mut transaction = ledger.begin().unwrap();
        let error = transaction.insert_lease(&lease("10.0.0.9", "c2")).unwrap_err().to_string();
        assert_eq!(error, "10.0.0.9 of network blue is set aside: 02:00:00:00:00:09 has it on the link");
        // Another network is another wire.
        let green = crate::Lease { network: "green".to_owned(), ..lease("10.0.0.9", "c2") };
        transaction.insert_lease(&green).unwrap();
        assert_eq!(transaction.readmit("blue", ip("10.0.0.9")).unwrap(), Some(found("10.0.0.9", 20)));
        assert_eq!(transaction.readmit("blue", ip("10.0.0.9")).unwrap(), None);
        transaction.insert_lease(&lease("10.0.0.9", "c2")).unwrap();
        assert_eq!(transaction.audit().unwrap(), []);
    }

    #[test]
    fn a_lease_of_another_owner_is_not_taken_away() {
        let (_directory, mut ledger) = ledger();
        let mut transaction = ledger.begin().unwrap();
        transaction.insert_lease(&lease("10.0.0.9", "c2")).unwrap();
        let error = transaction.insert_set_aside(&found("10.0.0.9", 20)).unwrap_err();
        assert!(matches!(error, LedgerError::AddressHeld { resting: false, .. }), "{error}");
        assert_eq!(transaction.leases().unwrap(), [lease("10.0.0.9", "c2")]);
    }

    #[test]
    fn a_second_sighting_takes_the_place_of_the_first() {
        let (_directory, mut ledger) = ledger();
        let mut transaction = ledger.begin().unwrap();
        transaction.insert_set_aside(&found("fd00::9", 20)).unwrap();
        let second = SetAside { mac: "02:00:00:00:00:0a".parse().unwrap(), ..found("fd00::9", 30) };
        transaction.insert_set_aside(&second).unwrap();
        assert_eq!(transaction.set_aside_in("blue").unwrap(), std::slice::from_ref(&second));
        assert_eq!(transaction.set_aside_at("blue", ip("fd00::9")).unwrap(), Some(second));
        assert_eq!(transaction.set_aside_at("blue", ip("fd00::a")).unwrap(), None);
    }

    #[test]
    fn addresses_are_readmitted_in_the_order_of_their_sightings_and_not_more_than_asked() {
        let (_directory, mut ledger) = ledger();
        let mut transaction = ledger.begin().unwrap();
        for (address, seen_at) in [("10.0.0.1", 22), ("10.0.0.2", 20), ("10.0.0.3", 21), ("fd00::1", 9_000)] {
            transaction.insert_set_aside(&found(address, seen_at)).unwrap();
        }
        let end = |transaction: &mut Transaction<'_>, until, now, limit| {
            transaction.end_set_aside("blue", UnixSeconds(until), UnixSeconds(now), limit).unwrap()
        };
        assert_eq!(end(&mut transaction, 19, 100, 9), 0);
        assert_eq!(end(&mut transaction, 22, 100, 2), 2);
        let left = transaction.set_aside_in("blue").unwrap();
        // One of the future counts as of now.
        assert_eq!(left, [found("10.0.0.1", 22), found("fd00::1", 100)]);
        assert_eq!(end(&mut transaction, 100, 700, 9), 2);
        assert_eq!((transaction.set_aside().unwrap(), transaction.audit().unwrap()), (vec![], vec![]));
    }

    #[test]
    fn a_row_that_somebody_spoilt_is_named() {
        let (_directory, mut ledger) = ledger();
        let mut transaction = ledger.begin().unwrap();
        transaction.insert_set_aside(&found("10.0.0.9", 20)).unwrap();
        transaction.commit().unwrap();
        ledger.run("test", |connection| connection.execute_batch("UPDATE set_aside SET mac = 'x'")).unwrap();
        let error = ledger.set_aside().unwrap_err().to_string();
        assert!(error.contains("set_aside") && error.contains("mac \"x\""), "{error}");
    }
}
