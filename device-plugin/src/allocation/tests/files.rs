//! What an allocation leaves on disk, and for how long.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use zerobridge_kernel::testing::{FakeFunction, SysfsTree};
use zerobridge_kernel::{DevFolder, Sysfs};

use super::*;

/// A VF of a VFIO driver, on a machine without nodes at first.
struct Node {
    root: TempDir,
    pool: PoolConfig,
    vf: Device,
    allocator: Allocator,
}

const INFO: &str = "zerobridge.io-vf-a-0000:01:10.0-device.json";
const SPEC: &str = "zerobridge-zerobridge.io_vf-a:0000:01:10.0.json";

fn node() -> Node {
    let root = tempfile::tempdir().unwrap();
    let tree = SysfsTree::new(root.path().join("sys"));
    tree.add(&FakeFunction::igb_pf(0));
    tree.add(&FakeFunction { driver: Some("vfio-pci".to_owned()), ..FakeFunction::igb_vf(0, 0) });
    let allocator = allocator(root.path());
    Node { root, pool: plain_pool(), vf: device("0000:01:10.0", "vfio-pci"), allocator }
}

/// That of a daemon that has just started.
fn allocator(root: &Path) -> Allocator {
    let [sys, dev, infos, specs, run] = ["sys", "dev", "infos", "cdi", "run"].map(|name| root.join(name));
    Allocator::new(Sysfs::new(sys), DevFolder::new(dev), infos, specs, run)
}

impl Node {
    fn folder(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn make_nodes(&self) {
        fs::create_dir_all(self.folder("dev/vfio")).unwrap();
        for node in ["dev/vfio/vfio", "dev/vfio/100"] {
            fs::write(self.folder(node), "").unwrap();
        }
    }

    fn give(&self, device: &Device) -> Result<ContainerAllocateResponse, AllocatorError> {
        self.allocator.give(&self.pool, &[device], NodeMethod::Cdi.into())
    }

    /// Device-info files and CDI specifications.
    fn files(&self) -> (Vec<String>, Vec<String>) {
        (names(&self.folder("infos")), names(&self.folder("cdi")))
    }

    fn both(&self) -> bool {
        self.files() == (vec![INFO.to_owned()], vec![SPEC.to_owned()])
    }
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn every_file_is_there_before_the_answer_and_a_refusal_leaves_none() {
    let node = node();
    // The kernel names the group, but nobody has made its node yet.
    let refused = node.give(&node.vf).unwrap_err().to_string();
    assert!(refused.contains("/dev/vfio/vfio"), "{refused}");
    assert_eq!(node.files(), (Vec::new(), Vec::new()));

    node.make_nodes();
    let response = node.give(&node.vf).unwrap();
    assert_eq!(response.cdi_devices[0].name, "cdi.zerobridge.io/device=vf-a:0000:01:10.0");
    assert!(node.both());
    assert!(fs::read_to_string(node.folder("cdi").join(SPEC)).unwrap().contains("/dev/vfio/100"));
    assert_eq!(node.give(&node.vf).unwrap(), response);

    let error = node.give(&device("0000:01:10.2", "vfio-pci")).unwrap_err().to_string();
    assert!(error.contains("which device nodes 0000:01:10.2 has"), "{error}");
}

#[test]
fn files_go_when_nobody_holds_their_device_and_stay_as_long_as_somebody_does() {
    let node = node();
    node.make_nodes();
    node.give(&node.vf).unwrap();
    let theirs = "intel.com-vf-0000:01:10.0-device.json";
    for folder in ["infos", "cdi"] {
        fs::write(node.folder(folder).join(theirs), "{}").unwrap();
    }
    let held = Held::from([(node.pool.resource.clone(), node.vf.id.clone())]);
    let (grace, later) = (Duration::from_secs(60), SystemTime::now() + Duration::from_secs(3600));
    for (held, now, removed) in [
        (&held, later, 0),
        (&Held::new(), SystemTime::now(), 0),
        (&Held::new(), later, 2),
        (&Held::new(), later, 0),
    ] {
        // By a daemon of which nobody knows whether its configuration still has the pool.
        let collected = allocator(node.root.path()).collect(held, now, grace);
        assert_eq!((collected.removed, collected.errors.len()), (removed, 0));
        assert_eq!(collected.held, held.len());
    }
    assert_eq!(node.files(), (vec![theirs.to_owned()], vec![theirs.to_owned()]));
}

#[test]
fn after_a_boot_the_files_of_held_devices_come_back_and_present_ones_are_left_alone() {
    let node = node();
    node.make_nodes();
    let restore = || {
        let gone = device("0000:01:10.2", "vfio-pci");
        node.allocator.restore(&node.pool, &[&gone, &node.vf], NodeMethod::Cdi.into())
    };
    assert_eq!(restore().len(), 1, "the device that is gone");
    assert!(node.both());
    fs::write(node.folder("cdi").join(SPEC), "as it was").unwrap();
    restore();
    assert_eq!(fs::read_to_string(node.folder("cdi").join(SPEC)).unwrap(), "as it was");
}

#[test]
fn what_cannot_be_listed_is_told() {
    let node = node();
    fs::write(node.folder("infos"), "a file").unwrap();
    let collected = node.allocator.collect(&Held::new(), SystemTime::now(), Duration::ZERO);
    assert_eq!(collected.errors.len(), 1);
    assert!(collected.errors[0].to_string().contains("infos"), "{}", collected.errors[0]);
}
