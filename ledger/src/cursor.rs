//! Where the search for the next address begins.

use std::net::IpAddr;

use rusqlite::{OptionalExtension, params};

use crate::records::Records;
use crate::{LedgerError, Transaction};

impl Records {
    /// The address that was leased last from the pool `slot` of `network`.
    ///
    /// # Errors
    /// [`LedgerError::Storage`]; [`LedgerError::UnreadableRow`].
    pub fn cursor(&self, network: &str, slot: u16) -> Result<Option<IpAddr>, LedgerError> {
        let sql = "SELECT address FROM cursors WHERE network = ?1 AND slot = ?2";
        let text: Option<String> = self.run("reading a cursor", |connection| {
            connection.query_row(sql, params![network, slot], |row| row.get(0)).optional()
        })?;
        text.map(|value| {
            let parsed = value.parse();
            parsed.map_err(|_| LedgerError::UnreadableRow { table: "cursors", column: "address", value })
        })
        .transpose()
    }
}

impl Transaction<'_> {
    /// Records the address that was leased last from the pool `slot` of `network`.
    ///
    /// # Errors
    /// [`LedgerError::Storage`].
    pub fn set_cursor(&mut self, network: &str, slot: u16, address: IpAddr) -> Result<(), LedgerError> {
        let sql = "INSERT INTO cursors (network, slot, address) VALUES (?1, ?2, ?3)
                   ON CONFLICT DO UPDATE SET address = excluded.address";
        self.write("writing a cursor", |connection| {
            connection.execute(sql, params![network, slot, address.to_string()]).map(|_| ())
        })
    }
}
