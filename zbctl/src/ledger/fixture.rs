//! Values for this crate's tests.

use zerobridge_ledger::{Lease, Owner, UnixSeconds};

/// Address 10.77.0.`number` of network blue, leased to `eth0` of container `c` and the number.
pub(crate) fn lease(number: u32, boot_id: &str, created_at: i64) -> Lease {
    Lease {
        network: "blue".to_owned(),
        address: std::net::Ipv4Addr::from_bits(0x0a4d_0000 + number).into(),
        owner: Owner { container_id: format!("c{number}"), ifname: "eth0".to_owned() },
        pod: None,
        device: None,
        mac: None,
        vlan: None,
        rdma: None,
        boot_id: boot_id.to_owned(),
        created_at: UnixSeconds(created_at),
    }
}
