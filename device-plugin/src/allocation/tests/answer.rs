//! What the kubelet is told.

use super::*;

#[test]
fn a_netdev_needs_variables_and_no_nodes() {
    let (one, two) = (device("0000:01:10.2", "igbvf"), device("0000:01:10.0", "igbvf"));
    let requested = [(&one, Nodes::default()), (&two, Nodes::default())];
    for method in [NodeMethod::Plain, NodeMethod::Cdi] {
        let Allocation { response, infos, specs, companions } =
            allocate(&plain_pool(), &requested, method.into()).unwrap();
        let ids = "0000:01:10.2,0000:01:10.0".to_owned();
        let info = r#"{"0000:01:10.0":{"generic":{"deviceID":"0000:01:10.0"}},"0000:01:10.2":{"generic":{"deviceID":"0000:01:10.2"}}}"#;
        let expected = [
            ("PCIDEVICE_ZEROBRIDGE_IO_VF-A".to_owned(), ids.clone()),
            ("PCIDEVICE_ZEROBRIDGE_IO_VF_A".to_owned(), ids),
            ("PCIDEVICE_ZEROBRIDGE_IO_VF-A_INFO".to_owned(), info.to_owned()),
            ("PCIDEVICE_ZEROBRIDGE_IO_VF_A_INFO".to_owned(), info.to_owned()),
        ];
        assert_eq!(response, ContainerAllocateResponse { envs: expected.into(), ..Default::default() });
        let named: Vec<String> = infos.iter().map(|(device, _)| device.to_string()).collect();
        assert_eq!(named, ["0000:01:10.2", "0000:01:10.0"]);
        assert_eq!((specs, companions), (Vec::new(), Vec::new()));
    }
}

#[test]
fn several_devices_share_what_all_share() {
    let existing = ["vfio/vfio", "vfio/7", "vfio/8"];
    let (one, two) = (device("0000:01:10.6", "vfio-pci"), device("0000:01:10.4", "vfio-pci"));
    let requested = [(&one, nodes(vfio(8, false), &existing)), (&two, nodes(vfio(7, false), &existing))];
    let allocation = allocate(&plain_pool(), &requested, NodeMethod::Plain.into()).unwrap();
    assert_eq!(paths(&allocation), ["/dev/vfio/7", "/dev/vfio/8", "/dev/vfio/vfio"]);
    assert_eq!(
        info(&allocation),
        r#"{"0000:01:10.4":{"generic":{"deviceID":"0000:01:10.4"},"vfio":{"dev-mount":"/dev/vfio/7","mount":"/dev/vfio/vfio"}},"0000:01:10.6":{"generic":{"deviceID":"0000:01:10.6"},"vfio":{"dev-mount":"/dev/vfio/8","mount":"/dev/vfio/vfio"}}}"#
    );
    assert_eq!(allocation, allocate(&plain_pool(), &requested, NodeMethod::Plain.into()).unwrap());
}

#[test]
fn by_cdi_each_device_has_a_specification_and_the_answer_only_names() {
    let existing = ["vfio/vfio", "vfio/7", "vfio/noiommu-8"];
    let (one, two) = (device("0000:01:10.4", "vfio-pci"), device("0000:01:10.6", "vfio-pci"));
    let requested = [(&one, nodes(vfio(7, false), &existing)), (&two, nodes(vfio(8, true), &existing))];
    let plain = allocate(&plain_pool(), &requested, NodeMethod::Plain.into()).unwrap();
    let Allocation { response, specs, infos, .. } =
        allocate(&plain_pool(), &requested, NodeMethod::Cdi.into()).unwrap();
    let names: Vec<&str> = response.cdi_devices.iter().map(|device| device.name.as_str()).collect();
    assert_eq!(
        names,
        ["cdi.zerobridge.io/device=vf-a:0000:01:10.4", "cdi.zerobridge.io/device=vf-a:0000:01:10.6"]
    );
    assert_eq!((response.devices.len(), response.annotations.len()), (0, 0));
    assert_eq!((&response.envs, &infos), (&plain.response.envs, &plain.infos));

    let mut paths = BTreeSet::new();
    for ((id, spec), name) in specs.iter().zip(names) {
        assert_eq!(spec.check(), Ok(()));
        assert_eq!(format!("{}={}", spec.kind, spec.devices[0].name), name);
        assert!(name.ends_with(&id.to_string()));
        for node in &spec.devices[0].container_edits.device_nodes {
            paths.insert((node.path.clone(), node.host_path.clone().unwrap_or_else(|| node.path.clone())));
        }
    }
    let plain = plain.response.devices.into_iter().map(|node| (node.container_path, node.host_path));
    assert_eq!(paths, plain.collect(), "the same nodes either way");
}

#[test]
fn additional_information_is_about_all_then_the_hardware_then_the_device() {
    let say = |about: &str, texts: &[(&str, &str)]| {
        (
            about.to_owned(),
            texts.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        )
    };
    let additional_info = BTreeMap::from([
        say("*", &[("rail", "0"), ("token", "t")]),
        say("0000:01:00.0", &[("rail", "1")]),
        say("0000:01:00.0#3", &[("share", "three")]),
    ]);
    let give = |pool: &PoolConfig, id| {
        info(&give(pool, &device(id, "mlx5_core"), nodes(rdma(&[1]), &["infiniband/uverbs1"])).unwrap())
            .to_owned()
    };
    let exclusive = PoolConfig { additional_info: additional_info.clone(), ..plain_pool() };
    assert!(give(&exclusive, "0000:01:10.0").contains(r#""extra":{"rail":"0","token":"t"}"#));
    let shared = PoolConfig { additional_info, ..shared_pool() };
    assert!(give(&shared, "0000:01:00.0#3").contains(r#""extra":{"rail":"1","share":"three","token":"t"}"#));
    assert!(!give(&plain_pool(), "0000:01:10.0").contains("extra"));
}

#[test]
fn a_request_is_answered_for_devices_of_the_pool_and_for_each_once() {
    let pool = plain_pool().resource;
    let devices: PoolDevices = ["0000:01:10.0", "0000:01:10.2"]
        .into_iter()
        .map(|id| device(id, "igbvf"))
        .map(|device| (device.id.clone(), device))
        .collect();
    let request = |ids: &[&str]| {
        let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
        let found = requested(&pool, &devices, &ids)?;
        Ok::<_, AllocationError>(found.into_iter().map(|device| device.id.to_string()).collect::<Vec<_>>())
    };
    let twice = request(&["0000:01:10.2", "0000:01:10.0", "0000:01:10.2"]).unwrap();
    assert_eq!(twice, ["0000:01:10.2", "0000:01:10.0"]);
    for id in ["0000:09:10.0", "0000:01:10.0#1", "eth0", ""] {
        let error = request(&["0000:01:10.0", id]).unwrap_err().to_string();
        assert!(error.contains(&format!("\"{id}\"")) && error.contains("zerobridge.io/vf-a"), "{error}");
    }
    assert_eq!(request(&[]), Err(AllocationError::NoDevice { pool: pool.clone() }));
    assert_eq!(
        allocate(&plain_pool(), &[], NodeMethod::Plain.into()),
        Err(AllocationError::NoDevice { pool })
    );
}
