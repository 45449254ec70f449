//! The node's own legs.

use serde_json::json;

use super::*;

const POOLS: &str = r#"[{"resourceName": "vf", "selectors": {"any": true}}]"#;

fn with_legs(legs: &str) -> String {
    format!(r#"{{"pools": {POOLS}, "legs": [{legs}]}}"#)
}

/// The complaint about one leg, which has the keys of a leg that is as it should be unless `keys` has them.
fn one_leg(keys: &str) -> String {
    complaint(&with_legs(&format!("{{{keys}}}")))
}

#[test]
fn every_key_of_a_leg_is_read() {
    let config = Config::parse(&sample("own/every-key.json")).unwrap();
    let [pods, wire, storage, cluster] = config.legs.as_slice() else { panic!("{config:?}") };
    let nets = |nets: &[&str]| LegAddresses::Fixed(nets.iter().map(|net| net.parse().unwrap()).collect());

    assert_eq!((pods.name.as_str(), pods.network.as_str(), pods.mtu), ("pods", "blue", Some(9000)));
    assert_eq!((pods.kind, pods.kind.vlan()), (LegKind::Vlan { vlan: 100 }, Some(100)));
    assert_eq!(pods.port, PortName::Netdev("enp1s0f0".to_owned()));
    let LegAddresses::Pool(ipam) = &pods.addresses else { panic!("{pods:?}") };
    assert_eq!(ipam["ranges"][1][0]["subnet"], "fd00:100::/64");
    assert_eq!(ipam["conflictProbe"], json!({"probes": 1}));

    assert_eq!((wire.kind, wire.mtu), (LegKind::Pf, None));
    assert_eq!(wire.port, PortName::Address("0000:01:00.1".parse().unwrap()));
    assert_eq!(wire.addresses, nets(&["10.9.0.1/24"]));
    assert_eq!(storage.kind, LegKind::Vf { index: 3, vlan: Some(200) });
    assert_eq!(storage.addresses, nets(&["10.200.0.7/24", "fd00:200::7/64"]));
    assert_eq!(cluster.kind, LegKind::Vf { index: 0, vlan: None });
}

#[test]
fn a_section_has_its_own_legs_and_none_of_the_others() {
    let leg = |name: &str| {
        format!(
            r#"{{"name": "{name}", "kind": "pf", "pf": "ens1", "network": "n", "address": "10.0.0.1/24"}}"#
        )
    };
    let file = format!(
        r#"{{"pools": {POOLS}, "legs": [{}], "nodes": [
            {{"names": ["a"], "pools": {POOLS}, "legs": [{}]}}, {{"names": ["b"], "pools": {POOLS}}}]}}"#,
        leg("top"),
        leg("own"),
    );
    let file = ConfigFile::parse(&file, None).unwrap();
    for (node, expected) in [("a", &["own"][..]), ("b", &[]), ("c", &["top"])] {
        let chosen = file.for_node(&NodeIdentity { name: node.to_owned(), labels: None });
        let names: Vec<&str> = chosen.config.legs.iter().map(|leg| leg.name.as_str()).collect();
        assert_eq!(names, expected, "{node}");
    }
}

#[test]
fn what_does_not_fit_is_named_with_what_to_do() {
    let named = r#""name": "pods", "network": "blue", "pf": "ens1", "address": "10.0.0.1/24""#;
    for (keys, start, remedy) in [
        (r#""kind": "pf""#.to_owned(), "legs[0].name is missing", "logs"),
        (r#""name": "a b""#.to_owned(), "legs[0].name is not valid", "letters, digits"),
        (named.to_owned(), "legs[0].kind is missing", "\"vlan\""),
        (format!(r#"{named}, "kind": "bridge""#), "legs[0].kind is \"bridge\"", "write one of"),
        (format!(r#"{named}, "kind": "vlan""#), "legs[0].vlan is missing", "1 to 4094"),
        (format!(r#"{named}, "kind": "vlan", "vlan": 0"#), "legs[0].vlan is 0", "from 1 to 4094"),
        (format!(r#"{named}, "kind": "vlan", "vlan": 4095"#), "legs[0].vlan is 4095", "from 1 to 4094"),
        (
            format!(r#"{named}, "kind": "pf", "vlan": 7"#),
            "legs[0].vlan and kind \"pf\" exclude",
            "\"kind\": \"vlan\"",
        ),
        (
            format!(r#"{named}, "kind": "pf", "mtu": 9000"#),
            "legs[0].mtu and kind \"pf\" exclude",
            "the host's network",
        ),
        (
            format!(r#"{named}, "kind": "vlan", "vlan": 7, "mtu": 67"#),
            "legs[0].mtu is 67",
            "from 68 to 65535",
        ),
        (
            format!(r#"{named}, "kind": "vlan", "vlan": 7, "vf": 0"#),
            "legs[0].vf and kind \"vlan\" exclude",
            "leave vf out",
        ),
        (format!(r#"{named}, "kind": "vf""#), "legs[0].vf is missing", "from 0"),
        (format!(r#"{named}, "kind": "vf", "vf": -1"#), "legs[0].vf is -1", "whole number"),
        (format!(r#"{named}, "kind": "pf", "ranges": []"#), "unknown key legs[0].ranges", "known are"),
        (
            format!(r#"{named}, "kind": "pf", "rootDevice": "01:00.0""#),
            "legs[0].pf and legs[0].rootDevice exclude",
            "keep one",
        ),
        (
            format!(r#"{named}, "kind": "pf", "ipam": {{"subnet": "10.0.0.0/24"}}"#),
            "legs[0].ipam and legs[0].address exclude",
            "keep one",
        ),
        (r#""name": "a", "kind": "pf", "network": "n""#.to_owned(), "legs[0].pf is missing", "rootDevice"),
        (
            r#""name": "a", "kind": "pf", "pf": "e/1", "network": "n""#.to_owned(),
            "legs[0].pf is not valid",
            "rootDevice",
        ),
        (r#""name": "a", "kind": "pf", "pf": "e""#.to_owned(), "legs[0].network is missing", "CNI network"),
        (
            r#""name": "a", "kind": "pf", "pf": "e", "network": "/""#.to_owned(),
            "legs[0].network is not valid",
            "\"pods\"",
        ),
        (
            r#""name": "a", "kind": "pf", "pf": "e", "network": "n""#.to_owned(),
            "legs[0].ipam is missing",
            "address",
        ),
    ] {
        let told = one_leg(&keys);
        assert!(told.starts_with(start) && told.contains(remedy), "{keys}: {told}");
    }
}

#[test]
fn addresses_and_pools_are_checked_like_those_of_pods() {
    let with =
        |keys: &str| one_leg(&format!(r#""name": "a", "kind": "pf", "pf": "e", "network": "n", {keys}"#));
    for (keys, start, remedy) in [
        (r#""address": "10.0.0.1""#, "legs[0].address is not valid", "invalid IP address syntax"),
        (r#""address": "10.0.0.0/24""#, "legs[0].address is not valid", "cannot be a host's"),
        (r#""address": "10.0.0.255/24""#, "legs[0].address is not valid", "cannot be a host's"),
        (
            r#""address": ["10.0.0.1/24", "ff02::1/64"]"#,
            "legs[0].address[1] is not valid",
            "cannot be a host's",
        ),
        (r#""address": ["10.0.0.1/24", "10.0.0.1/16"]"#, "legs[0].address[1] is not valid", "written twice"),
        (r#""address": []"#, "legs[0].address is an empty list", "at least one address"),
        (r#""ipam": {"type": "host-local"}"#, "legs[0].ipam.type is not valid", "zerobridge-ipam"),
        (
            r#""ipam": {"subnet": "10.0.0.0/24", "stateDir": "/s"}"#,
            "legs[0].ipam.stateDir is not valid",
            "--state-dir",
        ),
        (r#""ipam": {"subnet": "10.0.0.1/24"}"#, "legs[0].ipam is not valid", "10.0.0.1/24"),
        (
            r#""ipam": {"subnet": "10.0.0.0/24", "subnet": "10.1.0.0/24"}"#,
            "legs[0].ipam.subnet is written twice",
            "keep one",
        ),
        (r#""ipam": "pods""#, "legs[0].ipam is not valid", "ipam is"),
    ] {
        let told = with(keys);
        assert!(told.starts_with(start) && told.contains(remedy), "{keys}: {told}");
    }
}

#[test]
fn no_two_legs_have_one_name_or_one_interface() {
    let leg = |name: &str, place: &str| {
        format!(r#"{{"name": "{name}", "network": "n", "address": "10.0.0.1/24", {place}}}"#)
    };
    let two = |first: &str, second: &str| ConfigFile::parse(&with_legs(&format!("{first}, {second}")), None);
    let pf = r#""kind": "pf", "pf": "ens1""#;
    for (first, second, told) in [
        (leg("a", pf), leg("a", r#""kind": "pf", "pf": "ens2""#), "both named \"a\"; rename one"),
        (leg("a", pf), leg("b", pf), "both the same interface; keep one"),
        (
            leg("a", r#""kind": "vlan", "pf": "ens1", "vlan": 7"#),
            leg("b", r#""kind": "vlan", "pf": "ens1", "vlan": 7"#),
            "both the same interface",
        ),
        (
            leg("a", r#""kind": "vf", "pf": "ens1", "vf": 1, "vlan": 7"#),
            leg("b", r#""kind": "vf", "pf": "ens1", "vf": 1, "vlan": 8"#),
            "both the same interface",
        ),
    ] {
        let error = chain(&two(&first, &second).unwrap_err());
        assert!(error.starts_with("legs[0] and legs[1] are ") && error.contains(told), "{error}");
    }
    for place in [
        r#""kind": "pf", "pf": "ens2""#,
        r#""kind": "vlan", "pf": "ens1", "vlan": 7"#,
        r#""kind": "vf", "pf": "ens1", "vf": 0"#,
    ] {
        two(&leg("a", pf), &leg("b", place)).unwrap();
    }
}

#[test]
fn legs_are_of_this_projects_own_format() {
    let told = complaint(
        r#"{"resourceList": [{"resourceName": "a", "selectors": {"vendors": ["8086"]}}], "legs": []}"#,
    );
    assert!(told.contains("two formats"), "{told}");
}
