//! Files of the two programs that this one replaces.

use super::*;
use crate::selector::{PortMatch, Selectors};

fn pools(text: &str) -> Vec<PoolConfig> {
    ConfigFile::parse(text, None).unwrap().for_node(&NodeIdentity::default()).config.pools
}

fn resources(pools: &[PoolConfig]) -> Vec<String> {
    pools.iter().map(|pool| pool.resource.to_string()).collect()
}

fn notices(path: &str) -> Vec<String> {
    let file = ConfigFile::parse(&sample(path), None).unwrap();
    file.notices.iter().map(ToString::to_string).collect()
}

#[test]
fn every_sample_of_the_old_programs_loads() {
    for (folder, format, at_least) in
        [("sriov-network", Format::SriovNetwork, 11), ("rdma-shared", Format::RdmaShared, 3)]
    {
        let samples = samples(folder);
        assert!(samples.len() >= at_least, "{samples:?}");
        for (path, text) in samples {
            let file = ConfigFile::parse(&text, None)
                .unwrap_or_else(|error| panic!("{}: {}", path.display(), chain(&error)));
            assert_eq!(file.format, format, "{}", path.display());
            assert!(!file.for_node(&NodeIdentity::default()).config.pools.is_empty(), "{}", path.display());
        }
    }
}

#[test]
fn resources_keep_their_names() {
    for (path, expected) in [
        (
            "sriov-network/kernel-and-dpdk.json",
            &["intel.com/intel_sriov_netdevice", "intel.com/intel_sriov_dpdk", "intel.com/mlnx_sriov_rdma"][..],
        ),
        (
            "sriov-network/subfunctions.json",
            &["nvidia.com/bf2_sf", "nvidia.com/cx6dx_vf", "nvidia.com/cx6dx_sf"],
        ),
        (
            "sriov-network/written-by-an-operator.json",
            &["intel.com/sriovnics", "openshift.io/CNSBC-VFIO-INT-ACCESS"],
        ),
        (
            "rdma-shared/devices-and-selectors.json",
            &["rdma/hca_shared_devices_a", "rdma/hca_shared_devices_b"],
        ),
        (
            "rdma-shared/every-field.json",
            &["example.com/rdma_shared_device_eth", "rdma/rdma_shared_device_ib"],
        ),
    ] {
        assert_eq!(resources(&pools(&sample(path))), expected, "{path}");
    }
    for path in ["sriov-network/everything.json", "rdma-shared/devices-and-selectors.json"] {
        let file = ConfigFile::parse(&sample(path), Some("acme.com")).unwrap();
        let resources = resources(&file.for_node(&NodeIdentity::default()).config.pools);
        assert!(resources.iter().all(|resource| resource.starts_with("acme.com/")), "{resources:?}");
    }
}

#[test]
fn every_field_of_a_resource_list_has_its_meaning() {
    let [pool] = pools(&sample("sriov-network/every-netdevice-field.json")).try_into().unwrap();
    assert_eq!((pool.kind, pool.shares, pool.topology), (PoolKind::NetDevice, None, false));
    let [first, second] = pool.selectors.as_slice() else { panic!("{pool:?}") };
    let port_match = PortMatch { any_case: true, itself: false };
    let expected = Selectors {
        vendors: vec!["8086".parse().unwrap(), "15b3".parse().unwrap()],
        devices: ["154c", "1889", "1018"].map(|id| id.parse().unwrap()).to_vec(),
        drivers: vec!["vfio-pci".to_owned()],
        pci_addresses: vec!["0000:03:02.0".parse().unwrap()],
        acpi_indexes: vec![101],
        pf_names: vec!["netpf0#0,2-7,9".parse().unwrap()],
        root_devices: vec!["0000:86:00.0".parse().unwrap(), "0000:86:00.1#1-3".parse().unwrap()],
        port_match,
        link_types: vec![zerobridge_kernel::LinkType::Infiniband],
        is_rdma: true,
        p_keys: ["0x0001", "0xabcd", "0x0050"].map(|key| key.parse().unwrap()).to_vec(),
        ddp_profiles: vec!["GTPv1-C/U IPv4/IPv6 payload".to_owned()],
        need_vhost_net: true,
        ..Selectors::default()
    };
    assert_eq!(*first, expected);
    let expected = Selectors {
        link_types: vec![zerobridge_kernel::LinkType::Ethernet],
        vdpa_type: Some(crate::selector::VdpaType::Vhost),
        port_match,
        ..Selectors::default()
    };
    assert_eq!(*second, expected);
    assert_eq!(pool.additional_info["*"]["token"], "original");
    assert_eq!(pool.additional_info["0000:86:00.0"]["additional-token"], "more");
}

#[test]
fn a_pf_that_is_named_twice_counts_twice() {
    let pools = pools(&sample("sriov-network/written-by-an-operator.json"));
    let shown: Vec<String> = pools[1].selectors[0].pf_names.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["ens785f0#5-6", "ens785f0#8"]);
    assert!(pools[1].selectors[0].is_rdma, "a key in another case, as Go reads it");
    let expected = Selectors {
        pf_names: vec!["ens785f0#0-4".parse().unwrap(), "ens785f1#0-9".parse().unwrap()],
        port_match: PortMatch { any_case: true, itself: false },
        ..Selectors::default()
    };
    assert_eq!(pools[0].selectors, [expected], "null, an empty text and an empty list ask nothing");
}

#[test]
fn every_field_of_a_config_list_has_its_meaning() {
    let pools = pools(&sample("rdma-shared/every-field.json"));
    let port_match = PortMatch { any_case: false, itself: true };
    let expected = Selectors {
        vendors: vec!["15b3".parse().unwrap(), "8086".parse().unwrap()],
        devices: vec!["1017".parse().unwrap(), "101e".parse().unwrap()],
        drivers: vec!["mlx5_core".to_owned(), "ice".to_owned()],
        if_names: vec!["enp2s2f0".to_owned()],
        link_types: vec![zerobridge_kernel::LinkType::Ethernet],
        port_match,
        ..Selectors::default()
    };
    assert_eq!(pools[0].selectors, [expected]);
    assert_eq!(pools[0].shares.unwrap().get(), 63);
    assert_eq!((pools[0].kind, pools[0].topology), (PoolKind::NetDevice, true));
    let pools = self::pools(&sample("rdma-shared/devices-and-selectors.json"));
    assert_eq!(pools[0].selectors[0].if_names, ["ib0", "ib1"], "the old name of ifNames");
    assert_eq!(pools[0].shares.unwrap().get(), 1000);
}

const LATE: &str = "where RDMA devices move into pods (exclusive mode), containers get the nodes that a device has before it moves, \
                    which may be another's after; with the CNI plugin zerobridge, convert this file with --print-config and \
                    remove \"rdma\": \"plain\"";

#[test]
fn what_has_another_effect_is_said() {
    assert_eq!(
        notices("sriov-network/kernel-and-dpdk.json"),
        [format!("resourceList[2].selectors.isRdma: {LATE}")]
    );
    assert_eq!(notices("sriov-network/subfunctions.json"), [""; 0], "those are told their nodes at once");
    assert_eq!(
        notices("sriov-network/written-by-an-operator.json"),
        [
            "resourceList[1].SelectorObj: not read, as there; the selectors are in \"selectors\"".to_owned(),
            format!("resourceList[1].selectors.isRdma: {LATE}"),
        ],
        "null is as good as not written"
    );
    assert_eq!(
        notices("sriov-network/rdma-beside-the-selectors.json"),
        [
            "resourceList[0].isRdma: not read, as by present versions there; move it into \"selectors\" to have it"
        ]
    );
    assert_eq!(
        notices("sriov-network/everything.json"),
        ["resourceList[0].selectors: selects every device of its kind on this node"]
    );
    assert_eq!(
        notices("rdma-shared/every-field.json"),
        [
            "periodicUpdateInterval: not used: changes are noticed when they happen, and the time between two full looks \
             is --rescan",
            "kubeletRootDir: not used: start with --kubelet-root /data/kubelet",
            "configList[0].rdmaHcaMax: 63 is the number of shares of each RDMA device, and no longer of all together",
            "configList[1].rdmaHcaMax: 63 is the number of shares of each RDMA device, and no longer of all together",
        ]
    );
    assert_eq!(
        notices("rdma-shared/more-and-fewer-shares.json"),
        [
            "configList[0].rdmaHcaMax: 5000 is read as 1000, the most shares of each RDMA device",
            "configList[1].rdmaHcaMax: 0 shares: the resource is not offered",
        ]
    );
    assert_eq!(resources(&pools(&sample("rdma-shared/more-and-fewer-shares.json"))), ["rdma/many"]);
}

#[test]
fn what_the_old_programs_drop_in_silence_is_refused() {
    let pool = |keys: &str| complaint(&format!(r#"{{"resourceList": [{{"resourceName": "x", {keys}}}]}}"#));
    for (keys, start) in [
        (
            r#""selectors": {"pfName": ["a"]}"#,
            r#"unknown key resourceList[0].selectors.pfName; did you mean "pfNames"?"#,
        ),
        (r#""selectors": {"ifNames": ["a"]}"#, "unknown key resourceList[0].selectors.ifNames"),
        (r#""selector": {}"#, r#"unknown key resourceList[0].selector; did you mean "selectors"?"#),
        (r#""shares": 2, "selectors": {}"#, "unknown key resourceList[0].shares"),
        (r#""selectors": {"vendors": ["80866"]}"#, "resourceList[0].selectors.vendors[0] is not valid"),
        (r#""selectors": {"pfNames": ["a#x"]}"#, "resourceList[0].selectors.pfNames[0] is not valid"),
        (r#""selectors": {"linkTypes": ["eth"]}"#, "resourceList[0].selectors.linkTypes[0] is \"eth\""),
        (
            r#""selectors": {"isRdma": true, "vdpaType": "vhost"}"#,
            "resourceList[0].selectors.isRdma and vdpaType exclude",
        ),
        (r#""deviceType": "auxNetDevice", "selectors": {}"#, "resourceList[0].selectors.auxTypes is missing"),
        (
            r#""deviceType": "accelerator", "selectors": {"pfNames": ["a"]}"#,
            "resourceList[0].selectors.pfNames selects nothing in a pool of deviceType \"accelerator\"",
        ),
        (r#""deviceType": "vfio", "selectors": {}"#, "resourceList[0].deviceType is \"vfio\""),
        (r#""selectors": null"#, "resourceList[0].selectors selects nothing in particular"),
        (r#""selectors": []"#, "resourceList[0].selectors selects nothing in particular"),
        (
            r#""selectors": {"VENDORS": ["8086"], "vendors": ["15b3"]}"#,
            "resourceList[0].selectors.vendors is written twice",
        ),
    ] {
        let complaint = pool(keys);
        assert!(complaint.starts_with(start), "{keys}: {complaint}");
    }
    assert!(pool(r#""selectors": null"#).contains("or {} if that is what you want"));
    assert!(complaint(r#"{"resourceList": []}"#).starts_with("resourceList is an empty list"));
    assert!(complaint(r#"{"resourceList": null}"#).starts_with("resourceList is missing"));
}

#[test]
fn a_short_address_is_an_address() {
    let text = r#"{"resourceList": [{"resourceName": "x", "selectors": {"pciAddresses": ["00:06.0", "0000:3B:02.1"]}}]}"#;
    let shown: Vec<String> =
        pools(text)[0].selectors[0].pci_addresses.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["0000:00:06.0", "0000:3b:02.1"]);
}

#[test]
fn a_config_list_is_read_strictly_too() {
    let pool = |keys: &str| complaint(&format!(r#"{{"configList": [{{"resourceName": "x", {keys}}}]}}"#));
    for (keys, start) in [
        (r#""devices": ["a"]"#, "configList[0].rdmaHcaMax is missing"),
        (
            r#""rdmaHcaMax": -1, "devices": ["a"]"#,
            "configList[0].rdmaHcaMax is -1; write a whole number from 0",
        ),
        (r#""rdmaHcaMax": 1"#, "configList[0] selects nothing in particular"),
        (r#""rdmaHcaMax": 1, "devices": [], "selectors": {}"#, "configList[0] selects nothing in particular"),
        (
            r#""rdmaHcaMax": 1, "devices": ["a"], "selectors": {"vendors": ["15b3"]}"#,
            "configList[0].devices and selectors exclude each other",
        ),
        (
            r#""rdmaHcaMax": 1, "selectors": {"devices": ["1017"]}"#,
            r#"unknown key configList[0].selectors.devices; did you mean "deviceIDs"?"#,
        ),
        (
            r#""rdmaHcaMax": 1, "selectors": {"deviceIDs": ["x"]}"#,
            "configList[0].selectors.deviceIDs[0] is not valid",
        ),
        (
            r#""rdmaHcaMax": 1, "selectors": {"drivers": ["vfio-pci"]}"#,
            "configList[0].selectors.drivers and shares exclude each other",
        ),
    ] {
        let complaint = pool(keys);
        assert!(complaint.starts_with(start), "{keys}: {complaint}");
    }
}

#[test]
fn two_formats_in_one_file_are_refused() {
    for (first, second) in
        [("pools", "resourceList"), ("configList", "nodes"), ("resourceList", "CONFIGLIST")]
    {
        let complaint = complaint(&format!(r#"{{"{first}": [], "{second}": []}}"#));
        let expected = format!("the configuration has {first} and {second}, which belong to two formats");
        assert!(complaint.starts_with(&expected), "{complaint}");
    }
}
