//! Each selector with a device that it keeps and one that it drops, and the agreement of the two ways to ask.

use proptest::prelude::*;
use zerobridge_kernel::{FunctionRole, Netdev, RdmaDevice, RdmaPort, VdpaDevice, VfPosition};

use super::*;

const PF: &str = "0000:01:00.0";

/// A device and everything that a candidate borrows.
#[derive(Clone, Debug)]
struct Specimen {
    function: PciFunction,
    part: Option<AuxDevice>,
    pf: Option<PciFunction>,
    pf_names: Vec<String>,
    if_names: Vec<String>,
    ddp_profile: Option<String>,
    rdma_enabled: Option<bool>,
}

impl Specimen {
    fn candidate(&self) -> Candidate<'_> {
        Candidate {
            subject: self.part.as_ref().map_or(Subject::Function, Subject::Auxiliary),
            function: &self.function,
            pf: self.pf.as_ref(),
            pf_names: &self.pf_names,
            if_names: &self.if_names,
            ddp_profile: self.ddp_profile.as_deref(),
            rdma_enabled: self.rdma_enabled,
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

fn netdev(name: &str, link_type: LinkType) -> Netdev {
    Netdev { name: name.to_owned(), link_type, port_name: None }
}

fn rdma(pkey: Option<u16>) -> RdmaDevice {
    RdmaDevice { name: "mlx5_2".to_owned(), ports: vec![RdmaPort { number: 1, active: true, pkey }] }
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

fn function(address: &str, role: FunctionRole, netdevs: Vec<Netdev>) -> PciFunction {
    PciFunction {
        address: address.parse().unwrap(),
        vendor: 0x15b3,
        device: 0x101e,
        class: 0x02_0000,
        driver: Some("mlx5_core".to_owned()),
        numa_node: None,
        iommu_group: None,
        acpi_index: None,
        upstream: Vec::new(),
        netdevs,
        rdma: Vec::new(),
        vdpa: None,
        role,
    }
}

fn pf() -> PciFunction {
    let role = FunctionRole::Physical {
        total_vfs: 8,
        vfs: std::collections::BTreeMap::new(),
        uplinks: names(&["enp1s0"]),
    };
    let netdevs = vec![netdev("enp1s0", LinkType::Ethernet), netdev("eth7", LinkType::Other(1))];
    function(PF, role, netdevs)
}

/// VF 3 of a PF whose port has an alternative name.
fn vf() -> Specimen {
    vf_of(3)
}

fn vf_of(index: u16) -> Specimen {
    let position = VfPosition { pf: PF.parse().unwrap(), index };
    let address = format!("0000:01:{:02x}.{}", 0x10 + index / 8, index % 8);
    let own = vec![netdev("enp1s0v3", LinkType::Ethernet)];
    Specimen {
        function: function(&address, FunctionRole::Virtual(position), own),
        part: None,
        pf: Some(pf()),
        pf_names: names(&["enp1s0", "storage-port-of-rack-7"]),
        if_names: names(&["enp1s0v3", "vf3"]),
        ddp_profile: None,
        rdma_enabled: None,
    }
}

/// SF 88 of the same PF.
fn sf() -> Specimen {
    let part = AuxDevice {
        name: "mlx5_core.sf.4".to_owned(),
        kind: "sf".to_owned(),
        parent: PF.parse().unwrap(),
        sf_number: Some(88),
        driver: Some("mlx5_core.sf".to_owned()),
        netdevs: vec![netdev("enp1s0s88", LinkType::Ethernet)],
        rdma: Vec::new(),
        vdpa: None,
    };
    Specimen { function: pf(), part: Some(part), if_names: names(&["enp1s0s88"]), ..vf() }
}

/// The PF itself.
fn port() -> Specimen {
    Specimen { function: pf(), pf: None, if_names: names(&["enp1s0", "eth7"]), ..vf() }
}

fn in_a_pod(specimen: Specimen) -> Specimen {
    specimen.with(|device| {
        device.function.netdevs.clear();
        device.function.rdma.clear();
        device.if_names.clear();
    })
}

fn list<T: std::str::FromStr>(texts: &[&str]) -> Vec<T>
where
    T::Err: std::fmt::Debug,
{
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// One row for each thing that a selector should tell apart: what is asked, what it keeps, what it drops.
fn rows() -> Vec<(Selector, Selectors, Vec<Specimen>, Vec<Specimen>)> {
    let none = Selectors::default;
    let itself = PortMatch { any_case: false, itself: true };
    let infiniband = |device: &mut Specimen| {
        device.function.netdevs = vec![netdev("ib0v3", LinkType::Infiniband)];
    };
    let with_rdma = |pkey| move |device: &mut Specimen| device.function.rdma = vec![rdma(pkey)];
    let with_vdpa = |driver: Option<&'static str>| {
        move |device: &mut Specimen| {
            let (name, driver) = ("vdpa0".to_owned(), driver.map(str::to_owned));
            let vdpa = Some(VdpaDevice { name, driver, vhost: None });
            match &mut device.part {
                Some(part) => part.vdpa = vdpa,
                None => device.function.vdpa = vdpa,
            }
        }
    };
    vec![
        (
            Selector::Vendors,
            Selectors { vendors: list(&["8086", "15B3"]), ..none() },
            vec![vf(), sf()],
            vec![vf().with(|device| device.function.vendor = 0x1af4)],
        ),
        (
            Selector::Devices,
            Selectors { devices: list(&["0x101e"]), ..none() },
            vec![vf(), sf()],
            vec![vf().with(|device| device.function.device = 0x101d)],
        ),
        (
            Selector::Drivers,
            Selectors { drivers: names(&["vfio-pci", "mlx5_core"]), ..none() },
            vec![vf(), sf()],
            vec![
                vf().with(|device| device.function.driver = None),
                vf().with(|device| device.function.driver = Some("mlx5".to_owned())),
            ],
        ),
        (
            Selector::PciAddresses,
            Selectors { pci_addresses: list(&["01:10.3"]), ..none() },
            vec![vf(), in_a_pod(vf())],
            vec![vf_of(4), port()],
        ),
        (
            Selector::AcpiIndexes,
            Selectors { acpi_indexes: vec![101, 7], ..none() },
            vec![vf().with(|device| device.function.acpi_index = Some(7))],
            vec![vf(), vf().with(|device| device.function.acpi_index = Some(70))],
        ),
        (
            Selector::PfNames,
            Selectors { pf_names: list(&["enp1s0"]), ..none() },
            vec![vf(), sf(), in_a_pod(vf())],
            vec![
                port(),
                vf().with(|device| device.pf_names = names(&["enp2s0"])),
                vf().with(|device| device.pf_names.clear()),
            ],
        ),
        (
            Selector::PfNames,
            Selectors { pf_names: list(&["storage-port-of-rack-7#0-2,4-99"]), ..none() },
            vec![vf_of(0), vf_of(2), vf_of(99), sf()],
            vec![vf(), vf_of(100), sf().with(|device| device.part.as_mut().unwrap().sf_number = None)],
        ),
        (
            Selector::PfNames,
            Selectors { pf_names: list(&["enp1s0#0-1", "enp2s0", "enp1s0#5"]), ..none() },
            vec![vf_of(0), vf_of(1), vf_of(5)],
            vec![vf_of(2), vf_of(4)],
        ),
        (
            Selector::PfNames,
            Selectors { pf_names: list(&["ENP1S0"]), ..none() },
            vec![vf().with(|device| device.pf_names = names(&["ENP1S0"]))],
            vec![vf()],
        ),
        (
            Selector::PfNames,
            Selectors {
                pf_names: list(&["ENP1S0#3"]),
                port_match: PortMatch { any_case: true, itself: false },
                ..none()
            },
            vec![vf()],
            vec![vf_of(4), port()],
        ),
        (
            Selector::PfNames,
            Selectors { pf_names: list(&["enp1s0"]), port_match: itself, ..none() },
            vec![port(), vf(), port().with(|device| device.function.role = FunctionRole::Plain)],
            vec![port().with(|device| device.pf_names = names(&["enp2s0"]))],
        ),
        (
            Selector::PfNames,
            Selectors { pf_names: list(&["enp1s0#0-9"]), port_match: itself, ..none() },
            vec![vf()],
            vec![port()],
        ),
        (
            Selector::RootDevices,
            Selectors { root_devices: list(&["01:00.0#3,88"]), ..none() },
            vec![vf(), sf(), in_a_pod(vf()), vf().with(|device| device.pf = None)],
            vec![vf_of(4), port()],
        ),
        (
            Selector::RootDevices,
            Selectors { root_devices: list(&["0000:01:00.0"]), port_match: itself, ..none() },
            vec![port(), vf()],
            vec![port().with(|device| device.function.address = "0000:01:00.1".parse().unwrap())],
        ),
        (
            Selector::IfNames,
            Selectors { if_names: names(&["vf3", "enp1s0s88"]), ..none() },
            vec![vf(), sf()],
            vec![in_a_pod(vf()), port()],
        ),
        (
            Selector::LinkTypes,
            Selectors { link_types: vec![LinkType::Ethernet], ..none() },
            vec![vf(), sf(), in_a_pod(vf())],
            vec![vf().with(infiniband), in_a_pod(vf()).with(|device| device.pf = None)],
        ),
        (
            Selector::LinkTypes,
            Selectors { link_types: vec![LinkType::Infiniband], ..none() },
            vec![vf().with(infiniband)],
            vec![vf(), sf()],
        ),
        (
            Selector::IsRdma,
            Selectors { is_rdma: true, ..none() },
            vec![
                vf().with(with_rdma(None)),
                in_a_pod(vf()).with(|device| device.rdma_enabled = Some(true)),
                sf().with(|device| device.part.as_mut().unwrap().rdma = vec![rdma(None)]),
            ],
            vec![vf(), vf().with(|device| device.rdma_enabled = Some(false)), sf().with(with_rdma(None))],
        ),
        (
            Selector::PKeys,
            Selectors { p_keys: list(&["0x1", "0x8001"]), ..none() },
            vec![vf().with(with_rdma(Some(0x8001))), vf().with(with_rdma(Some(1)))],
            vec![vf(), vf().with(with_rdma(None)), vf().with(with_rdma(Some(0xffff)))],
        ),
        (
            Selector::DdpProfiles,
            Selectors { ddp_profiles: names(&["GTPv1-C/U IPv4/IPv6 payload"]), ..none() },
            vec![vf().with(|device| device.ddp_profile = Some("GTPv1-C/U IPv4/IPv6 payload".to_owned()))],
            vec![vf(), vf().with(|device| device.ddp_profile = Some("ICE OS Default Package".to_owned()))],
        ),
        (
            Selector::VdpaType,
            Selectors { vdpa_type: Some(VdpaType::Vhost), ..none() },
            vec![vf().with(with_vdpa(Some("vhost_vdpa"))), sf().with(with_vdpa(Some("vhost_vdpa")))],
            vec![vf(), sf(), vf().with(with_vdpa(Some("virtio_vdpa"))), vf().with(with_vdpa(None))],
        ),
        (
            Selector::VdpaType,
            Selectors { vdpa_type: Some(VdpaType::Virtio), ..none() },
            vec![vf().with(with_vdpa(Some("virtio_vdpa")))],
            vec![vf().with(with_vdpa(Some("vhost_vdpa")))],
        ),
        (
            Selector::AuxTypes,
            Selectors { aux_types: names(&["eth", "sf"]), ..none() },
            vec![sf()],
            vec![vf(), sf().with(|device| device.part.as_mut().unwrap().kind = "rdma".to_owned())],
        ),
    ]
}

#[test]
fn each_selector_keeps_and_drops() {
    for (selector, selectors, kept, dropped) in rows() {
        assert!(!kept.is_empty() && !dropped.is_empty(), "{selector}");
        assert_eq!(selectors.written().collect::<Vec<_>>(), [selector]);
        for (specimens, expected) in [(kept, true), (dropped, false)] {
            for specimen in specimens {
                let candidate = specimen.candidate();
                assert_eq!(selectors.admit(&candidate), expected, "{selectors:?} {specimen:?}");
                let verdicts = selectors.verdicts(&candidate);
                let [verdict] = verdicts.as_slice() else { panic!("{selector}: {verdicts:?}") };
                assert_eq!((verdict.selector, verdict.kept), (selector, expected));
                assert!(!verdict.wanted.is_empty() && !verdict.found.is_empty(), "{verdict:?}");
            }
        }
    }
}

#[test]
fn every_selector_that_selects_has_a_row() {
    for selector in Selector::ALL {
        let has_row = rows().iter().any(|(of, ..)| *of == selector);
        assert_eq!(has_row, selector != Selector::NeedVhostNet, "{selector}");
    }
}

#[test]
fn nothing_asked_admits_everything() {
    let only_beside = Selectors { need_vhost_net: true, ..Selectors::default() };
    for selectors in [Selectors::default(), only_beside] {
        assert!(selectors.is_empty());
        for specimen in [vf(), sf(), port(), in_a_pod(vf())] {
            assert!(selectors.admit(&specimen.candidate()));
            assert!(selectors.verdicts(&specimen.candidate()).is_empty());
        }
    }
}

#[test]
fn a_verdict_says_what_was_asked_and_what_is_there() {
    let selectors = Selectors {
        vendors: list(&["8086", "15b3"]),
        drivers: names(&["vfio-pci"]),
        pf_names: list(&["enp1s0#0-2"]),
        is_rdma: true,
        ..Selectors::default()
    };
    let told: Vec<String> = selectors
        .verdicts(&vf().candidate())
        .iter()
        .map(|verdict| {
            format!("{} {} wanted {} found {}", verdict.selector, verdict.kept, verdict.wanted, verdict.found)
        })
        .collect();
    assert_eq!(
        told,
        [
            "vendors true wanted 8086, 15b3 found 15b3",
            "drivers false wanted vfio-pci found mlx5_core",
            "pfNames false wanted enp1s0#0-2 found enp1s0, storage-port-of-rack-7, VF 3",
            "isRdma false wanted true found no RDMA device",
        ]
    );
}

proptest! {
    /// Two selections joined ask for what both ask; a device is admitted if no verdict drops it.
    #[test]
    fn a_device_is_admitted_if_every_verdict_keeps_it(
        picked in prop::collection::vec(0..rows().len(), 0..4),
        of in 0..rows().len(),
        which in any::<prop::sample::Index>(),
    ) {
        let rows = rows();
        let selectors = picked.iter().fold(Selectors::default(), |all, row| joined(all, &rows[*row].1));
        let (_, _, kept, dropped) = &rows[of];
        let specimens: Vec<&Specimen> = kept.iter().chain(dropped).collect();
        let candidate = specimens[which.index(specimens.len())].candidate();
        let verdicts = selectors.verdicts(&candidate);
        prop_assert_eq!(verdicts.len(), selectors.written().count());
        prop_assert_eq!(selectors.admit(&candidate), verdicts.iter().all(|verdict| verdict.kept));
    }
}

/// Both selections in one; of what both ask, the later counts.
fn joined(first: Selectors, second: &Selectors) -> Selectors {
    fn either<T: Clone>(first: Vec<T>, second: &[T]) -> Vec<T> {
        if second.is_empty() { first } else { second.to_vec() }
    }
    Selectors {
        vendors: either(first.vendors, &second.vendors),
        devices: either(first.devices, &second.devices),
        drivers: either(first.drivers, &second.drivers),
        pci_addresses: either(first.pci_addresses, &second.pci_addresses),
        acpi_indexes: either(first.acpi_indexes, &second.acpi_indexes),
        pf_names: either(first.pf_names, &second.pf_names),
        root_devices: either(first.root_devices, &second.root_devices),
        port_match: second.port_match,
        if_names: either(first.if_names, &second.if_names),
        link_types: either(first.link_types, &second.link_types),
        is_rdma: first.is_rdma || second.is_rdma,
        p_keys: either(first.p_keys, &second.p_keys),
        ddp_profiles: either(first.ddp_profiles, &second.ddp_profiles),
        need_vhost_net: first.need_vhost_net || second.need_vhost_net,
        vdpa_type: second.vdpa_type.or(first.vdpa_type),
        aux_types: either(first.aux_types, &second.aux_types),
    }
}
