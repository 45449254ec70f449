//! A device as the kubelet knows it: an ID that never changes, and what stands behind it.
//!
//! Nothing here depends on whether a netdev is visible: a VF that is in a pod is the same device.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use zerobridge_proto::PciAddress;

/// What a device is made of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hardware {
    /// A PCI function, mostly a VF.
    Function(PciAddress),
    /// An auxiliary device, such as the scalable function `mlx5_core.sf.4`.
    Auxiliary(String),
}

/// The ID of a device at the kubelet: `0000:01:10.0`, `mlx5_core.sf.4`, or `0000:01:00.0#3` for one of several shares.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId {
    /// What it is made of.
    pub hardware: Hardware,
    /// Which share of it, from 0; `None` for a device that one container has alone.
    pub share: Option<u16>,
}

/// A device that is offered to the kubelet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its ID.
    pub id: DeviceId,
    /// The PCI function that it is, or is a part of.
    pub function: PciAddress,
    /// The PF that it belongs to; `None` for a function without SR-IOV, or a VF whose PF is not in this machine.
    pub pf: Option<PciAddress>,
    /// Its number among the VFs of its PF.
    pub vf_index: Option<u16>,
    /// The driver it is bound to.
    pub driver: Option<String>,
    /// The NUMA node it is next to, if the machine says.
    pub numa_node: Option<u32>,
    /// The NUMA node that the kubelet is told; `None` also where the pool keeps it to itself.
    pub topology: Option<u32>,
    /// The bridges above it, from the root port down.
    pub upstream: Vec<PciAddress>,
    /// The netdev that stands for it on the switch of its PF, if that is in switchdev mode.
    pub representor: Option<String>,
    /// Whether it may be allocated.
    pub healthy: bool,
}

/// A text that is the ID of no device.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("\"{text}\" is no device ID; one looks like 0000:01:10.0, mlx5_core.sf.4 or 0000:01:00.0#3")]
pub struct DeviceIdError {
    text: String,
}

impl From<Hardware> for DeviceId {
    fn from(hardware: Hardware) -> Self {
        Self { hardware, share: None }
    }
}

impl From<PciAddress> for DeviceId {
    fn from(address: PciAddress) -> Self {
        Hardware::Function(address).into()
    }
}

impl fmt::Display for Hardware {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Function(address) => address.fmt(out),
            Self::Auxiliary(name) => name.fmt(out),
        }
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.share {
            None => self.hardware.fmt(out),
            Some(share) => write!(out, "{}#{share}", self.hardware),
        }
    }
}

impl FromStr for DeviceId {
    type Err = DeviceIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || DeviceIdError { text: text.to_owned() };
        let (hardware, share) = match text.split_once('#') {
            None => (text, None),
            Some((hardware, share)) => (hardware, Some(share.parse().map_err(|_| error())?)),
        };
        let hardware = match hardware.parse() {
            Ok(address) => Hardware::Function(address),
            Err(_) if is_auxiliary(hardware) => Hardware::Auxiliary(hardware.to_owned()),
            Err(_) => return Err(error()),
        };
        Ok(Self { hardware, share })
    }
}

/// `driver.kind.id` (`drivers/base/auxiliary.c` in the kernel).
fn is_auxiliary(name: &str) -> bool {
    let mut parts = name.rsplitn(3, '.');
    let id = parts.next().is_some_and(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()));
    let word = |part: Option<&str>| {
        part.is_some_and(|part| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        })
    };
    id && word(parts.next()) && word(parts.next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_are_written() {
        let function: PciAddress = "0000:01:10.0".parse().unwrap();
        for (text, hardware, share) in [
            ("0000:01:10.0", Hardware::Function(function), None),
            ("0000:01:10.0#63", Hardware::Function(function), Some(63)),
            ("mlx5_core.sf.4", Hardware::Auxiliary("mlx5_core.sf.4".to_owned()), None),
            ("mlx5_core.sf.4#0", Hardware::Auxiliary("mlx5_core.sf.4".to_owned()), Some(0)),
        ] {
            let id: DeviceId = text.parse().unwrap();
            assert_eq!(id, DeviceId { hardware, share });
            assert_eq!(id.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_id_is_quoted() {
        for text in [
            "",
            "eth0",
            "0000:01:10.0#",
            "0000:01:10.0#x",
            "0000:01:10.0#65536",
            "sf.4",
            "a.sf.x",
            "a b.sf.4",
        ] {
            assert!(text.parse::<DeviceId>().unwrap_err().to_string().contains(&format!("\"{text}\"")));
        }
    }
}
