//! The GID table of an RDMA port (drivers/infiniband/core/sysfs.c): under which index a RoCE port answers for an address.
//!
//! The kernel fills it in its own time after the netdev got an address (drivers/infiniband/core/roce_gid_mgmt.c). Refuses to
//! wait.

use std::net::{IpAddr, Ipv6Addr};

use super::{Sysfs, SysfsError, attribute, rdma};

/// How sysfs calls the RoCE version that is routable (`gid_type_str` in drivers/infiniband/core/cache.c). Version 1 has the
/// same GIDs under other indexes, and other nodes may refuse it.
const ROCE_V2: &str = "RoCE v2";

impl Sysfs {
    /// The index of the RoCE v2 GID of `address` at a port; `None` when the table has none, or the device is gone.
    ///
    /// # Errors
    ///
    /// [`SysfsError::Read`].
    pub fn gid_index(&self, device: &str, port: u32, address: IpAddr) -> Result<Option<u16>, SysfsError> {
        let port = self.root().join(format!("class/infiniband/{device}/ports/{port}"));
        let gids = port.join("gids");
        let wanted = gid_of(address);
        let mut indexes: Vec<u16> = attribute::entries(&gids)?
            .unwrap_or_default()
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect();
        indexes.sort_unstable();
        for index in indexes {
            let is_wanted = |text: String| text.parse() == Ok(wanted);
            if !attribute::optional_text(&gids.join(index.to_string()))?.is_some_and(is_wanted) {
                continue;
            }
            // An index that is being emptied answers with an error.
            let kind = attribute::text(&port.join(format!("gid_attrs/types/{index}")));
            if kind.is_ok_and(|kind| kind == ROCE_V2) {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    /// Whether the machine has the RDMA subsystem: `ib_core` makes the class when it is loaded.
    #[must_use]
    pub fn has_rdma(&self) -> bool {
        self.root().join("class/infiniband").is_dir()
    }

    /// The software RDMA devices on a netdev, sorted by name.
    ///
    /// # Errors
    ///
    /// [`SysfsError::Read`].
    pub fn software_rdma_on(&self, netdev: &str) -> Result<Vec<String>, SysfsError> {
        let folder = self.root().join("devices/virtual/infiniband");
        let mut found = Vec::new();
        for name in attribute::entries(&folder)?.unwrap_or_default() {
            if rdma::software_parent(&folder.join(&name))?.as_deref() == Some(netdev) {
                found.push(name);
            }
        }
        Ok(found)
    }
}

/// The GID that stands for an address: the address itself, an IPv4 one being mapped (InfiniBand Architecture Specification,
/// annex A17.3.1).
fn gid_of(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{FakeRdma, SysfsTree};
    use super::*;

    #[test]
    fn the_index_is_that_of_the_routable_gid_of_the_address() {
        let folder = tempfile::tempdir().unwrap();
        let tree = SysfsTree::new(folder.path());
        let soft = FakeRdma { name: "rxe0".to_owned(), number: 0, infiniband: false };
        tree.show_soft_rdma("net1", &soft);
        tree.gid("rxe0", 0, "fe80:0000:0000:0000:0000:00ff:fe00:0001", "RoCE v2");
        tree.gid("rxe0", 1, "0000:0000:0000:0000:0000:ffff:0a01:0002", "IB/RoCE v1");
        tree.gid("rxe0", 10, "0000:0000:0000:0000:0000:ffff:0a01:0002", "RoCE v2");
        tree.gid("rxe0", 11, "2001:0db8:0000:0000:0000:0000:0000:0002", "RoCE v2");
        let sysfs = Sysfs::new(folder.path());
        assert!(sysfs.has_rdma() && !Sysfs::new(folder.path().join("class")).has_rdma());
        for (address, index) in [("10.1.0.2", Some(10)), ("2001:db8::2", Some(11)), ("10.1.0.3", None)] {
            assert_eq!(sysfs.gid_index("rxe0", 1, address.parse().unwrap()).unwrap(), index, "{address}");
        }
        assert_eq!(sysfs.gid_index("rxe1", 1, "10.1.0.2".parse().unwrap()).unwrap(), None);
        assert_eq!(sysfs.software_rdma_on("net1").unwrap(), ["rxe0"]);
        assert!(sysfs.software_rdma_on("net2").unwrap().is_empty());
    }
}
