//! Every complaint, with the place and the remedy it must name.

use zerobridge_proto::chain;

use super::*;

fn complaint(text: &str) -> String {
    chain(&Config::parse(text).unwrap_err())
}

fn one_pool(pool: &str) -> String {
    complaint(&format!(r#"{{"pools": [{pool}]}}"#))
}

#[test]
fn a_full_configuration_is_read() {
    let config = Config::parse(
        r#"{"pools": [
            {"resourceName": "vf", "selectors": {
                "pfNames": ["enp1s0#0-3"], "vendors": ["8086"], "devices": ["0x10CA"], "drivers": ["igbvf"],
                "pciAddresses": ["01:10.0", "0000:01:10.2"]}},
            {"resourceName": "vf-green", "resourcePrefix": "example.com", "selectors": {"any": true}}
        ]}"#,
    )
    .unwrap();
    let [first, second] = config.pools.as_slice() else { panic!("{config:?}") };
    assert_eq!(first.resource.to_string(), "zerobridge.io/vf");
    let expected = Selectors {
        pf_names: vec!["enp1s0#0-3".parse().unwrap()],
        vendors: vec!["8086".parse().unwrap()],
        devices: vec!["10ca".parse().unwrap()],
        drivers: vec!["igbvf".to_owned()],
        pci_addresses: vec!["0000:01:10.0".parse().unwrap(), "0000:01:10.2".parse().unwrap()],
    };
    assert_eq!(first.selectors, expected);
    assert_eq!(second.resource.to_string(), "example.com/vf-green");
    assert_eq!(second.selectors, Selectors::default());
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
            r#"{"resourceName": "vf", "selectors": {"isRdma": true}}"#,
            "pools[0].selectors.isRdma",
            "known are: pfNames, vendors, devices, drivers, pciAddresses, any",
        ),
    ] {
        assert_eq!(one_pool(pool), format!("unknown key {key}; {remedy}"));
    }
    assert_eq!(complaint(r#"{"pool": []}"#), r#"unknown key pool; did you mean "pools"?"#);
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
    let error = Config::load(Path::new("/nonexistent/config.json")).unwrap_err();
    assert_eq!(error.to_string(), "cannot read the configuration /nonexistent/config.json");
}

#[test]
fn the_manifests_configuration_is_valid() {
    let config = Config::parse(include_str!("../../../manifests/node/config.json")).unwrap();
    let resources: Vec<String> = config.pools.iter().map(|pool| pool.resource.to_string()).collect();
    assert_eq!(resources, ["zerobridge.io/vf", "zerobridge.io/vf-green"]);
}
