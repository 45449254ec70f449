//! One object of selectors, which all three formats write alike.

use std::str::FromStr;

use zerobridge_kernel::LinkType;

use super::document::{Fields, Placed};
use super::{ConfigError, PoolKind};
use crate::selector::{
    LINK_TYPES, Selector, Selectors, VDPA_TYPES, aux_type, ddp_profile, driver, interface,
};

/// Drivers that hand a device to a program in userspace, which leaves the kernel no RDMA device of it.
pub(super) const USERSPACE_DRIVERS: [&str; 4] = ["vfio-pci", "uio_pci_generic", "igb_uio", "uio"];

/// Takes every selector from an object.
pub(super) fn read(fields: &mut Fields) -> Result<Selectors, ConfigError> {
    let mut selectors = Selectors::default();
    for selector in Selector::ALL {
        let key = selector.name();
        match selector {
            Selector::Vendors => selectors.vendors = parsed(fields, key)?,
            Selector::Devices => selectors.devices = parsed(fields, key)?,
            Selector::Drivers => selectors.drivers = fields.list(key, |entry| entry.parsed(driver))?,
            Selector::PciAddresses => selectors.pci_addresses = parsed(fields, key)?,
            Selector::AcpiIndexes => selectors.acpi_indexes = fields.list(key, acpi_index)?,
            Selector::PfNames => selectors.pf_names = parsed(fields, key)?,
            Selector::RootDevices => selectors.root_devices = parsed(fields, key)?,
            Selector::IfNames => selectors.if_names = fields.list(key, |entry| entry.parsed(interface))?,
            Selector::LinkTypes => {
                selectors.link_types = fields.list(key, |entry| entry.word(&LINK_TYPES))?;
            }
            Selector::IsRdma => selectors.is_rdma = fields.flag(key)?,
            Selector::PKeys => selectors.p_keys = parsed(fields, key)?,
            Selector::DdpProfiles => {
                selectors.ddp_profiles = fields.list(key, |entry| entry.parsed(ddp_profile))?;
            }
            Selector::NeedVhostNet => selectors.need_vhost_net = fields.flag(key)?,
            Selector::VdpaType => {
                selectors.vdpa_type = fields.take(key).map(|word| word.word(&VDPA_TYPES)).transpose()?;
            }
            Selector::AuxTypes => selectors.aux_types = fields.list(key, |entry| entry.parsed(aux_type))?,
        }
    }
    Ok(selectors)
}

fn parsed<T: FromStr>(fields: &mut Fields, key: &'static str) -> Result<Vec<T>, ConfigError>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    fields.list(key, |entry| entry.parsed(str::parse))
}

fn acpi_index(entry: Placed) -> Result<u32, ConfigError> {
    let number = entry.number_or_digits(0..=u32::MAX.into())?;
    // Within the range that was just checked.
    Ok(u32::try_from(number).unwrap_or(u32::MAX))
}

/// Refuses what can select nothing, or contradicts itself. `place` is where the selectors stand.
pub(super) fn check(
    selectors: &Selectors,
    place: &str,
    kind: PoolKind,
    shared: bool,
) -> Result<(), ConfigError> {
    let at = |selector: Selector| format!("{place}.{selector}");
    if let Some(selector) = selectors.written().find(|selector| !kind.has(*selector)) {
        let allowed: Vec<&str> =
            Selector::ALL.into_iter().filter(|known| kind.has(*known)).map(Selector::name).collect();
        let (place, kind, allowed) = (at(selector), kind.name(), allowed.join(", "));
        return Err(ConfigError::NotOfKind { place, kind, allowed });
    }
    if kind == PoolKind::AuxNetDevice && selectors.aux_types.is_empty() {
        let purpose = "the kinds of auxiliary devices, such as [\"sf\"]";
        return Err(ConfigError::MissingKey { key: at(Selector::AuxTypes), purpose });
    }
    let conflict = |one: Selector, other: &str, reason, remedy| ConfigError::Conflict {
        place: at(one),
        other: other.to_owned(),
        reason,
        remedy,
    };
    if selectors.is_rdma && selectors.vdpa_type.is_some() {
        return Err(conflict(
            Selector::IsRdma,
            Selector::VdpaType.name(),
            "a device that is given away as vDPA is not given away as RDMA",
            "keep one, or make two pools",
        ));
    }
    if !selectors.p_keys.is_empty()
        && !selectors.link_types.is_empty()
        && !selectors.link_types.contains(&LinkType::Infiniband)
    {
        return Err(conflict(
            Selector::PKeys,
            Selector::LinkTypes.name(),
            "only InfiniBand has partition keys",
            "write \"infiniband\" into linkTypes, or leave one of the two out",
        ));
    }
    if shared && selectors.vdpa_type.is_some() {
        return Err(conflict(
            Selector::VdpaType,
            "shares",
            "only RDMA devices can be shared, a vDPA device has one user",
            "leave one of the two out",
        ));
    }
    let userspace = |driver: &String| USERSPACE_DRIVERS.contains(&driver.as_str());
    if shared && selectors.drivers.iter().any(userspace) {
        return Err(conflict(
            Selector::Drivers,
            "shares",
            "a device of a userspace driver has no RDMA device that could be shared",
            "write the kernel driver, such as mlx5_core, or leave shares out",
        ));
    }
    Ok(())
}
