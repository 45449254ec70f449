//! How a device of a pool is called in CDI, and its file.
//!
//! CDI allows fewer characters than the names that go in: a vendor begins with a letter, a class has no dots before
//! version 0.6.0, a device has no `#`. So the vendor is the resource's prefix below `cdi.`, the class is always the same,
//! and the device's name begins with that of the resource. No two devices have one name, and the name tells the device.

use crate::device::DeviceId;
use crate::resource::ResourceName;

/// The class of all devices.
const CLASS: &str = "device";

/// How the names of our files begin. Nothing else in the folder is ours.
const BEGINNING: &str = "zerobridge-";

/// The ending without which a runtime ignores a file.
const ENDING: &str = ".json";

/// `vendor/class` of a pool's devices.
pub(super) fn kind(pool: &ResourceName) -> String {
    format!("cdi.{}/{CLASS}", pool.prefix())
}

/// The name of a device within its kind. A colon is in no resource's name, so the first one ends it; and the number of a
/// share is behind the last colon, where an address has its device and function with a dot between.
pub(crate) fn device_name(pool: &ResourceName, device: &DeviceId) -> String {
    format!("{}:{}", pool.name(), device.to_string().replace('#', ":"))
}

/// What a container asks for in order to get a device.
pub(crate) fn qualified_name(pool: &ResourceName, device_name: &str) -> String {
    format!("{}={device_name}", kind(pool))
}

/// The file of a device. A prefix has no underscore, so the first one ends it.
pub(super) fn file_name(pool: &ResourceName, device: &DeviceId) -> String {
    format!("{BEGINNING}{}_{}{ENDING}", pool.prefix(), device_name(pool, device))
}

/// Whose file this is; `None` for one that is not ours.
pub(super) fn owner(file: &str) -> Option<(ResourceName, DeviceId)> {
    let (prefix, device_name) = file.strip_prefix(BEGINNING)?.strip_suffix(ENDING)?.split_once('_')?;
    let (name, device) = device_name.split_once(':')?;
    let owner = (ResourceName::new(prefix, name).ok()?, device_id(device)?);
    (file_name(&owner.0, &owner.1) == file).then_some(owner)
}

fn device_id(text: &str) -> Option<DeviceId> {
    match text.parse() {
        Ok(device) => Some(device),
        Err(_) => {
            let (hardware, share) = text.rsplit_once(':')?;
            format!("{hardware}#{share}").parse().ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use zerobridge_proto::cdi::{ContainerEdits, Device, DeviceNode, Spec, VERSION};

    use super::*;

    #[test]
    fn every_device_has_a_name_that_cdi_allows_and_a_file_that_names_it() {
        let long_prefix = vec!["a".repeat(48); 5].join(".");
        let longest = "n".repeat(63);
        let mut names = BTreeSet::new();
        let mut files = BTreeSet::new();
        for (prefix, name) in [
            ("zerobridge.io", "vf"),
            ("zerobridge.io", "vf-a"),
            ("zerobridge.io", "vf_a"),
            ("zerobridge.io", "vf.a"),
            ("zerobridge.io", "0"),
            ("3com.com", "VF"),
            ("x", "y"),
            ("x-y", "z"),
            ("x", "y-z"),
            (&long_prefix, "vf"),
            ("zerobridge.io", &longest),
        ] {
            let pool = ResourceName::new(prefix, name).unwrap();
            for device in [
                "0000:01:10.0",
                "0000:01:10.0#0",
                "0000:01:10.0#63",
                "10000:01:10.0",
                "mlx5_core.sf.4",
                "mlx5_core.sf.4#1",
                "a-b.sf.0",
            ] {
                let device: DeviceId = device.parse().unwrap();
                let path = "/dev/null".to_owned();
                let node = DeviceNode { path, host_path: None, permissions: "rw".to_owned() };
                let container_edits = ContainerEdits { device_nodes: vec![node] };
                let name = device_name(&pool, &device);
                let devices = vec![Device { name: name.clone(), container_edits }];
                let spec = Spec { cdi_version: VERSION.to_owned(), kind: kind(&pool), devices };
                assert_eq!(spec.check(), Ok(()));
                let kind = kind(&pool);
                let (vendor, class) = kind.split_once('/').unwrap();
                assert!(vendor.len() <= 253 && class.len() <= 63);
                assert!(!class.contains('.'), "needs version 0.6.0");

                let file = file_name(&pool, &device);
                assert_eq!(owner(&file), Some((pool.clone(), device)));
                assert!(names.insert(qualified_name(&pool, &name)), "{name}");
                assert!(files.insert(file));
            }
        }
    }

    #[test]
    fn the_name_is_readable() {
        let pool = ResourceName::new("example.com", "vf-green").unwrap();
        let device: DeviceId = "0000:01:10.0#3".parse().unwrap();
        let name = qualified_name(&pool, &device_name(&pool, &device));
        assert_eq!(name, "cdi.example.com/device=vf-green:0000:01:10.0:3");
        assert_eq!(file_name(&pool, &device), "zerobridge-example.com_vf-green:0000:01:10.0:3.json");
    }

    #[test]
    fn another_programs_file_is_nobodys() {
        for file in [
            "nvidia.yaml",
            "sriov-dp-zerobridge.io-net-pci-vf.json",
            "zerobridge-.json",
            "zerobridge-zerobridge.io_vf.json",
            "zerobridge-zerobridge.io_vf:eth0.json",
            "zerobridge-zerobridge.io_vf:0000:01:1A.0.json",
            "zerobridge-zerobridge.io_vf:01:10.0.json",
            "zerobridge-zerobridge.io_vf:0000:01:10.0:03.json",
            "zerobridge-zerobridge.io_vf:0000:01:10.0#3.json",
            "zerobridge-zerobridge.io_vf:0000:01:10.0.yaml",
            "zerobridge-kubernetes.io_vf:0000:01:10.0.json",
        ] {
            assert_eq!(owner(file), None, "{file}");
        }
    }
}
