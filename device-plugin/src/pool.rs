//! Which device belongs to which pool: one pure function from the machine and the configuration to device sets.
//!
//! Refuses to know how the machine was read, whether a device is healthy, and who is told.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;

use zerobridge_kernel::{AuxDevice, FunctionRole, HostNetwork, Machine, Netdev, PciFunction};
use zerobridge_proto::PciAddress;

use crate::config::{LegConfig, PoolConfig, PoolKind};
use crate::device::{Device, DeviceId, Hardware};
use crate::leg::kept_vfs;
use crate::protection::{HostUse, host_use};
use crate::rdma::RdmaNode;
use crate::selector::{Candidate, Selectors, Subject};

/// The devices of one pool, in the order of their IDs.
pub(crate) type PoolDevices = BTreeMap<DeviceId, Device>;

/// The resource under which each piece of hardware is in a pod.
pub type Holdings = BTreeMap<Hardware, String>;

/// Everything that decides about a device, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The devices.
    pub machine: Machine,
    /// What the host does with its links.
    pub host: HostNetwork,
    /// The running profile of dynamic device personalisation, by PF.
    pub ddp_profiles: BTreeMap<PciAddress, String>,
    /// Whether drivers say that RDMA is enabled, by function.
    pub rdma_enabled: BTreeMap<PciAddress, bool>,
    /// The VFIO groups that processes have open, in pods and outside.
    pub open_vfio_groups: Vec<u32>,
    /// The devlink health reporters that are in the state of error, by the function that reports.
    pub failed_reporters: BTreeMap<PciAddress, Vec<String>>,
    /// Fatal errors counted by Advanced Error Reporting, by function.
    pub aer_fatal: BTreeMap<PciAddress, u64>,
    /// RDMA on the node; nothing is known of it where no pool has to do with it.
    pub rdma: RdmaNode,
    /// The VFs that the node keeps for itself, and for which leg each; see [`Surroundings::with_legs`].
    pub legs: BTreeMap<PciAddress, String>,
}

impl Surroundings {
    /// The same, with the VFs that these legs keep.
    #[must_use]
    pub fn with_legs(mut self, legs: &[LegConfig]) -> Self {
        self.legs = kept_vfs(legs, &self.machine, &self.host);
        self
    }
}

/// What became of the machine's devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Assignment {
    /// The devices of each pool, in the order of the configuration.
    pub(crate) pools: Vec<PoolDevices>,
    /// Devices that several pools select.
    pub(crate) conflicts: Vec<Conflict>,
    /// Devices that are in no pool although one selects them.
    pub(crate) withheld: BTreeMap<Hardware, Withholding>,
}

/// A device that is not offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Withholding {
    /// Position of the pool that selects it, the last if there are several; `None` for [`Withheld::HeldUnder`].
    pub(crate) pool: Option<usize>,
    /// Why it is not offered.
    pub(crate) reason: Withheld,
}

/// A device that two pools select. The earlier one has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Conflict {
    /// The device.
    pub(crate) device: Hardware,
    /// Position of the pool that has it.
    pub(crate) winner: usize,
    /// Position of the pool that does not.
    pub(crate) loser: usize,
}

/// Why a device that a pool selects is not offered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Withheld {
    /// The host needs it.
    HostUse(HostUse),
    /// It is a PF that has VFs: giving it away would take them too.
    HasVfs,
    /// It is a PF without VFs that was not asked for by its own address or device ID. Its VFs may be about to come.
    UnnamedPf,
    /// It has no RDMA device that could be divided into shares.
    NoRdma,
    /// The node keeps it for itself.
    Leg {
        /// The leg that it carries.
        leg: String,
    },
    /// A pod was given it under a resource that is no longer configured.
    HeldUnder {
        /// The resource.
        resource: String,
    },
}

impl fmt::Display for Withheld {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostUse(used) => used.fmt(out),
            Self::HasVfs => out.write_str("it is a PF that has VFs, and giving it away would take them too"),
            Self::UnnamedPf => out.write_str(
                "it is a PF, whose VFs may be about to come; name its own address in pciAddresses or its ID in devices",
            ),
            Self::NoRdma => out.write_str("it has no RDMA device that could be shared"),
            Self::Leg { leg } => write!(out, "the node keeps it for its own leg {leg}"),
            Self::HeldUnder { resource } => {
                write!(out, "a pod holds it as {resource}, which is no longer configured")
            }
        }
    }
}

impl Withheld {
    /// The reason in one word, for metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::HostUse(_) => "host_use",
            Self::HasVfs => "has_vfs",
            Self::UnnamedPf => "unnamed_pf",
            Self::NoRdma => "no_rdma",
            Self::Leg { .. } => "leg",
            Self::HeldUnder { .. } => "held_under_other_resource",
        }
    }
}

/// A candidate whose texts are gathered already.
pub(crate) struct Gathered<'a> {
    pub(crate) hardware: Hardware,
    subject: Subject<'a>,
    function: &'a PciFunction,
    pf: Option<&'a PciFunction>,
    netdevs: &'a [Netdev],
    pf_names: Vec<String>,
    if_names: Vec<String>,
}

/// Sorts the devices of a machine into pools. A device goes to the first pool that selects it and to no other.
///
/// `held` is what pods have, if anybody knows. It stays in the pool of its resource whatever the selectors now say, and is
/// in no other: the kubelet fails the pod if the device leaves the list, and would give it away again if another list had
/// it.
#[must_use]
pub(crate) fn assign(
    pools: &[impl Borrow<PoolConfig>],
    around: &Surroundings,
    held: Option<&Holdings>,
) -> Assignment {
    let pools: Vec<&PoolConfig> = pools.iter().map(Borrow::borrow).collect();
    let mut assignment = Assignment { pools: vec![PoolDevices::new(); pools.len()], ..Assignment::default() };
    for gathered in gather(around) {
        if let Some(resource) = held.and_then(|held| held.get(&gathered.hardware)) {
            match pools.iter().enumerate().find(|(_, pool)| pool.resource.to_string() == *resource) {
                Some((index, pool)) => assignment.put(index, pool, gathered.device(around)),
                None => {
                    let reason = Withheld::HeldUnder { resource: resource.clone() };
                    let withholding = Withholding { pool: None, reason };
                    assignment.withheld.insert(gathered.hardware.clone(), withholding);
                }
            }
            continue;
        }
        let candidate = gathered.candidate(around);
        let mut winner = None;
        for (index, pool) in pools.iter().enumerate() {
            let Some(selectors) = selected(pool, &candidate) else { continue };
            if let Some(reason) = withheld(pool, selectors, &gathered, around, held) {
                let withholding = Withholding { pool: Some(index), reason };
                assignment.withheld.insert(gathered.hardware.clone(), withholding);
                continue;
            }
            if let Some(winner) = winner {
                let device = gathered.hardware.clone();
                assignment.conflicts.push(Conflict { device, winner, loser: index });
            } else {
                winner = Some(index);
                assignment.put(index, pool, gathered.device(around));
            }
        }
        if winner.is_some() {
            assignment.withheld.remove(&gathered.hardware);
        }
    }
    assignment
}

impl Assignment {
    fn put(&mut self, index: usize, pool: &PoolConfig, mut device: Device) {
        device.topology = device.topology.filter(|_| pool.topology);
        self.pools[index].extend(shares(pool, device).map(|device| (device.id.clone(), device)));
    }
}

/// The alternative by which a pool selects a candidate.
fn selected<'a>(pool: &'a PoolConfig, candidate: &Candidate<'_>) -> Option<&'a Selectors> {
    if !is_of_kind(pool.kind, candidate) {
        return None;
    }
    pool.selectors.iter().find(|selectors| selectors.admit(candidate))
}

/// Whether a candidate is what a pool consists of.
#[must_use]
pub(crate) fn is_of_kind(kind: PoolKind, candidate: &Candidate<'_>) -> bool {
    let function = candidate.function;
    match (kind, candidate.subject) {
        (PoolKind::NetDevice, Subject::Function) => function.is_network_controller(),
        (PoolKind::Accelerator, Subject::Function) => function.class >> 16 == 0x12,
        (PoolKind::AuxNetDevice, Subject::Auxiliary(_)) => function.is_network_controller(),
        _ => false,
    }
}

/// Why a pool does not offer a device that these of its selectors admit.
pub(crate) fn withheld(
    pool: &PoolConfig,
    selectors: &Selectors,
    gathered: &Gathered<'_>,
    around: &Surroundings,
    held: Option<&Holdings>,
) -> Option<Withheld> {
    if pool.shares.is_some() {
        // A share takes nothing from the host: netdev and addresses stay where they are.
        let rdma = match gathered.subject {
            Subject::Function => &gathered.function.rdma,
            Subject::Auxiliary(part) => &part.rdma,
        };
        return rdma.is_empty().then_some(Withheld::NoRdma);
    }
    if let (Subject::Function, Some(leg)) = (gathered.subject, around.legs.get(&gathered.function.address)) {
        return Some(Withheld::Leg { leg: leg.clone() });
    }
    let by_address = selectors.pci_addresses.contains(&gathered.function.address);
    if let (Subject::Function, FunctionRole::Physical { vfs, .. }) =
        (gathered.subject, &gathered.function.role)
    {
        if !vfs.is_empty() {
            return Some(Withheld::HasVfs);
        }
        if !by_address && selectors.devices.is_empty() {
            return Some(Withheld::UnnamedPf);
        }
    }
    if by_address {
        return None;
    }
    let is_open = |group: &u32| {
        around.open_vfio_groups.contains(group) && outside_of_pods(*group, &around.machine, held)
    };
    let open_group = gathered.function.iommu_group.filter(is_open);
    open_group
        .map(|group| HostUse::VfioGroup { group })
        .or_else(|| host_use(gathered.netdevs, &around.host))
        .map(Withheld::HostUse)
}

/// Whether nobody but a process outside of all pods can have this group open. Without word from the kubelet nobody knows,
/// and a pod's device must not be taken for the host's.
pub(crate) fn outside_of_pods(group: u32, machine: &Machine, held: Option<&Holdings>) -> bool {
    let mut members = machine.functions.values().filter(|function| function.iommu_group == Some(group));
    held.is_some_and(|held| !members.any(|function| held.contains_key(&Hardware::Function(function.address))))
}

/// Everything that could become a device, functions before auxiliary devices.
pub(crate) fn gather(around: &Surroundings) -> impl Iterator<Item = Gathered<'_>> {
    let functions = around.machine.functions.values().map(|function| of_function(function, around));
    let parts = around.machine.auxiliaries.values().filter_map(|part| of_auxiliary(part, around));
    functions.chain(parts)
}

fn of_function<'a>(function: &'a PciFunction, around: &'a Surroundings) -> Gathered<'a> {
    let pf = match &function.role {
        FunctionRole::Virtual(position) => around.machine.functions.get(&position.pf),
        _ => None,
    };
    Gathered {
        hardware: Hardware::Function(function.address),
        subject: Subject::Function,
        function,
        pf,
        netdevs: &function.netdevs,
        pf_names: port_names(pf.unwrap_or(function), &around.host),
        if_names: all_names(function.netdevs.iter().map(|netdev| netdev.name.as_str()), &around.host),
    }
}

fn of_auxiliary<'a>(part: &'a AuxDevice, around: &'a Surroundings) -> Option<Gathered<'a>> {
    let function = around.machine.functions.get(&part.parent)?;
    Some(Gathered {
        hardware: Hardware::Auxiliary(part.name.clone()),
        subject: Subject::Auxiliary(part),
        function,
        pf: Some(function),
        netdevs: &part.netdevs,
        pf_names: port_names(function, &around.host),
        if_names: all_names(part.netdevs.iter().map(|netdev| netdev.name.as_str()), &around.host),
    })
}

fn port_names(pf: &PciFunction, host: &HostNetwork) -> Vec<String> {
    match &pf.role {
        FunctionRole::Physical { uplinks, .. } => all_names(uplinks.iter().map(String::as_str), host),
        // Its own port, which only a pool with shares selects by.
        FunctionRole::Plain => all_names(pf.netdevs.iter().map(|netdev| netdev.name.as_str()), host),
        FunctionRole::Virtual(_) => Vec::new(),
    }
}

fn all_names<'a>(names: impl Iterator<Item = &'a str>, host: &HostNetwork) -> Vec<String> {
    let with_alternatives = |name: &str| {
        let alternatives =
            host.links.get(name).map(|link| link.link.alt_names.as_slice()).unwrap_or_default();
        [name.to_owned()].into_iter().chain(alternatives.iter().cloned()).collect::<Vec<_>>()
    };
    names.flat_map(with_alternatives).collect()
}

impl Gathered<'_> {
    pub(crate) fn candidate<'a>(&'a self, around: &'a Surroundings) -> Candidate<'a> {
        let port = self.pf.unwrap_or(self.function).address;
        let is_away =
            matches!(self.subject, Subject::Function) && around.rdma.away.contains(&self.function.address);
        let said = around.rdma_enabled.get(&self.function.address).copied();
        Candidate {
            subject: self.subject,
            function: self.function,
            pf: self.pf,
            pf_names: &self.pf_names,
            if_names: &self.if_names,
            ddp_profile: around.ddp_profiles.get(&port).map(String::as_str),
            rdma_enabled: if is_away { Some(true) } else { said },
        }
    }

    pub(crate) fn device(&self, around: &Surroundings) -> Device {
        let (vf_index, driver) = match (self.subject, &self.function.role) {
            (Subject::Auxiliary(part), _) => (None, part.driver.clone()),
            (Subject::Function, FunctionRole::Virtual(position)) => {
                (Some(position.index), self.function.driver.clone())
            }
            (Subject::Function, _) => (None, self.function.driver.clone()),
        };
        let representor = match &self.function.role {
            FunctionRole::Virtual(position) => around.machine.representor_of(*position),
            _ => None,
        };
        Device {
            id: DeviceId { hardware: self.hardware.clone(), share: None },
            function: self.function.address,
            pf: self.pf.map(|pf| pf.address),
            vf_index,
            driver,
            numa_node: self.function.numa_node,
            topology: self.function.numa_node,
            upstream: self.function.upstream.clone(),
            representor: representor.map(str::to_owned),
            healthy: true,
        }
    }
}

fn shares(pool: &PoolConfig, device: Device) -> impl Iterator<Item = Device> {
    let numbers: Vec<Option<u16>> = match pool.shares {
        None => vec![None],
        Some(shares) => (0..shares.get()).map(Some).collect(),
    };
    numbers.into_iter().map(move |share| {
        let id = DeviceId { hardware: device.id.hardware.clone(), share };
        Device { id, ..device.clone() }
    })
}

#[cfg(test)]
mod tests {
    use zerobridge_kernel::testing::{FakeFunction, SysfsTree, idle_link};
    use zerobridge_kernel::{HostLink, Scanner, Sysfs};

    use super::*;
    use crate::config::Config;

    fn tree() -> (tempfile::TempDir, SysfsTree) {
        let folder = tempfile::tempdir().unwrap();
        let tree = SysfsTree::new(folder.path());
        tree.add_igb(0, 4);
        tree.add_igb(1, 2);
        (folder, tree)
    }

    fn around(tree: &SysfsTree) -> Surroundings {
        let machine = Scanner::new(Sysfs::new(tree.root())).scan().unwrap();
        Surroundings { machine, ..Surroundings::default() }
    }

    fn assigned(tree: &SysfsTree, pools: &str) -> Assignment {
        assigned_among(&around(tree), pools, &[])
    }

    fn assigned_among(around: &Surroundings, pools: &str, held: &[(&str, &str)]) -> Assignment {
        let config = Config::parse(&format!(r#"{{"pools": [{pools}]}}"#)).unwrap();
        let held = held.iter().map(|(device, resource)| (hardware(device), (*resource).to_owned())).collect();
        assign(&config.pools, around, Some(&held))
    }

    fn hardware(text: &str) -> Hardware {
        text.parse::<DeviceId>().unwrap().hardware
    }

    fn pool(name: &str, selectors: &str) -> String {
        format!(r#"{{"resourceName": "{name}", "selectors": {{{selectors}}}}}"#)
    }

    fn host_with_address(name: &str, address: &str) -> HostNetwork {
        let link = HostLink { addresses: vec![address.parse().unwrap()], ..idle_link(name) };
        HostNetwork { links: BTreeMap::from([(name.to_owned(), link)]) }
    }

    fn addresses(devices: &PoolDevices) -> Vec<String> {
        devices.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn pools_take_the_vfs_they_select_in_address_order() {
        let (_folder, tree) = tree();
        let (blue, green) =
            (pool("blue", r#""pfNames": ["enp1s0f0#1-3"]"#), pool("green", r#""pfNames": ["enp1s0f1"]"#));
        let assignment = assigned(&tree, &format!("{blue},{green}"));
        assert_eq!(addresses(&assignment.pools[0]), ["0000:01:10.2", "0000:01:10.4", "0000:01:10.6"]);
        assert_eq!(addresses(&assignment.pools[1]), ["0000:01:10.1", "0000:01:10.3"]);
        assert_eq!(assignment.conflicts, []);
    }

    #[test]
    fn a_device_carries_what_the_kubelet_and_the_pod_will_need() {
        let (_folder, tree) = tree();
        let assignment = assigned(&tree, &pool("vf", r#""pciAddresses": ["01:10.2"]"#));
        let expected = Device {
            id: "0000:01:10.2".parse().unwrap(),
            function: "0000:01:10.2".parse().unwrap(),
            pf: Some("0000:01:00.0".parse().unwrap()),
            vf_index: Some(1),
            driver: Some("igbvf".to_owned()),
            numa_node: Some(0),
            topology: Some(0),
            upstream: vec!["0000:00:01.0".parse().unwrap()],
            representor: None,
            healthy: true,
        };
        assert_eq!(assignment.pools[0].values().collect::<Vec<_>>(), [&expected]);
    }

    /// Though its own address is named, and by whatever name the leg knows the PF. A pod that has it keeps it.
    #[test]
    fn what_the_node_keeps_for_itself_is_in_no_pool() {
        let (_folder, tree) = tree();
        let legs = r#"[
            {"name": "own", "kind": "vf", "pf": "rail0", "vf": 1, "network": "n", "address": "10.0.0.1/24"},
            {"name": "wire", "kind": "pf", "pf": "enp1s0f1", "network": "n", "address": "10.1.0.1/24"}]"#;
        let pools = pool("vf", r#""pciAddresses": ["01:10.0", "01:10.2"]"#);
        let legs = Config::parse(&format!(r#"{{"pools": [{pools}], "legs": {legs}}}"#)).unwrap().legs;
        let mut around = around(&tree);
        let mut port = idle_link("enp1s0f0");
        port.link.alt_names = vec!["rail0".to_owned()];
        around.host = HostNetwork { links: BTreeMap::from([("enp1s0f0".to_owned(), port)]) };
        let around = around.with_legs(&legs);
        let assignment = assigned_among(&around, &pools, &[]);
        assert_eq!(addresses(&assignment.pools[0]), ["0000:01:10.0"]);
        let reason = &assignment.withheld[&hardware("0000:01:10.2")].reason;
        assert_eq!(
            (reason.name(), reason.to_string().as_str()),
            ("leg", "the node keeps it for its own leg own")
        );
        let held = assigned_among(&around, &pools, &[("0000:01:10.2", "zerobridge.io/vf")]);
        assert_eq!(addresses(&held.pools[0]), ["0000:01:10.0", "0000:01:10.2"]);
    }

    #[test]
    fn a_pool_may_keep_the_topology_to_itself() {
        let (_folder, tree) = tree();
        for (key, told) in [("", Some(0)), (r#", "excludeTopology": true"#, None)] {
            let pools = format!(r#"{{"resourceName": "vf", "selectors": {{"any": true}}{key}}}"#);
            let assignment = assigned(&tree, &pools);
            assert!(
                assignment.pools[0]
                    .values()
                    .all(|device| device.topology == told && device.numa_node == Some(0))
            );
        }
    }

    #[test]
    fn the_first_pool_keeps_what_two_select_and_the_conflict_is_told() {
        let (_folder, tree) = tree();
        let (first, rest) = (pool("first", r#""pfNames": ["enp1s0f0#0"]"#), pool("rest", r#""any": true"#));
        let assignment = assigned(&tree, &format!("{first},{rest}"));
        assert_eq!(addresses(&assignment.pools[0]), ["0000:01:10.0"]);
        assert_eq!(assignment.pools[1].len(), 5);
        let device = hardware("0000:01:10.0");
        assert_eq!(assignment.conflicts, [Conflict { device, winner: 0, loser: 1 }]);
    }

    #[test]
    fn a_pf_with_vfs_is_not_offered_however_it_is_asked_for() {
        let (_folder, tree) = tree();
        for selectors in [
            r#""pciAddresses": ["01:00.0"]"#,
            r#""vendors": ["8086"], "devices": ["10c9"]"#,
            r#""any": true"#,
        ] {
            let assignment = assigned(&tree, &pool("vf", selectors));
            assert!(!assignment.pools[0].keys().any(|id| id.hardware == hardware("0000:01:00.0")));
            assert_eq!(assignment.withheld[&hardware("0000:01:00.0")].reason, Withheld::HasVfs);
        }
    }

    #[test]
    fn a_pf_without_vfs_is_offered_only_if_its_address_or_device_id_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let tree = SysfsTree::new(folder.path());
        tree.add_igb(0, 0);
        let pf = "0000:01:00.0";
        for (selectors, offered) in [
            (r#""pciAddresses": ["01:00.0"]"#, true),
            (r#""devices": ["10c9"]"#, true),
            (r#""vendors": ["8086"], "drivers": ["igb"]"#, false),
            (r#""any": true"#, false),
        ] {
            let assignment = assigned(&tree, &pool("pf", selectors));
            assert_eq!(addresses(&assignment.pools[0]).contains(&pf.to_owned()), offered, "{selectors}");
            let withheld = (!offered).then_some(&Withheld::UnnamedPf);
            assert_eq!(
                assignment.withheld.get(&hardware(pf)).map(|one| &one.reason),
                withheld,
                "{selectors}"
            );
        }
    }

    #[test]
    fn what_the_host_needs_is_offered_only_if_its_address_is_named() {
        let (_folder, tree) = tree();
        let mut around = around(&tree);
        around.host = host_with_address("enp1s0f0v1", "10.0.0.7/24");
        around.open_vfio_groups = vec![102];
        let by_pf = assigned_among(&around, &pool("vf", r#""pfNames": ["enp1s0f0"]"#), &[]);
        assert_eq!(addresses(&by_pf.pools[0]), ["0000:01:10.0", "0000:01:10.6"]);
        assert!(matches!(
            by_pf.withheld[&hardware("0000:01:10.2")].reason,
            Withheld::HostUse(HostUse::Address { .. })
        ));
        let group = Withheld::HostUse(HostUse::VfioGroup { group: 102 });
        assert_eq!(by_pf.withheld[&hardware("0000:01:10.4")].reason, group);

        let by_address =
            assigned_among(&around, &pool("vf", r#""pciAddresses": ["01:10.2", "01:10.4"]"#), &[]);
        assert_eq!(addresses(&by_address.pools[0]), ["0000:01:10.2", "0000:01:10.4"]);
        assert!(by_address.withheld.is_empty());
    }

    #[test]
    fn a_pf_is_found_by_its_alternative_name() {
        let (_folder, tree) = tree();
        let mut around = around(&tree);
        around.host = host_with_address("enp1s0f0", "10.0.0.7/24");
        let link = around.host.links.get_mut("enp1s0f0").unwrap();
        link.link.alt_names = vec!["rail-0-of-the-storage-network".to_owned()];
        let pools = pool("vf", r#""pfNames": ["rail-0-of-the-storage-network#1-2"]"#);
        assert_eq!(
            addresses(&assigned_among(&around, &pools, &[]).pools[0]),
            ["0000:01:10.2", "0000:01:10.4"]
        );
    }

    #[test]
    fn a_device_that_a_pod_holds_stays_in_its_pool_and_in_no_other() {
        let (_folder, tree) = tree();
        let around = around(&tree);
        let pools = [pool("blue", r#""pfNames": ["enp1s0f0#0"]"#), pool("green", r#""any": true"#)].join(",");
        let held = [("0000:01:10.0", "zerobridge.io/green"), ("0000:01:10.2", "zerobridge.io/blue")];
        let assignment = assigned_among(&around, &pools, &held);
        assert_eq!(addresses(&assignment.pools[0]), ["0000:01:10.2"], "though its selectors say otherwise");
        assert!(addresses(&assignment.pools[1]).contains(&"0000:01:10.0".to_owned()));
        assert!(!addresses(&assignment.pools[1]).contains(&"0000:01:10.2".to_owned()));

        let held = [("0000:01:10.0", "zerobridge.io/former")];
        let assignment = assigned_among(&around, &pools, &held);
        let reason = Withheld::HeldUnder { resource: "zerobridge.io/former".to_owned() };
        assert_eq!(assignment.withheld[&hardware("0000:01:10.0")].reason, reason);
        assert!(assignment.pools.iter().all(|pool| !addresses(pool).contains(&"0000:01:10.0".to_owned())));
    }

    #[test]
    fn a_vf_of_something_else_than_a_network_card_is_not_offered() {
        let (_folder, tree) = tree();
        let crypto = FakeFunction { class: 0x0b_4000, ..FakeFunction::igb_vf(0, 6) };
        tree.add(&crypto);
        tree.link_vf("0000:01:00.0".parse().unwrap(), 6, crypto.address);
        assert_eq!(assigned(&tree, &pool("vf", r#""any": true"#)).pools[0].len(), 6);
    }

    #[test]
    fn a_vf_without_a_driver_stays_what_it_is() {
        let (_folder, tree) = tree();
        let vf: PciAddress = "0000:01:10.0".parse().unwrap();
        let any = pool("vf", r#""any": true"#);
        for driver in [None, Some("vfio-pci")] {
            tree.bind(vf, driver);
            assert_eq!(assigned(&tree, &any).pools[0][&vf.into()].driver.as_deref(), driver);
        }
    }

    #[test]
    fn a_vf_in_a_pod_is_the_same_device() {
        let (_folder, tree) = tree();
        let pools = pool("vf", r#""pfNames": ["enp1s0f0"], "drivers": ["igbvf"]"#);
        let before = assigned(&tree, &pools);
        tree.hide_netdev("0000:01:10.0", "enp1s0f0v0");
        assert_eq!(assigned(&tree, &pools), before);
    }
}
