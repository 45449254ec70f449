//! A configuration as text in the project's own format: what `--print-config` shows, and how a file of another program is
//! converted.
//!
//! Everything is written out, defaults included, in one form. What is printed reads as the same configuration.

use std::collections::BTreeMap;
use std::fmt::Display;

use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};

use super::own::{ANY, CHECKS, HOLD_DOWN, POLICIES, PREFERENCES};
use super::{CdiMode, Config, LegAddresses, LegConfig, LegKind, PoolConfig, PoolRdma, PortName};
use crate::duration;
use crate::health::HealthPolicy;
use crate::selector::{LINK_TYPES, Selector, Selectors, VDPA_TYPES};

impl Serialize for Config {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("cdi", word(&CdiMode::WORDS, self.cdi))?;
        map.serialize_entry("pools", &self.pools)?;
        if !self.legs.is_empty() {
            map.serialize_entry("legs", &self.legs)?;
        }
        map.end()
    }
}

impl Serialize for LegConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &self.name)?;
        map.serialize_entry("kind", self.kind.name())?;
        match &self.port {
            PortName::Netdev(name) => map.serialize_entry("pf", name)?,
            PortName::Address(address) => map.serialize_entry("rootDevice", &address.to_string())?,
        }
        if let LegKind::Vf { index, .. } = self.kind {
            map.serialize_entry("vf", &index)?;
        }
        if let Some(vlan) = self.kind.vlan() {
            map.serialize_entry("vlan", &vlan)?;
        }
        if let Some(mtu) = self.mtu {
            map.serialize_entry("mtu", &mtu)?;
        }
        map.serialize_entry("network", &self.network)?;
        match &self.addresses {
            LegAddresses::Pool(ipam) => map.serialize_entry("ipam", ipam)?,
            LegAddresses::Fixed(addresses) => map.serialize_entry("address", &texts(addresses))?,
        }
        map.end()
    }
}

impl Serialize for PoolConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("resourceName", self.resource.name())?;
        map.serialize_entry("resourcePrefix", self.resource.prefix())?;
        map.serialize_entry("deviceType", self.kind.name())?;
        map.serialize_entry("selectors", &self.selectors)?;
        if let Some(shares) = self.shares {
            map.serialize_entry("shares", &shares)?;
        }
        map.serialize_entry("rdma", word(&PoolRdma::WORDS, self.rdma))?;
        map.serialize_entry("excludeTopology", &!self.topology)?;
        if !self.additional_info.is_empty() {
            map.serialize_entry("additionalInfo", &self.additional_info)?;
        }
        map.serialize_entry("health", &Written(&self.health))?;
        map.serialize_entry("preferredAllocation", word(&PREFERENCES, self.preference))?;
        map.end()
    }
}

impl Serialize for Selectors {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if self.is_empty() {
            map.serialize_entry(ANY, &true)?;
        }
        for selector in self.written() {
            let key = selector.name();
            match selector {
                Selector::Vendors => map.serialize_entry(key, &texts(&self.vendors)),
                Selector::Devices => map.serialize_entry(key, &texts(&self.devices)),
                Selector::Drivers => map.serialize_entry(key, &self.drivers),
                Selector::PciAddresses => map.serialize_entry(key, &texts(&self.pci_addresses)),
                Selector::AcpiIndexes => map.serialize_entry(key, &self.acpi_indexes),
                Selector::PfNames => map.serialize_entry(key, &texts(&self.pf_names)),
                Selector::RootDevices => map.serialize_entry(key, &texts(&self.root_devices)),
                Selector::IfNames => map.serialize_entry(key, &self.if_names),
                Selector::LinkTypes => {
                    let words: Vec<&str> =
                        self.link_types.iter().map(|kind| word(&LINK_TYPES, *kind)).collect();
                    map.serialize_entry(key, &words)
                }
                Selector::IsRdma => map.serialize_entry(key, &self.is_rdma),
                Selector::PKeys => map.serialize_entry(key, &texts(&self.p_keys)),
                Selector::DdpProfiles => map.serialize_entry(key, &self.ddp_profiles),
                Selector::NeedVhostNet => map.serialize_entry(key, &self.need_vhost_net),
                Selector::VdpaType => {
                    map.serialize_entry(key, &self.vdpa_type.map(|kind| word(&VDPA_TYPES, kind)))
                }
                Selector::AuxTypes => map.serialize_entry(key, &self.aux_types),
            }?;
        }
        map.end()
    }
}

/// A value of another module in the form that it has in a configuration.
struct Written<'a, T>(&'a T);

impl Serialize for Written<'_, HealthPolicy> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut all = BTreeMap::new();
        for (name, check) in CHECKS {
            all.insert(name, word(&POLICIES, self.0.of(check)).to_owned());
        }
        all.insert(HOLD_DOWN, duration::show(self.0.hold_down));
        all.serialize(serializer)
    }
}

fn texts<T: Display>(entries: &[T]) -> Vec<String> {
    entries.iter().map(ToString::to_string).collect()
}

/// How a value is written; every value that a configuration can hold has a word.
fn word<T: PartialEq + Copy>(words: &[(&'static str, T)], value: T) -> &'static str {
    words.iter().find(|(_, known)| *known == value).map_or("", |(word, _)| word)
}
