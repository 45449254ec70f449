//! A model of what the kernel and the drivers make of each operation, for tests of the diff.

use proptest::prelude::*;
use zerobridge_kernel::{Route, VfAdmin, VlanProtocol, VlanTag, VlanTrunk};
use zerobridge_proto::Mac;

use super::diff::Operation;
use super::state::{LinkState, Place, RdmaKind, RdmaPlace, RdmaState, VfState};

/// A VF as it lies on the host.
pub(crate) fn at_home() -> VfState {
    VfState {
        driver: Some("igbvf".to_owned()),
        admin: Some(VfAdmin { mac: mac(1), spoof_check: true, ..VfAdmin::default() }),
        vlan_trunk: None,
        link: Some(LinkState {
            place: Place::Host,
            name: "enp1s0v0".to_owned(),
            alt_names: [].into(),
            alias: Some(String::new()),
            mac: mac(1),
            mtu: 1500,
            all_multicast: false,
            promiscuous: false,
            up: false,
        }),
        rdma: None,
        addresses: Vec::new(),
        routes: Vec::new(),
    }
}

/// The same VF as a pod wants it.
pub(crate) fn in_pod() -> VfState {
    VfState {
        admin: Some(VfAdmin {
            mac: mac(2),
            vlan: VlanTag { id: 100, qos: 0, protocol: VlanProtocol::Dot1Q },
            ..VfAdmin::default()
        }),
        link: at_home().link.map(|link| LinkState {
            place: Place::Sandbox,
            name: "eth0".to_owned(),
            mac: mac(2),
            mtu: 9000,
            up: true,
            ..link
        }),
        addresses: vec!["10.1.0.2/24".parse().unwrap()],
        routes: vec![route("0.0.0.0/0")],
        ..at_home()
    }
}

/// A VF that a userspace driver has.
pub(crate) fn with_vfio() -> VfState {
    VfState { driver: Some("vfio-pci".to_owned()), link: None, ..at_home() }
}

/// The same with a RoCE device where its netdev is.
pub(crate) fn with_roce(state: VfState) -> VfState {
    let at_home = state.link.as_ref().is_none_or(|link| link.place == Place::Host);
    let place = if at_home { RdmaPlace::Host } else { RdmaPlace::Sandbox };
    let rdma = RdmaState { kind: RdmaKind::Ethernet, place, name: "mlx5_3".to_owned() };
    VfState { driver: Some("mlx5_core".to_owned()), rdma: Some(rdma), ..state }
}

/// The same with a software RDMA device, as a pod wants it.
pub(crate) fn with_soft_rdma(state: VfState, place: RdmaPlace) -> VfState {
    let rdma = RdmaState { kind: RdmaKind::Soft, place, name: "rdma0".to_owned() };
    VfState { rdma: Some(rdma), ..state }
}

/// A function that nobody administers, as it lies on the host.
pub(crate) fn whole_function() -> VfState {
    VfState { driver: Some("igb".to_owned()), admin: None, ..at_home() }
}

fn mac(last: u8) -> Mac {
    [2, 0, 0, 0, 0, last].into()
}

fn route(destination: &str) -> Route {
    Route {
        destination: destination.parse().unwrap(),
        gateway: Some("10.1.0.1".parse().unwrap()),
        table: None,
        priority: None,
        mtu: None,
        advmss: None,
        scope: None,
    }
}

/// Any state that a VF of `driver` can be in. Where an admin MAC is imposed, the VF carries it, as every driver but
/// mlx5_core enforces.
pub(crate) fn any_state(driver: &'static str) -> impl Strategy<Value = VfState> {
    let names = prop::sample::select(vec!["enp1s0v0", "eth0", "net1"]);
    let alt_names =
        prop::collection::btree_set(prop::sample::select(vec!["enp1s0v0", "eth0", "rail0"]), 0..3);
    let settings = (any::<bool>(), any::<bool>(), 0_u16..3, any::<bool>(), 0_u32..2);
    let more = (any::<bool>(), any::<bool>(), prop::sample::select(vec!["", "2-4", "3,9"]), 1_u8..4);
    (any::<bool>(), names, alt_names, 1_u8..4, settings, more).prop_map(
        move |(home, name, mut alt_names, octet, (up, spoof_check, vlan, imposed, rate), more)| {
            let (all_multicast, promiscuous, trunk, other) = more;
            alt_names.remove(name);
            let mut state = if home { at_home() } else { in_pod() };
            state.driver = Some(driver.to_owned());
            state.admin = Some(VfAdmin {
                // igb reports a VF's own address as the imposed one.
                mac: if imposed || driver == "igbvf" { mac(octet) } else { Mac::ZERO },
                vlan: VlanTag { id: if trunk.is_empty() { vlan } else { 0 }, ..VlanTag::default() },
                spoof_check,
                max_tx_rate: rate,
                ..VfAdmin::default()
            });
            state.vlan_trunk = Some(trunk.to_owned().try_into().unwrap());
            let link = state.link.as_mut().unwrap();
            link.name = name.to_owned();
            link.alt_names = alt_names.into_iter().map(str::to_owned).collect();
            link.alias = Some(trunk.to_owned());
            link.mac = if driver == "mlx5_core" { mac(other) } else { mac(octet) };
            (link.all_multicast, link.promiscuous) = (all_multicast, promiscuous);
            link.up = up || !home;
            state
        },
    )
}

/// An RDMA device beside a state: where it is, or should be.
type BesideState = fn(&VfState) -> Option<RdmaState>;

/// RDMA devices before and after: hardware of either kind wherever it may be found, and software.
pub(crate) fn any_rdma() -> impl Strategy<Value = (BesideState, BesideState)> {
    fn rdma(kind: RdmaKind, place: RdmaPlace, name: &str) -> Option<RdmaState> {
        Some(RdmaState { kind, place, name: name.to_owned() })
    }
    fn beside(state: &VfState) -> RdmaPlace {
        let on_host = state.link.as_ref().is_none_or(|link| link.place == Place::Host);
        if on_host { RdmaPlace::Host } else { RdmaPlace::Sandbox }
    }
    fn soft_in_pod(state: &VfState) -> Option<RdmaState> {
        (beside(state) == RdmaPlace::Sandbox).then(|| rdma(RdmaKind::Soft, RdmaPlace::Sandbox, "rdma0"))?
    }
    let pairs: Vec<(BesideState, BesideState)> = vec![
        (
            |state| rdma(RdmaKind::Ethernet, beside(state), "mlx5_3"),
            |state| rdma(RdmaKind::Ethernet, beside(state), "rdma0"),
        ),
        (
            |_| rdma(RdmaKind::Ethernet, RdmaPlace::Host, "ibdev0"),
            |state| rdma(RdmaKind::Ethernet, beside(state), "mlx5_3"),
        ),
        (
            |state| rdma(RdmaKind::Infiniband, beside(state), "mlx5_3"),
            |state| rdma(RdmaKind::Infiniband, beside(state), "mlx5_3"),
        ),
        (
            |_| rdma(RdmaKind::Ethernet, RdmaPlace::Everywhere, "mlx5_3"),
            |_| rdma(RdmaKind::Ethernet, RdmaPlace::Everywhere, "mlx5_3"),
        ),
        (|_| None, soft_in_pod),
        (soft_in_pod, |_| None),
        (soft_in_pod, soft_in_pod),
    ];
    prop::sample::select(pairs)
}

/// A VF, and what its drivers keep to themselves.
#[derive(Debug)]
pub(crate) struct Modelled {
    /// What can be observed.
    pub(crate) state: VfState,
    /// The PF's driver refuses other addresses from the VF. igb reports an address as the PF's either way.
    imposed: bool,
    /// The address with which a VF that is being reset will come back.
    coming: Option<Mac>,
}

impl Modelled {
    pub(crate) fn new(state: VfState) -> Self {
        let imposed = state.admin.is_some_and(|admin| !admin.mac.is_zero());
        Self { state, imposed, coming: None }
    }

    /// Lets the time pass that converging waits between two looks.
    pub(crate) fn settle(&mut self) {
        if let (Some(mac), Some(link)) = (self.coming.take(), &mut self.state.link) {
            link.mac = mac;
        }
    }

    /// What the kernel makes of one operation, or why it refuses.
    pub(crate) fn operate(&mut self, operation: &Operation) -> Result<(), String> {
        let driver = self.state.driver.clone().unwrap_or_default();
        let state = &mut self.state;
        let link = state.link.as_mut().ok_or("ENODEV: there is no netdev")?;
        let refuse_taken_name = |link: &LinkState, name: &String| {
            let taken = link.alt_names.contains(name);
            if taken { Err(format!("EEXIST: {name} is an alternative name of the link")) } else { Ok(()) }
        };
        match operation {
            Operation::ChangeAdmin(change) => {
                let admin = state.admin.as_mut().ok_or("EOPNOTSUPP: there is no PF")?;
                admin.vlan = change.vlan.unwrap_or(admin.vlan);
                admin.spoof_check = change.spoof_check.unwrap_or(admin.spoof_check);
                admin.trust = change.trust.unwrap_or(admin.trust);
                if let Some((min, max)) = change.tx_rate {
                    (admin.min_tx_rate, admin.max_tx_rate) = (min, max);
                }
                if admin.vlan.id > 0 && state.vlan_trunk.as_ref().is_some_and(|trunk| !trunk.is_empty()) {
                    return Err("EINVAL: the VF has a list of VLANs".to_owned());
                }
                let Some(mac) = change.mac else { return Ok(()) };
                (admin.mac, self.imposed) = (mac, !mac.is_zero());
                match driver.as_str() {
                    "igbvf" if self.imposed && mac != link.mac => {
                        return Err("the VF keeps its old address and drops everything".to_owned());
                    }
                    "iavf" => self.coming = Some(if mac.is_zero() { link.mac } else { mac }),
                    _ => {}
                }
            }
            Operation::AllowVlans(trunk) => {
                if state.admin.is_some_and(|admin| admin.vlan.id > 0) {
                    return Err("EINVAL: the VF has a VLAN".to_owned());
                }
                let present = state.vlan_trunk.clone().unwrap_or_default();
                state.vlan_trunk = Some(joined(&present, trunk));
            }
            Operation::ForbidVlans(trunk) => {
                state.vlan_trunk = state.vlan_trunk.as_ref().map(|present| present.without(trunk));
            }
            Operation::SetMac(mac) => {
                if self.coming.is_some() && driver == "iavf" {
                    self.coming = None;
                }
                let admin = state.admin.as_mut();
                let other = admin.as_ref().is_some_and(|admin| admin.mac != *mac);
                match (driver.as_str(), self.imposed) {
                    ("igbvf", true) => return Err("EADDRNOTAVAIL: the PF imposes an address".to_owned()),
                    ("iavf" | "ixgbevf", true) if other => {
                        return Err("EACCES: the PF imposes another address".to_owned());
                    }
                    _ => {}
                }
                link.mac = *mac;
                if let ("igbvf", Some(admin)) = (driver.as_str(), admin) {
                    admin.mac = *mac;
                }
            }
            Operation::AwaitMac(_) => self.settle(),
            Operation::Move { to, name, mtu } => {
                refuse_taken_name(link, name)?;
                if let Some(rdma) = &state.rdma {
                    if rdma.kind == RdmaKind::Soft {
                        return Err("the software RDMA device would be lost".to_owned());
                    }
                    if rdma.place == RdmaPlace::Sandbox && *to == Place::Host {
                        return Err("the RDMA device would be left behind".to_owned());
                    }
                }
                (link.place, link.name, link.up) = (*to, name.clone(), false);
                link.mtu = mtu.unwrap_or(link.mtu);
                state.addresses.clear();
                state.routes.clear();
            }
            Operation::Rename(name) => {
                refuse_taken_name(link, name)?;
                link.name.clone_from(name);
            }
            Operation::SetMtu(mtu) => link.mtu = *mtu,
            Operation::AddAltName(name) => {
                link.alt_names.insert(name.clone());
            }
            Operation::DeleteAltName(name) => {
                link.alt_names.remove(name);
            }
            Operation::SetAlias(alias) => link.alias = Some(alias.clone()),
            Operation::SetAllMulticast(on) => link.all_multicast = *on,
            Operation::SetPromiscuous(on) => link.promiscuous = *on,
            Operation::SetUp(up) => {
                link.up = *up;
                if !up {
                    state.routes.clear();
                }
            }
            Operation::MoveRdma(to) => {
                let rdma = state.rdma.as_mut().ok_or("ENODEV: there is no RDMA device")?;
                rdma.place = if *to == Place::Host { RdmaPlace::Host } else { RdmaPlace::Sandbox };
                if rdma.kind == RdmaKind::Infiniband {
                    // IPoIB makes it anew.
                    (link.place, link.name, link.up) = (Place::Host, "ib0".to_owned(), false);
                    link.alt_names.clear();
                    link.alias = Some(String::new());
                    (link.all_multicast, link.promiscuous) = (false, false);
                    state.addresses.clear();
                    state.routes.clear();
                }
            }
            Operation::RenameRdma(name) => {
                let rdma = state.rdma.as_mut().ok_or("ENODEV: there is no RDMA device")?;
                rdma.name.clone_from(name);
            }
            Operation::AddSoftRdma => {
                let rdma = RdmaState {
                    kind: RdmaKind::Soft,
                    place: RdmaPlace::Host,
                    name: "rxe_0000_01_10_0".to_owned(),
                };
                state.rdma = Some(rdma);
            }
            Operation::RemoveSoftRdma => state.rdma = None,
            Operation::AwaitRdma => return Err("there is no RDMA device to wait for".to_owned()),
            Operation::AddAddress(address) => state.addresses.push(*address),
            Operation::AddRoute(route) => {
                if !link.up {
                    return Err("ENETDOWN".to_owned());
                }
                state.routes.push(route.clone());
            }
            Operation::BindAnew => return Err("no model here has a GUID".to_owned()),
            Operation::Rebind { .. } => return Err("nobody rebinds a device".to_owned()),
        }
        Ok(())
    }
}

fn joined(present: &VlanTrunk, more: &VlanTrunk) -> VlanTrunk {
    match (present.is_empty(), more.is_empty()) {
        (true, _) => more.clone(),
        (_, true) => present.clone(),
        _ => format!("{present},{more}").parse().unwrap(),
    }
}
