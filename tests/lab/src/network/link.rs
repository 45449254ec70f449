//! Links as `ip -j -d link` prints them.

use serde::Deserialize;
use zerobridge_proto::{Mac, PciAddress};

/// The fields of a link that tests look at.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Link {
    /// Its name.
    pub ifname: String,
    /// Its alternative names.
    #[serde(default)]
    pub altnames: Vec<String>,
    /// Its link-layer address as text; a link without one has none.
    #[serde(default)]
    pub address: String,
    /// In bytes.
    pub mtu: u32,
    /// Such as `UP` and `LOWER_UP`.
    #[serde(default)]
    pub flags: Vec<String>,
    /// The PCI function behind it, if there is one.
    #[serde(default)]
    pub parentdev: Option<String>,
    /// The VFs of a PF.
    #[serde(default)]
    pub vfinfo_list: Vec<VfInfo>,
    /// What kind of virtual link it is, if it is one.
    #[serde(default)]
    pub linkinfo: Option<LinkInfo>,
}

/// What a virtual link is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct LinkInfo {
    /// Such as `bridge`, `veth`, `vlan`.
    #[serde(default)]
    pub info_kind: Option<String>,
}

/// A VF as its PF sees it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct VfInfo {
    /// Its number on the PF, from 0.
    pub vf: u32,
    /// The address that the PF imposes, or the one that the VF gave itself.
    pub address: Mac,
    /// One entry, empty when there is no VLAN.
    #[serde(default)]
    pub vlan_list: Vec<Vlan>,
    /// Limits in Mbit/s, 0 for none.
    #[serde(default)]
    pub rate: Rate,
    /// Whether frames from other addresses are dropped.
    #[serde(default)]
    pub spoofchk: Option<bool>,
    /// `auto`, `enable` or `disable`.
    #[serde(default)]
    pub link_state: Option<String>,
    /// Whether the VF may do what needs trust, such as promiscuous mode.
    #[serde(default)]
    pub trust: Option<bool>,
}

/// A VF's VLAN.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Vlan {
    /// 1 to 4094.
    #[serde(default)]
    pub vlan: u16,
    /// 0 to 7.
    #[serde(default)]
    pub qos: u8,
    /// Such as `802.1Q`.
    #[serde(default)]
    pub protocol: Option<String>,
}

/// A VF's limits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Rate {
    /// Upper limit.
    pub max_tx: u32,
    /// Guaranteed.
    pub min_tx: u32,
}

impl Link {
    /// Whether the link is administratively up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.flags.iter().any(|flag| flag == "UP")
    }

    /// The PCI function behind it, if there is one.
    #[must_use]
    pub fn pci(&self) -> Option<PciAddress> {
        self.parentdev.as_ref()?.parse().ok()
    }

    /// `bridge`, `veth` and so on; `None` for hardware and the loopback.
    #[must_use]
    pub fn kind(&self) -> Option<&str> {
        self.linkinfo.as_ref()?.info_kind.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Recorded from iproute2 6.1 with the emulated igb of QEMU 10.0, fields that are not read left out.
    const PF: &str = r#"{"ifindex":2,"ifname":"enp1s0","flags":["BROADCAST","MULTICAST","UP","LOWER_UP"],"mtu":1500,
        "operstate":"UP","link_type":"ether","address":"02:00:00:00:01:00","parentbus":"pci","parentdev":"0000:01:00.0",
        "vfinfo_list":[{"vf":0,"link_type":"ether","address":"02:00:00:00:01:01","vlan_list":[{"vlan":100,"qos":3}],
        "rate":{"max_tx":0,"min_tx":0},"spoofchk":true,"link_state":"auto","trust":false},
        {"vf":1,"link_type":"ether","address":"2a:f1:96:c3:12:78","vlan_list":[{}],
        "rate":{"max_tx":0,"min_tx":0},"spoofchk":true,"link_state":"auto","trust":false}]}"#;

    #[test]
    fn a_pf_shows_its_vfs_with_and_without_a_vlan() {
        let link: Link = serde_json::from_str(PF).unwrap();
        assert!(link.is_up());
        assert_eq!(link.pci().unwrap().to_string(), "0000:01:00.0");
        assert_eq!(link.vfinfo_list[0].vlan_list, [Vlan { vlan: 100, qos: 3, protocol: None }]);
        assert_eq!(link.vfinfo_list[1].vlan_list, [Vlan::default()]);
        assert_eq!(link.kind(), None);
    }

    #[test]
    fn a_bridge_is_told_from_hardware() {
        let text = r#"{"ifname":"br0","mtu":1500,"flags":[],"linkinfo":{"info_kind":"bridge"}}"#;
        assert_eq!(serde_json::from_str::<Link>(text).unwrap().kind(), Some("bridge"));
    }
}
