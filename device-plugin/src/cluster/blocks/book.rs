//! The ledger as the steward of a pool sees it.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use tracing::{debug, info};
use zerobridge_blocks::{BlockLedger, Held, Pool};
use zerobridge_ledger::{Block, Ledger, LedgerError, Removal, UnixSeconds};

/// How often rests that are over are ended: a lease does that too, and where nothing is leased any more nothing else does.
const REST_PERIOD: Duration = Duration::from_secs(5);
/// As many rests as a transaction of some milliseconds can end.
const RESTS_ENDED_AT_ONCE: u32 = 512;

/// The blocks of one pool in the ledger.
#[derive(Debug)]
pub(super) struct Book {
    ledger: Ledger,
    pool: Pool,
    rests_looked_at: Option<Instant>,
    /// The right to act for the ledger. Here, because a write that has begun goes on after its agent was stopped.
    _lock: Arc<File>,
}

/// What the ledger has kept of a pool: its last good specification, if that can still be read.
pub(super) fn kept(state_dir: &Path, name: &str) -> Result<Option<Pool>, LedgerError> {
    let record = Ledger::open(state_dir)?.pool(name)?;
    let spec = record.and_then(|record| serde_json::from_str::<Value>(&record.spec).ok());
    Ok(spec.and_then(|spec| Pool::parse(name, &spec).ok()))
}

impl Book {
    /// Records the pool, and opens its part of the ledger.
    pub(super) fn open(
        state_dir: &Path,
        lock: Arc<File>,
        pool: Pool,
        spec: Option<&Value>,
    ) -> Result<Self, LedgerError> {
        let mut book = Self { ledger: Ledger::open(state_dir)?, pool, rests_looked_at: None, _lock: lock };
        if let Some(spec) = spec {
            book.record(book.pool.clone(), spec)?;
        }
        Ok(book)
    }

    /// The pool is this from now on, cut as before.
    pub(super) fn record(&mut self, pool: Pool, spec: &Value) -> Result<(), LedgerError> {
        self.pool = pool;
        let (name, spec) = (self.pool.name(), spec.to_string());
        if self.ledger.pool(name)?.is_some_and(|known| known.spec == spec) {
            return Ok(());
        }
        let mut transaction = self.ledger.begin()?;
        transaction.put_pool(name, &spec, now())?;
        transaction.commit()?;
        info!(pool = name, spec, "the pool is as the API server describes it");
        Ok(())
    }

    fn end_rests(&mut self) -> Result<(), LedgerError> {
        let Some(network) = self.ledger.pool(self.pool.name())?.and_then(|pool| pool.network) else {
            return Ok(());
        };
        let (now, rest) = (now(), i64::from(self.pool.addresses().rest_seconds()));
        let until = UnixSeconds(now.0.saturating_sub(rest));
        let mut transaction = self.ledger.begin()?;
        let ended = transaction.end_rest(&network, until, now, RESTS_ENDED_AT_ONCE)?;
        transaction.commit()?;
        debug!(pool = self.pool.name(), ended, "rests that are over");
        Ok(())
    }

    fn look(&self) -> Result<BTreeMap<u32, Held>, LedgerError> {
        self.ledger.require_in_place()?;
        let mut held = BTreeMap::new();
        for block in self.ledger.blocks_of(self.pool.name())? {
            // A block of another cut is left alone: the pool is not changed while one is there.
            let Some(index) = self.pool.index_of(block.net) else { continue };
            let promised = self.ledger.block_use(&block)?;
            let (leased, resting) = (promised.leased, promised.resting);
            held.insert(index, Held { leased, resting, draining: block.draining });
        }
        Ok(held)
    }
}

impl BlockLedger for Book {
    type Error = LedgerError;

    fn held(&mut self) -> Result<BTreeMap<u32, Held>, LedgerError> {
        let held = self.look()?;
        let due = self.rests_looked_at.is_none_or(|last| last.elapsed() >= REST_PERIOD);
        if !due || held.values().all(|held| held.resting == 0) {
            return Ok(held);
        }
        self.rests_looked_at = Some(Instant::now());
        self.end_rests()?;
        self.look()
    }

    fn enter(&mut self, index: u32) -> Result<(), LedgerError> {
        let Some(net) = self.pool.block(index) else { return Ok(()) };
        let pool = self.pool.name().to_owned();
        let block = Block { pool, net, claimed_at: now(), draining: false };
        let mut transaction = self.ledger.begin()?;
        transaction.enter_block(&block)?;
        transaction.commit()?;
        info!(pool = block.pool, %net, "addresses of this block are leased from now on");
        Ok(())
    }

    fn leave(&mut self, index: u32) -> Result<bool, LedgerError> {
        let Some(net) = self.pool.block(index) else { return Ok(true) };
        let mut transaction = self.ledger.begin()?;
        let removal = transaction.remove_block(self.pool.name(), net.network())?;
        transaction.commit()?;
        if removal == Removal::Done {
            info!(pool = self.pool.name(), %net, "no address of this block is leased any more");
        }
        Ok(removal == Removal::Done)
    }

    fn set_draining(&mut self, index: u32, draining: bool) -> Result<(), LedgerError> {
        let Some(net) = self.pool.block(index) else { return Ok(()) };
        let mut transaction = self.ledger.begin()?;
        transaction.set_draining(self.pool.name(), net.network(), draining)?;
        transaction.commit()?;
        info!(pool = self.pool.name(), %net, draining, "whether further addresses of this block are leased");
        Ok(())
    }
}

fn now() -> UnixSeconds {
    SystemTime::now().into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_ledger_that_was_replaced_is_not_read_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let lock = Arc::new(tempfile::tempfile().unwrap());
        let pool = Pool::parse("gold", &json!({"subnet": "10.0.0.0/24", "blockSize": 16})).unwrap();
        let mut book = Book::open(folder.path(), lock, pool, None).unwrap();
        assert_eq!(book.held().unwrap(), BTreeMap::new());
        let path = folder.path().join("ledger.db");
        std::fs::copy(&path, folder.path().join("copy")).unwrap();
        std::fs::rename(folder.path().join("copy"), path).unwrap();
        assert!(matches!(book.held().unwrap_err(), LedgerError::Replaced { .. }));
    }
}
