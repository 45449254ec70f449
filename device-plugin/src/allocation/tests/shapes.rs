//! RDMA cards as their drivers show them in sysfs: from the files to what a container gets.

use std::fs;

use tempfile::TempDir;
use zerobridge_kernel::testing::{FakeFunction, FakeRdma, SysfsTree};
use zerobridge_kernel::{DevFolder, Scanner, Sysfs};

use super::*;
use crate::device::Hardware;
use crate::pool::{Holdings, Surroundings, assign};
use crate::rdma::RdmaNode;

/// A machine of files.
struct Node {
    root: TempDir,
    tree: SysfsTree,
}

impl Node {
    /// A machine, with a device node for everything that sysfs names, and one that belongs to somebody else.
    fn new(build: impl FnOnce(&SysfsTree)) -> Self {
        let root = tempfile::tempdir().unwrap();
        let tree = SysfsTree::new(root.path().join("sys"));
        build(&tree);
        let dev = root.path().join("dev/infiniband");
        fs::create_dir_all(&dev).unwrap();
        for class in ["infiniband_verbs", "infiniband_mad"] {
            for node in fs::read_dir(tree.root().join("class").join(class)).unwrap() {
                fs::write(dev.join(node.unwrap().file_name()), "").unwrap();
            }
        }
        for node in ["rdma_cm", "uverbs99"] {
            fs::write(dev.join(node), "").unwrap();
        }
        Self { root, tree }
    }

    fn members(&self, pool: &PoolConfig, held: Option<&Holdings>) -> PoolDevices {
        let machine = Scanner::new(Sysfs::new(self.tree.root())).scan().unwrap();
        let around = Surroundings { machine, ..Surroundings::default() };
        assign(&[pool], &around, held).pools.remove(0)
    }

    fn give(&self, pool: &PoolConfig, device: &Device, delivery: Delivery) -> Allocation {
        let dev = DevFolder::new(self.root.path().join("dev"));
        let nodes = Nodes::read(&Sysfs::new(self.tree.root()), &dev, &device.id.hardware).unwrap();
        allocate(pool, &[(device, nodes)], delivery).unwrap()
    }
}

fn configured(keys: &str) -> PoolConfig {
    let text = format!(r#"{{"pools": [{{"resourceName": "vf-a", {keys}}}]}}"#);
    Config::parse(&text).unwrap().pools.remove(0)
}

fn ids(devices: &PoolDevices) -> Vec<String> {
    devices.keys().map(ToString::to_string).collect()
}

/// Nodes, without the folder that all are in.
fn infiniband(paths: &[String]) -> Vec<&str> {
    paths.iter().map(|path| path.strip_prefix("/dev/infiniband/").unwrap()).collect()
}

fn irdma(tree: &SysfsTree) {
    tree.add_e810(0, 2);
    let vf = FakeFunction::e810_vf(0, 1).address;
    tree.show_rdma(vf, &FakeRdma { name: "irdma3".to_owned(), number: 33, infiniband: false });
}

const EXCLUSIVE: Delivery = Delivery { method: NodeMethod::Cdi, rdma_exclusive: true };

/// Each card: who is in a pool that asks for RDMA, and what a container gets of one of them in each mode. A subnet agent's
/// node, `issm`, is there with InfiniBand only.
#[test]
fn a_card_of_each_kind_is_found_and_given_in_both_modes() {
    type Build = fn(&SysfsTree);
    let (roce, infiniband_card, bnxt): (Build, Build, Build) =
        (|tree| tree.add_mlx5(0, 2), |tree| tree.add_mlx5_infiniband(0, 2), |tree| tree.add_bnxt(1, 2));
    for (build, pf, members, nodes, rdma_device) in [
        (
            roce,
            "3d:00.0",
            ["0000:3d:00.2", "0000:3d:00.3"].as_slice(),
            ["rdma_cm", "umad3", "uverbs3"].as_slice(),
            "mlx5_3",
        ),
        (
            infiniband_card,
            "3d:00.0",
            &["0000:3d:00.2", "0000:3d:00.3"],
            &["issm3", "rdma_cm", "umad3", "uverbs3"],
            "mlx5_3",
        ),
        (irdma, "17:00.0", &["0000:17:01.1"], &["rdma_cm", "umad33", "uverbs33"], "irdma3"),
        (bnxt, "5e:00.1", &["0000:5e:03.0", "0000:5e:03.1"], &["rdma_cm", "umad61", "uverbs61"], "bnxt_re11"),
    ] {
        let node = Node::new(build);
        let pool = configured(&format!(r#""selectors": {{"rootDevices": ["{pf}"], "isRdma": true}}"#));
        let devices = node.members(&pool, None);
        assert_eq!(ids(&devices), members, "{rdma_device}");
        let last = devices.values().last().unwrap();

        let shared = node.give(&pool, last, NodeMethod::Plain.into());
        assert_eq!(infiniband(&paths(&shared)), nodes, "{rdma_device}");
        assert!(info(&shared).contains(&format!(r#""rdma_dev":"{rdma_device}""#)), "{}", info(&shared));

        let exclusive = node.give(&pool, last, EXCLUSIVE);
        let name = format!("cdi.zerobridge.io/rdma={}", last.id);
        assert_eq!(exclusive.response.cdi_devices, [CdiDevice { name }]);
        assert_eq!((exclusive.response.devices.len(), exclusive.specs.len()), (0, 0));
        for allocation in [&shared, &exclusive] {
            let DeviceInfo::Pci(document) = &allocation.infos[0].1 else { panic!("{:?}", allocation.infos) };
            assert_eq!(document.rdma_device.as_deref(), Some(rdma_device));
        }
    }
}

/// What the kubelet calls held stays, whether the daemon has seen the RDMA device before or not.
#[test]
fn a_vf_whose_rdma_device_is_in_a_pod_is_in_its_pool_still() {
    let node = Node::new(|tree| tree.add_bnxt(0, 2));
    let pool = configured(r#""selectors": {"vendors": ["14e4"], "isRdma": true}"#);
    let before = node.members(&pool, Some(&Holdings::new()));
    node.tree.hide_netdev("0000:5e:02.0", "ens3f0v0");
    node.tree.hide_rdma("bnxt_re2");
    let vf = Hardware::Function("0000:5e:02.0".parse().unwrap());
    let held = Holdings::from([(vf.clone(), pool.resource.to_string())]);
    assert_eq!(node.members(&pool, Some(&held)), before);
    assert_eq!(ids(&node.members(&pool, Some(&Holdings::new()))), ["0000:5e:02.1"], "nothing else keeps it");
    // Before the kubelet says so, the daemon knows that it was there.
    let machine = Scanner::new(Sysfs::new(node.tree.root())).scan().unwrap();
    let rdma = RdmaNode { away: ["0000:5e:02.0".parse().unwrap()].into(), ..RdmaNode::default() };
    let around = Surroundings { machine, rdma, ..Surroundings::default() };
    assert_eq!(assign(&[&pool], &around, None).pools[0], before);
    // A kubelet that asks again, because the container is made again, is answered the same.
    let held = &before[&vf.into()];
    let name = "cdi.zerobridge.io/rdma=0000:5e:02.0".to_owned();
    assert_eq!(node.give(&pool, held, EXCLUSIVE).response.cdi_devices, [CdiDevice { name }]);
}

/// `rdma link add rxe0 type rxe netdev enp1s0f0` on the host, and a pool with shares of it.
#[test]
fn shares_of_a_software_device_on_a_pf_have_its_nodes_and_no_others() {
    let build = |tree: &SysfsTree| {
        tree.add_igb(0, 2);
        tree.add_mlx5(0, 1);
        let rxe = |name: &str, number| FakeRdma { name: name.to_owned(), number, infiniband: false };
        tree.show_soft_rdma("enp1s0f0", &rxe("rxe0", 5));
        tree.show_soft_rdma("enp1s0f0v1", &rxe("rxe1", 6));
    };
    let node = Node::new(build);
    // Software has none of its own.
    for node_of_mad in ["umad5", "umad6"] {
        fs::remove_file(node.root.path().join("dev/infiniband").join(node_of_mad)).unwrap();
    }
    let text = include_str!("../../../../manifests/examples/soft-roce-shares.json");
    let pool = Config::parse(text).unwrap().pools.remove(0);
    let pool = PoolConfig { resource: plain_pool().resource, ..pool };
    let devices = node.members(&pool, None);
    let shares = pool.shares.unwrap().get();
    let expected: Vec<String> = (0..shares).map(|share| format!("0000:01:00.0#{share}")).collect();
    assert_eq!(ids(&devices), expected);
    for device in devices.values() {
        for method in [NodeMethod::Plain, NodeMethod::Cdi] {
            let Allocation { response, specs, infos, .. } = node.give(&pool, device, method.into());
            let nodes: Vec<String> = match method {
                NodeMethod::Plain => response.devices.iter().map(|node| node.host_path.clone()).collect(),
                NodeMethod::Cdi => {
                    let edits = &specs[0].1.devices[0].container_edits;
                    edits.device_nodes.iter().map(|node| node.path.clone()).collect()
                }
            };
            assert_eq!(infiniband(&nodes), ["rdma_cm", "uverbs5"], "{}", device.id);
            assert_eq!(infos, []);
        }
    }
}
