//! Which of the free devices the kubelet had best take: pure functions.
//!
//! Only a wish, and the kubelet says nothing about the pod, not even what else it asks for. Refuses to know which devices
//! are free.

mod group;
mod near;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::device::{Device, DeviceId, Hardware};
use group::{pack, spread};
use near::nearest;
pub use near::{Place, neighbours};

/// The order in which a pool prefers its devices. Shares are told apart by their hardware as VFs are by their PF.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preference {
    /// As few PFs as possible, and of these the one that is left with the least: large requests find room longest.
    #[default]
    Packed,
    /// As many PFs as possible, and of these the ones with the most free devices: each device gets the most bandwidth.
    Spread,
    /// As few NUMA nodes as possible, and on them as few PFs as possible.
    Numa,
    /// Next to devices of this kind, by PCIe distance.
    Near(Neighbour),
}

/// A kind of device to be near to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// A GPU or another accelerator: PCI class 03 or 12.
    Gpu,
    /// An NVMe controller: PCI class 0108.
    Nvme,
}

/// What a pool prefers: up to `size` of the `available` devices, beginning with those of `must_include`.
///
/// A function of its arguments, whatever their order. There are fewer than `size` only if there are not more devices. What
/// must be included and is not available is left out. `neighbours` are what [`Preference::Near`] is about; without any,
/// devices are packed.
#[must_use]
pub fn prefer(
    preference: Preference,
    available: &[&Device],
    must_include: &[DeviceId],
    size: usize,
    neighbours: &[Place],
) -> Vec<DeviceId> {
    let available: BTreeMap<&DeviceId, &Device> =
        available.iter().map(|device| (&device.id, *device)).collect();
    let must_include: BTreeSet<&DeviceId> = must_include.iter().collect();
    let (chosen, free): (Vec<&Device>, Vec<&Device>) =
        available.values().partition(|device| must_include.contains(&device.id));
    let open = size.saturating_sub(chosen.len()).min(free.len());
    let added = match preference {
        Preference::Packed => pack(&chosen, free, open, port, take_first),
        Preference::Spread => spread(&chosen, free, open, port),
        Preference::Numa => pack(&chosen, free, open, numa_node, |chosen, free, open| {
            pack(chosen, free, open, port, take_first)
        }),
        Preference::Near(_) if neighbours.is_empty() => pack(&chosen, free, open, port, take_first),
        Preference::Near(_) => nearest(&chosen, free, open, neighbours, port),
    };
    chosen.into_iter().chain(added).take(size).map(|device| device.id.clone()).collect()
}

/// What a device shares its bandwidth with the others on: its PF, or its hardware if it is one of several shares.
fn port(device: &Device) -> Hardware {
    match device.id.share {
        Some(_) => device.id.hardware.clone(),
        None => Hardware::Function(device.pf.unwrap_or(device.function)),
    }
}

/// Devices whose node is unknown are a group of their own, behind the others.
fn numa_node(device: &Device) -> u32 {
    device.numa_node.unwrap_or(u32::MAX)
}

fn take_first<'a>(_: &[&'a Device], mut free: Vec<&'a Device>, open: usize) -> Vec<&'a Device> {
    free.truncate(open);
    free
}
