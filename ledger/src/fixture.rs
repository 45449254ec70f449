//! Promises to test with.

use std::net::IpAddr;

use crate::{Lease, Owner, Pod, UnixSeconds};

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn owner(container_id: &str) -> Owner {
    Owner { container_id: container_id.to_owned(), ifname: "eth0".to_owned() }
}

/// A lease of the network `blue`.
pub(crate) fn lease(address: &str, container_id: &str) -> Lease {
    Lease {
        network: "blue".to_owned(),
        address: ip(address),
        owner: owner(container_id),
        pod: Some(Pod {
            namespace: "default".to_owned(),
            name: "web".to_owned(),
            uid: Some("u-1".to_owned()),
        }),
        device: Some("0000:01:10.0".parse().unwrap()),
        mac: Some("02:00:00:00:00:01".parse().unwrap()),
        vlan: Some(100),
        rdma: Some("mlx5_2".to_owned()),
        boot_id: "b1".to_owned(),
        created_at: UnixSeconds(10),
    }
}
