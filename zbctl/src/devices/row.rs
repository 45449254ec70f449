//! One device as a row: a pure function of what the node says.

use serde::Serialize;
use zerobridge_device_plugin::{Check, Explanation, Hardware, Outcome, Policy, Problem};
use zerobridge_kernel::{FunctionRole, LinkType, Netdev, PciFunction, RdmaDevice};

use crate::node::Node;
use crate::owners::Owner;
use crate::table::or_dash;

/// A device.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    /// PCI address, or name of an auxiliary device.
    device: String,
    kind: Kind,
    /// Address of its PF, or of the function that it is a part of.
    pf: Option<String>,
    /// Number of a VF within its PF, or of an SF.
    index: Option<u32>,
    /// Four hexadecimal digits, as `vendors` in a configuration.
    vendor: String,
    /// Four hexadecimal digits, as `devices` in a configuration.
    device_id: String,
    driver: Option<String>,
    numa_node: Option<u32>,
    /// What is spoken on its netdev, or on its PF's.
    link_type: Option<String>,
    /// Its netdevs on the host: none while it is in a pod.
    netdevs: Vec<String>,
    /// Its RDMA devices on the host.
    rdma: Vec<String>,
    /// The pool that offers it.
    pool: Option<String>,
    state: State,
    /// Why a pool selects it and it is not offered.
    reason: Option<String>,
    /// The checks that it fails.
    problems: Vec<ProblemRow>,
    owners: Vec<Owner>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ProblemRow {
    check: Check,
    /// `unhealthy`: no further pod gets the device. `warn`: that is all.
    policy: Policy,
    reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Kind {
    Pf,
    Vf,
    Sf,
    /// A function without SR-IOV.
    Function,
    /// An auxiliary device of another kind than a scalable function.
    Auxiliary,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum State {
    /// A pool offers it.
    Offered,
    /// A pool selects it, and yet it is not offered.
    Withheld,
    /// No pool selects it.
    NotSelected,
}

impl Row {
    pub(super) const HEADS: [&'static str; 11] =
        ["DEVICE", "KIND", "PF", "DRIVER", "NUMA", "LINK", "NETDEV", "RDMA", "POOL", "OWNER", "STATE"];

    /// The row of a device; `None` for a function without SR-IOV that no pool has to do with.
    pub(super) fn of(explanation: &Explanation, node: &Node) -> Option<Self> {
        let functions = &node.around.machine.functions;
        let part = match &explanation.device {
            Hardware::Function(_) => None,
            Hardware::Auxiliary(name) => Some(node.around.machine.auxiliaries.get(name)?),
        };
        let address = match (&explanation.device, part) {
            (Hardware::Function(address), _) => *address,
            (Hardware::Auxiliary(_), part) => part?.parent,
        };
        let function = functions.get(&address)?;
        let (kind, pf, index) = match (part, &function.role) {
            (Some(part), _) if part.kind == "sf" => (Kind::Sf, Some(part.parent), part.sf_number),
            (Some(part), _) => (Kind::Auxiliary, Some(part.parent), None),
            (None, FunctionRole::Physical { .. }) => (Kind::Pf, None, None),
            (None, FunctionRole::Virtual(position)) => {
                (Kind::Vf, Some(position.pf), Some(position.index.into()))
            }
            (None, FunctionRole::Plain) => (Kind::Function, None, None),
        };
        let (state, pool, reason) = state(explanation);
        if state == State::NotSelected && matches!(kind, Kind::Function | Kind::Auxiliary) {
            return None;
        }
        let (driver, netdevs, rdma) = match part {
            Some(part) => (&part.driver, &part.netdevs, &part.rdma),
            None => (&function.driver, &function.netdevs, &function.rdma),
        };
        Some(Self {
            device: explanation.device.to_string(),
            kind,
            pf: pf.map(|pf| pf.to_string()),
            index,
            vendor: format!("{:04x}", function.vendor),
            device_id: format!("{:04x}", function.device),
            driver: driver.clone(),
            numa_node: function.numa_node,
            link_type: link_type(netdevs, pf.and_then(|pf| functions.get(&pf))),
            netdevs: names(netdevs, |netdev: &Netdev| &netdev.name),
            rdma: names(rdma, |device: &RdmaDevice| &device.name),
            pool,
            state,
            reason,
            problems: explanation.problems.iter().map(ProblemRow::of).collect(),
            owners: node.owners.devices.get(&explanation.device).cloned().unwrap_or_default(),
        })
    }

    /// What stands in the columns of [`Row::HEADS`].
    pub(super) fn cells(&self) -> [String; 11] {
        let kind = match (self.kind, self.index) {
            (Kind::Pf, _) => "PF".to_owned(),
            (Kind::Vf, Some(index)) => format!("VF {index}"),
            (Kind::Vf, None) => "VF".to_owned(),
            (Kind::Sf, Some(number)) => format!("SF {number}"),
            (Kind::Sf, None) => "SF".to_owned(),
            (Kind::Function, _) => "function".to_owned(),
            (Kind::Auxiliary, _) => "auxiliary".to_owned(),
        };
        let state = match (self.state, &self.reason) {
            (State::Offered, _) => self.use_and_health(),
            (State::Withheld, reason) => format!("withheld: {}", reason.as_deref().unwrap_or_default()),
            (State::NotSelected, _) => "not selected".to_owned(),
        };
        let owner = match &self.owners[..] {
            [first, more @ ..] if !more.is_empty() => format!("{first} and {} more", more.len()),
            owners => owners.first().map(ToString::to_string).unwrap_or_default(),
        };
        let text = |text: &Option<String>| or_dash(text.clone().unwrap_or_default());
        [
            self.device.clone(),
            kind,
            text(&self.pf),
            text(&self.driver),
            self.numa_node.map_or_else(|| "-".to_owned(), |node| node.to_string()),
            text(&self.link_type),
            or_dash(self.netdevs.join(",")),
            or_dash(self.rdma.join(",")),
            text(&self.pool),
            or_dash(owner),
            state,
        ]
    }
}

impl Row {
    fn use_and_health(&self) -> String {
        let mut text = if self.owners.is_empty() { "free" } else { "in use" }.to_owned();
        for ProblemRow { check, policy, reason } in &self.problems {
            let what = if *policy == Policy::Unhealthy { "unhealthy" } else { "warning" };
            text.push_str(&format!("; {what}: {reason} ({check})"));
        }
        text
    }
}

impl ProblemRow {
    fn of(problem: &Problem) -> Self {
        Self { check: problem.check, policy: problem.policy, reason: problem.reason.clone() }
    }
}

fn state(explanation: &Explanation) -> (State, Option<String>, Option<String>) {
    if let Some(pool) = explanation.offered_by() {
        return (State::Offered, Some(pool.resource.to_string()), None);
    }
    let reason = explanation.pools.iter().find_map(|pool| match &pool.outcome {
        Outcome::Withheld(reason) => Some(reason.to_string()),
        Outcome::HeldElsewhere { resource } => Some(format!("a pod holds it as {resource}")),
        _ => None,
    });
    match reason {
        Some(reason) => (State::Withheld, None, Some(reason)),
        None => (State::NotSelected, None, None),
    }
}

/// What is spoken on the first netdev of a device, or of its PF while it has none on the host.
fn link_type(own: &[Netdev], pf: Option<&PciFunction>) -> Option<String> {
    let netdevs = if own.is_empty() { pf.map(|pf| pf.netdevs.as_slice()).unwrap_or_default() } else { own };
    netdevs.first().map(|netdev| match netdev.link_type {
        LinkType::Ethernet => "ether".to_owned(),
        LinkType::Infiniband => "infiniband".to_owned(),
        LinkType::Other(number) => number.to_string(),
    })
}

fn names<T>(things: &[T], name: impl Fn(&T) -> &String) -> Vec<String> {
    things.iter().map(|thing| name(thing).clone()).collect()
}
