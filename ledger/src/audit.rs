//! Whether the ledger agrees with itself.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use crate::LedgerError;
use crate::address::{family, from_key, with_low_bits};
use crate::chunk::Chunk;
use crate::records::Records;

/// Something in the ledger that contradicts something else in it. None ever comes from this program's own writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discrepancy {
    /// SQLite found the file itself damaged, or a row that breaks a constraint.
    Damage {
        /// SQLite's words.
        report: String,
    },
    /// An address that is leased, rests or is set aside, and whose bit in its chunk is not set: it could be given away.
    NotMarked {
        /// The network.
        network: String,
        /// The address.
        address: IpAddr,
    },
    /// A bit that is set for no reason: the address is lost to the pool.
    MarkedInVain {
        /// The network.
        network: String,
        /// The address that nobody has.
        address: IpAddr,
    },
    /// A row whose readable address is not the one of its key.
    WrongText {
        /// The network.
        network: String,
        /// The address of the key, which counts.
        address: IpAddr,
        /// What operators read.
        text: String,
    },
    /// An address that is leased or rests, and is set aside for a foreign host.
    LeasedAndSetAside {
        /// The network.
        network: String,
        /// The address.
        address: IpAddr,
    },
}

/// The tables whose addresses the chunks mark as taken.
pub(crate) const WITH_ADDRESSES: [&str; 2] = ["leases", "set_aside"];

type Chunks = BTreeMap<(String, i64, IpAddr), Chunk>;

impl Records {
    /// Compares the ledger with itself, reading all of it. Empty when all is well.
    ///
    /// Outside a transaction, processes that write meanwhile can be seen half-way; audit within one to exclude that.
    ///
    /// # Errors
    /// [`LedgerError::Storage`], [`LedgerError::Corrupt`].
    pub fn audit(&self) -> Result<Vec<Discrepancy>, LedgerError> {
        let mut found = self.damage()?;
        let mut expected = Chunks::new();
        for table in WITH_ADDRESSES {
            for (network, address, text) in self.addresses_in(table)? {
                if text != address.to_string() {
                    let network = network.clone();
                    found.push(Discrepancy::WrongText { network, address, text });
                }
                let place = (network.clone(), family(address), with_low_bits(address, 0));
                let chunk = expected.entry(place).or_insert_with(|| Chunk::empty(address));
                if chunk.is_taken(address) {
                    found.push(Discrepancy::LeasedAndSetAside { network, address });
                }
                chunk.set(address, true);
            }
        }
        let recorded = self.recorded_chunks()?;
        for (place, chunk) in &expected {
            let (network, _, first) = place;
            let recorded = recorded.get(place).cloned().unwrap_or_else(|| Chunk::empty(*first));
            found.extend(
                missing(chunk, &recorded)
                    .map(|address| Discrepancy::NotMarked { network: network.clone(), address }),
            );
        }
        for (place, chunk) in &recorded {
            let (network, _, first) = place;
            let expected = expected.get(place).cloned().unwrap_or_else(|| Chunk::empty(*first));
            found.extend(
                missing(chunk, &expected)
                    .map(|address| Discrepancy::MarkedInVain { network: network.clone(), address }),
            );
        }
        Ok(found)
    }

    fn damage(&self) -> Result<Vec<Discrepancy>, LedgerError> {
        let mut reports = self
            .rows("checking the file", "PRAGMA integrity_check", [], |row| row.get::<_, String>(0).map(Ok))?;
        reports.retain(|report| report != "ok");
        Ok(reports.into_iter().map(|report| Discrepancy::Damage { report }).collect())
    }

    /// The network, the address and its text of each row.
    pub(crate) fn addresses_in(
        &self,
        table: &'static str,
    ) -> Result<Vec<(String, IpAddr, String)>, LedgerError> {
        let sql = format!("SELECT network, key, address FROM {table}");
        let rows = self.rows("reading addresses", &sql, [], |row| {
            Ok(Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?, row.get::<_, String>(2)?)))
        })?;
        // A key of another length breaks the schema, which the integrity check has reported.
        Ok(rows
            .into_iter()
            .filter_map(|(network, key, text)| Some((network, from_key(&key)?, text)))
            .collect())
    }

    fn recorded_chunks(&self) -> Result<Chunks, LedgerError> {
        let sql = "SELECT network, first, taken FROM chunks";
        let rows = self.rows("reading chunks", sql, [], |row| {
            Ok(Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?, row.get::<_, [u8; 512]>(2)?)))
        })?;
        let chunks = rows.into_iter().filter_map(|(network, first, taken)| {
            let first = from_key(&first)?;
            Some(((network, family(first), first), Chunk::from_bytes(first, &taken)))
        });
        Ok(chunks.collect())
    }
}

/// The addresses that are taken in `chunk` and free in `other`.
fn missing(chunk: &Chunk, other: &Chunk) -> impl Iterator<Item = IpAddr> {
    (0..=0xfff)
        .map(|offset| with_low_bits(chunk.first(), offset))
        .filter(|address| chunk.is_taken(*address) && !other.is_taken(*address))
}

impl fmt::Display for Discrepancy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damage { report } => write!(out, "the file is damaged: {report}"),
            Self::NotMarked { network, address } => {
                let rule = "is leased or set aside, and its chunk says that it is free";
                write!(out, "{address} of network {network} {rule}")
            }
            Self::MarkedInVain { network, address } => {
                write!(out, "{address} of network {network} is free, and its chunk says that it is taken")
            }
            Self::WrongText { network, address, text } => {
                write!(out, "the row of {address} in network {network} reads \"{text}\"")
            }
            Self::LeasedAndSetAside { network, address } => {
                write!(out, "{address} of network {network} is leased, and is set aside for a foreign host")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{ip, lease, owner};
    use crate::{Ledger, SetAside, UnixSeconds};

    #[test]
    fn an_audit_finds_each_kind_of_contradiction() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(directory.path()).unwrap();
        let mut transaction = ledger.begin().unwrap();
        transaction.insert_lease(&lease("10.0.0.9", "c1")).unwrap();
        transaction.insert_lease(&lease("fd00::9", "c1")).unwrap();
        transaction.commit().unwrap();
        assert_eq!(ledger.audit().unwrap(), []);
        let edit = "UPDATE leases SET key = x'0a00000a' WHERE family = 4;
                    UPDATE leases SET address = 'fd00:0::9' WHERE family = 6;
                    INSERT INTO set_aside VALUES ('blue', 4, x'0a00000a', '10.0.0.10', '02:00:00:00:00:09', 'c1', 'eth0', 1)";
        ledger.run("test", |connection| connection.execute_batch(edit)).unwrap();
        let network = || "blue".to_owned();
        assert_eq!(
            ledger.audit().unwrap(),
            [
                Discrepancy::WrongText {
                    network: network(),
                    address: ip("10.0.0.10"),
                    text: "10.0.0.9".to_owned()
                },
                Discrepancy::WrongText {
                    network: network(),
                    address: ip("fd00::9"),
                    text: "fd00:0::9".to_owned()
                },
                Discrepancy::LeasedAndSetAside { network: network(), address: ip("10.0.0.10") },
                Discrepancy::NotMarked { network: network(), address: ip("10.0.0.10") },
                Discrepancy::MarkedInVain { network: network(), address: ip("10.0.0.9") },
            ]
        );
    }

    fn found(address: &str, container_id: &str, seen_at: i64) -> SetAside {
        SetAside {
            network: "blue".to_owned(),
            address: ip(address),
            mac: "02:00:00:00:00:09".parse().unwrap(),
            found_for: owner(container_id),
            seen_at: UnixSeconds(seen_at),
        }
    }

    proptest::proptest! {
        // Each case writes and syncs some dozens of transactions.
        #![proptest_config(proptest::test_runner::Config::with_cases(40))]

        #[test]
        fn chunks_never_differ_from_what_is_taken(
            steps in proptest::collection::vec((0_u8..7, 0_u32..9000, 0_u8..6), 1..60)
        ) {
            let directory = tempfile::tempdir().unwrap();
            let mut ledger = Ledger::open(directory.path()).unwrap();
            for (now, (step, offset, container)) in (0..).zip(steps) {
                let address = std::net::Ipv4Addr::from_bits(0x0a00_0f00 + offset / 7 * 7).to_string();
                let container_id = format!("c{container}");
                let mut transaction = ledger.begin().unwrap();
                // An address that is held already is an outcome as good as any other here.
                match step {
                    0 | 1 => drop(transaction.insert_lease(&lease(&address, &container_id))),
                    2 => drop(transaction.release_leases(&owner(&container_id), None, UnixSeconds(now)).unwrap()),
                    3 => drop(transaction.end_rest("blue", UnixSeconds(now - 3), UnixSeconds(now), 2).unwrap()),
                    // One that is another's is an outcome as good as any other, too.
                    4 => drop(transaction.insert_set_aside(&found(&address, &container_id, now))),
                    5 => drop(transaction.readmit("blue", ip(&address)).unwrap()),
                    _ => {
                        transaction.end_set_aside("blue", UnixSeconds(now - 3), UnixSeconds(now), 2).unwrap();
                    }
                }
                if offset % 5 != 0 {
                    transaction.commit().unwrap();
                }
            }
            proptest::prop_assert_eq!(ledger.audit().unwrap(), []);
        }
    }
}
