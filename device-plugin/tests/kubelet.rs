//! The daemon and a kubelet, over real sockets: what the kubelet is told, and what it is answered. What happens when the
//! kubelet or its folder misbehaves is in `faults`, and when there are two daemons in `update`.

mod node;

use std::fs;

use node::Node;
use tonic::Code;
use zerobridge_kernel::testing::FakeFunction;
use zerobridge_proto::PciAddress;
use zerobridge_proto::deviceplugin::{
    ContainerPreferredAllocationRequest, DevicePluginOptions, NumaNode, PreferredAllocationRequest,
    TopologyInfo,
};

const VF: &str = "zerobridge.io/vf";
const GREEN: &str = "zerobridge.io/vf-green";

#[tokio::test]
async fn every_pool_registers_with_a_socket_of_its_own_and_lists_its_devices() {
    let node = Node::new();
    let kubelet = node.kubelet();
    let daemon = node.daemon(1);

    let view = kubelet.until_complete().await;
    assert_eq!(view.ids(VF).unwrap(), ["0000:01:10.0", "0000:01:10.2"]);
    assert_eq!(view.ids(GREEN).unwrap(), ["0000:01:10.1", "0000:01:10.3"]);
    for device in view.devices.values().flatten() {
        assert_eq!(device.health, "Healthy");
        assert_eq!(device.topology, Some(TopologyInfo { nodes: vec![NumaNode { id: 0 }] }));
    }
    let mut endpoints: Vec<&str> =
        view.registrations.iter().map(|request| request.endpoint.as_str()).collect();
    endpoints.sort_unstable();
    assert_eq!(endpoints, node.sockets());
    assert_eq!(endpoints.len(), 2);
    assert_eq!(view.violations, Vec::<String>::new(), "version, name and options are what a kubelet demands");
    daemon.stop().await;
}

#[tokio::test]
async fn the_device_list_follows_the_machine_and_only_changes_are_sent() {
    let node = Node::new();
    let kubelet = node.kubelet();
    let daemon = node.daemon(1);
    let lists = kubelet.until_complete().await.lists;
    assert_eq!(lists, 2);

    let added = node.tree.add_igb_vf(0, 2);
    kubelet.until("the new VF is listed", |view| view.ids(VF).unwrap().len() == 3).await;
    node.tree.remove(added);
    let view = kubelet.until("the old VF is gone", |view| view.ids(VF).unwrap().len() == 2).await;
    assert_eq!(view.lists, lists + 2);

    // A VF that moves into a pod changes nothing; the rebinding of another one that follows it is the next message.
    let address = |text: &str| text.parse::<PciAddress>().unwrap();
    let (moved, rebound) = (address("0000:01:10.1"), address("0000:01:10.3"));
    node.tree.hide_netdev(moved, "enp1s0f1v0");
    node.tree.bind(rebound, Some("vfio-pci"));
    let view = kubelet.until("the rebound VF is gone", |view| view.ids(GREEN).unwrap().len() == 1).await;
    assert_eq!(view.ids(GREEN).unwrap(), ["0000:01:10.1"]);
    assert_eq!(view.lists, lists + 3);
    daemon.stop().await;
}

#[tokio::test]
async fn a_pool_may_become_empty_and_stays_registered() {
    let node = Node::new();
    let kubelet = node.kubelet();
    let daemon = node.daemon(1);
    kubelet.until_complete().await;
    for vf in ["0000:01:10.0", "0000:01:10.2"] {
        node.tree.remove(vf.parse().unwrap());
    }
    let view =
        kubelet.until("the pool is empty", |view| view.ids(VF).is_some_and(|ids| ids.is_empty())).await;
    assert_eq!(view.registrations.len(), 2);
    daemon.stop().await;
}

#[tokio::test]
async fn the_options_are_the_same_in_both_places() {
    let node = Node::new();
    let kubelet = node.kubelet();
    let daemon = node.daemon(1);
    let view = kubelet.until_complete().await;
    for (request, answered) in view.registrations.iter().zip(&view.options) {
        assert_eq!(request.version, "v1beta1");
        assert_eq!(request.options.as_ref(), Some(answered));
        let expected = DevicePluginOptions { pre_start_required: false, ..*answered };
        assert_eq!(*answered, expected, "nothing is to be called before a container starts");
    }
    daemon.stop().await;
}

#[tokio::test]
async fn the_longest_names_that_the_configuration_takes_are_names_that_the_kubelet_takes() {
    let node = Node::new();
    let kubelet = node.kubelet();
    let prefix = vec!["a".repeat(48); 5].join(".");
    let name = "N".repeat(63);
    let config = format!(
        r#"{{"pools": [{{"resourcePrefix": "{prefix}", "resourceName": "{name}", "selectors": {{"any": true}}}}]}}"#
    );
    let daemon = node.daemon_with(1, &config);
    let view = kubelet.until("the pool is listed", |view| view.devices.len() == 1).await;
    assert_eq!(view.violations, Vec::<String>::new());
    assert_eq!(view.ids(&format!("{prefix}/{name}")).unwrap().len(), 4);
    daemon.stop().await;
}

#[tokio::test]
async fn a_pool_without_devices_is_listed_as_empty_at_once() {
    let node = Node::new();
    for vf in ["0000:01:10.0", "0000:01:10.1", "0000:01:10.2", "0000:01:10.3"] {
        node.tree.remove(vf.parse().unwrap());
    }
    let kubelet = node.kubelet();
    let daemon = node.daemon(1);
    let view = kubelet.until_complete().await;
    assert!(view.devices.values().all(Vec::is_empty));
    assert_eq!(view.lists, 2);
    daemon.stop().await;
}

#[tokio::test]
async fn a_thousand_devices_are_one_message() {
    let node = Node::new();
    let pf = FakeFunction {
        address: "0000:80:00.0".parse().unwrap(),
        netdevs: vec!["enp128s0".to_owned()],
        ..FakeFunction::igb_pf(0)
    };
    node.tree.add(&pf);
    node.tree.enable_sriov(pf.address, 1000);
    for index in 0..1000u16 {
        let (bus, slot, function) = (0x81 + index / 256, index % 256 / 8, index % 8);
        let vf = FakeFunction {
            address: format!("0000:{bus:02x}:{slot:02x}.{function}").parse().unwrap(),
            netdevs: vec![format!("enp128s0v{index}")],
            ..FakeFunction::igb_vf(0, 0)
        };
        node.tree.add(&vf);
        node.tree.link_vf(pf.address, index, vf.address);
    }
    let kubelet = node.kubelet();
    let config = r#"{"pools": [{"resourceName": "many", "selectors": {"pfNames": ["enp128s0"]}}]}"#;
    let daemon = node.daemon_with(1, config);
    let view = kubelet.until("the pool is listed", |view| !view.devices.is_empty()).await;
    let ids = view.ids("zerobridge.io/many").unwrap();
    assert_eq!((ids.len(), view.lists), (1000, 1));
    assert!(ids.is_sorted() && ids[0] == "0000:81:00.0" && ids[999] == "0000:84:1c.7", "{ids:?}");
    daemon.stop().await;
}

#[tokio::test]
async fn an_allocation_tells_the_container_and_multus() {
    let node = Node::new();
    let kubelet = node.kubelet();
    let daemon = node.daemon(1);
    kubelet.until_complete().await;

    let response = kubelet.allocate(GREEN, &["0000:01:10.3", "0000:01:10.1"]).await.unwrap();
    for variable in ["PCIDEVICE_ZEROBRIDGE_IO_VF-GREEN", "PCIDEVICE_ZEROBRIDGE_IO_VF_GREEN"] {
        assert_eq!(response.envs[variable], "0000:01:10.3,0000:01:10.1");
        assert_eq!(
            response.envs[&format!("{variable}_INFO")],
            r#"{"0000:01:10.1":{"generic":{"deviceID":"0000:01:10.1"}},"0000:01:10.3":{"generic":{"deviceID":"0000:01:10.3"}}}"#
        );
    }
    assert!(response.devices.is_empty());
    let info =
        fs::read_to_string(node.path("devinfo/zerobridge.io-vf-green-0000:01:10.3-device.json")).unwrap();
    assert_eq!(
        info,
        r#"{"type":"pci","version":"1.1.0","pci":{"pci-address":"0000:01:10.3","pf-pci-address":"0000:01:00.1"}}"#
    );

    // The kubelet gives the device of an init container to the main container.
    assert_eq!(kubelet.allocate(GREEN, &["0000:01:10.3", "0000:01:10.1"]).await.unwrap(), response);
    daemon.stop().await;
}

#[tokio::test]
async fn a_device_of_another_pool_is_refused_by_name_and_nothing_is_written() {
    let node = Node::new();
    let kubelet = node.kubelet();
    let daemon = node.daemon(1);
    kubelet.until_complete().await;
    for ids in [["0000:01:10.0", "0000:01:10.1"], ["0000:01:10.0", "eth0"]] {
        let refusal = kubelet.allocate(VF, &ids).await.unwrap_err();
        assert_eq!(refusal.code(), Code::NotFound);
        assert!(refusal.message().contains(ids[1]) && refusal.message().contains(VF), "{refusal}");
    }
    assert!(!node.path("devinfo").exists());
    daemon.stop().await;
}

#[tokio::test]
async fn an_allocation_whose_file_cannot_be_written_fails() {
    let node = Node::new();
    fs::write(node.path("devinfo"), "no folder").unwrap();
    let kubelet = node.kubelet();
    let daemon = node.daemon(1);
    kubelet.until_complete().await;
    let refusal = kubelet.allocate(VF, &["0000:01:10.0"]).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Internal);
    assert!(refusal.message().contains("zerobridge.io-vf-0000:01:10.0-device.json"), "{refusal}");
    daemon.stop().await;
}

#[tokio::test]
async fn asking_for_a_preference_is_never_an_error() {
    let node = Node::new();
    let kubelet = node.kubelet();
    let daemon = node.daemon(1);
    kubelet.until_complete().await;
    let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    let ask = |available: &[&str], required: &[&str], size| ContainerPreferredAllocationRequest {
        available_device_i_ds: ids(available),
        must_include_device_i_ds: ids(required),
        allocation_size: size,
    };
    for container_requests in [
        vec![],
        vec![ask(&["0000:01:10.0", "0000:01:10.2"], &[], 1)],
        vec![ask(&[], &[], 0), ask(&[], &["eth0"], i32::MIN)],
        vec![ask(&["eth0", "", "0000:01:10.0#9", "0000:01:10.0"], &["0000:01:10.1"], i32::MAX)],
    ] {
        let request = PreferredAllocationRequest { container_requests };
        kubelet.client(VF).get_preferred_allocation(request).await.unwrap();
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_software_rdma_device_is_named_by_cdi_and_refused_without() {
    for cdi in ["on", "off"] {
        let node = Node::new();
        let kubelet = node.kubelet();
        let config = format!(
            r#"{{"cdi": "{cdi}", "pools": [{{"resourceName": "vf", "rdma": "soft", "selectors": {{"any": true}}}}]}}"#
        );
        let daemon = node.daemon_with(1, &config);
        kubelet.until("the pool is listed", |view| view.devices.len() == 1).await;
        match kubelet.allocate(VF, &["0000:01:10.0"]).await {
            Ok(response) => {
                assert_eq!(cdi, "on");
                let names: Vec<&str> =
                    response.cdi_devices.iter().map(|device| device.name.as_str()).collect();
                assert_eq!(names, ["cdi.zerobridge.io/rdma=0000:01:10.0"]);
                assert!(!node.path("cdi").exists(), "the CNI plugin writes the specification");
            }
            Err(refusal) => {
                assert_eq!((cdi, refusal.code()), ("off", Code::FailedPrecondition));
                assert!(refusal.message().contains(VF), "{refusal}");
            }
        }
        daemon.stop().await;
    }
}
