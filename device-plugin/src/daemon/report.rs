//! What people and Prometheus are told about the devices, made of the latest look when somebody asks.
//!
//! Refuses to know how it is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::watch;
use tracing::debug;
use zerobridge_kernel::{FunctionRole, IfIndex, RtnlError, RtnlSocket, VfCounters};
use zerobridge_proto::{PciAddress, chain};

use crate::inventory::{Look, PoolLook};
use crate::kubelet::Registrations;
use crate::leg::{LegStanding, LegStatus};
use crate::operations::{Counters, DeviceCount, Heartbeat, Metrics, Operations, Snapshot, VfTraffic};
use crate::pod_resources::{Held, Holder};
use crate::rdma::Obstacle;

/// Makes reports.
#[derive(Clone, Debug)]
pub(super) struct Report {
    looks: watch::Receiver<Arc<Look>>,
    held: watch::Receiver<Option<Arc<Held>>>,
    legs: watch::Receiver<Arc<Vec<LegStatus>>>,
    /// Whether the look was at this machine, so that its kernel can be asked about the VFs.
    real: bool,
}

/// The document at `/devices`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Devices {
    pools: Vec<PoolDocument>,
    /// Devices that are in no pool although one selects them, and why.
    withheld: BTreeMap<String, String>,
    /// Whether the kubelet says what pods hold; if not, no device has holders here.
    holders_known: bool,
    /// What keeps the node from giving what its pools promise.
    obstacles: Vec<String>,
    /// The node's own legs in the pods' networks.
    legs: Vec<LegStatus>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PoolDocument {
    resource: String,
    devices: Vec<DeviceDocument>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DeviceDocument {
    id: String,
    function: PciAddress,
    pf: Option<PciAddress>,
    vf: Option<u16>,
    driver: Option<String>,
    numa_node: Option<u32>,
    healthy: bool,
    /// The checks that fail, and why.
    problems: BTreeMap<String, String>,
    /// The containers that hold it.
    holders: Vec<Holder>,
}

impl Report {
    pub(super) fn new(
        looks: watch::Receiver<Arc<Look>>,
        held: watch::Receiver<Option<Arc<Held>>>,
        legs: watch::Receiver<Arc<Vec<LegStatus>>>,
        real: bool,
    ) -> Self {
        Self { looks, held, legs, real }
    }

    /// The HTTP face of the daemon.
    pub(super) fn operations(
        &self,
        metrics: Metrics,
        registrations: Registrations,
        heartbeat: Heartbeat,
    ) -> Operations {
        let (for_scrapes, for_devices) = (self.clone(), self.clone());
        let snapshot = move || for_scrapes.snapshot();
        Operations::new(metrics, registrations, heartbeat, snapshot, move || for_devices.devices())
    }

    fn snapshot(&self) -> Snapshot {
        let (look, held) = (Arc::clone(&self.looks.borrow()), self.held.borrow().clone());
        let mut withheld: BTreeMap<&'static str, u64> = BTreeMap::new();
        for reason in look.withheld.values() {
            *withheld.entry(reason.name()).or_default() += 1;
        }
        let obstacles = look
            .obstacles
            .iter()
            .flat_map(|Obstacle { cause, pools }| pools.iter().map(|pool| (cause.name(), pool.to_string())));
        Snapshot {
            obstacles: obstacles.collect(),
            devices: look.pools.iter().map(|pool| count(pool, held.as_deref())).collect(),
            withheld,
            legs: self
                .legs
                .borrow()
                .iter()
                .map(|leg| (leg.name.clone(), leg.state == LegStanding::Up))
                .collect(),
            traffic: if self.real { traffic(&look, held.as_deref()) } else { Vec::new() },
        }
    }

    /// The document at `/devices`.
    pub(super) fn devices(&self) -> serde_json::Value {
        let (look, held) = (Arc::clone(&self.looks.borrow()), self.held.borrow().clone());
        let withheld = look.withheld.iter();
        let document = Devices {
            pools: look.pools.iter().map(|pool| document(pool, held.as_deref())).collect(),
            withheld: withheld.map(|(device, reason)| (device.to_string(), reason.to_string())).collect(),
            holders_known: held.is_some(),
            obstacles: look.obstacles.iter().map(ToString::to_string).collect(),
            legs: self.legs.borrow().to_vec(),
        };
        // Maps with text for keys, which JSON can hold.
        serde_json::to_value(document).unwrap_or_default()
    }
}

fn document(pool: &PoolLook, held: Option<&Held>) -> PoolDocument {
    let resource = pool.config.resource.to_string();
    let device = |device: &crate::device::Device| {
        let id = device.id.to_string();
        let problems = pool.problems.get(&device.id).into_iter().flatten();
        let holders = held.map(|held| held.holders(&resource, &id)).unwrap_or_default();
        DeviceDocument {
            function: device.function,
            pf: device.pf,
            vf: device.vf_index,
            driver: device.driver.clone(),
            numa_node: device.numa_node,
            healthy: device.healthy,
            problems: problems.map(|(check, why)| (check.to_string(), why.clone())).collect(),
            holders: holders.to_vec(),
            id,
        }
    };
    PoolDocument { devices: pool.devices.values().map(device).collect(), resource }
}

fn count(pool: &PoolLook, held: Option<&Held>) -> DeviceCount {
    let resource = pool.config.resource.to_string();
    let mut count = DeviceCount { pool: resource.clone(), ..DeviceCount::default() };
    for device in pool.devices.values() {
        let allocated = held.is_some_and(|held| held.holds(&resource, &device.id.to_string()));
        *match (device.healthy, allocated) {
            (true, false) => &mut count.healthy_free,
            (true, true) => &mut count.healthy_allocated,
            (false, false) => &mut count.unhealthy_free,
            (false, true) => &mut count.unhealthy_allocated,
        } += 1;
    }
    count
}

/// What the VFs of all pools have carried.
fn traffic(look: &Look, held: Option<&Held>) -> Vec<VfTraffic> {
    let counters = match RtnlSocket::open() {
        Ok(mut socket) => counters(pfs(look), |pf| socket.vf_counters(pf)),
        Err(error) => {
            debug!(error = chain(&error), "the kernel does not tell what VFs have carried");
            return Vec::new();
        }
    };
    let mut traffic = Vec::new();
    for pool in &look.pools {
        let resource = pool.config.resource.to_string();
        for device in pool.devices.values() {
            let (Some(pf), Some(vf)) = (device.pf, device.vf_index) else { continue };
            let Some((netdev, counted)) = counters.get(&(pf, vf)) else { continue };
            let holders =
                held.map(|held| held.holders(&resource, &device.id.to_string())).unwrap_or_default();
            traffic.push(VfTraffic {
                pci: device.function,
                pf: netdev.clone(),
                vf,
                pool: resource.clone(),
                holder: holders.first().cloned(),
                receive: Counters {
                    packets: counted.rx_packets,
                    bytes: counted.rx_bytes,
                    dropped: counted.rx_dropped,
                },
                transmit: Counters {
                    packets: counted.tx_packets,
                    bytes: counted.tx_bytes,
                    dropped: counted.tx_dropped,
                },
            });
        }
    }
    traffic
}

/// By PF and number: the PF's netdev, and what the VF has carried.
type VfCounts = BTreeMap<(PciAddress, u16), (String, VfCounters)>;

/// The PFs whose VFs are offered, and their netdevs.
fn pfs(look: &Look) -> Vec<(PciAddress, String, IfIndex)> {
    let devices = look.pools.iter().flat_map(|pool| pool.devices.values());
    let offered: BTreeSet<PciAddress> =
        devices.filter(|device| device.vf_index.is_some()).filter_map(|device| device.pf).collect();
    let uplink = |pf: PciAddress| {
        let FunctionRole::Physical { uplinks, .. } = &look.around.machine.functions.get(&pf)?.role else {
            return None;
        };
        let name = uplinks.first()?;
        Some((pf, name.clone(), look.around.host.links.get(name)?.link.index))
    };
    offered.into_iter().filter_map(uplink).collect()
}

/// Asks each PF once. One that does not answer has no series, and the others have theirs.
fn counters(
    pfs: Vec<(PciAddress, String, IfIndex)>,
    mut ask: impl FnMut(IfIndex) -> Result<Vec<(u16, VfCounters)>, RtnlError>,
) -> VfCounts {
    let mut counts = VfCounts::new();
    for (pf, netdev, index) in pfs {
        match ask(index) {
            Ok(counted) => {
                counts.extend(counted.into_iter().map(|(vf, of)| ((pf, vf), (netdev.clone(), of))));
            }
            Err(error) => {
                debug!(%pf, error = chain(&error), "the kernel does not tell what VFs have carried");
            }
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pf_that_does_not_answer_takes_nothing_from_the_others() {
        let [silent, other]: [PciAddress; 2] = ["0000:01:00.0", "0000:02:00.0"].map(|pf| pf.parse().unwrap());
        let pfs = vec![(silent, "ens1".to_owned(), IfIndex(2)), (other, "ens2".to_owned(), IfIndex(3))];
        let counts = counters(pfs, |index| match index {
            IfIndex(2) => Err(RtnlError::Open {
                family: "rtnetlink",
                source: std::io::ErrorKind::PermissionDenied.into(),
            }),
            _ => Ok(vec![(0, VfCounters::default())]),
        });
        assert_eq!(counts.keys().collect::<Vec<_>>(), [&(other, 0)]);
    }
}
