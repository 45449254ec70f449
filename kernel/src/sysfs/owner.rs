//! Whose a netdev, an RDMA device or a vDPA device is, as its place among the devices tells.
//!
//! Refuses to read anything: the target of its link in `class` or `bus` is the whole question.

use std::path::Path;
use std::str::FromStr;

use zerobridge_proto::PciAddress;

/// A device that may become a pod's, and others are made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Owner {
    /// A PCI function.
    Function(PciAddress),
    /// An auxiliary device.
    Auxiliary(AuxName),
}

/// The name of an auxiliary device that may become a pod's, `driver.kind.id` (`drivers/base/auxiliary.c`).
///
/// That is a scalable function only. The other kinds are how a driver hands parts of its function to other drivers
/// (`mlx5_core.eth.0`, `ice.roce.0`): each VF has several, and none can be given away without the VF.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct AuxName(String);

/// The kind of a scalable function, with all drivers that have them (`MLX5_SF_DEV_ID_NAME`, `ice_sf_eth.c`).
const SCALABLE_FUNCTION: &str = "sf";

impl AuxName {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The middle part.
    pub(super) fn kind(&self) -> &'static str {
        SCALABLE_FUNCTION
    }
}

impl FromStr for AuxName {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        let mut parts = name.split('.');
        let shape = (parts.next(), parts.next(), parts.next().map(u32::from_str), parts.next());
        match shape {
            (Some(driver), Some(SCALABLE_FUNCTION), Some(Ok(_)), None)
                if !driver.is_empty() && !driver.contains('/') =>
            {
                Ok(Self(name.to_owned()))
            }
            _ => Err(()),
        }
    }
}

/// The owner of a device whose link in `class/<class>` points to `target`.
pub(super) fn of_class_device(target: &Path, class: &str) -> Option<Owner> {
    let mut above = ascent(target);
    // Between a device and its parent of another class, the kernel puts a folder with the name of the class
    // (`get_device_parent` in drivers/base/core.c).
    if above.next()? == class { owner(above) } else { None }
}

/// The owner of a device whose link in `bus/<bus>/devices` points to `target`.
pub(super) fn of_bus_device(target: &Path) -> Option<Owner> {
    owner(ascent(target))
}

/// The bridges above a PCI function whose link in `bus/pci/devices` points to `target`, from the root port down.
pub(super) fn upstream(target: &Path) -> Vec<PciAddress> {
    let mut bridges: Vec<PciAddress> = ascent(target).map_while(|name| name.parse().ok()).collect();
    bridges.reverse();
    bridges
}

/// The names of the folders above a device, from the nearest.
fn ascent(target: &Path) -> impl Iterator<Item = &str> {
    target.components().rev().skip(1).filter_map(|component| component.as_os_str().to_str())
}

fn owner<'a>(mut above: impl Iterator<Item = &'a str>) -> Option<Owner> {
    let parent = above.next()?;
    if !parent.starts_with("virtio") {
        return named(parent);
    }
    // A virtio device is a layer of its own upon the PCI function, or upon the vDPA device that is made of one.
    named(above.next()?).or_else(|| named(above.next()?))
}

fn named(name: &str) -> Option<Owner> {
    let function = || name.parse().ok().map(Owner::Function);
    let auxiliary = || name.parse().ok().map(Owner::Auxiliary);
    function().or_else(auxiliary)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(owner: Option<Owner>) -> String {
        match owner {
            None => "nobody".to_owned(),
            Some(Owner::Function(address)) => address.to_string(),
            Some(Owner::Auxiliary(name)) => name.as_str().to_owned(),
        }
    }

    #[test]
    fn the_owner_of_a_netdev_is_the_device_above_it() {
        for (target, owner) in [
            ("pci0000:00/0000:00:01.0/0000:01:10.0/net/eth0", "0000:01:10.0"),
            ("pci0000:00/0000:00:03.0/virtio2/net/eth0", "0000:00:03.0"),
            ("pci0000:00/0000:01:00.2/vdpa0/virtio3/net/eth0", "0000:01:00.2"),
            ("pci0000:00/0000:01:00.0/mlx5_core.sf.4/net/eth0", "mlx5_core.sf.4"),
            ("pci0000:00/0000:01:00.0/mlx5_core.sf.4/vdpa0/virtio3/net/eth0", "mlx5_core.sf.4"),
            ("pci0000:00/0000:00:14.0/usb1/1-1/1-1:1.0/net/enx0", "nobody"),
            ("pci0000:00/0000:01:00.0/mlx5_core.eth.0/net/eth0", "nobody"),
            ("virtual/net/lo", "nobody"),
            ("net/eth0", "nobody"),
        ] {
            let target = Path::new("../../devices").join(target);
            assert_eq!(shown(of_class_device(&target, "net")), owner, "{}", target.display());
        }
    }

    #[test]
    fn the_owner_of_a_vdpa_device_is_the_device_above_it() {
        for (target, owner) in [
            ("pci0000:00/0000:01:00.2/vdpa0", "0000:01:00.2"),
            ("pci0000:00/0000:01:00.0/mlx5_core.sf.4/blue", "mlx5_core.sf.4"),
            ("virtual/vdpasim_net/vdpa0", "nobody"),
        ] {
            assert_eq!(shown(of_bus_device(&Path::new("../../../devices").join(target))), owner);
        }
    }

    #[test]
    fn the_bridges_above_a_function_come_from_the_root_down() {
        let shown =
            |target: &str| upstream(Path::new(target)).iter().map(ToString::to_string).collect::<Vec<_>>();
        let switch = "../../../devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0/0000:3c:08.0/0000:3d:00.2";
        assert_eq!(shown(switch), ["0000:3a:00.0", "0000:3b:00.0", "0000:3c:08.0"]);
        assert!(shown("../../../devices/pci0000:00/0000:00:1f.0").is_empty());
    }

    #[test]
    fn only_scalable_functions_are_given_away() {
        for (name, ok) in [
            ("mlx5_core.sf.4", true),
            ("ice.sf.0", true),
            ("mlx5_core.eth.4", false),
            ("mlx5_core.sf", false),
            ("mlx5_core.sf.x", false),
            ("mlx5_core.sf.4.5", false),
            (".sf.4", false),
            ("../pci/devices/0000:01:00.sf.0", false),
        ] {
            assert_eq!(name.parse::<AuxName>().is_ok(), ok, "{name}");
        }
    }
}
