//! RDMA devices that have other nodes, or any at all, only when they are in the pod.

use super::*;

const LATE: Delivery = Delivery { method: NodeMethod::Cdi, rdma_exclusive: true };

const ALL: [&str; 5] =
    ["infiniband/uverbs1", "infiniband/umad1", "infiniband/issm1", "infiniband/ucm1", "infiniband/rdma_cm"];

/// CDI names, and the nodes of all specifications.
fn late(pool: &PoolConfig, device: &Device, nodes: Nodes) -> (Vec<String>, Vec<String>, Allocation) {
    let allocation = allocate(pool, &[(device, nodes)], LATE).unwrap();
    assert_eq!(allocation.response.devices, []);
    let names = allocation.response.cdi_devices.iter().map(|device| device.name.clone()).collect();
    let devices = allocation.specs.iter().flat_map(|(_, spec)| &spec.devices);
    let nodes = devices.flat_map(|device| &device.container_edits.device_nodes);
    (names, nodes.map(|node| node.path.clone()).collect(), allocation)
}

fn soft_pool() -> PoolConfig {
    PoolConfig { rdma: PoolRdma::Soft, ..plain_pool() }
}

fn vhost_too(mut pool: PoolConfig) -> PoolConfig {
    for selectors in &mut pool.selectors {
        selectors.need_vhost_net = true;
    }
    pool
}

const NAME: &str = "cdi.zerobridge.io/rdma=0000:01:10.4";
const OWN: &str = "cdi.zerobridge.io/device=vf-a:0000:01:10.4";

#[test]
fn in_exclusive_mode_a_device_that_moves_is_asked_for_by_name_and_no_node_of_it_is_told() {
    let vf = device("0000:01:10.4", "mlx5_core");
    let (names, paths, allocation) = late(&rdma_pool(), &vf, nodes(rdma(&[1]), &ALL));
    assert_eq!((names, paths), (vec![NAME.to_owned()], Vec::new()));
    assert_eq!(allocation.specs, []);
    let expected = r#"{"0000:01:10.4":{"generic":{"deviceID":"0000:01:10.4"},"rdma":{"rdma_cm":"/dev/infiniband/rdma_cm","rdma_dev":"mlx5_1"}}}"#;
    assert_eq!(info(&allocation), expected);
    let document = serde_json::to_string(&allocation.infos[0].1).unwrap();
    assert!(document.contains(r#""rdma-device":"mlx5_1""#), "{document}");

    // What else the pool gives has a specification of its own.
    let existing = [&ALL[..], &["vhost-net", "net/tun"]].concat();
    let (names, paths, _) = late(&vhost_too(rdma_pool()), &vf, nodes(rdma(&[1]), &existing));
    assert_eq!(names, [OWN, NAME]);
    assert_eq!(paths, ["/dev/net/tun", "/dev/vhost-net"]);
}

#[test]
fn a_device_that_is_still_on_its_way_back_is_asked_for_by_the_same_name() {
    let vf = device("0000:01:10.4", "mlx5_core");
    let (names, _, allocation) = late(&rdma_pool(), &vf, nodes(CharacterDevices::default(), &[]));
    assert_eq!(names, [NAME]);
    assert_eq!(info(&allocation), r#"{"0000:01:10.4":{"generic":{"deviceID":"0000:01:10.4"},"rdma":{}}}"#);
}

#[test]
fn several_devices_have_a_name_each() {
    let (one, two) = (device("0000:01:10.4", "mlx5_core"), device("0000:01:10.6", "mlx5_core"));
    let requested = [(&one, nodes(rdma(&[1]), &ALL)), (&two, nodes(rdma(&[2]), &ALL))];
    let response = allocate(&rdma_pool(), &requested, LATE).unwrap().response;
    let names: Vec<_> = response.cdi_devices.iter().map(|device| device.name.as_str()).collect();
    assert_eq!(names, [NAME, "cdi.zerobridge.io/rdma=0000:01:10.6"]);
}

/// Each of these keeps the nodes that it has on the host.
#[test]
fn what_stays_on_the_host_or_has_no_such_name_gets_its_nodes_at_once() {
    let vf = device("0000:01:10.4", "mlx5_core");
    let share = device("0000:01:00.0#3", "mlx5_core");
    let sf = device("mlx5_core.sf.4", "mlx5_core.sf");
    let shared_mode = Delivery { rdma_exclusive: false, ..LATE };
    let plain = Delivery { method: NodeMethod::Plain, ..LATE };
    for (what, pool, device, delivery) in [
        ("shared mode", rdma_pool(), &vf, shared_mode),
        ("plain nodes", rdma_pool(), &vf, plain),
        ("another CNI plugin", PoolConfig { rdma: PoolRdma::Plain, ..rdma_pool() }, &vf, LATE),
        ("a share", shared_pool(), &share, LATE),
        ("a scalable function", rdma_pool(), &sf, LATE),
    ] {
        let requested = [(device, nodes(rdma(&[1]), &ALL))];
        let Allocation { response, specs, .. } = allocate(&pool, &requested, delivery).unwrap();
        let told: Vec<String> = match delivery.method {
            NodeMethod::Plain => response.devices.iter().map(|node| node.container_path.clone()).collect(),
            NodeMethod::Cdi => {
                let edits = &specs[0].1.devices[0].container_edits;
                edits.device_nodes.iter().map(|node| node.path.clone()).collect()
            }
        };
        assert!(told.contains(&"/dev/infiniband/uverbs1".to_owned()), "{what}: {told:?}");
        assert!(response.cdi_devices.iter().all(|device| !device.name.contains("/rdma=")), "{what}");
    }
}

#[test]
fn a_pool_that_gives_no_rdma_has_no_name_either() {
    let vf = device("0000:01:10.4", "mlx5_core");
    let off = PoolConfig { rdma: PoolRdma::Off, ..rdma_pool() };
    for pool in [&plain_pool(), &off] {
        for delivery in [LATE, NodeMethod::Plain.into()] {
            let requested = [(&vf, nodes(rdma(&[1]), &ALL))];
            let Allocation { response, infos, .. } = allocate(pool, &requested, delivery).unwrap();
            assert_eq!((response.devices.len(), response.cdi_devices.len()), (0, 0));
            let document = serde_json::to_string(&infos[0].1).unwrap();
            assert!(!document.contains("rdma"), "{document}");
        }
    }
}

#[test]
fn what_only_some_alternatives_ask_for_has_a_name_where_it_is() {
    let mixed = pool(vec![Selectors { is_rdma: true, ..Selectors::default() }, Selectors::default()]);
    let vf = device("0000:01:10.4", "mlx5_core");
    assert_eq!(late(&mixed, &vf, nodes(rdma(&[1]), &ALL)).0, [NAME]);
    assert_eq!(late(&mixed, &vf, nodes(CharacterDevices::default(), &ALL)).0, [""; 0]);
    // A VFIO driver leaves the kernel no RDMA device.
    let vfio_nodes = nodes(vfio(7, false), &["vfio/vfio", "vfio/7"]);
    assert_eq!(late(&mixed, &device("0000:01:10.4", "vfio-pci"), vfio_nodes).0, [OWN]);
    let error = allocate(&rdma_pool(), &[(&vf, nodes(vfio(7, false), &["vfio/vfio", "vfio/7"]))], LATE);
    assert!(error.unwrap_err().to_string().contains("has no RDMA device"));
}

#[test]
fn a_software_device_is_asked_for_by_name_in_both_modes() {
    let vf = device("0000:01:10.4", "iavf");
    for rdma_exclusive in [false, true] {
        // One that an administrator made on the VF ends when the VF goes into the pod.
        let requested = [(&vf, nodes(rdma(&[1]), &ALL))];
        let delivery = Delivery { rdma_exclusive, ..LATE };
        let Allocation { response, specs, infos, .. } = allocate(&soft_pool(), &requested, delivery).unwrap();
        assert_eq!(response.cdi_devices, [CdiDevice { name: NAME.to_owned() }]);
        assert_eq!((response.devices.len(), specs.len()), (0, 0));
        let told = &response.envs["PCIDEVICE_ZEROBRIDGE_IO_VF_A_INFO"];
        assert!(told.contains(r#""rdma":{"rdma_cm":"/dev/infiniband/rdma_cm"}"#), "{told}");
        let document = serde_json::to_string(&infos[0].1).unwrap();
        assert!(!document.contains("rdma-device"), "{document}");
    }
    let existing = ["vhost-net", "net/tun"];
    let (names, paths, _) = late(&vhost_too(soft_pool()), &vf, nodes(CharacterDevices::default(), &existing));
    assert_eq!(names, [OWN, NAME]);
    assert_eq!(paths, ["/dev/net/tun", "/dev/vhost-net"]);
}

#[test]
fn a_software_device_that_cannot_be_had_is_refused_with_a_remedy() {
    for (driver, characters, method, parts) in [
        (
            "iavf",
            CharacterDevices::default(),
            NodeMethod::Plain,
            ["pool zerobridge.io/vf-a says \"rdma\": \"soft\"", "write \"cdi\": \"on\""],
        ),
        (
            "vfio-pci",
            vfio(7, false),
            NodeMethod::Cdi,
            ["0000:01:10.4 of pool zerobridge.io/vf-a is bound to vfio-pci", "bind it to one, such as iavf"],
        ),
        (
            "igb_uio",
            CharacterDevices { uio: Some("uio2".to_owned()), ..CharacterDevices::default() },
            NodeMethod::Cdi,
            ["is bound to igb_uio", "\"rdma\": \"soft\""],
        ),
    ] {
        let nodes = nodes(characters, &["vfio/vfio", "vfio/7", "uio2"]);
        let requested = [(&device("0000:01:10.4", driver), nodes)];
        let error = allocate(&soft_pool(), &requested, method.into()).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}
