//! What Multus is told.

use super::*;

#[test]
fn a_device_info_document_says_what_its_kind_has() {
    let json = |pool: &PoolConfig, device: &Device, characters, existing: &[&str]| {
        let infos = give(pool, device, nodes(characters, existing)).unwrap().infos;
        infos.first().map(|(_, info)| serde_json::to_string(info).unwrap()).unwrap_or_default()
    };
    let rdma_vhost = pool(vec![Selectors { is_rdma: true, need_vhost_net: true, ..Selectors::default() }]);
    let vf = Device { representor: Some("eth3".to_owned()), ..device("0000:01:10.4", "mlx5_core") };
    let uverbs = ["infiniband/uverbs1", "infiniband/uverbs2", "vhost-net", "net/tun"];
    assert_eq!(
        json(&rdma_vhost, &vf, rdma(&[1, 2]), &uverbs),
        r#"{"type":"pci","version":"1.1.0","pci":{"pci-address":"0000:01:10.4","vhost-net":"/dev/vhost-net","rdma-device":"mlx5_1,mlx5_2","pf-pci-address":"0000:01:00.0","representor-device":"eth3"}}"#
    );
    // A scalable function is described by the function that it is a part of.
    assert_eq!(
        json(&plain_pool(), &device("mlx5_core.sf.4", "mlx5_core.sf"), rdma(&[1]), &uverbs),
        r#"{"type":"pci","version":"1.1.0","pci":{"pci-address":"0000:01:00.0","pf-pci-address":"0000:01:00.0"}}"#
    );
    let alone = Device { pf: None, ..device("0000:02:00.0", "mlx5_core") };
    assert_eq!(
        json(&plain_pool(), &alone, CharacterDevices::default(), &[]),
        r#"{"type":"pci","version":"1.1.0","pci":{"pci-address":"0000:02:00.0"}}"#
    );
    assert_eq!(
        json(&vdpa_pool(VdpaType::Vhost), &vf, vdpa(Some("vhost-vdpa-0"), None), &["vhost-vdpa-0"]),
        r#"{"type":"vdpa","version":"1.1.0","vdpa":{"parent-device":"vdpa0","driver":"vhost","path":"/dev/vhost-vdpa-0","pci-address":"0000:01:10.4","pf-pci-address":"0000:01:00.0","representor-device":"eth3"}}"#
    );
    assert_eq!(
        json(&vdpa_pool(VdpaType::Virtio), &vf, vdpa(None, Some("virtio5")), &[]),
        r#"{"type":"vdpa","version":"1.1.0","vdpa":{"parent-device":"vdpa0","driver":"virtio","path":"/sys/bus/virtio/devices/virtio5","pci-address":"0000:01:10.4","pf-pci-address":"0000:01:00.0","representor-device":"eth3"}}"#
    );
    assert_eq!(json(&shared_pool(), &device("0000:01:00.0#3", "mlx5_core"), rdma(&[1]), &uverbs), "");
    let accelerator = PoolConfig { kind: PoolKind::Accelerator, ..plain_pool() };
    assert_eq!(json(&accelerator, &device("0000:05:00.0", "qat"), CharacterDevices::default(), &[]), "");
}
