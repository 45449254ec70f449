//! What a network sets of a VF. Names, ranges and defaults of sriov-cni's keys are kept; its leniency is not.

use serde_json::{Map, Value};
use zerobridge_kernel::{VfLinkState, VlanProtocol, VlanTag, VlanTrunk};
use zerobridge_proto::cni::CniError;
use zerobridge_proto::{Guid, Mac};

use super::{bad_value, infiniband, invalid};

/// The largest VLAN ID: 4095 is reserved (IEEE 802.1Q, table 9-2), though the kernel lets it pass.
const MAX_VLAN: u16 = 4094;

/// The smallest MTU that IPv4 allows (RFC 791) and the largest that an Ethernet driver of the kernel offers.
const MTU_RANGE: (u32, u32) = (68, 65535);

const RDMA_SETTINGS: &str = "\"auto\", \"exclusive\", \"shared\", \"soft\" or \"off\"";

const RDMA_NAMES: &str = "up to 63 letters, digits, '_', '-' and '.', beginning with a letter or digit";

/// `IB_DEVICE_NAME_MAX` of the kernel's `rdma/ib_verbs.h`, without the zero byte. The kernel cuts a longer name without a word.
const MAX_RDMA_NAME: usize = 63;

/// What to set of a VF. Absent means untouched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VfSettings {
    /// `vlan` with `vlanQoS` and `vlanProto`; ID 0 removes the tag.
    pub vlan: Option<VlanTag>,
    /// `mac`: imposed by the PF and carried by the VF.
    pub mac: Option<Mac>,
    /// `mtu` in bytes.
    pub mtu: Option<u32>,
    /// `spoofchk`.
    pub spoof_check: Option<bool>,
    /// `trust`.
    pub trust: Option<bool>,
    /// `link_state`.
    pub link_state: Option<VfLinkState>,
    /// `min_tx_rate` in Mbit/s.
    pub min_tx_rate: Option<u32>,
    /// `max_tx_rate` in Mbit/s.
    pub max_tx_rate: Option<u32>,
    /// `vlanTrunk`: the VLANs whose tags the pod may use.
    pub vlan_trunk: Option<VlanTrunk>,
    /// `allmulti`; `false` is as absent.
    pub all_multicast: bool,
    /// `promisc`; `false` is as absent.
    pub promiscuous: bool,
    /// `rdma`: what becomes of the RDMA device.
    pub rdma: RdmaSetting,
    /// `rdmaDeviceName`: what it is called in the pod.
    pub rdma_name: Option<String>,
    /// The GUID of node and port, of InfiniBand only.
    pub guid: Option<Guid>,
    /// `ibKubernetesEnabled`: the GUID is one that ib-kubernetes has told the subnet manager.
    pub managed_guid: bool,
    /// `vfioPciMode`: the device must be a userspace driver's; `false` is as absent.
    pub vfio: bool,
}

/// What becomes of a VF's RDMA device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RdmaSetting {
    /// It follows the VF where that is possible.
    #[default]
    Auto,
    /// It goes into the pod alone; anything else is an error.
    Exclusive,
    /// There must be one, and every namespace sees it.
    Shared,
    /// One of software is made on the VF in the pod.
    Soft,
    /// It stays where it is.
    Off,
}

impl RdmaSetting {
    const ALL: [Self; 5] = [Self::Auto, Self::Exclusive, Self::Shared, Self::Soft, Self::Off];

    /// As it stands in a configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Exclusive => "exclusive",
            Self::Shared => "shared",
            Self::Soft => "soft",
            Self::Off => "off",
        }
    }
}

impl VfSettings {
    pub(super) const KEYS: [&str; 15] = [
        "vlan",
        "vlanQoS",
        "vlanProto",
        "mac",
        "mtu",
        "spoofchk",
        "trust",
        "link_state",
        "min_tx_rate",
        "max_tx_rate",
        "vlanTrunk",
        "allmulti",
        "promisc",
        "rdma",
        "rdmaDeviceName",
    ];

    /// Reads the keys that are there. `place` goes before a key's name in an error, such as `networks[1].`.
    pub(super) fn parse(keys: &Map<String, Value>, place: &str) -> Result<Self, CniError> {
        let object = keys;
        let keys = Keys { keys, place };
        let mut settings = Self {
            vlan: keys.vlan()?,
            mac: keys.text("mac", "an Ethernet address as text", |text| text.parse().ok())?,
            mtu: keys.number("mtu", MTU_RANGE)?,
            spoof_check: keys.text("spoofchk", "\"on\" or \"off\"", on_off)?,
            trust: keys.text("trust", "\"on\" or \"off\"", on_off)?,
            link_state: keys.text("link_state", "\"auto\", \"enable\" or \"disable\"", link_state)?,
            min_tx_rate: keys.number("min_tx_rate", (0, u32::MAX))?,
            max_tx_rate: keys.number("max_tx_rate", (0, u32::MAX))?,
            vlan_trunk: keys.text(
                "vlanTrunk",
                "VLAN IDs and ranges from 1 to 4094, such as \"2,4-9\"",
                |text| text.parse().ok(),
            )?,
            all_multicast: keys.flag("allmulti")?,
            promiscuous: keys.flag("promisc")?,
            rdma: keys.text("rdma", RDMA_SETTINGS, rdma_setting)?.unwrap_or_default(),
            rdma_name: keys
                .text("rdmaDeviceName", RDMA_NAMES, |text| is_rdma_name(text).then(|| text.to_owned()))?,
            ..Self::default()
        };
        infiniband::read(object, place, &mut settings)?;
        Ok(settings)
    }

    /// Holds the VF to a rate in Mbit/s that the pod was promised: the lower of that and the network's own counts, so that
    /// no pod can ask itself out of its network's limit.
    pub(super) fn limit(&mut self, rate: u32) {
        self.max_tx_rate = Some(self.max_tx_rate.filter(|max| *max > 0).map_or(rate, |max| max.min(rate)));
    }

    /// Checks what depends on several keys or came from several places.
    pub(super) fn check(&self, network: &str) -> Result<(), CniError> {
        if let Some(mac) = self.mac.filter(|mac| !mac.is_unicast()) {
            return Err(invalid(format!(
                "mac of network {network} is {mac}; a VF needs a unicast address: lowest bit of the first octet clear, \
                 not all zero"
            )));
        }
        let untrusted = [("allmulti", self.all_multicast), ("promisc", self.promiscuous)];
        if let Some((key, _)) = untrusted.iter().find(|(_, asked)| *asked && self.trust != Some(true)) {
            return Err(invalid(format!(
                "{key} of network {network} is true, and a NIC grants that to trusted VFs only; set trust to \"on\" as well"
            )));
        }
        if let (Some(name), RdmaSetting::Off | RdmaSetting::Shared) = (&self.rdma_name, self.rdma) {
            return Err(invalid(format!(
                "rdmaDeviceName of network {network} is \"{name}\", and its rdma is \"{}\"; a device that does not move keeps its \
                 name, so remove one of them",
                self.rdma.as_str()
            )));
        }
        if let (Some(trunk), Some(vlan)) = (&self.vlan_trunk, self.vlan.filter(|vlan| vlan.id > 0)) {
            return Err(invalid(format!(
                "vlanTrunk of network {network} is {trunk}, and its vlan is {}; either the NIC tags or the pod does, so \
                 remove one of them",
                vlan.id
            )));
        }
        match (self.min_tx_rate, self.max_tx_rate) {
            (Some(min), Some(max)) if max > 0 && min > max => Err(invalid(format!(
                "min_tx_rate of network {network} is {min}, above the max_tx_rate {max} that holds for the pod; set it to at most that"
            ))),
            _ => Ok(()),
        }
    }
}

/// The keys of a network.
pub(super) struct Keys<'a> {
    pub(super) keys: &'a Map<String, Value>,
    /// What goes before a key's name in an error.
    pub(super) place: &'a str,
}

impl Keys<'_> {
    /// The value of a key; null is as absent, as in sriov-cni.
    fn value(&self, key: &str) -> Option<&Value> {
        self.keys.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn flag(&self, key: &str) -> Result<bool, CniError> {
        let Some(value) = self.value(key) else { return Ok(false) };
        value.as_bool().ok_or_else(|| bad_value(&format!("{}{key}", self.place), value, "true or false"))
    }

    fn vlan(&self) -> Result<Option<VlanTag>, CniError> {
        let id: Option<u16> = self.number("vlan", (0, MAX_VLAN))?;
        let qos: Option<u8> = self.number("vlanQoS", (0, 7))?;
        let protocol = self.text("vlanProto", "\"802.1q\" or \"802.1ad\"", vlan_protocol)?;
        let needs = |key: &str, what: &str| {
            let place = self.place;
            Err(invalid(format!(
                "{place}{key} is set, but {place}vlan is {what}; set vlan to 1 to {MAX_VLAN}"
            )))
        };
        match (id, qos.unwrap_or(0), protocol) {
            (None, _, _) if qos.is_some() => needs("vlanQoS", "not"),
            (None, _, Some(_)) => needs("vlanProto", "not"),
            (None, _, None) => Ok(None),
            (Some(0), 1.., _) => needs("vlanQoS", "0, which removes the tag"),
            (Some(0), _, Some(VlanProtocol::Dot1Ad)) => needs("vlanProto", "0, which removes the tag"),
            (Some(id), qos, protocol) => {
                Ok(Some(VlanTag { id, qos, protocol: protocol.unwrap_or_default() }))
            }
        }
    }

    fn number<T: TryFrom<u64> + Into<u64> + Copy>(
        &self,
        key: &str,
        (low, high): (T, T),
    ) -> Result<Option<T>, CniError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let (low, high): (u64, u64) = (low.into(), high.into());
        let number = value.as_u64().filter(|number| (low..=high).contains(number));
        let number = number.and_then(|number| T::try_from(number).ok());
        let error =
            || bad_value(&format!("{}{key}", self.place), value, &format!("a number from {low} to {high}"));
        number.map(Some).ok_or_else(error)
    }

    pub(super) fn text<T>(
        &self,
        key: &str,
        allowed: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, CniError> {
        // sriov-cni reads an empty text as none, and generated configurations have such.
        let Some(value) = self.value(key).filter(|value| *value != "") else { return Ok(None) };
        let error = || bad_value(&format!("{}{key}", self.place), value, allowed);
        value.as_str().and_then(read).map(Some).ok_or_else(error)
    }
}

fn on_off(text: &str) -> Option<bool> {
    match text {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

fn link_state(text: &str) -> Option<VfLinkState> {
    match text {
        "auto" => Some(VfLinkState::Auto),
        "enable" => Some(VfLinkState::Enable),
        "disable" => Some(VfLinkState::Disable),
        _ => None,
    }
}

fn rdma_setting(text: &str) -> Option<RdmaSetting> {
    RdmaSetting::ALL.into_iter().find(|setting| setting.as_str() == text)
}

fn is_rdma_name(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    text.len() <= MAX_RDMA_NAME
        && text.bytes().all(is_inner)
        && text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
}

fn vlan_protocol(text: &str) -> Option<VlanProtocol> {
    match text.to_ascii_lowercase().as_str() {
        "802.1q" => Some(VlanProtocol::Dot1Q),
        "802.1ad" => Some(VlanProtocol::Dot1Ad),
        _ => None,
    }
}
