//! What sysfs says about RDMA devices and their ports (the kernel's drivers/infiniband/core/sysfs.c).
//!
//! Refuses to know RDMA namespaces: what the mount does not show is not there.

use std::path::Path;

use super::owner::{self, Owner};
use super::{RdmaPort, SysfsError, attribute};

/// What does not change during an RDMA device's life.
#[derive(Clone, Debug)]
pub(super) struct KnownRdma {
    /// `None` for a software device, which is no part of any hardware.
    pub(super) owner: Option<Owner>,
    ports: Vec<KnownPort>,
}

#[derive(Clone, Copy, Debug)]
struct KnownPort {
    number: u8,
    infiniband: bool,
}

/// Reads the device whose link in `class/infiniband` is `link`.
pub(super) fn known(link: &Path) -> Result<Option<KnownRdma>, SysfsError> {
    let Some(target) = attribute::link(link)? else { return Ok(None) };
    let folder = link.join("ports");
    let Some(names) = attribute::entries(&folder)? else { return Ok(None) };
    let mut ports = Vec::with_capacity(names.len());
    for number in names.iter().filter_map(|name| name.parse().ok()) {
        let layer = attribute::optional_text(&folder.join(format!("{number}/link_layer")))?;
        ports.push(KnownPort { number, infiniband: layer.as_deref() == Some("InfiniBand") });
    }
    ports.sort_unstable_by_key(|port| port.number);
    Ok(Some(KnownRdma { owner: owner::of_class_device(&target, "infiniband"), ports }))
}

/// The ports of a device as they are now; `None` if it is gone.
pub(super) fn ports(link: &Path, known: &KnownRdma) -> Result<Option<Vec<RdmaPort>>, SysfsError> {
    let mut ports = Vec::with_capacity(known.ports.len());
    for &KnownPort { number, infiniband } in &known.ports {
        let folder = link.join(format!("ports/{number}"));
        let active = match attribute::text(&folder.join("state")) {
            Ok(text) => is_active(&text).ok_or_else(|| {
                SysfsError::malformed(&folder.join("state"), &text, "a port state such as 4: ACTIVE")
            })?,
            Err(error) if attribute::is_absent(&error) => return Ok(None),
            // The device was asked and did not answer, as after an error of its firmware: that is no working port.
            Err(_) => false,
        };
        let pkey = if infiniband { default_pkey(&folder)? } else { None };
        ports.push(RdmaPort { number, active, pkey });
    }
    Ok(Some(ports))
}

/// The netdev under a software device that names it (`parent_show` in drivers/infiniband/sw/rxe/rxe_verbs.c).
pub(super) fn software_parent(link: &Path) -> Result<Option<String>, SysfsError> {
    attribute::optional_text(&link.join("parent"))
}

/// `number: NAME`, the number from `enum ib_port_state`.
fn is_active(text: &str) -> Option<bool> {
    const ACTIVE: u8 = 4;
    let (number, _) = text.split_once(':')?;
    Some(number.parse::<u8>().ok()? == ACTIVE)
}

fn default_pkey(port: &Path) -> Result<Option<u16>, SysfsError> {
    let file = port.join("pkeys/0");
    let Ok(text) = attribute::text(&file) else { return Ok(None) };
    let pkey = text.strip_prefix("0x").and_then(|digits| u16::from_str_radix(digits, 16).ok());
    pkey.map(Some).ok_or_else(|| SysfsError::malformed(&file, &text, "a partition key such as 0xffff"))
}
