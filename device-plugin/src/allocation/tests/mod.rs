//! Pools, devices and nodes that the tests of this module are made of.

mod answer;
mod files;
mod grant;
mod info;
mod rdma;
mod shapes;

use std::num::NonZeroU16;

use zerobridge_kernel::{CharacterDevices, RdmaNodes, VdpaNodes, VfioGroup, VfioNodes};

use super::*;
use crate::config::{Config, PoolKind, PoolRdma};
use crate::selector::{Selectors, VdpaType};

fn pool(selectors: Vec<Selectors>) -> PoolConfig {
    let text = r#"{"pools":[{"resourceName":"vf-a","selectors":{"vendors":["8086"]}}]}"#;
    PoolConfig { selectors, ..Config::parse(text).unwrap().pools.remove(0) }
}

fn plain_pool() -> PoolConfig {
    pool(vec![Selectors::default()])
}

fn rdma_pool() -> PoolConfig {
    pool(vec![Selectors { is_rdma: true, ..Selectors::default() }])
}

fn vdpa_pool(vdpa_type: VdpaType) -> PoolConfig {
    pool(vec![Selectors { vdpa_type: Some(vdpa_type), ..Selectors::default() }])
}

fn shared_pool() -> PoolConfig {
    PoolConfig { shares: NonZeroU16::new(8), ..plain_pool() }
}

fn device(id: &str, driver: &str) -> Device {
    let function = id.split('#').next().unwrap().parse().unwrap_or_else(|_| "0000:01:00.0".parse().unwrap());
    Device {
        id: id.parse().unwrap(),
        function,
        pf: Some("0000:01:00.0".parse().unwrap()),
        vf_index: Some(0),
        driver: Some(driver.to_owned()),
        numa_node: None,
        topology: None,
        upstream: Vec::new(),
        representor: None,
        healthy: true,
    }
}

fn nodes(characters: CharacterDevices, existing: &[&str]) -> Nodes {
    Nodes::new(characters, |name| existing.contains(&name))
}

fn vfio(number: u32, noiommu: bool) -> CharacterDevices {
    let group = Some(VfioGroup { number, noiommu });
    let vfio = VfioNodes { group, device: Some("vfio/devices/vfio3".to_owned()), companions: Vec::new() };
    CharacterDevices { vfio: Some(vfio), ..CharacterDevices::default() }
}

fn rdma(numbers: &[u32]) -> CharacterDevices {
    let of = |number: &u32| RdmaNodes {
        device: format!("mlx5_{number}"),
        uverbs: Some(format!("infiniband/uverbs{number}")),
        umads: vec![format!("infiniband/umad{number}")],
        issms: vec![format!("infiniband/issm{number}")],
        ucm: Some(format!("infiniband/ucm{number}")),
    };
    CharacterDevices { rdma: numbers.iter().map(of).collect(), ..CharacterDevices::default() }
}

fn vdpa(vhost: Option<&str>, virtio: Option<&str>) -> CharacterDevices {
    let vdpa = VdpaNodes {
        device: "vdpa0".to_owned(),
        vhost: vhost.map(str::to_owned),
        virtio: virtio.map(str::to_owned),
    };
    CharacterDevices { vdpa: Some(vdpa), ..CharacterDevices::default() }
}

fn give(pool: &PoolConfig, device: &Device, nodes: Nodes) -> Result<Allocation, AllocationError> {
    allocate(pool, &[(device, nodes)], NodeMethod::Plain.into())
}

/// `container` or `host>container`.
fn paths(allocation: &Allocation) -> Vec<String> {
    let devices = allocation.response.devices.iter();
    devices
        .map(|node| {
            assert_eq!(node.permissions, "rw");
            let (host, container) = (&node.host_path, &node.container_path);
            if host == container { host.clone() } else { format!("{host}>{container}") }
        })
        .collect()
}

fn info(allocation: &Allocation) -> &str {
    &allocation.response.envs["PCIDEVICE_ZEROBRIDGE_IO_VF_A_INFO"]
}
