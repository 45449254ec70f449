//! Which checks a pool makes of its devices, and what follows from a failed one.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A named check of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Check {
    /// The device is still in the machine. Fails only for one that a pod holds; any other is taken from the list.
    DevicePresent,
    /// A driver has it.
    DriverBound,
    /// Its PF has a carrier.
    PfCarrier,
    /// The RDMA port of its PF is active; without a PF here, its own. That of a VF comes up with the pod's interface only.
    RdmaPort,
    /// The RDMA device of a VF has a node GUID, in a pool that gives it to containers.
    NodeGuid,
    /// No devlink health reporter of it, or of its PF, is in the state of error.
    DevlinkHealth,
    /// No fatal error was counted at the PCIe link of it, or of its PF, since the daemon began.
    AerFatal,
    /// No record in the ledger says that a pod has it which is gone.
    DirtyVf,
}

/// What follows from a failed check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Policy {
    /// The device is offered as unhealthy: the kubelet gives it to no further pod.
    Unhealthy,
    /// It is said in the log and counted, and the device stays as it is.
    Warn,
    /// The check is not made.
    Off,
}

/// The checks of one pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthPolicy {
    /// What follows from each check; one that is missing here has its default, [`Check::default_policy`].
    pub policies: BTreeMap<Check, Policy>,
    /// How long a check has to fail, or to succeed again, before it counts.
    pub hold_down: Duration,
}

impl Check {
    /// Every check.
    pub const ALL: [Self; 8] = [
        Self::DevicePresent,
        Self::DriverBound,
        Self::PfCarrier,
        Self::RdmaPort,
        Self::NodeGuid,
        Self::DevlinkHealth,
        Self::AerFatal,
        Self::DirtyVf,
    ];

    /// Its name, as it is written in a configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DevicePresent => "devicePresent",
            Self::DriverBound => "driverBound",
            Self::PfCarrier => "pfCarrier",
            Self::RdmaPort => "rdmaPort",
            Self::NodeGuid => "nodeGuid",
            Self::DevlinkHealth => "devlinkHealth",
            Self::AerFatal => "aerFatal",
            Self::DirtyVf => "dirtyVf",
        }
    }

    /// What follows from it in a pool that says nothing. A PF without a carrier is no reason to keep pods away: VFs of
    /// one PF reach each other without, and many PFs are never set up.
    #[must_use]
    pub const fn default_policy(self) -> Policy {
        match self {
            Self::DevicePresent | Self::DriverBound | Self::AerFatal | Self::DirtyVf => Policy::Unhealthy,
            Self::PfCarrier | Self::RdmaPort | Self::NodeGuid | Self::DevlinkHealth => Policy::Warn,
        }
    }
}

impl HealthPolicy {
    /// What follows from a check.
    #[must_use]
    pub fn of(&self, check: Check) -> Policy {
        self.policies.get(&check).copied().unwrap_or(check.default_policy())
    }
}

impl fmt::Display for Check {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl Default for HealthPolicy {
    fn default() -> Self {
        Self { policies: BTreeMap::new(), hold_down: Duration::from_secs(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_shown_as_it_is_written_in_a_configuration() {
        for check in Check::ALL {
            assert_eq!(serde_json::to_string(&check).unwrap(), format!("\"{check}\""));
        }
    }
}
