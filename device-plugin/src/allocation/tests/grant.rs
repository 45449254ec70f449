//! Which nodes a container gets.

use super::*;

/// Each way in which a device is reached: its nodes, and what is said about them.
#[test]
fn a_container_gets_the_nodes_of_its_device_as_far_as_they_exist() {
    let vhost_net = || pool(vec![Selectors { need_vhost_net: true, ..Selectors::default() }]);
    let rdma_all = [
        "infiniband/uverbs1",
        "infiniband/umad1",
        "infiniband/issm1",
        "infiniband/ucm1",
        "infiniband/rdma_cm",
    ];
    for (pool, id, driver, characters, existing, expected_paths, expected_info) in [
        (
            plain_pool(),
            "0000:01:10.4",
            "vfio-pci",
            vfio(7, false),
            &["vfio/vfio", "vfio/7", "vfio/8", "iommu"][..],
            &["/dev/vfio/7", "/dev/vfio/vfio"][..],
            r#""vfio":{"dev-mount":"/dev/vfio/7","mount":"/dev/vfio/vfio"}"#,
        ),
        (
            plain_pool(),
            "0000:01:10.4",
            "mlx5-vfio-pci",
            vfio(7, false),
            &["vfio/vfio", "vfio/7", "vfio/devices/vfio3", "iommu"],
            &["/dev/iommu", "/dev/vfio/7", "/dev/vfio/devices/vfio3", "/dev/vfio/vfio"],
            r#""vfio":{"cdev-mount":"/dev/vfio/devices/vfio3","dev-mount":"/dev/vfio/7","iommu-mount":"/dev/iommu","mount":"/dev/vfio/vfio"}"#,
        ),
        (
            plain_pool(),
            "0000:01:10.4",
            "vfio-pci",
            vfio(7, false),
            &["vfio/devices/vfio3", "iommu"],
            &["/dev/iommu", "/dev/vfio/devices/vfio3"],
            r#""vfio":{"cdev-mount":"/dev/vfio/devices/vfio3","iommu-mount":"/dev/iommu"}"#,
        ),
        (
            plain_pool(),
            "0000:01:10.4",
            "vfio-pci",
            vfio(7, true),
            &["vfio/vfio", "vfio/noiommu-7"],
            &["/dev/vfio/noiommu-7>/dev/vfio/7", "/dev/vfio/noiommu-7", "/dev/vfio/vfio"],
            r#""vfio":{"dev-mount":"/dev/vfio/7","mount":"/dev/vfio/vfio"}"#,
        ),
        (
            plain_pool(),
            "0000:01:10.4",
            "uio_pci_generic",
            CharacterDevices { uio: Some("uio2".to_owned()), ..CharacterDevices::default() },
            &["uio2"],
            &["/dev/uio2"],
            r#""uio":{"mount":"/dev/uio2"}"#,
        ),
        (
            plain_pool(),
            "0000:01:10.4",
            "igb_uio",
            CharacterDevices { uio: Some("uio0".to_owned()), ..CharacterDevices::default() },
            &["uio0", "uio1"],
            &["/dev/uio0"],
            r#""uio":{"mount":"/dev/uio0"}"#,
        ),
        // A pool that does not ask for RDMA gives none.
        (
            plain_pool(),
            "0000:01:10.4",
            "mlx5_core",
            rdma(&[1]),
            &rdma_all,
            &[],
            r#""generic":{"deviceID":"0000:01:10.4"}"#,
        ),
        (
            rdma_pool(),
            "0000:01:10.4",
            "mlx5_core",
            rdma(&[1]),
            &rdma_all,
            &[
                "/dev/infiniband/issm1",
                "/dev/infiniband/rdma_cm",
                "/dev/infiniband/ucm1",
                "/dev/infiniband/umad1",
                "/dev/infiniband/uverbs1",
            ],
            r#""rdma":{"issm":"/dev/infiniband/issm1","rdma_cm":"/dev/infiniband/rdma_cm","rdma_dev":"mlx5_1","umad":"/dev/infiniband/umad1","uverbs":"/dev/infiniband/uverbs1"}"#,
        ),
        // RoCE has no issm, and a kernel without the connection manager no rdma_cm.
        (
            rdma_pool(),
            "mlx5_core.sf.4",
            "mlx5_core.sf",
            rdma(&[1]),
            &["infiniband/uverbs1", "infiniband/uverbs2"],
            &["/dev/infiniband/uverbs1"],
            r#""generic":{"deviceID":"mlx5_core.sf.4"},"rdma":{"rdma_dev":"mlx5_1","uverbs":"/dev/infiniband/uverbs1"}"#,
        ),
        (
            rdma_pool(),
            "0000:01:10.4",
            "mlx5_core",
            rdma(&[1, 2]),
            &["infiniband/uverbs1", "infiniband/uverbs2"],
            &["/dev/infiniband/uverbs1", "/dev/infiniband/uverbs2"],
            r#""rdma":{"rdma_dev":"mlx5_1,mlx5_2","uverbs":"/dev/infiniband/uverbs2"}"#,
        ),
        // A share has its HCA's nodes and nothing of what else the function may be.
        (
            shared_pool(),
            "0000:01:00.0#3",
            "mlx5_core",
            rdma(&[1]),
            &["infiniband/uverbs0", "infiniband/uverbs1", "infiniband/rdma_cm"],
            &["/dev/infiniband/rdma_cm", "/dev/infiniband/uverbs1"],
            r#""generic":{"deviceID":"0000:01:00.0#3"},"rdma":{"rdma_cm":"/dev/infiniband/rdma_cm","rdma_dev":"mlx5_1","uverbs":"/dev/infiniband/uverbs1"}"#,
        ),
        (
            vdpa_pool(VdpaType::Vhost),
            "0000:01:10.4",
            "mlx5_core",
            vdpa(Some("vhost-vdpa-0"), None),
            &["vhost-vdpa-0"],
            &["/dev/vhost-vdpa-0"],
            r#""vdpa":{"mount":"/dev/vhost-vdpa-0"}"#,
        ),
        (
            vdpa_pool(VdpaType::Virtio),
            "0000:01:10.4",
            "mlx5_core",
            vdpa(None, Some("virtio5")),
            &[],
            &[],
            r#""vdpa":{}"#,
        ),
        (
            vhost_net(),
            "0000:01:10.4",
            "igbvf",
            CharacterDevices::default(),
            &["vhost-net", "net/tun"],
            &["/dev/net/tun", "/dev/vhost-net"],
            r#""vhost":{"net-mount":"/dev/vhost-net","tun-mount":"/dev/net/tun"}"#,
        ),
    ] {
        let allocation = give(&pool, &device(id, driver), nodes(characters, existing)).unwrap();
        assert_eq!(paths(&allocation), expected_paths, "{id} {driver}");
        assert!(info(&allocation).contains(expected_info), "{}", info(&allocation));
    }
}

#[test]
fn what_a_device_cannot_be_used_without_is_named() {
    let vhost_net = pool(vec![Selectors { need_vhost_net: true, ..Selectors::default() }]);
    let uio = || CharacterDevices { uio: Some("uio2".to_owned()), ..CharacterDevices::default() };
    let no_uverbs = {
        let mut characters = rdma(&[1]);
        characters.rdma[0].uverbs = None;
        characters
    };
    let none = CharacterDevices::default;
    for (pool, driver, characters, existing, told) in [
        (plain_pool(), "vfio-pci", none(), &["vfio/vfio"][..], "no IOMMU group; enable the IOMMU"),
        (plain_pool(), "vfio-pci", vfio(7, false), &["vfio/7"], "/dev/vfio/vfio, which does not exist"),
        (
            plain_pool(),
            "vfio-pci",
            vfio(7, false),
            &["vfio/vfio", "vfio/devices/vfio3"],
            "/dev/vfio/7, which",
        ),
        (plain_pool(), "vfio-pci", vfio(7, true), &["vfio/vfio", "vfio/7"], "/dev/vfio/noiommu-7, which"),
        (plain_pool(), "igb_uio", none(), &[], "no UIO device"),
        (plain_pool(), "uio", uio(), &["uio1"], "/dev/uio2, which"),
        (rdma_pool(), "mlx5_core", none(), &[], "no RDMA device"),
        (rdma_pool(), "mlx5_core", rdma(&[1]), &["infiniband/uverbs0"], "/dev/infiniband/uverbs1, which"),
        (rdma_pool(), "mlx5_core", no_uverbs, &[], "no uverbs device"),
        (shared_pool(), "mlx5_core", none(), &[], "no RDMA device"),
        (
            vdpa_pool(VdpaType::Vhost),
            "mlx5_core",
            vdpa(None, Some("virtio0")),
            &[],
            "bind its vDPA device to vhost_vdpa",
        ),
        (vdpa_pool(VdpaType::Virtio), "mlx5_core", none(), &[], "bind its vDPA device to virtio_vdpa"),
        (
            vdpa_pool(VdpaType::Vhost),
            "mlx5_core",
            vdpa(Some("vhost-vdpa-0"), None),
            &[],
            "/dev/vhost-vdpa-0, which",
        ),
        (vhost_net.clone(), "igbvf", none(), &["net/tun"], "/dev/vhost-net, which does not exist; load"),
        (vhost_net, "igbvf", none(), &["vhost-net"], "/dev/net/tun, which"),
    ] {
        let error = give(&pool, &device("0000:01:10.4", driver), nodes(characters, existing))
            .unwrap_err()
            .to_string();
        assert!(error.contains(told), "{error}");
        assert!(error.starts_with("0000:01:10.4 of pool zerobridge.io/vf-a "), "{error}");
    }
}

#[test]
fn what_only_some_alternatives_ask_for_is_given_where_it_is() {
    let rdma_too = Selectors { is_rdma: true, ..Selectors::default() };
    let mixed = pool(vec![rdma_too, Selectors::default()]);
    let with = give(&mixed, &device("0000:01:10.0", "mlx5_core"), nodes(rdma(&[1]), &["infiniband/uverbs1"]));
    assert_eq!(paths(&with.unwrap()), ["/dev/infiniband/uverbs1"]);
    let without = give(&mixed, &device("0000:01:10.2", "igbvf"), Nodes::default()).unwrap();
    assert_eq!(paths(&without), [""; 0]);
}

#[test]
fn who_shares_an_iommu_group_is_told() {
    let mut characters = vfio(7, false);
    let other: PciAddress = "0000:01:10.6".parse().unwrap();
    if let Some(vfio) = &mut characters.vfio {
        vfio.companions = vec![other];
    }
    let vf = device("0000:01:10.4", "vfio-pci");
    let allocation = give(&plain_pool(), &vf, nodes(characters, &["vfio/vfio", "vfio/7"])).unwrap();
    assert_eq!(allocation.companions, [(vf.id, vec![other])]);
}
