use super::*;
use crate::config::Config;

/// One pool of each kind that has to do with RDMA, and one that has not.
const POOLS: &str = r#"{"pools": [
    {"resourceName": "hca", "shares": 8, "selectors": {"isRdma": true}},
    {"resourceName": "vf", "selectors": {"isRdma": true}},
    {"resourceName": "sf", "deviceType": "auxNetDevice", "selectors": {"auxTypes": ["sf"], "isRdma": true}},
    {"resourceName": "soft", "rdma": "soft", "selectors": {"drivers": ["iavf"]}},
    {"resourceName": "other", "rdma": "plain", "selectors": {"isRdma": true}},
    {"resourceName": "off", "rdma": "off", "selectors": {"isRdma": true}},
    {"resourceName": "net", "selectors": {"any": true}}
]}"#;

fn ready() -> RdmaNode {
    RdmaNode {
        uverbs: true,
        connection_manager: true,
        kernel: Some(SOFT_EXCLUSIVE),
        memory_limits: [("containerd".to_owned(), MemoryLimit::Unlimited)].into(),
        ..RdmaNode::default()
    }
}

fn found(pools: &str, node: &RdmaNode, method: Option<NodeMethod>) -> Vec<(&'static str, String)> {
    let pools = Config::parse(pools).unwrap().pools;
    let found = obstacles(&pools, node, method).into_iter();
    found
        .map(|Obstacle { cause, pools }| {
            (cause.name(), pools.iter().map(ResourceName::name).collect::<Vec<_>>().join(" "))
        })
        .collect()
}

/// What is in the way of which pools, for each thing that a node may lack.
#[test]
fn each_obstacle_is_found_for_the_pools_that_it_concerns() {
    type Change = fn(&mut RdmaNode);
    type Found = &'static [(&'static str, &'static str)];
    let (cdi, plain) = (Some(NodeMethod::Cdi), Some(NodeMethod::Plain));
    let nothing: Change = |_| {};
    let exclusive: Change = |node| node.exclusive = true;
    let cases: &[(&str, Change, Option<NodeMethod>, Found)] = &[
        ("all is there", nothing, cdi, &[]),
        ("nobody knows how nodes are told", nothing, None, &[]),
        ("plain nodes", nothing, plain, &[("soft_without_cdi", "soft")]),
        (
            "exclusive mode",
            exclusive,
            cdi,
            &[("shares_in_exclusive_mode", "hca"), ("stale_numbers", "sf other")],
        ),
        (
            "exclusive mode and plain nodes",
            exclusive,
            plain,
            &[
                ("shares_in_exclusive_mode", "hca"),
                ("stale_numbers", "vf sf other"),
                ("soft_without_cdi", "soft"),
            ],
        ),
        ("no ib_uverbs", |node| node.uverbs = false, cdi, &[("no_uverbs", "hca vf sf other")]),
        (
            "no rdma_ucm",
            |node| node.connection_manager = false,
            cdi,
            &[("no_connection_manager", "hca vf sf soft other")],
        ),
        (
            "a kernel that is old enough for shared mode",
            |node| node.kernel = Some(KernelRelease(7, 1)),
            cdi,
            &[],
        ),
        (
            "a kernel that is too old",
            |node| node.kernel = Some(KernelRelease(7, 0)),
            cdi,
            &[("old_kernel", "soft")],
        ),
        (
            "a kernel that is too old for exclusive mode",
            |node| (node.exclusive, node.kernel) = (true, Some(KernelRelease(7, 2))),
            cdi,
            &[("shares_in_exclusive_mode", "hca"), ("stale_numbers", "sf other"), ("old_kernel", "soft")],
        ),
        ("a kernel that nobody knows", |node| node.kernel = None, cdi, &[]),
        (
            "runtimes with limits",
            |node| {
                node.memory_limits.insert("containerd".to_owned(), MemoryLimit::Bytes(8_388_608));
                node.memory_limits.insert("crio".to_owned(), MemoryLimit::Bytes(65536));
            },
            cdi,
            &[("locked_memory", "hca vf sf soft other"), ("locked_memory", "hca vf sf soft other")],
        ),
    ];
    for (what, change, method, expected) in cases {
        let mut node = ready();
        change(&mut node);
        let expected: Vec<_> = expected.iter().map(|(name, pools)| (*name, (*pools).to_owned())).collect();
        assert_eq!(found(POOLS, &node, *method), expected, "{what}");
    }
}

#[test]
fn pools_without_rdma_ask_nothing_of_the_node() {
    let limits = [("crio".to_owned(), MemoryLimit::Bytes(0))].into();
    let bare = RdmaNode { exclusive: true, memory_limits: limits, ..RdmaNode::default() };
    let pools = r#"{"pools": [
        {"resourceName": "off", "rdma": "off", "selectors": {"isRdma": true}},
        {"resourceName": "net", "selectors": {"any": true}}
    ]}"#;
    assert_eq!(found(pools, &bare, Some(NodeMethod::Plain)), []);
}

#[test]
fn files_of_the_shared_device_plugin_are_shares() {
    let file = r#"{"configList": [{"resourceName": "hca_shared", "rdmaHcaMax": 100, "selectors": {"vendors": ["15b3"]}}]}"#;
    let node = RdmaNode { exclusive: true, ..ready() };
    let expected = [("shares_in_exclusive_mode", "hca_shared".to_owned())];
    assert_eq!(found(file, &node, Some(NodeMethod::Plain)), expected);
}

#[test]
fn an_obstacle_is_told_with_its_pools_and_what_to_do() {
    let pools = Config::parse(POOLS).unwrap().pools;
    let limits = [("containerd".to_owned(), MemoryLimit::Bytes(65536))].into();
    let kernel = Some(KernelRelease(6, 12));
    let bare = RdmaNode { exclusive: true, memory_limits: limits, kernel, ..RdmaNode::default() };
    let told: Vec<String> =
        obstacles(&pools, &bare, Some(NodeMethod::Plain)).iter().map(ToString::to_string).collect();
    let parts = [
        ["zerobridge.io/hca: no pod can use a share", "netns_mode=1"],
        ["zerobridge.io/vf, zerobridge.io/sf, zerobridge.io/other: a container may miss", "\"cdi\": \"on\""],
        ["zerobridge.io/soft: no container gets a software RDMA device", "\"cdi\": \"on\""],
        [": RDMA devices have no device nodes", "load the module ib_uverbs"],
        ["there is no /dev/infiniband/rdma_cm", "load the module rdma_ucm"],
        ["the kernel is 6.12, and in exclusive mode they need 7.3", "or shared mode with 7.1"],
        ["can register 65536 bytes of memory", "LimitMEMLOCK=infinity"],
    ];
    assert_eq!(told.len(), parts.len(), "{told:#?}");
    for (told, parts) in told.iter().zip(parts) {
        assert!(parts.iter().all(|part| told.contains(part)), "{told}");
    }
}
