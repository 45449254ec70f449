//! A pool, completely checked, and how it is cut into blocks.

use std::iter::successors;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde_json::Value;
use zerobridge_ipam::{ClusterPool, PoolError};

use crate::turn::hash;

/// Addresses in a block unless the pool says otherwise: what a node of 110 pods, the kubelet's default, takes two of.
pub(crate) const DEFAULT_BLOCK_SIZE: u32 = 64;
/// A ledger's chunk, the most that it looks through at once.
const LARGEST_BLOCK: u32 = 4096;
/// An index must fit a number of the API; of a wider subnet, only so many blocks from its beginning are used.
const MOST_BLOCKS_BITS: u8 = 31;
/// A name must leave room for an index within the 253 characters of an object's name.
const LONGEST_NAME: usize = 200;

/// A pool.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    name: String,
    addresses: ClusterPool,
    block_prefix: u8,
    /// A node with fewer free addresses claims another block.
    pub min_free: u32,
    /// A node returns an empty block when this many free addresses remain.
    pub max_free: u32,
}

impl Pool {
    /// Reads the specification of an IPPool, or what a ledger has kept of one.
    ///
    /// # Errors
    /// The first fault, with its field, its value and what is allowed.
    pub fn parse(name: &str, spec: &Value) -> Result<Self, PoolError> {
        if name.is_empty() || name.len() > LONGEST_NAME {
            let rule = format!("the name must have 1 to {LONGEST_NAME} characters");
            return Err(invalid("metadata.name", Some(&Value::from(name)), &rule));
        }
        let addresses = ClusterPool::parse(spec, "spec")?;
        let subnet = addresses.subnet();
        let host_bits = subnet.max_prefix_len() - subnet.prefix_len();
        let size = number(spec, "blockSize")?.unwrap_or(DEFAULT_BLOCK_SIZE.min(power(host_bits)));
        let bits = u8::try_from(size.trailing_zeros()).unwrap_or(u8::MAX);
        if !size.is_power_of_two() || size > LARGEST_BLOCK || bits > host_bits {
            let most = LARGEST_BLOCK.min(power(host_bits));
            let rule = format!("write a power of two from 1 to {most}");
            return Err(invalid("spec.blockSize", spec.get("blockSize"), &rule));
        }
        let min_free = number(spec, "minFree")?.unwrap_or((size / 4).max(1));
        if !(1..=LARGEST_BLOCK * 16).contains(&min_free) {
            let rule = format!("write a whole number from 1 to {}", LARGEST_BLOCK * 16);
            return Err(invalid("spec.minFree", spec.get("minFree"), &rule));
        }
        let max_free = number(spec, "maxFree")?.unwrap_or(min_free + size);
        if max_free < min_free {
            let rule = format!("it must not be below minFree, {min_free}");
            return Err(invalid("spec.maxFree", spec.get("maxFree"), &rule));
        }
        let block_prefix = subnet.max_prefix_len() - bits;
        Ok(Self { name: name.to_owned(), addresses, block_prefix, min_free, max_free })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it says about addresses.
    #[must_use]
    pub fn addresses(&self) -> &ClusterPool {
        &self.addresses
    }

    /// Whether blocks of the other are blocks of this one: the same subnet, cut alike.
    #[must_use]
    pub fn is_cut_as(&self, other: &Self) -> bool {
        (self.addresses.subnet(), self.block_prefix) == (other.addresses.subnet(), other.block_prefix)
    }

    /// How many blocks there are, a power of two.
    #[must_use]
    pub fn blocks(&self) -> u32 {
        power(self.block_prefix - self.addresses.subnet().prefix_len())
    }

    /// The addresses of a block; `None` beyond the last.
    #[must_use]
    pub fn block(&self, index: u32) -> Option<IpNet> {
        if index >= self.blocks() {
            return None;
        }
        let subnet = self.addresses.subnet();
        let shift = subnet.max_prefix_len() - self.block_prefix;
        let first: IpAddr = match subnet.network() {
            IpAddr::V4(first) => Ipv4Addr::from_bits(first.to_bits() | index << shift).into(),
            IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits() | u128::from(index) << shift).into(),
        };
        IpNet::new(first, self.block_prefix).ok()
    }

    /// Which block these addresses are.
    #[must_use]
    pub fn index_of(&self, block: IpNet) -> Option<u32> {
        if block.prefix_len() != self.block_prefix || !self.addresses.subnet().contains(&block) {
            return None;
        }
        let shift = block.max_prefix_len() - self.block_prefix;
        let mask = u128::from(self.blocks()) - 1;
        let bits = match block.network() {
            IpAddr::V4(first) => u128::from(first.to_bits()),
            IpAddr::V6(first) => first.to_bits(),
        };
        let index = u32::try_from(bits >> shift & mask).ok()?;
        (self.block(index) == Some(block)).then_some(index)
    }

    /// The block that an address lies in, if it is one that is given out.
    #[must_use]
    pub fn block_of(&self, address: IpAddr) -> Option<u32> {
        let block = IpNet::new(address, self.block_prefix).ok()?.trunc();
        let index = self.index_of(block)?;
        (self.addresses.gives_out(address.into()) > 0).then_some(index)
    }

    /// The addresses that a block gives out.
    pub fn addresses_of(&self, index: u32) -> impl Iterator<Item = IpAddr> {
        let first = self.block(index).map(|block| block.network());
        let all = successors(first, |address| nth_after(*address, 1));
        all.take_while(move |address| self.block(index).is_some_and(|block| block.contains(address)))
            .filter(|address| self.addresses.gives_out((*address).into()) > 0)
    }

    /// How many addresses a block gives out.
    #[must_use]
    pub fn gives_out(&self, index: u32) -> u32 {
        let size = self.block(index).map_or(0, |block| self.addresses.gives_out(block));
        u32::try_from(size).unwrap_or(u32::MAX)
    }

    /// How many addresses all blocks together give out.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        let all = self.addresses.gives_out(self.addresses.subnet());
        let cut = u128::from(self.blocks()) << (self.addresses.subnet().max_prefix_len() - self.block_prefix);
        u64::try_from(all.min(cut)).unwrap_or(u64::MAX)
    }

    /// The name of the object that claims a block.
    #[must_use]
    pub fn object_name(&self, index: u32) -> String {
        format!("{}-{index}", self.name)
    }

    /// All blocks in the order in which a node tries them: each node begins elsewhere and takes another stride, so that
    /// nodes that claim at the same time seldom want the same block. The stride is odd, and the number of blocks a power
    /// of two, so every block comes once.
    pub fn order_for(&self, node: &str) -> impl Iterator<Item = u32> + use<> {
        let blocks = self.blocks();
        let hash = hash(&[self.name.as_bytes(), b"/", node.as_bytes()]);
        let [start, stride] = [hash, hash >> 32].map(|part| u32::try_from(part & 0xffff_ffff).unwrap_or(0));
        let stride = stride | 1;
        (0..blocks).map(move |step| start.wrapping_add(step.wrapping_mul(stride)) & (blocks - 1))
    }
}

/// The address so many behind another; `None` beyond the last of its family.
pub(crate) fn nth_after(address: IpAddr, steps: u32) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => Some(Ipv4Addr::from_bits(address.to_bits().checked_add(steps)?).into()),
        IpAddr::V6(address) => Some(Ipv6Addr::from_bits(address.to_bits().checked_add(steps.into())?).into()),
    }
}

fn power(bits: u8) -> u32 {
    1 << bits.min(MOST_BLOCKS_BITS)
}

fn number(spec: &Value, key: &str) -> Result<Option<u32>, PoolError> {
    match spec.get(key).filter(|value| !value.is_null()) {
        None => Ok(None),
        Some(value) => {
            let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
            let rule = "write a whole number of addresses";
            number.map(Some).ok_or_else(|| invalid(&format!("spec.{key}"), Some(value), rule))
        }
    }
}

pub(crate) fn invalid(field: &str, value: Option<&Value>, rule: &str) -> PoolError {
    let value = value.map_or_else(|| "missing".to_owned(), Value::to_string);
    PoolError::Invalid { field: field.to_owned(), value, rule: rule.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    fn pool(spec: Value) -> Pool {
        Pool::parse("gold", &spec).unwrap()
    }

    #[test]
    fn blocks_tile_the_subnet() {
        for (subnet, size, blocks) in [
            ("10.0.0.0/24", 16, 16),
            ("10.0.0.0/24", 256, 1),
            ("10.0.0.4/32", 1, 1),
            ("10.0.0.0/8", 4096, 4096),
            ("fd00::/112", 64, 1024),
        ] {
            let pool = pool(json!({"subnet": subnet, "blockSize": size}));
            assert_eq!(pool.blocks(), blocks, "{subnet}");
            let mut next = pool.addresses().subnet().network();
            for index in 0..blocks {
                let block = pool.block(index).unwrap();
                assert_eq!(block.network(), next, "block {index} of {subnet}");
                assert_eq!(pool.index_of(block), Some(index));
                next = match block.broadcast() {
                    IpAddr::V4(last) => Ipv4Addr::from_bits(last.to_bits() + 1).into(),
                    IpAddr::V6(last) => Ipv6Addr::from_bits(last.to_bits() + 1).into(),
                };
            }
            assert_eq!(pool.block(blocks), None);
            assert_eq!(
                pool.capacity(),
                (0..blocks).map(|index| u64::from(pool.gives_out(index))).sum::<u64>()
            );
        }
    }

    #[test]
    fn an_address_is_of_the_block_that_gives_it_out() {
        let pool = pool(json!({"subnet": "10.0.0.0/24", "blockSize": 16, "exclude": ["10.0.0.20/31"]}));
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(pool.block_of(ip("10.0.0.19")), Some(1));
        for none in ["10.0.0.0", "10.0.0.1", "10.0.0.20", "10.0.0.255", "10.0.1.9", "fd00::1"] {
            assert_eq!(pool.block_of(ip(none)), None, "{none}");
        }
        let block: Vec<String> = pool.addresses_of(1).map(|address| address.to_string()).collect();
        assert_eq!((block.len(), &*block[3], &*block[4]), (14, "10.0.0.19", "10.0.0.22"));
        assert_eq!(pool.addresses_of(15).last(), Some(ip("10.0.0.254")));
        assert_eq!(pool.addresses_of(16).count(), 0);
    }

    #[test]
    fn a_wide_subnet_is_used_from_its_beginning() {
        let pool = pool(json!({"subnet": "fd00::/64", "blockSize": 64}));
        assert_eq!(pool.blocks(), 1 << 31);
        assert_eq!(pool.block(1).unwrap().to_string(), "fd00::40/122");
        assert_eq!(pool.index_of("fd00::ffff:0:0:0/122".parse().unwrap()), None, "beyond the last");
        assert_eq!(pool.order_for("n1").take(1000).collect::<BTreeSet<_>>().len(), 1000);
    }

    #[test]
    fn every_node_tries_every_block_in_an_order_of_its_own() {
        let pool = pool(json!({"subnet": "10.0.0.0/22", "blockSize": 16}));
        let starts: BTreeSet<Vec<u32>> = (0..64)
            .map(|node| {
                let order: Vec<u32> = pool.order_for(&format!("node-{node}")).collect();
                assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), 64);
                order[..3].to_vec()
            })
            .collect();
        assert!(starts.len() > 60, "{} of 64 orders differ", starts.len());
    }

    #[test]
    fn a_fault_names_its_field_and_what_is_allowed() {
        for (spec, field, word) in [
            (json!({"subnet": "10.0.0.0/33"}), "spec.subnet", "prefix length"),
            (json!({"subnet": "10.0.0.0/24", "blockSize": 48}), "spec.blockSize is 48", "power of two"),
            (json!({"subnet": "10.0.0.0/28", "blockSize": 32}), "spec.blockSize is 32", "1 to 16"),
            (json!({"subnet": "10.0.0.0/24", "minFree": 0}), "spec.minFree is 0", "from 1"),
            (json!({"subnet": "10.0.0.0/24", "minFree": 9, "maxFree": 8}), "spec.maxFree is 8", "minFree, 9"),
            (json!({"subnet": "10.0.0.0/24", "gateway": "10.1.0.1"}), "spec.gateway", "lie in the subnet"),
            (json!({"subnet": "10.0.0.0/24", "maxFree": -1}), "spec.maxFree is -1", "whole number"),
        ] {
            let told = Pool::parse("gold", &spec).unwrap_err().to_string();
            assert!(told.starts_with(field) && told.contains(word), "{spec}: {told}");
        }
        assert!(Pool::parse("", &json!({"subnet": "10.0.0.0/24"})).is_err());
    }
}
