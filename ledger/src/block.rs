//! Cluster-wide pools, and the blocks of them that are this node's.
//!
//! While a block is here, the node may lease its addresses without asking anybody. Whether it may be entered is the
//! caller's business; that it leaves only when nothing of it is promised is seen to here, in the same transaction.

use std::net::IpAddr;

use ipnet::IpNet;
use rusqlite::{OptionalExtension, Row, params};

use crate::address::{family, from_key, key};
use crate::records::Records;
use crate::{LedgerError, Transaction, UnixSeconds};

/// A cluster-wide pool as the API server last described it without a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolRecord {
    /// Its name.
    pub name: String,
    /// What it is, as JSON that its writer and its reader agree on.
    pub spec: String,
    /// The network that leases from it on this node: addresses are unique within a network, so a second one would
    /// lease them again.
    pub network: Option<String>,
}

/// A part of a pool that is this node's alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The pool.
    pub pool: String,
    /// The addresses, without host bits.
    pub net: IpNet,
    /// When it was claimed.
    pub claimed_at: UnixSeconds,
    /// Whether no further address may be leased from it. Those that are leased stay so.
    pub draining: bool,
}

/// What is promised of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockUse {
    /// Addresses that are leased.
    pub leased: u32,
    /// Addresses that were released and rest.
    pub resting: u32,
}

/// What became of a block that was to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It has left, or was not here.
    Done,
    /// Something of it is promised, so it stays.
    InUse(BlockUse),
}

impl BlockUse {
    /// Whether nothing is promised.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.leased == 0 && self.resting == 0
    }
}

impl Records {
    /// Which ledger this is; `None` until [`Transaction::name_incarnation`] has said it.
    ///
    /// # Errors
    /// [`LedgerError::Storage`], [`LedgerError::Corrupt`].
    pub fn incarnation(&self) -> Result<Option<String>, LedgerError> {
        self.run("reading the incarnation", |connection| {
            connection.query_row("SELECT id FROM incarnation", [], |row| row.get(0)).optional()
        })
    }

    /// A pool; `None` when the API server has not been heard about it.
    ///
    /// # Errors
    /// [`LedgerError::Storage`], [`LedgerError::Corrupt`].
    pub fn pool(&self, name: &str) -> Result<Option<PoolRecord>, LedgerError> {
        self.run("reading a pool", |connection| {
            let sql = "SELECT pool, spec, network FROM pools WHERE pool = ?1";
            connection.query_row(sql, [name], read_pool).optional()
        })
    }

    /// All pools, by name.
    ///
    /// # Errors
    /// [`LedgerError::Storage`], [`LedgerError::Corrupt`].
    pub fn pools(&self) -> Result<Vec<PoolRecord>, LedgerError> {
        let sql = "SELECT pool, spec, network FROM pools ORDER BY pool";
        self.rows("reading pools", sql, [], |row| read_pool(row).map(Ok))
    }

    /// The blocks of a pool, by address.
    ///
    /// # Errors
    /// [`LedgerError::Storage`], [`LedgerError::Corrupt`]; [`LedgerError::UnreadableRow`] when somebody edited the file.
    pub fn blocks_of(&self, pool: &str) -> Result<Vec<Block>, LedgerError> {
        let sql = "SELECT pool, first, prefix_length, claimed_at, draining FROM blocks WHERE pool = ?1
                   ORDER BY family, first";
        self.rows("reading blocks", sql, [pool], read_block)
    }

    /// What is promised of the addresses of `net` in `network`. Reads the leases of that stretch only.
    ///
    /// # Errors
    /// [`LedgerError::Storage`], [`LedgerError::Corrupt`].
    pub fn use_of(&self, network: &str, net: IpNet) -> Result<BlockUse, LedgerError> {
        let sql = "SELECT count(*) FILTER (WHERE released_at IS NULL), count(released_at) FROM leases
                   WHERE network = ?1 AND family = ?2 AND key BETWEEN ?3 AND ?4";
        let (low, high) = (net.network(), net.broadcast());
        self.run("counting leases", |connection| {
            connection.query_row(sql, params![network, family(low), key(low), key(high)], |row| {
                Ok(BlockUse { leased: row.get(0)?, resting: row.get(1)? })
            })
        })
    }

    /// What is promised of a block in the network that leases from its pool.
    ///
    /// # Errors
    /// As [`use_of`](Self::use_of).
    pub fn block_use(&self, block: &Block) -> Result<BlockUse, LedgerError> {
        match self.pool(&block.pool)?.and_then(|pool| pool.network) {
            Some(network) => self.use_of(&network, block.net),
            None => Ok(BlockUse::default()),
        }
    }
}

impl Transaction<'_> {
    /// Which ledger this is. A ledger that does not know yet is `fresh` from now on.
    ///
    /// # Errors
    /// [`LedgerError::Storage`].
    pub fn name_incarnation(&mut self, fresh: &str) -> Result<String, LedgerError> {
        if let Some(known) = self.incarnation()? {
            return Ok(known);
        }
        self.write("naming the incarnation", |connection| {
            connection.execute("INSERT INTO incarnation (id, only) VALUES (?1, 1)", [fresh])
        })?;
        Ok(fresh.to_owned())
    }

    /// Records what a pool is; which network leases from it stays.
    ///
    /// # Errors
    /// [`LedgerError::Storage`].
    pub fn put_pool(&mut self, name: &str, spec: &str, now: UnixSeconds) -> Result<(), LedgerError> {
        let sql = "INSERT INTO pools (pool, spec, updated_at) VALUES (?1, ?2, ?3)
                   ON CONFLICT DO UPDATE SET spec = excluded.spec, updated_at = excluded.updated_at";
        self.write("recording a pool", |connection| {
            connection.execute(sql, params![name, spec, now.0]).map(|_| ())
        })
    }

    /// Lets `network` lease from a pool, unless something of it is promised in another network, which is then returned.
    ///
    /// # Errors
    /// [`LedgerError::Storage`]; [`LedgerError::UnreadableRow`].
    pub fn bind_pool(&mut self, name: &str, network: &str) -> Result<Option<String>, LedgerError> {
        let bound = self.pool(name)?.and_then(|pool| pool.network);
        match bound {
            Some(bound) if bound == network => return Ok(None),
            Some(bound) => {
                let blocks = self.blocks_of(name)?.into_iter().map(|block| block.net);
                let claimed = self.claims_of(name)?.into_iter().filter_map(|pod| pod.address);
                for net in blocks.chain(claimed.map(IpNet::from)) {
                    if !self.use_of(&bound, net)?.is_empty() {
                        return Ok(Some(bound));
                    }
                }
            }
            None => {}
        }
        self.write("binding a pool", |connection| {
            connection.execute("UPDATE pools SET network = ?2 WHERE pool = ?1", params![name, network])
        })?;
        Ok(None)
    }

    /// Enters a block: from the commit on, its addresses are leased. One that is here already is no longer draining.
    ///
    /// # Errors
    /// [`LedgerError::Invalid`] when the pool is not recorded or the block has host bits; [`LedgerError::Storage`].
    pub fn enter_block(&mut self, block: &Block) -> Result<(), LedgerError> {
        let invalid = |value: String, rule| LedgerError::Invalid { field: "block", value, rule };
        if block.net != block.net.trunc() {
            return Err(invalid(block.net.to_string(), "it must have no bits set after the prefix"));
        }
        if self.pool(&block.pool)?.is_none() {
            return Err(invalid(format!("{} of {}", block.net, block.pool), "record its pool first"));
        }
        let first = block.net.network();
        let sql = "INSERT INTO blocks (pool, family, first, prefix_length, address, claimed_at, draining)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO UPDATE SET draining = excluded.draining";
        self.write("entering a block", |connection| {
            let row = params![
                block.pool,
                family(first),
                key(first),
                block.net.prefix_len(),
                first.to_string(),
                block.claimed_at.0,
                block.draining,
            ];
            connection.execute(sql, row).map(|_| ())
        })
    }

    /// Says whether further addresses may be leased from a block. Returns whether the block is here.
    ///
    /// # Errors
    /// [`LedgerError::Storage`].
    pub fn set_draining(&mut self, pool: &str, first: IpAddr, draining: bool) -> Result<bool, LedgerError> {
        let sql = "UPDATE blocks SET draining = ?4 WHERE pool = ?1 AND family = ?2 AND first = ?3";
        self.write("draining a block", |connection| {
            connection.execute(sql, params![pool, family(first), key(first), draining]).map(|rows| rows > 0)
        })
    }

    /// Takes a block out, if nothing of it is promised: nobody can lease from it after the commit.
    ///
    /// # Errors
    /// [`LedgerError::Storage`]; [`LedgerError::UnreadableRow`].
    pub fn remove_block(&mut self, pool: &str, first: IpAddr) -> Result<Removal, LedgerError> {
        let here = self.blocks_of(pool)?.into_iter().find(|block| block.net.network() == first);
        let Some(block) = here else { return Ok(Removal::Done) };
        let promised = self.block_use(&block)?;
        if !promised.is_empty() {
            return Ok(Removal::InUse(promised));
        }
        let sql = "DELETE FROM blocks WHERE pool = ?1 AND family = ?2 AND first = ?3";
        self.write("removing a block", |connection| {
            connection.execute(sql, params![pool, family(first), key(first)])
        })?;
        Ok(Removal::Done)
    }
}

fn read_pool(row: &Row<'_>) -> rusqlite::Result<PoolRecord> {
    Ok(PoolRecord { name: row.get("pool")?, spec: row.get("spec")?, network: row.get("network")? })
}

fn read_block(row: &Row<'_>) -> rusqlite::Result<Result<Block, LedgerError>> {
    let (first, length): (Vec<u8>, u8) = (row.get("first")?, row.get("prefix_length")?);
    let Some(net) = from_key(&first).and_then(|first| IpNet::new(first, length).ok()) else {
        let value = format!("{first:02x?}/{length}");
        return Ok(Err(LedgerError::UnreadableRow { table: "blocks", column: "first", value }));
    };
    Ok(Ok(Block {
        pool: row.get("pool")?,
        net,
        claimed_at: UnixSeconds(row.get("claimed_at")?),
        draining: row.get("draining")?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ledger;
    use crate::fixture::{ip, lease, owner};

    fn block(net: &str) -> Block {
        Block {
            pool: "gold".to_owned(),
            net: net.parse().unwrap(),
            claimed_at: UnixSeconds(5),
            draining: false,
        }
    }

    /// A ledger with the pool `gold` and two blocks of it.
    fn ledger() -> (tempfile::TempDir, Ledger) {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(directory.path()).unwrap();
        let mut transaction = ledger.begin().unwrap();
        transaction.put_pool("gold", r#"{"subnet":"10.0.0.0/24"}"#, UnixSeconds(1)).unwrap();
        transaction.enter_block(&block("10.0.0.64/28")).unwrap();
        transaction.enter_block(&block("10.0.0.16/28")).unwrap();
        transaction.commit().unwrap();
        (directory, ledger)
    }

    #[test]
    fn blocks_are_listed_by_address_and_entered_once() {
        let (_directory, mut ledger) = ledger();
        assert_eq!(ledger.blocks_of("gold").unwrap(), [block("10.0.0.16/28"), block("10.0.0.64/28")]);
        assert_eq!(ledger.blocks_of("other").unwrap(), []);
        let mut transaction = ledger.begin().unwrap();
        assert!(transaction.set_draining("gold", ip("10.0.0.16"), true).unwrap());
        assert!(transaction.blocks_of("gold").unwrap()[0].draining);
        assert!(!transaction.set_draining("gold", ip("10.0.0.32"), true).unwrap());
        transaction.enter_block(&Block { claimed_at: UnixSeconds(9), ..block("10.0.0.16/28") }).unwrap();
        assert_eq!(
            transaction.blocks_of("gold").unwrap()[0],
            block("10.0.0.16/28"),
            "as it was claimed first"
        );
    }

    #[test]
    fn what_cannot_be_a_block_is_refused() {
        let (_directory, mut ledger) = ledger();
        let mut transaction = ledger.begin().unwrap();
        let error = transaction.enter_block(&block("10.0.0.17/28")).unwrap_err().to_string();
        assert!(error.contains("10.0.0.17/28") && error.contains("bits set"), "{error}");
        let unknown = Block { pool: "silver".to_owned(), ..block("10.0.0.32/28") };
        let error = transaction.enter_block(&unknown).unwrap_err().to_string();
        assert!(error.contains("silver") && error.contains("pool first"), "{error}");
    }

    #[test]
    fn a_block_stays_while_an_address_of_it_is_leased_or_rests() {
        let (_directory, mut ledger) = ledger();
        let mut transaction = ledger.begin().unwrap();
        assert_eq!(transaction.bind_pool("gold", "blue").unwrap(), None);
        for address in ["10.0.0.16", "10.0.0.31", "10.0.0.15", "10.0.0.32"] {
            transaction.insert_lease(&lease(address, "c1")).unwrap();
        }
        let two = BlockUse { leased: 2, resting: 0 };
        assert_eq!(transaction.remove_block("gold", ip("10.0.0.16")).unwrap(), Removal::InUse(two));
        transaction.release_leases(&owner("c1"), None, UnixSeconds(20)).unwrap();
        let resting = BlockUse { leased: 0, resting: 2 };
        assert_eq!(transaction.remove_block("gold", ip("10.0.0.16")).unwrap(), Removal::InUse(resting));
        transaction.end_rest("blue", UnixSeconds(20), UnixSeconds(90), 9).unwrap();
        assert_eq!(transaction.remove_block("gold", ip("10.0.0.16")).unwrap(), Removal::Done);
        assert_eq!(transaction.blocks_of("gold").unwrap(), [block("10.0.0.64/28")]);
        assert_eq!(transaction.remove_block("gold", ip("10.0.0.16")).unwrap(), Removal::Done, "again");
    }

    #[test]
    fn one_network_leases_from_a_pool_until_nothing_is_promised_there() {
        let (_directory, mut ledger) = ledger();
        let mut transaction = ledger.begin().unwrap();
        assert_eq!(transaction.bind_pool("gold", "blue").unwrap(), None);
        assert_eq!(transaction.bind_pool("gold", "blue").unwrap(), None);
        transaction.insert_lease(&lease("10.0.0.20", "c1")).unwrap();
        assert_eq!(transaction.bind_pool("gold", "green").unwrap(), Some("blue".to_owned()));
        transaction.put_pool("gold", "{}", UnixSeconds(2)).unwrap();
        assert_eq!(transaction.pool("gold").unwrap().unwrap().network, Some("blue".to_owned()));
        transaction.free_address("blue", ip("10.0.0.20")).unwrap();
        assert_eq!(transaction.bind_pool("gold", "green").unwrap(), None);
        assert_eq!(transaction.pool("gold").unwrap().unwrap().network, Some("green".to_owned()));
    }

    #[test]
    fn a_ledger_keeps_its_incarnation() {
        let (directory, mut ledger) = ledger();
        assert_eq!(ledger.incarnation().unwrap(), None);
        let mut transaction = ledger.begin().unwrap();
        assert_eq!(transaction.name_incarnation("a").unwrap(), "a");
        transaction.commit().unwrap();
        let mut again = Ledger::open(directory.path()).unwrap();
        assert_eq!(again.begin().unwrap().name_incarnation("b").unwrap(), "a");
    }
}
