use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// VF `index` of PF `pf`, below switch `pf / 2` of root port `pf / 4`, two PFs to a NUMA node.
fn vf(pf: u8, index: u8) -> Device {
    let function = format!("0000:{:02x}:{:02x}.{}", 0x40 + pf, 1 + index / 8, index % 8).parse().unwrap();
    Device {
        id: DeviceId { hardware: Hardware::Function(function), share: None },
        function,
        pf: Some(format!("0000:{:02x}:00.0", 0x40 + pf).parse().unwrap()),
        vf_index: Some(index.into()),
        driver: Some("mlx5_core".to_owned()),
        numa_node: Some(u32::from(pf / 2)),
        topology: None,
        upstream: bridges(pf),
        representor: None,
        healthy: true,
    }
}

fn bridges(pf: u8) -> Vec<zerobridge_proto::PciAddress> {
    let (root, switch) = (pf / 4, pf / 2);
    [
        format!("0000:00:{root:02x}.0"),
        format!("0000:{:02x}:00.0", 0x10 + root),
        format!("0000:{:02x}:{switch:02x}.0", 0x20 + root),
    ]
    .iter()
    .map(|address| address.parse().unwrap())
    .collect()
}

/// Share `number` of HCA `pf`.
fn share(pf: u8, number: u16) -> Device {
    let Device { pf: Some(hca), .. } = vf(pf, 0) else { panic!() };
    let id = DeviceId { hardware: Hardware::Function(hca), share: Some(number) };
    Device { id, function: hca, pf: None, vf_index: None, ..vf(pf, 0) }
}

/// So many free VFs on each PF.
fn free(counts: &[u8]) -> Vec<Device> {
    let of_pf =
        |(pf, count): (usize, &u8)| (0..*count).map(move |index| vf(u8::try_from(pf).unwrap(), index));
    counts.iter().enumerate().flat_map(of_pf).collect()
}

fn preferred(
    preference: Preference,
    available: &[Device],
    must: &[Device],
    size: usize,
    near: &[Place],
) -> Vec<DeviceId> {
    let available: Vec<&Device> = available.iter().collect();
    let must: Vec<DeviceId> = must.iter().map(|device| device.id.clone()).collect();
    prefer(preference, &available, &must, size, near)
}

/// How many devices of each PF were taken.
fn counts(taken: &[DeviceId]) -> Vec<(u8, usize)> {
    let mut counts = BTreeMap::new();
    for id in taken {
        let bus = u8::from_str_radix(&id.hardware.to_string()[5..7], 16).unwrap();
        *counts.entry(bus - 0x40).or_default() += 1;
    }
    counts.into_iter().collect()
}

/// A GPU below the switch of PF `pf`.
fn gpu(pf: u8) -> Place {
    Place { upstream: bridges(pf), numa_node: Some(u32::from(pf / 2)) }
}

#[test]
fn each_policy_takes_what_it_promises() {
    use Preference::{Numa, Packed, Spread};
    let must = [vf(2, 0)];
    for (preference, free_ones, must, size, expected) in [
        // The smallest PF that is large enough.
        (Packed, [4, 2, 3, 0], &must[..0], 2, vec![(1, 2)]),
        (Packed, [4, 2, 3, 0], &must[..0], 3, vec![(2, 3)]),
        // None is: the largest, and then the smallest that has the rest.
        (Packed, [4, 2, 3, 0], &must[..0], 6, vec![(0, 4), (1, 2)]),
        (Packed, [4, 2, 3, 0], &must[..0], 7, vec![(0, 4), (2, 3)]),
        // Where something is taken anyway comes first.
        (Packed, [4, 1, 3, 0], &must[..], 2, vec![(2, 2)]),
        (Packed, [4, 2, 2, 0], &must[..], 4, vec![(1, 2), (2, 2)]),
        (Spread, [1, 3, 2, 3], &must[..0], 1, vec![(1, 1)]),
        (Spread, [1, 3, 2, 3], &must[..0], 2, vec![(1, 1), (3, 1)]),
        (Spread, [1, 3, 2, 3], &must[..0], 6, vec![(0, 1), (1, 2), (2, 1), (3, 2)]),
        (Spread, [1, 3, 2, 3], &must[..], 4, vec![(0, 1), (1, 1), (2, 1), (3, 1)]),
        // PFs 0 and 1 are on node 0, 2 and 3 on node 1. PF 2 alone would do, but then a node would be broken up.
        (Numa, [2, 2, 3, 3], &must[..0], 3, vec![(0, 2), (1, 1)]),
        (Numa, [2, 1, 4, 1], &must[..0], 4, vec![(2, 4)]),
        (Numa, [2, 2, 1, 1], &must[..], 2, vec![(2, 1), (3, 1)]),
    ] {
        let taken = preferred(preference, &free(&free_ones), must, size, &[]);
        assert_eq!(counts(&taken), expected, "{preference:?} {free_ones:?} {size}");
    }
}

#[test]
fn shares_are_told_apart_by_their_hca() {
    let available: Vec<Device> = [(0, 3), (1, 2)]
        .into_iter()
        .flat_map(|(hca, shares)| (0..shares).map(move |number| share(hca, number)))
        .collect();
    let taken = |preference, size| counts(&preferred(preference, &available, &[], size, &[]));
    assert_eq!(taken(Preference::Packed, 2), [(1, 2)]);
    assert_eq!(taken(Preference::Packed, 3), [(0, 3)]);
    assert_eq!(taken(Preference::Spread, 2), [(0, 1), (1, 1)]);
}

#[test]
fn near_takes_the_devices_below_the_same_switch_then_root_port_then_node() {
    let near = Preference::Near(Neighbour::Gpu);
    let all = free(&[2; 8]);
    for (gpus, available, size, expected) in [
        // Below the GPU's own switch, of two PFs there the first.
        (vec![gpu(6)], all.clone(), 1, vec![(6, 1)]),
        (vec![gpu(6)], all.clone(), 4, vec![(6, 2), (7, 2)]),
        // Nothing left there: the other switch of its root port.
        (vec![gpu(6)], free(&[2, 2, 2, 2, 1, 0]), 1, vec![(4, 1)]),
        // One for each GPU.
        (vec![gpu(0), gpu(6)], all.clone(), 2, vec![(0, 1), (6, 1)]),
        (vec![gpu(0), gpu(2), gpu(6)], all.clone(), 3, vec![(0, 1), (2, 1), (6, 1)]),
        // No common root port: the same NUMA node.
        (
            vec![Place { upstream: vec!["0000:80:01.0".parse().unwrap()], numa_node: Some(2) }],
            all.clone(),
            1,
            vec![(4, 1)],
        ),
        // Nothing is known: packed.
        (vec![Place { upstream: Vec::new(), numa_node: None }], free(&[3, 1]), 1, vec![(1, 1)]),
        (Vec::new(), free(&[3, 1]), 1, vec![(1, 1)]),
    ] {
        let taken = preferred(near, &available, &[], size, &gpus);
        assert_eq!(counts(&taken), expected, "{gpus:?} {size}");
    }
    // What must be included has its GPU already.
    let taken = preferred(near, &all, &[vf(0, 0)], 2, &[gpu(0), gpu(6)]);
    assert_eq!(counts(&taken), [(0, 1), (6, 1)]);
}

#[test]
fn neighbours_are_of_their_class_and_not_taken() {
    use zerobridge_kernel::testing::{FakeFunction, SysfsTree};
    use zerobridge_kernel::{Scanner, Sysfs};
    let root = tempfile::tempdir().unwrap();
    let tree = SysfsTree::new(root.path());
    tree.add_igb(0, 2);
    let root_port: zerobridge_proto::PciAddress = "0000:80:01.0".parse().unwrap();
    for (address, vendor, class) in [
        ("0000:81:00.0", 0x10de, 0x03_0200),
        ("0000:82:00.0", 0x1002, 0x12_0000),
        ("0000:83:00.0", 0x1a03, 0x03_0000),
        ("0000:84:00.0", 0x144d, 0x01_0802),
        ("0000:85:00.0", 0x144d, 0x01_0601),
    ] {
        let upstream = vec![root_port];
        let address = address.parse().unwrap();
        tree.add(&FakeFunction {
            address,
            vendor,
            class,
            upstream,
            numa_node: 1,
            netdevs: Vec::new(),
            ..FakeFunction::igb_pf(0)
        });
    }
    let machine = Scanner::new(Sysfs::new(root.path())).scan().unwrap();
    let found = |kind, taken: &[&str]| {
        neighbours(&machine, kind, &taken.iter().map(|address| address.parse().unwrap()).collect()).len()
    };
    assert_eq!(found(Neighbour::Gpu, &[]), 2);
    assert_eq!(found(Neighbour::Gpu, &["0000:81:00.0"]), 1);
    assert_eq!(found(Neighbour::Nvme, &[]), 1);
    let place = Place { upstream: vec![root_port], numa_node: Some(1) };
    assert_eq!(neighbours(&machine, Neighbour::Nvme, &BTreeSet::new()), [place]);
}

#[test]
fn a_thousand_devices_are_no_trouble() {
    let each_its_own: Vec<Device> = (0..1000_u16)
        .map(|number| {
            let function = format!("{:04x}:01:00.0", number + 1).parse().unwrap();
            let id = DeviceId { hardware: Hardware::Function(function), share: None };
            Device { id, function, pf: None, numa_node: Some(u32::from(number % 8)), ..vf(0, 0) }
        })
        .collect();
    for preference in policies() {
        let taken = preferred(preference, &each_its_own, &[], 900, &[gpu(0), gpu(6)]);
        assert_eq!(taken.len(), 900);
    }
}

fn policies() -> [Preference; 5] {
    use Preference::{Near, Numa, Packed, Spread};
    [Packed, Spread, Numa, Near(Neighbour::Gpu), Near(Neighbour::Nvme)]
}

fn any_device() -> impl Strategy<Value = Device> {
    (0..8_u8, 0..12_u8, any::<bool>(), proptest::option::weighted(0.8, 0..4_u32)).prop_map(
        |(pf, number, shared, numa_node)| {
            let device = if shared { share(pf, number.into()) } else { vf(pf, number) };
            Device { numa_node, ..device }
        },
    )
}

proptest! {
    #[test]
    fn what_is_preferred_is_available_and_enough_and_always_the_same(
        available in proptest::collection::vec(any_device(), 0..60),
        must in proptest::collection::vec(any_device(), 0..5),
        size in prop_oneof![9 => 0..70_usize, 1 => Just(usize::MAX)],
        gpus in proptest::collection::vec(0..8_u8, 0..4),
        policy in 0..5_usize,
        seed in any::<u64>(),
    ) {
        let preference = policies()[policy];
        let gpus: Vec<Place> = gpus.into_iter().map(gpu).collect();
        let taken = preferred(preference, &available, &must, size, &gpus);

        let ids: BTreeSet<DeviceId> = available.iter().map(|device| device.id.clone()).collect();
        let unique: BTreeSet<&DeviceId> = taken.iter().collect();
        prop_assert_eq!(unique.len(), taken.len());
        prop_assert_eq!(taken.len(), size.min(ids.len()));
        prop_assert!(taken.iter().all(|id| ids.contains(id)));

        let must_available: BTreeSet<&DeviceId> = must.iter().map(|device| &device.id).filter(|id| ids.contains(id)).collect();
        let first = &taken[..must_available.len().min(size)];
        prop_assert!(first.iter().all(|id| must_available.contains(id)));

        // One device may come twice, and then the last one counts, so only an order without doubles can be changed.
        if ids.len() == available.len() {
            let mut shuffled = available;
            shuffled.sort_by_key(|device| {
                use std::hash::{DefaultHasher, Hash as _, Hasher as _};
                let mut hasher = DefaultHasher::new();
                (&device.id, seed).hash(&mut hasher);
                hasher.finish()
            });
            prop_assert_eq!(preferred(preference, &shuffled, &must, size, &gpus), taken);
        }
    }

    #[test]
    fn packed_uses_the_fewest_pfs_and_spread_the_most(
        free_ones in proptest::collection::vec(0..12_u8, 1..8),
        size in 0..50_usize,
    ) {
        let available = free(&free_ones);
        let mut largest: Vec<usize> = free_ones.iter().map(|&count| count.into()).filter(|&count| count > 0).collect();
        largest.sort_unstable_by(|one, other| other.cmp(one));
        let size = size.min(available.len());
        let fewest = (0..=largest.len()).find(|&pfs| largest[..pfs].iter().sum::<usize>() >= size).unwrap();
        let packed = counts(&preferred(Preference::Packed, &available, &[], size, &[]));
        prop_assert_eq!(packed.len(), fewest);

        let spread = counts(&preferred(Preference::Spread, &available, &[], size, &[]));
        prop_assert_eq!(spread.len(), size.min(largest.len()));
    }

    #[test]
    fn numa_uses_the_fewest_nodes(free_ones in proptest::collection::vec(0..12_u8, 8), size in 0..90_usize) {
        let available = free(&free_ones);
        let mut nodes: Vec<usize> = free_ones.chunks(2).map(|pfs| pfs.iter().map(|&count| usize::from(count)).sum()).collect();
        nodes.sort_unstable_by(|one, other| other.cmp(one));
        let size = size.min(available.len());
        let fewest = (0..=nodes.len()).find(|&count| nodes[..count].iter().sum::<usize>() >= size).unwrap();
        let taken = counts(&preferred(Preference::Numa, &available, &[], size, &[]));
        let used: BTreeSet<u8> = taken.iter().map(|(pf, _)| pf / 2).collect();
        prop_assert_eq!(used.len(), fewest);
    }
}
