//! 4096 neighbouring addresses and which of them are taken.
//!
//! The bits say what `leases` and `set_aside` say, no more: they are written in the same transaction, and [`Records::audit`] compares.

use std::net::IpAddr;

use rusqlite::{Connection, OptionalExtension, params};

use crate::address::{family, key, low_bits, with_low_bits};
use crate::records::Records;
use crate::{LedgerError, Transaction};

const WORDS: usize = 64;
const BYTES: usize = WORDS * 8;

/// The addresses that share all but their last 12 bits, with a bit for each: set when it is leased, resting or set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    first: IpAddr,
    taken: [u64; WORDS],
}

impl Chunk {
    /// The chunk that `address` belongs to, with nothing taken.
    #[must_use]
    pub fn empty(address: IpAddr) -> Self {
        Self { first: with_low_bits(address, 0), taken: [0; WORDS] }
    }

    /// The lowest address.
    #[must_use]
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// The highest address.
    #[must_use]
    pub fn last(&self) -> IpAddr {
        with_low_bits(self.first, 0xfff)
    }

    /// The lowest address that is not taken, from `low` to `high`, both included. What of that lies outside of the
    /// chunk is passed over.
    #[must_use]
    pub fn first_free(&self, low: IpAddr, high: IpAddr) -> Option<IpAddr> {
        self.words(low, high)
            .find_map(|(place, within, taken)| {
                let free = within & !taken;
                (free != 0).then(|| place * 64 + free.trailing_zeros())
            })
            .and_then(|offset| u16::try_from(offset).ok())
            .map(|offset| with_low_bits(self.first, offset))
    }

    /// How many addresses from `low` to `high` are taken.
    #[must_use]
    pub fn count_taken(&self, low: IpAddr, high: IpAddr) -> u32 {
        self.words(low, high).map(|(_, within, taken)| (within & taken).count_ones()).sum()
    }

    /// Whether `address`, which must be of this chunk, is taken.
    #[must_use]
    pub fn is_taken(&self, address: IpAddr) -> bool {
        self.count_taken(address, address) == 1
    }

    /// Marks or clears an address, which must be of this chunk, in this value; the ledger's own follows its leases.
    pub fn set(&mut self, address: IpAddr, taken: bool) {
        let offset = low_bits(address);
        let bit = 1 << (offset % 64);
        let word = &mut self.taken[usize::from(offset / 64)];
        *word = if taken { *word | bit } else { *word & !bit };
    }

    /// Each word that the stretch touches: its index, the bits that lie in the stretch, the bits that are taken.
    fn words(&self, low: IpAddr, high: IpAddr) -> impl Iterator<Item = (u32, u64, u64)> {
        let same_family = low.is_ipv4() == self.first.is_ipv4();
        let (low, high) = (low.max(self.first), high.min(self.last()));
        let (from, to) = (u32::from(low_bits(low)), u32::from(low_bits(high)));
        let touched = if same_family && low <= high { from / 64..to / 64 + 1 } else { 0..0 };
        touched.zip(self.taken.iter().skip(usize::from(low_bits(low) / 64))).map(move |(place, taken)| {
            let below = if place == from / 64 { (1 << (from % 64)) - 1 } else { 0 };
            let above = if place == to / 64 { (u64::MAX << (to % 64)) << 1 } else { 0 };
            (place, !(below | above), *taken)
        })
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        self.taken.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// The schema says that there are 512 bytes.
    pub(crate) fn from_bytes(address: IpAddr, bytes: &[u8; BYTES]) -> Self {
        let mut chunk = Self::empty(address);
        for (word, bytes) in chunk.taken.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        chunk
    }
}

impl Records {
    /// The chunk of `network` that `address` belongs to. Its cost does not depend on how many addresses are leased.
    ///
    /// # Errors
    /// [`LedgerError::Storage`], [`LedgerError::Corrupt`].
    pub fn chunk(&self, network: &str, address: IpAddr) -> Result<Chunk, LedgerError> {
        self.run("reading a chunk", |connection| read(connection, network, address))
    }
}

impl Transaction<'_> {
    /// Says in the bitmap that an address is taken, or free: for repairing what [`Records::audit`] finds. Everything else
    /// that changes addresses sees to the bitmap itself.
    ///
    /// # Errors
    /// [`LedgerError::Storage`], [`LedgerError::Corrupt`].
    pub fn set_mark(&mut self, network: &str, address: IpAddr, taken: bool) -> Result<(), LedgerError> {
        self.write("mending a chunk", |connection| mark(connection, network, address, taken).map(drop))
    }
}

/// Sets the bit of one address and returns what it was; part of a larger write.
pub(crate) fn mark(
    connection: &Connection,
    network: &str,
    address: IpAddr,
    taken: bool,
) -> rusqlite::Result<bool> {
    let mut chunk = read(connection, network, address)?;
    let was_taken = chunk.is_taken(address);
    chunk.set(address, taken);
    let sql = "INSERT INTO chunks (network, family, first, taken) VALUES (?1, ?2, ?3, ?4)
               ON CONFLICT DO UPDATE SET taken = excluded.taken";
    let first = chunk.first();
    connection.execute(sql, params![network, family(first), key(first), chunk.to_bytes()])?;
    Ok(was_taken)
}

fn read(connection: &Connection, network: &str, address: IpAddr) -> rusqlite::Result<Chunk> {
    let empty = Chunk::empty(address);
    let sql = "SELECT taken FROM chunks WHERE network = ?1 AND family = ?2 AND first = ?3";
    let bytes: Option<[u8; BYTES]> = connection
        .query_row(sql, params![network, family(empty.first), key(empty.first)], |row| row.get(0))
        .optional()?;
    Ok(bytes.map_or(empty, |bytes| Chunk::from_bytes(address, &bytes)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn ip(bits: u32) -> IpAddr {
        Ipv4Addr::from_bits(bits).into()
    }

    proptest! {
        #[test]
        fn a_chunk_is_a_set_of_addresses(
            taken in proptest::collection::btree_set(0x0a00_1000_u32..0x0a00_1000 + 200, 0..150),
            ends in (0x0a00_0ff0_u32..0x0a00_2010, 0x0a00_0ff0_u32..0x0a00_2010),
            near in (0x0a00_0ff0_u32..0x0a00_1110, 0x0a00_0ff0_u32..0x0a00_1110),
        ) {
            let mut chunk = Chunk::empty(ip(0x0a00_1234));
            taken.iter().for_each(|bits| chunk.set(ip(*bits), true));
            for (low, high) in [ends, near] {
                let inside: BTreeSet<u32> = (low..=high).filter(|bits| bits >> 12 == 0x0a001).collect();
                let free = inside.difference(&taken).next().copied().map(ip);
                prop_assert_eq!(chunk.first_free(ip(low), ip(high)), free);
                prop_assert_eq!(chunk.count_taken(ip(low), ip(high)) as usize, inside.intersection(&taken).count());
            }
            let bytes = chunk.to_bytes().try_into().unwrap();
            prop_assert_eq!(&Chunk::from_bytes(ip(0x0a00_1fff), &bytes), &chunk);
            taken.iter().for_each(|bits| chunk.set(ip(*bits), false));
            prop_assert_eq!(chunk, Chunk::empty(ip(0x0a00_1000)));
        }
    }

    #[test]
    fn the_bounds_of_the_address_space_are_in_chunks_too() {
        for (low, high) in [("0.0.0.0", "255.255.255.255"), ("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")]
        {
            let (low, high) = (low.parse().unwrap(), high.parse().unwrap());
            assert_eq!(Chunk::empty(low).first_free(low, high), Some(low));
            assert_eq!(Chunk::empty(high).last(), high);
            assert_eq!(Chunk::empty(high).first_free(high, high), Some(high));
        }
    }

    #[test]
    fn a_stretch_of_the_other_family_is_outside() {
        let chunk = Chunk::empty(ip(0));
        assert_eq!(chunk.first_free("::".parse().unwrap(), "ffff::".parse().unwrap()), None);
    }

    #[test]
    fn the_layout_on_disk_is_the_one_that_the_schema_documents() {
        let mut chunk = Chunk::empty(ip(0x0a00_0000));
        chunk.set(ip(0x0a00_000b), true);
        let bytes = chunk.to_bytes();
        assert_eq!((bytes.len(), bytes[1]), (512, 1 << 3));
    }
}
