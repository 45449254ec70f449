use std::path::Path;

use super::*;
use crate::cli::IdentityArguments;

fn told(folder: &Path, text: &str, change: impl FnOnce(&mut CheckArguments)) -> (Finding, String) {
    let file = folder.join("config.json");
    std::fs::write(&file, text).unwrap();
    let identity = IdentityArguments { node: String::new(), labels: Vec::new(), resource_prefix: None };
    let mut arguments = CheckArguments { file: file.clone(), identity, print: false };
    change(&mut arguments);
    let mut out = Vec::new();
    let finding = run(&arguments, &mut out).unwrap();
    (finding, String::from_utf8(out).unwrap().replace(file.to_str().unwrap(), "FILE"))
}

#[test]
fn a_problem_is_told_with_its_place_and_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    for (text, parts) in [
        (
            r#"{"pools": [{"resourceName": "vf", "selectors": {"vendor": ["8086"]}}]}"#,
            ["pools[0].selectors.vendor", "vendors"],
        ),
        (
            r#"{"pools": [{"resourceName": "vf", "selectors": {"vendors": ["80"]}}]}"#,
            ["pools[0].selectors.vendors[0]", "four hexadecimal digits"],
        ),
        (
            r#"{"resourceList": [{"resourceName": "vf", "selectors": {"vendors": 8086}}]}"#,
            ["resourceList[0].selectors.vendors", "8086"],
        ),
        (r#"{"configList": [{"resourceName": "hca"}]}"#, ["configList[0]", "rdmaHcaMax"]),
        ("{", ["no valid JSON", "line 1"]),
    ] {
        let (finding, told) = told(folder.path(), text, |_| {});
        assert_eq!(finding, Finding::Problem, "{text}");
        assert!(told.starts_with("FILE: ") && parts.iter().all(|part| told.contains(part)), "{told}");
    }
    let (finding, told) =
        told(folder.path(), "{}", |arguments| arguments.file = "/nowhere/config.json".into());
    assert!(finding == Finding::Problem && told.contains("/nowhere/config.json"), "{told}");
}

/// What a command line adds.
type Change = fn(&mut CheckArguments);

const SECTIONS: &str = r#"{
    "nodes": [
        {"names": ["gpu-*"], "pools": [{"resourceName": "fast", "shares": 8, "selectors": {"isRdma": true}}]},
        {"labels": {"rack": "r7"}, "pools": [{"resourceName": "rack", "selectors": {"any": true}}]}
    ],
    "pools": [{"resourceName": "vf", "selectors": [{"vendors": ["8086"], "drivers": ["igbvf"]}, {"pfNames": ["ens1"]}]}]
}"#;

#[test]
fn the_summary_is_that_of_the_node() {
    let folder = tempfile::tempdir().unwrap();
    let named: Change = |arguments| arguments.identity.node = "gpu-3".to_owned();
    let labelled: Change = |arguments| arguments.identity.labels = vec![("rack".to_owned(), "r7".to_owned())];
    let nobody: Change = |_| {};
    let cases = [
        (
            nobody,
            "a node of which nothing is known gets what stands in pools:
POOL              TYPE       SHARES  SELECTORS
zerobridge.io/vf  netDevice  -       vendors+drivers or pfNames
note: nodes[1] may be for this node: tell its labels with --label KEY=VALUE
",
        ),
        (
            named,
            "node gpu-3 gets what stands in nodes[0]:
POOL                TYPE       SHARES  SELECTORS
zerobridge.io/fast  netDevice  8       isRdma
",
        ),
        (
            labelled,
            "a node with these labels gets what stands in nodes[1]:
POOL                TYPE       SHARES  SELECTORS
zerobridge.io/rack  netDevice  -       any
",
        ),
    ];
    for (change, expected) in cases {
        let (finding, told) = told(folder.path(), SECTIONS, change);
        let head = "FILE: a valid configuration in the format of Zerobridge\n";
        assert_eq!((finding, told), (Finding::Fine, format!("{head}{expected}")));
    }

    let legs = r#"{"pools": [{"resourceName": "vf", "selectors": {"any": true}}], "legs": [
        {"name": "pods", "kind": "vlan", "pf": "ens1f0", "vlan": 100, "network": "blue", "ipam": {"subnet": "10.0.0.0/24"}},
        {"name": "own", "kind": "vf", "rootDevice": "01:00.0", "vf": 3, "network": "green", "address": "10.1.0.1/24"}]}"#;
    let (_, shown) = told(folder.path(), legs, nobody);
    assert!(
        shown.ends_with(
            "LEG   KIND  PF                 VLAN  NETWORK  ADDRESSES
pods  vlan  ens1f0             100   blue     of the pool
own   vf    0000:01:00.0 VF 3  -     green    10.1.0.1/24
"
        ),
        "{shown}"
    );

    let elsewhere =
        r#"{"nodes": [{"names": ["gpu-*"], "pools": [{"resourceName": "a", "selectors": {"any": true}}]}]}"#;
    let (finding, told) = told(folder.path(), elsewhere, nobody);
    assert!(finding == Finding::Fine && told.ends_with("in pools:\nnothing\n"), "{told}");
}

#[test]
fn what_is_printed_is_valid_and_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let old = r#"{"resourceList": [{"resourceName": "vf", "selectors": {"vendors": ["8086"], "pfNames": ["ens1#0-3"]}}]}"#;
    let (finding, printed) = told(folder.path(), old, |arguments| arguments.print = true);
    assert_eq!(finding, Finding::Fine);
    let (finding, again) = told(folder.path(), &printed, |arguments| arguments.print = true);
    assert_eq!((finding, again), (Finding::Fine, printed));
}

#[test]
fn what_another_program_would_do_otherwise_is_noted() {
    let folder = tempfile::tempdir().unwrap();
    let old = r#"{"periodicUpdateInterval": 300, "configList": [{"resourceName": "hca", "rdmaHcaMax": 10, "selectors": {"vendors": ["15b3"]}}]}"#;
    let (finding, told) = told(folder.path(), old, |_| {});
    assert_eq!(finding, Finding::Fine);
    assert!(
        told.starts_with("FILE: a valid configuration in the format of k8s-rdma-shared-dev-plugin\n"),
        "{told}"
    );
    for place in ["\nnote: periodicUpdateInterval: ", "\nnote: configList[0].rdmaHcaMax: "] {
        assert!(told.contains(place), "{told}");
    }
}
