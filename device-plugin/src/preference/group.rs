//! Filling groups of devices one after the other, or all alike. Refuses to know what a group is.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::device::Device;

/// Takes `open` of the `free` devices out of as few groups as possible: first from groups that `chosen` devices are in,
/// then from the smallest one that is large enough, and from the largest ones as long as none is. `within` takes some of
/// a group, given the chosen ones, the free ones of the group, and how many it is to take.
pub(super) fn pack<'a, K: Ord>(
    chosen: &[&'a Device],
    free: Vec<&'a Device>,
    mut open: usize,
    group: impl Fn(&Device) -> K,
    within: impl Fn(&[&'a Device], Vec<&'a Device>, usize) -> Vec<&'a Device>,
) -> Vec<&'a Device> {
    let begun: BTreeSet<K> = chosen.iter().map(|device| group(device)).collect();
    let (begun, fresh): (Vec<_>, Vec<_>) =
        grouped(free, &group).into_iter().partition(|(key, _)| begun.contains(key));
    let mut taken = Vec::with_capacity(open);
    for groups in [begun, fresh] {
        let mut groups: Vec<Vec<&Device>> = groups.into_iter().map(|(_, devices)| devices).collect();
        groups.sort_by_key(Vec::len);
        while open > 0
            && let Some(largest) = groups.last().map(Vec::len)
        {
            // The smallest that is large enough, or the first of the largest ones.
            let best = groups.partition_point(|devices| devices.len() < open.min(largest));
            let some = within(chosen, groups.remove(best), open);
            open = open.saturating_sub(some.len());
            taken.extend(some);
        }
    }
    taken
}

/// Takes `open` of the `free` devices, each from the group that has the fewest taken or `chosen` ones, and of these from
/// the one that has the most left.
pub(super) fn spread<'a, K: Ord + Clone>(
    chosen: &[&'a Device],
    free: Vec<&'a Device>,
    open: usize,
    group: impl Fn(&Device) -> K,
) -> Vec<&'a Device> {
    let mut used: BTreeMap<K, usize> = BTreeMap::new();
    for device in chosen {
        *used.entry(group(device)).or_default() += 1;
    }
    let groups = grouped(free, &group).into_iter().map(|(key, devices)| {
        let used = used.get(&key).copied().unwrap_or_default();
        // The key decides between equals; devices are taken from the front.
        ((used, Reverse(devices.len()), key), devices.into_iter())
    });
    let mut groups: BTreeMap<_, _> = groups.collect();
    let mut taken = Vec::with_capacity(open);
    while taken.len() < open
        && let Some(((used, Reverse(left), key), mut devices)) = groups.pop_first()
    {
        if let Some(device) = devices.next() {
            taken.push(device);
            groups.insert((used + 1, Reverse(left - 1), key), devices);
        }
    }
    taken
}

fn grouped<K: Ord>(devices: Vec<&Device>, group: impl Fn(&Device) -> K) -> BTreeMap<K, Vec<&Device>> {
    let mut groups: BTreeMap<K, Vec<&Device>> = BTreeMap::new();
    for device in devices {
        groups.entry(group(device)).or_default().push(device);
    }
    groups
}
