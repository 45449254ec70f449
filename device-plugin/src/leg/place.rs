//! Where a leg is: the PF that a configuration names, the VF, and the name of a VLAN interface. Pure.

use std::collections::BTreeMap;

use thiserror::Error;
use zerobridge_kernel::{FunctionRole, HostNetwork, IfIndex, Machine, PciFunction};
use zerobridge_proto::PciAddress;

use crate::config::{LegConfig, LegKind, PortName};

/// The longest name of a link in bytes (`IFNAMSIZ` in `linux/if.h`, without the zero).
const LONGEST_NAME: usize = 15;

/// What the note on a link that was made for a leg begins with.
const NOTE: &str = "zerobridge leg ";

/// What the name of a link begins with that was made and has no note yet.
const UNFINISHED: &str = "zbl";

/// Where a leg is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The PF.
    pub(crate) pf: PciAddress,
    /// The PF's interface.
    pub(crate) port: String,
    /// The function that carries the leg's frames: the PF, or a VF of it.
    pub(crate) device: PciAddress,
}

/// Why a leg has no place in this machine.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum PlaceError {
    #[error(
        "no PF of this machine has an interface {name}; use the name that `ip link` shows, or rootDevice"
    )]
    NoSuchPf { name: String },
    #[error("there is no network function {address} in this machine")]
    NoSuchFunction { address: PciAddress },
    #[error("{address} is a VF; name its PF, and the VF by its number with kind \"vf\"")]
    IsVf { address: PciAddress },
    #[error("PF {address} has no interface on the host")]
    NoNetdev { address: PciAddress },
    #[error("{port} has no VF {index}, but {count} VFs; make more of them, or name another")]
    NoSuchVf { port: String, index: u16, count: usize },
    #[error("leg {other}, which comes first, is on the same interface")]
    Taken { other: String },
}

/// The places of all legs, in their order. `name_of` gives the name of the link that has an alternative name. Of legs that
/// turn out to be one interface the first has it.
pub(crate) fn places(
    legs: &[LegConfig],
    machine: &Machine,
    name_of: impl Fn(&str) -> Option<String>,
) -> Vec<Result<Place, PlaceError>> {
    let mut found: Vec<Result<Place, PlaceError>> = Vec::new();
    for leg in legs {
        let place = place(leg, machine, &name_of).and_then(|place| {
            let same = |(other, there): &(&LegConfig, &Result<Place, PlaceError>)| {
                there.as_ref().is_ok_and(|there| there.pf == place.pf)
                    && other.kind.is_same_interface(leg.kind)
            };
            match legs.iter().zip(&found).find(same) {
                Some((other, _)) => Err(PlaceError::Taken { other: other.name.clone() }),
                None => Ok(place),
            }
        });
        found.push(place);
    }
    found
}

fn place(
    leg: &LegConfig,
    machine: &Machine,
    name_of: impl Fn(&str) -> Option<String>,
) -> Result<Place, PlaceError> {
    let (pf, port) = match &leg.port {
        PortName::Address(address) => {
            let address = *address;
            let function =
                machine.functions.get(&address).filter(|function| function.is_network_controller());
            let function = function.ok_or(PlaceError::NoSuchFunction { address })?;
            let port = ports(function)?.first().copied().ok_or(PlaceError::NoNetdev { address })?;
            (function, port.to_owned())
        }
        PortName::Netdev(name) => {
            let port = name_of(name).unwrap_or_else(|| name.clone());
            let owner = machine
                .functions
                .values()
                .find(|function| function.netdevs.iter().any(|netdev| netdev.name == port));
            let owner = owner.ok_or_else(|| PlaceError::NoSuchPf { name: name.clone() })?;
            if !ports(owner)?.contains(&port.as_str()) {
                return Err(PlaceError::NoSuchPf { name: name.clone() });
            }
            (owner, port)
        }
    };
    let device = match leg.kind {
        LegKind::Pf | LegKind::Vlan { .. } => pf.address,
        LegKind::Vf { index, .. } => vf(pf, &port, index)?,
    };
    Ok(Place { pf: pf.address, port, device })
}

/// The interfaces that stand for a function's port.
fn ports(function: &PciFunction) -> Result<Vec<&str>, PlaceError> {
    match &function.role {
        FunctionRole::Physical { uplinks, .. } => Ok(uplinks.iter().map(String::as_str).collect()),
        FunctionRole::Plain => Ok(function.netdevs.iter().map(|netdev| netdev.name.as_str()).collect()),
        FunctionRole::Virtual(_) => Err(PlaceError::IsVf { address: function.address }),
    }
}

fn vf(pf: &PciFunction, port: &str, index: u16) -> Result<PciAddress, PlaceError> {
    let FunctionRole::Physical { vfs, .. } = &pf.role else {
        return Err(PlaceError::NoSuchVf { port: port.to_owned(), index, count: 0 });
    };
    vfs.get(&index).copied().ok_or(PlaceError::NoSuchVf { port: port.to_owned(), index, count: vfs.len() })
}

/// The VFs that legs keep, and which leg each.
pub(crate) fn kept_vfs(
    legs: &[LegConfig],
    machine: &Machine,
    host: &HostNetwork,
) -> BTreeMap<PciAddress, String> {
    let name_of = |name: &str| host.link(name).map(|found| found.link.name.clone());
    let places = places(legs, machine, name_of);
    let of_vf = |(leg, place): (&LegConfig, Result<Place, PlaceError>)| match leg.kind {
        LegKind::Vf { .. } => Some((place.ok()?.device, leg.name.clone())),
        LegKind::Pf | LegKind::Vlan { .. } => None,
    };
    legs.iter().zip(places).filter_map(of_vf).collect()
}

/// The name of the interface of `port` for a VLAN: `ens1f0.100`. Of a long name the end is kept, which tells the ports of
/// one machine apart.
pub(crate) fn vlan_name(port: &str, vlan: u16) -> String {
    let suffix = format!(".{vlan}");
    let room = LONGEST_NAME - suffix.len();
    let start = (port.len().saturating_sub(room)..=port.len()).find(|start| port.is_char_boundary(*start));
    format!("{}{suffix}", port.get(start.unwrap_or_default()..).unwrap_or_default())
}

/// The name that the interface has until it has its note: whoever dies between the two leaves what is known again.
pub(crate) fn unfinished_name(port: IfIndex, vlan: u16) -> String {
    format!("{UNFINISHED}{:x}.{vlan:x}", port.0)
}

/// Whether a link has a name of [`unfinished_name`].
pub(crate) fn is_unfinished(name: &str) -> bool {
    let numbers = name.strip_prefix(UNFINISHED).and_then(|rest| rest.split_once('.'));
    let is_hex = |text: &str| u32::from_str_radix(text, 16).is_ok();
    numbers.is_some_and(|(port, vlan)| is_hex(port) && is_hex(vlan))
}

/// The note on the link of a leg.
pub(crate) fn note(leg: &str) -> String {
    format!("{NOTE}{leg}")
}

/// The leg that the note on a link names.
pub(crate) fn leg_in_note(note: &str) -> Option<&str> {
    note.strip_prefix(NOTE)
}

#[cfg(test)]
mod tests {
    use zerobridge_kernel::testing::SysfsTree;
    use zerobridge_kernel::{Scanner, Sysfs};

    use super::*;
    use crate::config::LegAddresses;

    fn leg(name: &str, port: &str, kind: LegKind) -> LegConfig {
        let port = port.parse().map_or_else(|_| PortName::Netdev(port.to_owned()), PortName::Address);
        let addresses = LegAddresses::Fixed(vec!["10.0.0.1/24".parse().unwrap()]);
        LegConfig { name: name.to_owned(), kind, port, mtu: None, network: "blue".to_owned(), addresses }
    }

    fn found(legs: &[LegConfig]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let tree = SysfsTree::new(folder.path());
        tree.add_igb(0, 2);
        let machine = Scanner::new(Sysfs::new(tree.root())).scan().unwrap();
        let name_of = |name: &str| (name == "rail0").then(|| "enp1s0f0".to_owned());
        let shown = |place: Result<Place, PlaceError>| match place {
            Ok(place) => format!("{} {} {}", place.pf, place.port, place.device),
            Err(error) => error.to_string(),
        };
        places(legs, &machine, name_of).into_iter().map(shown).collect()
    }

    #[test]
    fn a_pf_is_found_by_each_of_its_names_and_a_vf_by_its_number() {
        let vf = |index| LegKind::Vf { index, vlan: None };
        let vlan = LegKind::Vlan { vlan: 100 };
        let legs = [
            leg("a", "enp1s0f0", LegKind::Pf),
            leg("b", "rail0", vlan),
            leg("c", "0000:01:00.0", vf(1)),
            leg("d", "enp1s0f0", vf(2)),
            leg("e", "0000:01:00.0", vlan),
            leg("f", "ens9", LegKind::Pf),
            leg("g", "0000:01:10.0", LegKind::Pf),
            leg("h", "0000:09:00.0", LegKind::Pf),
        ];
        let found = found(&legs);
        assert_eq!(
            found[..3],
            [
                "0000:01:00.0 enp1s0f0 0000:01:00.0",
                "0000:01:00.0 enp1s0f0 0000:01:00.0",
                "0000:01:00.0 enp1s0f0 0000:01:10.2",
            ]
        );
        for (told, part) in found[3..].iter().zip([
            "enp1s0f0 has no VF 2, but 2 VFs",
            "leg b, which comes first",
            "an interface ens9",
            "0000:01:10.0 is a VF",
            "no network function 0000:09:00.0",
        ]) {
            assert!(told.contains(part), "{told}");
        }
    }

    #[test]
    fn a_name_is_never_longer_than_the_kernel_allows_and_keeps_its_end() {
        for (port, vlan, name) in [
            ("ens1f0", 100, "ens1f0.100"),
            ("enp129s0f1", 4094, "enp129s0f1.4094"),
            ("enp129s0f1np1", 100, "p129s0f1np1.100"),
            ("enp129s0f1np1", 4094, "129s0f1np1.4094"),
        ] {
            assert_eq!(vlan_name(port, vlan), name);
        }
        let longest = unfinished_name(IfIndex(u32::MAX), 4094);
        assert!(longest.len() <= LONGEST_NAME && is_unfinished(&longest), "{longest}");
        for name in ["zbl", "zblue.100", "zbl5", "ens1f0.100"] {
            assert!(!is_unfinished(name), "{name}");
        }
        assert_eq!(leg_in_note(&note("pods")), Some("pods"));
    }
}
