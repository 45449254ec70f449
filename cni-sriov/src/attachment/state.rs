//! One device, described completely: what ADD wants, what DEL restores, what the kernel says.
//!
//! The same value is written into the ledger as JSON, so its field names are a format: an operator reads them with
//! `sqlite3`, and a newer program must still read what an older one wrote.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use zerobridge_kernel::{Route, VfAdmin, VlanTrunk};
use zerobridge_proto::Mac;

/// Where a device's netdev is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// The namespace that this program runs in.
    Host,
    /// The pod's network namespace.
    Sandbox,
}

/// A device's netdev as the namespace that holds it sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkState {
    /// Which namespace holds it.
    pub place: Place,
    /// Its name there.
    pub name: String,
    /// Its alternative names. They travel with it; only on the host does anybody look at them.
    pub alt_names: BTreeSet<String>,
    /// What somebody wrote down about it (`ifalias`), empty for nothing. `None` in a record that is older than this
    /// field. Plugins use it as their notebook in the pod; only on the host is it ours to restore.
    #[serde(default)]
    pub alias: Option<String>,
    /// The address that its frames carry.
    pub mac: Mac,
    /// MTU in bytes.
    pub mtu: u32,
    /// It was told to take frames for every multicast group.
    #[serde(default)]
    pub all_multicast: bool,
    /// It was told to take every frame.
    #[serde(default)]
    pub promiscuous: bool,
    /// Administratively up.
    pub up: bool,
}

/// Where an RDMA device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RdmaPlace {
    /// Every namespace sees it: the RDMA subsystem is in shared mode, and nothing can be moved.
    Everywhere,
    /// The namespace that this program runs in.
    Host,
    /// The pod's network namespace.
    Sandbox,
}

/// What an RDMA device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RdmaKind {
    /// A part of the device, which speaks RDMA over Ethernet.
    Ethernet,
    /// A part of the device, which speaks InfiniBand: its netdev is made anew wherever it goes.
    Infiniband,
    /// Software (rxe) on the netdev, made for the pod. It ends when the netdev moves.
    Soft,
}

/// The RDMA device of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RdmaState {
    /// What it is.
    pub kind: RdmaKind,
    /// Which namespace has it.
    pub place: RdmaPlace,
    /// Its name there.
    pub name: String,
}

/// One device completely: a VF, or a whole function that nobody administers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VfState {
    /// The driver it is bound to. `None` in a record that is older than this field.
    #[serde(default)]
    pub driver: Option<String>,
    /// What the PF imposes; `None` for a device that is no VF.
    pub admin: Option<VfAdmin>,
    /// The VLANs that the NIC lets through with the tags that the VF gave them; `None` where the PF's driver has no such
    /// list.
    #[serde(default)]
    pub vlan_trunk: Option<VlanTrunk>,
    /// The netdev; `None` for a device that a userspace driver has.
    pub link: Option<LinkState>,
    /// The RDMA device. `None` where there is none, and in a record that is older than this field.
    #[serde(default)]
    pub rdma: Option<RdmaState>,
    /// Addresses of the netdev. Others that somebody added are not ours to judge.
    pub addresses: Vec<IpNet>,
    /// Routes by the netdev. Others that somebody added are not ours to judge.
    pub routes: Vec<Route>,
}

impl VfState {
    /// The address that the pod's frames carry: the netdev's, else the one that the PF imposes, else unknown.
    #[must_use]
    pub fn mac(&self) -> Option<Mac> {
        let imposed = || self.admin.map(|admin| admin.mac).filter(|mac| !mac.is_zero());
        self.link.as_ref().map(|link| link.mac).or_else(imposed)
    }

    /// This state before anybody gave the netdev addresses, and routes, which need them.
    #[must_use]
    pub fn without_addresses(&self) -> Self {
        Self { addresses: Vec::new(), routes: Vec::new(), ..self.clone() }
    }

    /// As much of this state as a device can be brought to that is `observed`. When somebody changed the driver so that a
    /// netdev went or came, the driver is his and the netdev with it, and the RDMA device; what the PF imposes is still ours.
    /// Likewise an RDMA device that went alone is whoever's who unloaded its driver.
    #[must_use]
    pub fn within_reach_of(&self, observed: &Self) -> Self {
        if self.link.is_some() == observed.link.is_some() {
            let rdma = self.rdma.clone().filter(|_| observed.rdma.is_some());
            return Self { rdma, ..self.clone() };
        }
        Self {
            driver: observed.driver.clone(),
            admin: self.admin,
            vlan_trunk: self.vlan_trunk.clone(),
            link: observed.link.clone(),
            rdma: observed.rdma.clone(),
            addresses: Vec::new(),
            routes: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attachment::model::{at_home, with_roce, with_vfio};

    #[test]
    fn a_record_of_an_older_version_is_read() {
        let text = r#"{"admin":{"mac":"02:00:00:00:00:01","vlan":{"id":0,"qos":0,"protocol":"802.1q"},
            "spoof_check":true,"trust":false,"link_state":"auto","min_tx_rate":0,"max_tx_rate":0},
            "link":{"place":"host","name":"enp1s0v0","alt_names":[],"mac":"02:00:00:00:00:01","mtu":1500,"up":false},
            "addresses":[],"routes":[]}"#;
        let mut expected = VfState { driver: None, ..at_home() };
        expected.link.as_mut().unwrap().alias = None;
        assert_eq!(serde_json::from_str::<VfState>(text).unwrap(), expected);
        for state in [at_home(), with_vfio(), with_roce(at_home())] {
            let text = serde_json::to_string(&state).unwrap();
            assert_eq!(serde_json::from_str::<VfState>(&text).unwrap(), state);
        }
    }

    #[test]
    fn the_address_is_that_of_the_netdev_else_the_imposed_one() {
        let mut state = with_vfio();
        assert_eq!(state.mac(), Some(state.admin.unwrap().mac));
        state.admin.as_mut().unwrap().mac = Mac::ZERO;
        assert_eq!(state.mac(), None);
        state.link = at_home().link;
        assert_eq!(state.mac(), Some(at_home().link.unwrap().mac));
    }

    #[test]
    fn an_rdma_device_that_somebody_took_away_is_not_ours_to_restore() {
        let home = with_roce(at_home());
        assert_eq!(home.within_reach_of(&home), home);
        let bare = VfState { rdma: None, ..home.clone() };
        assert_eq!(home.within_reach_of(&bare), bare);
    }

    #[test]
    fn a_changed_driver_leaves_what_the_pf_imposes_to_restore() {
        assert_eq!(at_home().within_reach_of(&at_home()), at_home());
        for (recorded, observed) in [(at_home(), with_vfio()), (with_vfio(), at_home())] {
            let reachable = recorded.within_reach_of(&observed);
            assert_eq!((reachable.admin, reachable.link), (recorded.admin, observed.link));
        }
    }
}
