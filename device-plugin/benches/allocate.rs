//! What one `Allocate` costs: reading a VF's device nodes, deciding, and writing its device-info file and CDI
//! specification.
//!
//! `cargo bench -p zerobridge-device-plugin --bench allocate` prints percentiles: of the decision alone, and of the whole
//! with the files on tmpfs, where they belong, and on a disk. Also what a preference costs among 1,024 VFs.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::process::ExitCode;

use zerobridge_device_plugin::{
    Allocator, Config, Device, DeviceId, Hardware, Neighbour, NodeMethod, Nodes, Place, PoolConfig,
    Preference, allocate, prefer,
};
use zerobridge_kernel::testing::{FakeFunction, SysfsTree};
use zerobridge_kernel::{DevFolder, Sysfs};
use zerobridge_measure::{Outcome, repeat, run, show_microseconds as show};
use zerobridge_proto::PciAddress;

const REPETITIONS: usize = 2000;

/// Nodes of the VF that is given away.
const NODES: [&str; 2] = ["vfio/vfio", "vfio/100"];

fn main() -> ExitCode {
    run(measure)
}

fn measure() -> Outcome<()> {
    let pool = pool()?;
    let machine = tempfile::tempdir()?;
    let vf = FakeFunction { driver: Some("vfio-pci".to_owned()), ..FakeFunction::igb_vf(0, 0) };
    let (sysfs, dev) = build(machine.path(), &vf)?;
    let device = device(vf.address, "0000:01:00.0".parse()?, Vec::new());

    let nodes = Nodes::read(&sysfs, &dev, &device.id.hardware)?;
    let requested = [(&device, nodes)];
    let decide = || {
        black_box(allocate(&pool, black_box(&requested), NodeMethod::Cdi.into())?);
        Ok(())
    };
    show("decision alone", repeat(REPETITIONS, decide)?);

    for (name, parent) in
        [("whole, files on tmpfs", Path::new("/dev/shm")), ("whole, files on disk", Path::new("/var/tmp"))]
    {
        let files = tempfile::tempdir_in(parent)?;
        let [infos, specs, run] = ["devinfo", "cdi", "run"].map(|name| files.path().join(name));
        let allocator = Allocator::new(sysfs.clone(), dev.clone(), infos, specs, run);
        let give = || {
            black_box(allocator.give(&pool, &[&device], NodeMethod::Cdi.into())?);
            Ok(())
        };
        show(name, repeat(REPETITIONS, give)?);
    }

    let free = vfs()?;
    let free: Vec<&Device> = free.iter().collect();
    let gpus: Vec<Place> =
        (0..8).map(|switch| Place { upstream: bridges(switch), numa_node: None }).collect();
    for (name, preference) in [
        ("4 of 1,024, packed", Preference::Packed),
        ("4 of 1,024, spread", Preference::Spread),
        ("4 of 1,024, near 8 GPUs", Preference::Near(Neighbour::Gpu)),
    ] {
        let choose = || {
            black_box(prefer(preference, black_box(&free), &[], 4, &gpus));
            Ok(())
        };
        show(name, repeat(REPETITIONS, choose)?);
    }
    Ok(())
}

fn pool() -> Outcome<PoolConfig> {
    let config = Config::parse(r#"{"pools":[{"resourceName":"vf","selectors":{"vendors":["8086"]}}]}"#)?;
    config.pools.into_iter().next().ok_or_else(|| "no pool".into())
}

fn build(root: &Path, vf: &FakeFunction) -> Outcome<(Sysfs, DevFolder)> {
    let tree = SysfsTree::new(root.join("sys"));
    tree.add(&FakeFunction::igb_pf(0));
    tree.add(vf);
    let dev = root.join("dev");
    for node in NODES.map(|name| dev.join(name)) {
        fs::create_dir_all(node.parent().ok_or("a node has no folder")?)?;
        fs::write(node, "")?;
    }
    Ok((Sysfs::new(tree.root()), DevFolder::new(dev)))
}

/// 64 VFs on each of 16 PFs, two PFs below each switch.
fn vfs() -> Outcome<Vec<Device>> {
    let mut vfs = Vec::new();
    for pf in 0..16_u8 {
        let port = format!("0000:{:02x}:00.0", 0x40 + pf).parse()?;
        for index in 0..64_u8 {
            let address = format!("0000:{:02x}:{:02x}.{}", 0x40 + pf, 1 + index / 8, index % 8).parse()?;
            vfs.push(device(address, port, bridges(pf / 2)));
        }
    }
    Ok(vfs)
}

fn bridges(switch: u8) -> Vec<PciAddress> {
    let addresses = [format!("0000:00:{:02x}.0", switch / 2), format!("0000:20:{switch:02x}.0")];
    addresses.iter().filter_map(|address| address.parse().ok()).collect()
}

fn device(address: PciAddress, pf: PciAddress, upstream: Vec<PciAddress>) -> Device {
    Device {
        id: DeviceId { hardware: Hardware::Function(address), share: None },
        function: address,
        pf: Some(pf),
        vf_index: None,
        driver: Some("vfio-pci".to_owned()),
        numa_node: Some(0),
        topology: None,
        upstream,
        representor: None,
        healthy: true,
    }
}
