//! The project's own format.

use std::num::NonZeroU16;
use std::time::Duration;

use super::*;
use crate::health::{Check, Policy};
use crate::preference::{Neighbour, Preference};
use crate::selector::{PortMatch, Selectors, VdpaType};

#[test]
fn every_key_is_read() {
    let config = Config::parse(&sample("own/every-key.json")).unwrap();
    assert_eq!(config.cdi, CdiMode::Off);
    let [vf, hca, sf, fpga] = config.pools.as_slice() else { panic!("{config:?}") };

    assert_eq!(vf.resource.to_string(), "example.com/vf");
    assert_eq!((vf.kind, vf.shares, vf.topology), (PoolKind::NetDevice, None, false));
    let [selectors, vhost, virtio] = vf.selectors.as_slice() else { panic!("{vf:?}") };
    let expected = Selectors {
        vendors: vec!["8086".parse().unwrap()],
        devices: vec!["10ca".parse().unwrap()],
        drivers: vec!["igbvf".to_owned()],
        pci_addresses: vec!["0000:01:10.0".parse().unwrap(), "0000:01:10.2".parse().unwrap()],
        acpi_indexes: vec![101, 7],
        pf_names: vec!["enp1s0#0-3,7".parse().unwrap()],
        root_devices: vec!["0000:01:00.0#0".parse().unwrap()],
        if_names: vec!["enp1s0v0".to_owned()],
        link_types: vec![zerobridge_kernel::LinkType::Ethernet, zerobridge_kernel::LinkType::Infiniband],
        is_rdma: true,
        p_keys: vec!["0x8001".parse().unwrap()],
        ddp_profiles: vec!["ICE COMMS Package".to_owned()],
        need_vhost_net: true,
        ..Selectors::default()
    };
    assert_eq!(*selectors, expected);
    assert_eq!(*vhost, Selectors { vdpa_type: Some(VdpaType::Vhost), ..Selectors::default() });
    assert_eq!(*virtio, Selectors { vdpa_type: Some(VdpaType::Virtio), ..Selectors::default() });
    let info: Vec<_> =
        vf.additional_info.iter().map(|(id, info)| (id.as_str(), info["rail"].as_str())).collect();
    assert_eq!(info, [("*", "1"), ("0000:01:10.0", "2")]);
    assert_eq!(vf.health.hold_down, Duration::from_millis(1500));
    let policies: Vec<Policy> = Check::ALL.into_iter().map(|check| vf.health.of(check)).collect();
    let (unhealthy, warn, off) = (Policy::Unhealthy, Policy::Warn, Policy::Off);
    assert_eq!(policies, [warn, off, unhealthy, unhealthy, off, off, warn, unhealthy]);
    assert_eq!(vf.rdma, PoolRdma::Off);
    assert_eq!(vf.preference, Preference::Near(Neighbour::Gpu));

    assert_eq!(hca.resource.to_string(), "zerobridge.io/hca");
    assert_eq!((hca.shares, hca.topology), (NonZeroU16::new(64), true));
    assert_eq!(hca.selectors[0].port_match, PortMatch { any_case: false, itself: true });
    assert_eq!(hca.preference, Preference::Numa);
    assert_eq!((sf.kind, &sf.selectors[0].aux_types), (PoolKind::AuxNetDevice, &vec!["sf".to_owned()]));
    assert_eq!((fpga.kind, fpga.selectors[0].is_empty()), (PoolKind::Accelerator, true));
}

#[test]
fn a_misspelt_key_is_named_with_its_place_and_the_nearest_one() {
    for (pool, key, remedy) in [
        (r#"{"resourcename": "vf"}"#, "pools[0].resourcename", r#"did you mean "resourceName"?"#),
        (
            r#"{"resourceName": "vf", "selectors": {"pfName": ["x"]}}"#,
            "pools[0].selectors.pfName",
            r#"did you mean "pfNames"?"#,
        ),
        (
            r#"{"resourceName": "vf", "selectors": [{"any": true}, {"isRDMA": true}]}"#,
            "pools[0].selectors[1].isRDMA",
            r#"did you mean "isRdma"?"#,
        ),
        (
            r#"{"resourceName": "vf", "health": {"linkState": "warn"}, "selectors": {"any": true}}"#,
            "pools[0].health.linkState",
            "known are: devicePresent, driverBound, pfCarrier, rdmaPort, nodeGuid, devlinkHealth, aerFatal, dirtyVf, holdDown",
        ),
    ] {
        assert_eq!(one_pool(pool), format!("unknown key {key}; {remedy}"));
    }
    assert_eq!(complaint(r#"{"pool": []}"#), r#"unknown key pool; did you mean "pools"?"#);
    assert_eq!(
        complaint(r#"{"nodes": [{"name": ["a"], "pools": []}]}"#),
        r#"unknown key nodes[0].name; did you mean "names"?"#
    );
}

#[test]
fn a_key_written_twice_is_named() {
    let text = r#"{"resourceName": "vf", "selectors": {"vendors": ["8086"], "vendors": ["15b3"]}}"#;
    assert_eq!(one_pool(text), "pools[0].selectors.vendors is written twice; keep one");
}

#[test]
fn a_bad_value_is_named_with_its_place_and_what_is_allowed() {
    let pool = |selectors: &str| one_pool(&format!(r#"{{"resourceName": "vf", "selectors": {selectors}}}"#));
    assert_eq!(
        pool(r#"{"vendors": ["8086", "80866"]}"#),
        "pools[0].selectors.vendors[1] is not valid: \"80866\" is no PCI ID; write four hexadecimal digits, such as \
         8086 or 0x10ca"
    );
    assert_eq!(
        pool(r#"{"pciAddresses": ["eth0"]}"#),
        "pools[0].selectors.pciAddresses[0] is not valid: \"eth0\" is no PCI address; write \
         domain:bus:device.function in hexadecimal, such as 0000:01:10.0"
    );
    assert!(
        pool(r#"{"pfNames": ["enp1s0#3-1"]}"#)
            .starts_with("pools[0].selectors.pfNames[0] is not valid: \"3-1\"")
    );
    assert_eq!(pool(r#"{"vendors": "8086"}"#), "pools[0].selectors.vendors is \"8086\"; write a list, [ … ]");
    assert_eq!(
        pool(r#"{"vendors": [8086]}"#),
        "pools[0].selectors.vendors[0] is 8086; write a text in quotes"
    );
    assert_eq!(pool(r#"{"any": "yes"}"#), "pools[0].selectors.any is \"yes\"; write true or false");
    assert_eq!(pool("null"), "pools[0].selectors is null; write an object, { … }");
    assert!(pool(r#"{"drivers": []}"#).starts_with("pools[0].selectors.drivers is an empty list"));
    assert_eq!(complaint("[]"), "the document is a list; write an object, { … }");
}

#[test]
fn a_resource_name_that_the_kubelet_refuses_is_refused_here() {
    let pool = r#"{"resourceName": "vf", "resourcePrefix": "kubernetes.io", "selectors": {"any": true}}"#;
    assert!(
        one_pool(pool).starts_with("pools[0] is not valid: \"kubernetes.io\" cannot be a resource prefix")
    );
    let pool = r#"{"resourceName": "a/b", "selectors": {"any": true}}"#;
    assert!(one_pool(pool).starts_with("pools[0] is not valid: \"a/b\" cannot be a resource name"));
}

#[test]
fn what_is_missing_is_named() {
    assert_eq!(complaint("{}"), "pools is missing: the list of pools");
    assert!(complaint(r#"{"pools": []}"#).starts_with("pools is an empty list; write at least one pool"));
    assert!(one_pool("{}").starts_with("pools[0].resourceName is missing"));
}

#[test]
fn a_pool_for_everything_must_be_asked_for_in_words() {
    for pool in [
        r#"{"resourceName": "vf"}"#,
        r#"{"resourceName": "vf", "selectors": {}}"#,
        r#"{"resourceName": "vf", "selectors": {"any": false}}"#,
    ] {
        let complaint = one_pool(pool);
        assert!(complaint.starts_with("pools[0].selectors selects nothing in particular"), "{complaint}");
        assert!(complaint.contains(r#"{"any": true}"#), "{complaint}");
    }
    let both = r#"{"resourceName": "vf", "selectors": {"any": true, "vendors": ["8086"]}}"#;
    assert!(one_pool(both).contains("keep one of the two"));
}

#[test]
fn two_pools_may_not_share_a_resource() {
    let pool = r#"{"resourceName": "vf", "selectors": {"any": true}}"#;
    let explicit = r#"{"resourceName": "vf", "resourcePrefix": "zerobridge.io", "selectors": {"any": true}}"#;
    assert_eq!(
        one_pool(&format!("{pool},{explicit}")),
        "pools[0] and pools[1] both offer zerobridge.io/vf; rename one, or merge their selectors"
    );
}

#[test]
fn two_pools_may_not_share_an_environment_variable() {
    for (first, second, variable) in [
        ("vf-a", "vf_a", "PCIDEVICE_ZEROBRIDGE_IO_VF_A"),
        ("vf", "VF", "PCIDEVICE_ZEROBRIDGE_IO_VF"),
        ("vf", "vf_info", "PCIDEVICE_ZEROBRIDGE_IO_VF_INFO"),
    ] {
        let pool = |name| format!(r#"{{"resourceName": "{name}", "selectors": {{"any": true}}}}"#);
        let complaint = one_pool(&format!("{},{}", pool(first), pool(second)));
        assert!(complaint.contains(variable), "{first} {second}: {complaint}");
    }
}

#[test]
fn broken_json_is_reported_with_its_line() {
    let complaint = complaint("{\n  \"pools\": [,]\n}");
    assert!(complaint.contains("line 2 column 13"), "{complaint}");
}

#[test]
fn a_missing_file_is_named() {
    let error = ConfigFile::load(Path::new("/nonexistent/config.json"), None).unwrap_err();
    assert_eq!(error.to_string(), "cannot read the configuration /nonexistent/config.json");
}

#[test]
fn the_manifests_configuration_is_valid() {
    let config = Config::parse(include_str!("../../../../manifests/node/config.json")).unwrap();
    let resources: Vec<String> = config.pools.iter().map(|pool| pool.resource.to_string()).collect();
    assert_eq!(resources, ["zerobridge.io/vf", "zerobridge.io/vf-green"]);
}

#[test]
fn a_value_out_of_range_or_out_of_its_list_is_named() {
    let pool =
        |keys: &str| one_pool(&format!(r#"{{"resourceName": "vf", "selectors": {{"any": true}}, {keys}}}"#));
    for (keys, expected) in [
        (r#""shares": 0"#, "pools[0].shares is 0; write a whole number from 1 to 1000"),
        (r#""shares": 1001"#, "pools[0].shares is 1001; write a whole number from 1 to 1000"),
        (r#""shares": -1"#, "pools[0].shares is -1; write a whole number from 1 to 1000"),
        (r#""shares": 1.5"#, "pools[0].shares is 1.5; write a whole number from 1 to 1000"),
        (r#""shares": "8""#, r#"pools[0].shares is "8"; write a number without quotes"#),
        (
            r#""deviceType": "netdevice""#,
            r#"pools[0].deviceType is "netdevice", which means nothing there; did you mean "netDevice"?"#,
        ),
        (
            r#""preferredAllocation": "random""#,
            "pools[0].preferredAllocation is \"random\", which means nothing there; write one of \"packed\", \"spread\", \
             \"numa\", \"near-gpu\", \"near-nvme\"",
        ),
        (
            r#""health": {"pfCarrier": "ignore"}"#,
            "pools[0].health.pfCarrier is \"ignore\", which means nothing there; write one of \"unhealthy\", \"warn\", \
             \"off\"",
        ),
        (
            r#""health": {"holdDown": "2 seconds"}"#,
            "pools[0].health.holdDown is not valid: \"2 seconds\" is no length of time; write a whole number with ms, s or \
             m, such as 500ms or 2s",
        ),
        (
            r#""additionalInfo": {"eth0": {"a": "b"}}"#,
            "pools[0].additionalInfo.eth0 is not valid: \"eth0\" is no device ID; one looks like 0000:01:10.0, \
             mlx5_core.sf.4 or 0000:01:00.0#3",
        ),
        (r#""additionalInfo": {"*": {"a": 1}}"#, "pools[0].additionalInfo.*.a is 1; write a text in quotes"),
        (
            r#""additionalInfo": {"01:10.0": {}, "0000:01:10.0": {}}"#,
            "pools[0].additionalInfo.0000:01:10.0 is written twice; keep one",
        ),
        (r#""excludeTopology": "no""#, r#"pools[0].excludeTopology is "no"; write true or false"#),
    ] {
        assert_eq!(pool(keys), expected, "{keys}");
    }
    let selectors = |keys: &str| one_pool(&format!(r#"{{"resourceName": "vf", "selectors": {{{keys}}}}}"#));
    for (keys, expected) in [
        (
            r#""linkTypes": ["ethernet"]"#,
            "pools[0].selectors.linkTypes[0] is \"ethernet\", which means nothing there; write one of \"ether\", \
             \"infiniband\"",
        ),
        (
            r#""acpiIndexes": ["x"]"#,
            r#"pools[0].selectors.acpiIndexes[0] is "x"; write a number without quotes"#,
        ),
        (
            r#""acpiIndexes": [4294967296]"#,
            "pools[0].selectors.acpiIndexes[0] is 4294967296; write a whole number from 0 to 4294967295",
        ),
        (
            r#""vdpaType": "vdpa""#,
            "pools[0].selectors.vdpaType is \"vdpa\", which means nothing there; write one of \"vhost\", \"virtio\"",
        ),
    ] {
        assert_eq!(selectors(keys), expected, "{keys}");
    }
    assert!(selectors(r#""rootDevices": ["enp1s0"]"#).contains("write its PCI address"));
    assert!(selectors(r#""pfNames": ["0000:01:00.0"]"#).contains("goes into rootDevices"));
    assert!(selectors(r#""pKeys": ["key"]"#).contains("no partition key"));
    assert_eq!(
        complaint(r#"{"pools": [{"resourceName": "vf", "selectors": {"any": true}}], "cdi": "yes"}"#),
        "cdi is \"yes\", which means nothing there; write one of \"auto\", \"on\", \"off\""
    );
}

#[test]
fn what_excludes_each_other_is_refused_with_a_remedy() {
    for (pool, start, remedy) in [
        (
            r#"{"resourceName": "x", "selectors": {"isRdma": true, "vdpaType": "vhost"}}"#,
            "pools[0].selectors.isRdma and vdpaType exclude each other",
            "make two pools",
        ),
        (
            r#"{"resourceName": "x", "selectors": {"pKeys": ["0x1"], "linkTypes": ["ether"]}}"#,
            "pools[0].selectors.pKeys and linkTypes exclude each other",
            r#"write "infiniband""#,
        ),
        (
            r#"{"resourceName": "x", "shares": 2, "selectors": {"vdpaType": "vhost"}}"#,
            "pools[0].selectors.vdpaType and shares exclude each other",
            "leave one of the two out",
        ),
        (
            r#"{"resourceName": "x", "shares": 2, "selectors": [{"any": true}, {"drivers": ["mlx5_core", "vfio-pci"]}]}"#,
            "pools[0].selectors[1].drivers and shares exclude each other",
            "write the kernel driver",
        ),
        (
            r#"{"resourceName": "x", "shares": 2, "deviceType": "accelerator", "selectors": {"any": true}}"#,
            "pools[0].deviceType and shares exclude each other",
            "leave shares out",
        ),
    ] {
        let complaint = one_pool(pool);
        assert!(complaint.starts_with(start) && complaint.contains(remedy), "{complaint}");
    }
}

#[test]
fn a_selector_that_the_devices_do_not_have_is_refused_with_those_they_have() {
    for (kind, selector) in [
        ("netDevice", r#""auxTypes": ["sf"]"#),
        ("accelerator", r#""auxTypes": ["sf"]"#),
        ("accelerator", r#""pfNames": ["enp1s0"]"#),
        ("accelerator", r#""isRdma": true"#),
        ("accelerator", r#""needVhostNet": true, "vendors": ["8086"]"#),
        ("auxNetDevice", r#""auxTypes": ["sf"], "pciAddresses": ["01:00.0"]"#),
        ("auxNetDevice", r#""auxTypes": ["sf"], "acpiIndexes": [1]"#),
        ("auxNetDevice", r#""auxTypes": ["sf"], "vdpaType": "vhost""#),
        ("auxNetDevice", r#""auxTypes": ["sf"], "ddpProfiles": ["x"]"#),
        ("auxNetDevice", r#""auxTypes": ["sf"], "pKeys": ["0x1"]"#),
    ] {
        let complaint = one_pool(&format!(
            r#"{{"resourceName": "x", "deviceType": "{kind}", "selectors": {{{selector}}}}}"#
        ));
        let expected = format!(
            "selects nothing in a pool of deviceType \"{kind}\"; such a pool can be selected by vendors"
        );
        assert!(complaint.starts_with("pools[0].selectors.") && complaint.contains(&expected), "{complaint}");
    }
    assert_eq!(
        one_pool(
            r#"{"resourceName": "x", "deviceType": "auxNetDevice", "selectors": {"vendors": ["15b3"]}}"#
        ),
        "pools[0].selectors.auxTypes is missing: the kinds of auxiliary devices, such as [\"sf\"]"
    );
}

#[test]
fn the_resource_prefix_of_the_command_line_is_for_pools_that_name_none() {
    let file = r#"{"pools": [
        {"resourceName": "a", "selectors": {"any": true}},
        {"resourceName": "b", "resourcePrefix": "example.com", "selectors": {"any": true}}
    ]}"#;
    let file = ConfigFile::parse(file, Some("acme.com")).unwrap();
    let config = file.for_node(&NodeIdentity::default()).config;
    let resources: Vec<String> = config.pools.iter().map(|pool| pool.resource.to_string()).collect();
    assert_eq!(resources, ["acme.com/a", "example.com/b"]);
}

fn labels(labels: &[(&str, &str)]) -> Option<std::collections::BTreeMap<String, String>> {
    Some(labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
}

#[test]
fn a_node_has_the_first_section_that_is_for_it() {
    let file = ConfigFile::parse(&sample("own/nodes.json"), None).unwrap();
    for (name, labels, section, resource, undecided) in [
        ("gpu-1", labels(&[("zone", "a1")]), "nodes[0]", "gpu-a", &[][..]),
        ("special", labels(&[("zone", "a")]), "nodes[0]", "gpu-a", &[]),
        ("gpu-1", labels(&[("zone", "b")]), "nodes[1]", "gpu", &[]),
        ("gpu-1", labels(&[]), "nodes[1]", "gpu", &[]),
        ("gpu-1", None, "nodes[1]", "gpu", &["nodes[0]"]),
        ("special", labels(&[("zone", "b")]), "pools", "vf", &[]),
        ("special", None, "pools", "vf", &["nodes[0]", "nodes[2]"]),
        ("cpu-1", labels(&[("example.com/net", "fast"), ("zone", "x")]), "nodes[2]", "fast", &[]),
        ("cpu-1", labels(&[("example.com/net", "fast"), ("zone", "xx")]), "pools", "vf", &[]),
        ("cpu-1", None, "pools", "vf", &["nodes[2]"]),
        ("", None, "pools", "vf", &["nodes[2]"]),
    ] {
        let node = file.for_node(&NodeIdentity { name: name.to_owned(), labels });
        assert_eq!(node.section, section, "{name}");
        assert_eq!(node.config.pools[0].resource.name(), resource, "{name}");
        assert_eq!(node.undecided, undecided, "{name}");
    }
}

#[test]
fn a_node_that_no_section_is_for_and_no_pools_are_there_for_offers_nothing() {
    let file = r#"{"cdi": "on", "nodes": [{"names": ["a"], "pools": [{"resourceName": "x", "selectors": {"any": true}}]}]}"#;
    let node = ConfigFile::parse(file, None).unwrap().for_node(&NodeIdentity::default());
    assert_eq!(node.config, Config { pools: Vec::new(), legs: Vec::new(), cdi: CdiMode::On });
}

#[test]
fn a_mistake_in_a_section_for_other_nodes_is_a_mistake() {
    let section = |section: &str| {
        complaint(&format!(
            r#"{{"pools": [{{"resourceName": "vf", "selectors": {{"any": true}}}}], "nodes": [{section}]}}"#
        ))
    };
    let pool = r#"{"resourceName": "a", "selectors": {"any": true}}"#;
    assert_eq!(
        section(&format!(r#"{{"pools": [{pool}]}}"#)),
        "nodes[0] does not say which nodes it is for; write names, labels, or both"
    );
    assert_eq!(section(r#"{"names": ["a"]}"#), "nodes[0].pools is missing: the pools of these nodes");
    assert!(section(r#"{"names": ["a[0-9]"], "pools": []}"#).starts_with("nodes[0].names[0] is not valid"));
    assert!(section(r#"{"labels": {"zone": 1}, "pools": []}"#).starts_with("nodes[0].labels.zone is 1"));
    assert_eq!(
        section(r#"{"names": ["a"], "pools": [{"resourceName": "a", "selectors": {"vendor": ["8086"]}}]}"#),
        r#"unknown key nodes[0].pools[0].selectors.vendor; did you mean "vendors"?"#
    );
    assert_eq!(
        section(&format!(r#"{{"names": ["a"], "pools": [{pool}, {pool}]}}"#)),
        "nodes[0].pools[0] and nodes[0].pools[1] both offer zerobridge.io/a; rename one, or merge their selectors"
    );
}

#[test]
fn two_sections_may_offer_one_resource() {
    let pool = r#"[{"resourceName": "a", "selectors": {"any": true}}]"#;
    let file = format!(r#"{{"pools": {pool}, "nodes": [{{"names": ["a"], "pools": {pool}}}]}}"#);
    ConfigFile::parse(&file, None).unwrap();
}
