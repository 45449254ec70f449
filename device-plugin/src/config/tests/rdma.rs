//! The key `rdma` of a pool.

use super::*;

fn read(keys: &str) -> PoolConfig {
    let text = format!(r#"{{"pools": [{{"resourceName": "vf", {keys}}}]}}"#);
    Config::parse(&text).unwrap().pools.remove(0)
}

#[test]
fn a_pool_gives_what_it_says_and_by_default_what_its_selectors_ask_for() {
    let (rdma, any) = (r#""selectors": {"isRdma": true}"#, r#""selectors": {"any": true}"#);
    let some = r#""selectors": [{"isRdma": true}, {"drivers": ["iavf"]}]"#;
    for (keys, choice, hardware, soft) in [
        (any.to_owned(), PoolRdma::Auto, false, false),
        (rdma.to_owned(), PoolRdma::Auto, true, false),
        (some.to_owned(), PoolRdma::Auto, true, false),
        (format!(r#"{any}, "shares": 2"#), PoolRdma::Auto, true, false),
        (format!(r#"{rdma}, "rdma": "auto""#), PoolRdma::Auto, true, false),
        (format!(r#"{rdma}, "rdma": "off""#), PoolRdma::Off, false, false),
        (format!(r#"{any}, "rdma": "soft""#), PoolRdma::Soft, false, true),
    ] {
        let pool = read(&keys);
        assert_eq!(pool.rdma, choice, "{keys}");
        assert_eq!((pool.gives_hardware_rdma(), pool.gives_soft_rdma()), (hardware, soft), "{keys}");
    }
}

#[test]
fn a_choice_that_no_device_could_follow_is_refused_with_a_remedy() {
    let any = r#""selectors": {"any": true}"#;
    for (keys, place_and_other, remedy) in [
        (
            r#""rdma": "soft", "selectors": [{"any": true}, {"isRdma": true}]"#.to_owned(),
            r#""soft" and isRdma"#,
            r#"write "auto" to give that of the hardware, or leave isRdma out"#,
        ),
        (format!(r#""rdma": "soft", "shares": 2, {any}"#), r#""soft" and shares"#, "or leave shares out"),
        (
            format!(r#""rdma": "soft", "deviceType": "accelerator", {any}"#),
            r#""soft" and deviceType "accelerator""#,
            r#"write "netDevice""#,
        ),
        (
            r#""rdma": "soft", "deviceType": "auxNetDevice", "selectors": {"auxTypes": ["sf"]}"#.to_owned(),
            r#""soft" and deviceType "auxNetDevice""#,
            r#"write "netDevice""#,
        ),
        (
            r#""rdma": "soft", "selectors": {"vdpaType": "vhost"}"#.to_owned(),
            r#""soft" and vdpaType"#,
            "leave one of the two out",
        ),
        (
            r#""rdma": "soft", "selectors": {"drivers": ["iavf", "vfio-pci"]}"#.to_owned(),
            r#""soft" and drivers "vfio-pci""#,
            "write the network driver, such as iavf",
        ),
        (format!(r#""rdma": "off", "shares": 2, {any}"#), r#""off" and shares"#, r#"write "auto""#),
    ] {
        let complaint = one_pool(&format!(r#"{{"resourceName": "vf", {keys}}}"#));
        let start = format!("pools[0].rdma {place_and_other} exclude each other: ");
        assert!(complaint.starts_with(&start) && complaint.contains(remedy), "{complaint}");
    }
    let complaint = one_pool(r#"{"resourceName": "vf", "rdma": "hard", "selectors": {"any": true}}"#);
    assert_eq!(
        complaint,
        r#"pools[0].rdma is "hard", which means nothing there; write one of "auto", "soft", "plain", "off""#
    );
}

#[test]
fn other_programs_files_have_no_such_key_and_give_as_before() {
    for (text, rdma) in [
        (r#"{"resourceList": [{"resourceName": "vf", "selectors": {"isRdma": true}}]}"#, PoolRdma::Plain),
        (
            r#"{"configList": [{"resourceName": "hca", "rdmaHcaMax": 2, "selectors": {"vendors": ["15b3"]}}]}"#,
            PoolRdma::Auto,
        ),
    ] {
        let pools = Config::parse(text).unwrap().pools;
        assert!(pools[0].gives_hardware_rdma() && pools[0].rdma == rdma, "{text}");
    }
}
