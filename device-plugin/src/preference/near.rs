//! How near two devices are to each other on PCIe, and which devices are nearest to their neighbours.

use std::collections::{BTreeMap, BTreeSet};

use zerobridge_kernel::Machine;
use zerobridge_proto::PciAddress;

use super::Neighbour;
use crate::device::Device;

/// Vendors of the display that a board's management controller draws on: ASPEED and Matrox. It has the class of a GPU.
const MANAGEMENT_DISPLAYS: [u16; 2] = [0x1a03, 0x102b];

/// Where a device is that others may want to be near to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The bridges above it, from the root port down.
    pub upstream: Vec<PciAddress>,
    /// The NUMA node it is next to, if the machine says.
    pub numa_node: Option<u32>,
}

/// How far a device is from a place. What they share counts first, then the bridges on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Distance {
    /// Both are below one root port, with this many bridges that only one of them is below.
    Bridges(usize),
    /// Both are next to one NUMA node.
    Node,
    /// Between them is the link between processors, or nothing is known.
    Machine,
}

/// Where the devices of this kind are, except for those in `taken`. The kubelet names what a pod was given by IDs that
/// only their own plugin understands; `taken` can hold those that are PCI addresses.
#[must_use]
pub fn neighbours(machine: &Machine, kind: Neighbour, taken: &BTreeSet<PciAddress>) -> Vec<Place> {
    let is_one = |vendor: u16, class: u32| match kind {
        Neighbour::Gpu => matches!(class >> 16, 0x03 | 0x12) && !MANAGEMENT_DISPLAYS.contains(&vendor),
        Neighbour::Nvme => class >> 8 == 0x0108,
    };
    let ones = machine
        .functions
        .values()
        .filter(|one| is_one(one.vendor, one.class) && !taken.contains(&one.address));
    ones.map(|one| Place { upstream: one.upstream.clone(), numa_node: one.numa_node }).collect()
}

/// Takes the `open` of the `free` devices that are nearest to a neighbour. Of several neighbours below the same root port
/// as a device, those go first that have no device yet, the `chosen` ones counted: who asks for two devices mostly has two
/// neighbours. Between equals the devices stay on as few ports as possible.
pub(super) fn nearest<'a, K: Ord>(
    chosen: &[&'a Device],
    free: Vec<&'a Device>,
    open: usize,
    neighbours: &[Place],
    port: impl Fn(&Device) -> K,
) -> Vec<&'a Device> {
    let mut uses = vec![0_usize; neighbours.len()];
    for device in chosen {
        if let Some((_, nearest)) = best_neighbour(&distances(device, neighbours), &uses) {
            uses[nearest] += 1;
        }
    }
    let mut left: BTreeMap<K, usize> = BTreeMap::new();
    for device in &free {
        *left.entry(port(device)).or_default() += 1;
    }
    // A port with few free devices first, so that it is filled; the order of the IDs decides between equals.
    let mut free: Vec<_> = free.into_iter().map(|device| (device, distances(device, neighbours))).collect();
    free.sort_by_cached_key(|(device, _)| {
        let port = port(device);
        (left.get(&port).copied(), port)
    });
    let mut taken = Vec::with_capacity(open);
    while taken.len() < open {
        let ranked = free.iter().enumerate().filter_map(|(index, (_, distances))| {
            best_neighbour(distances, &uses).map(|(rank, neighbour)| (rank, index, neighbour))
        });
        let Some((_, index, neighbour)) = ranked.min() else { break };
        uses[neighbour] += 1;
        taken.push(free.remove(index).0);
    }
    taken
}

/// The neighbour that a device would serve, and how good that is: the smaller, the better.
fn best_neighbour(distances: &[Distance], uses: &[usize]) -> Option<((u8, usize, Distance), usize)> {
    let rank = |distance: Distance, uses: usize| match distance {
        Distance::Bridges(_) => (0, uses, distance),
        Distance::Node => (1, uses, distance),
        Distance::Machine => (2, uses, distance),
    };
    let ranked = distances.iter().zip(uses).enumerate();
    ranked.map(|(index, (distance, uses))| (rank(*distance, *uses), index)).min()
}

fn distances(device: &Device, neighbours: &[Place]) -> Vec<Distance> {
    neighbours.iter().map(|place| distance(device, place)).collect()
}

fn distance(device: &Device, place: &Place) -> Distance {
    let common = device.upstream.iter().zip(&place.upstream).take_while(|(one, other)| one == other).count();
    if common > 0 {
        return Distance::Bridges(device.upstream.len() + place.upstream.len() - 2 * common);
    }
    match (device.numa_node, place.numa_node) {
        (Some(one), Some(other)) if one == other => Distance::Node,
        _ => Distance::Machine,
    }
}
