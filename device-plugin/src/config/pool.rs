//! One pool as a configuration describes it, whichever format that is in.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use crate::health::HealthPolicy;
use crate::preference::Preference;
use crate::resource::ResourceName;
use crate::selector::{Selector, Selectors};

/// The most shares of one device. The kubelet is told of each share of each device in every message.
pub const MOST_SHARES: u16 = 1000;

/// One pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// The resource under which the pool's devices are offered.
    pub resource: ResourceName,
    /// What its devices are.
    pub kind: PoolKind,
    /// Which of them it takes: those that one of these admits, at least one.
    pub selectors: Vec<Selectors>,
    /// Into how many shares each of its RDMA devices is divided, at most [`MOST_SHARES`]; `None` for devices that one
    /// container has alone.
    pub shares: Option<NonZeroU16>,
    /// Which RDMA devices containers get.
    pub rdma: PoolRdma,
    /// Whether the kubelet is told the NUMA nodes.
    pub topology: bool,
    /// What containers are told beside, by device ID or `*` for all: goes into the `_INFO` variable under `extra`.
    pub additional_info: BTreeMap<String, BTreeMap<String, String>>,
    /// Its checks.
    pub health: HealthPolicy,
    /// Which of its devices go first.
    pub preference: Preference,
}

/// Which RDMA devices the containers of a pool get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PoolRdma {
    /// Those of the hardware, where a selector asks for RDMA, and for every share.
    #[default]
    Auto,
    /// One of software, which the CNI plugin makes of the network interface when it is in the pod.
    Soft,
    /// As [`PoolRdma::Auto`], for another CNI plugin: the nodes are those that a device has before it moves into the pod.
    Plain,
    /// None.
    Off,
}

impl PoolRdma {
    /// Every choice, with how a configuration writes it.
    pub(super) const WORDS: [(&str, Self); 4] =
        [("auto", Self::Auto), ("soft", Self::Soft), ("plain", Self::Plain), ("off", Self::Off)];
}

impl PoolConfig {
    /// Whether containers may get the RDMA devices of the hardware.
    #[must_use]
    pub fn gives_hardware_rdma(&self) -> bool {
        let asked = self.shares.is_some() || self.selectors.iter().any(|selectors| selectors.is_rdma);
        matches!(self.rdma, PoolRdma::Auto | PoolRdma::Plain) && asked
    }

    /// Whether containers get RDMA devices of software.
    #[must_use]
    pub fn gives_soft_rdma(&self) -> bool {
        self.rdma == PoolRdma::Soft
    }
}

/// What the devices of a pool are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PoolKind {
    /// Network controllers, PCI class 02.
    #[default]
    NetDevice,
    /// Processing accelerators, PCI class 12.
    Accelerator,
    /// Auxiliary devices of network controllers.
    AuxNetDevice,
}

impl PoolKind {
    /// Every kind, with how a configuration writes it.
    pub(super) const WORDS: [(&str, Self); 3] = [
        ("netDevice", Self::NetDevice),
        ("accelerator", Self::Accelerator),
        ("auxNetDevice", Self::AuxNetDevice),
    ];

    /// How a configuration writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NetDevice => "netDevice",
            Self::Accelerator => "accelerator",
            Self::AuxNetDevice => "auxNetDevice",
        }
    }

    /// Whether its devices can be selected by this.
    #[must_use]
    pub const fn has(self, selector: Selector) -> bool {
        match selector {
            Selector::Vendors | Selector::Devices | Selector::Drivers => true,
            Selector::PciAddresses | Selector::AcpiIndexes => !matches!(self, Self::AuxNetDevice),
            Selector::PfNames
            | Selector::RootDevices
            | Selector::IfNames
            | Selector::LinkTypes
            | Selector::IsRdma
            | Selector::NeedVhostNet => !matches!(self, Self::Accelerator),
            Selector::PKeys | Selector::DdpProfiles | Selector::VdpaType => matches!(self, Self::NetDevice),
            Selector::AuxTypes => matches!(self, Self::AuxNetDevice),
        }
    }
}

/// How device nodes reach a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CdiMode {
    /// By CDI where kubelet and runtime are known to support it, otherwise plainly.
    #[default]
    Auto,
    /// By CDI.
    On,
    /// Plainly.
    Off,
}

impl CdiMode {
    /// Every mode, with how a configuration writes it.
    pub(super) const WORDS: [(&str, Self); 3] = [("auto", Self::Auto), ("on", Self::On), ("off", Self::Off)];
}
