//! The daemon and a kubelet, over real sockets: registration, restarts of either side, device lists, allocation.

mod node;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixListener;

use node::{Kubelet, Node, soon};
use tonic::Code;
use zerobridge_proto::deviceplugin::{NumaNode, PreferredAllocationRequest, TopologyInfo};

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
    daemon.stop().await;
}

#[tokio::test]
async fn a_kubelet_that_comes_later_is_waited_for() {
    let node = Node::new();
    let daemon = node.daemon(1);
    soon("the sockets are there", async {
        while node.sockets().len() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let kubelet = node.kubelet();
    assert_eq!(kubelet.until_complete().await.registrations.len(), 2);
    daemon.stop().await;
}

#[tokio::test]
async fn a_folder_that_comes_later_is_waited_for() {
    let node = Node::new();
    fs::remove_dir(node.plugins()).unwrap();
    let daemon = node.daemon(1);
    tokio::task::yield_now().await;
    fs::create_dir(node.plugins()).unwrap();
    let kubelet = node.kubelet();
    kubelet.until_complete().await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_restarted_kubelet_is_registered_with_again_each_time() {
    let node = Node::new();
    let mut kubelet = node.kubelet();
    let daemon = node.daemon(1);
    kubelet.until_complete().await;
    for _ in 0..5 {
        drop(kubelet);
        kubelet = node.kubelet();
        let view = kubelet.until_complete().await;
        assert_eq!(view.registrations.len(), 2, "once per pool");
        assert_eq!(view.ids(VF).unwrap(), ["0000:01:10.0", "0000:01:10.2"]);
    }
    daemon.stop().await;
}

#[tokio::test]
async fn sockets_that_are_deleted_after_the_kubelets_socket_came_are_made_again() {
    let node = Node::new();
    let kubelet = node.kubelet();
    let daemon = node.daemon(1);
    kubelet.until_complete().await;
    drop(kubelet);

    // The other order of the race: the new socket is there first, and refuses what is dialled too early.
    let kubelet = Kubelet::start_in(&node.plugins());
    for socket in node.sockets() {
        fs::remove_file(node.plugins().join(socket)).unwrap();
    }
    kubelet.until_complete().await;
    soon("the sockets are there again", async {
        while node.sockets().len() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    daemon.stop().await;
}

#[tokio::test]
async fn nothing_is_registered_twice_while_a_stream_is_open() {
    let node = Node::new();
    let kubelet = node.kubelet();
    let daemon = node.daemon(1);
    kubelet.until_complete().await;

    // A busy folder, and our own sockets deleted by somebody who is no kubelet.
    for round in 0..20 {
        let other = node.plugins().join(format!("other-{round}.sock"));
        drop(UnixListener::bind(&other).unwrap());
        fs::remove_file(other).unwrap();
    }
    let inode = |name: &String| fs::metadata(node.plugins().join(name)).map(|file| file.ino()).ok();
    let names = node.sockets();
    for name in &names {
        fs::remove_file(node.plugins().join(name)).unwrap();
    }
    soon("the sockets are there again", async {
        while names.iter().any(|name| inode(name).is_none()) {
            tokio::task::yield_now().await;
        }
    })
    .await;

    // The streams are the old ones, and still tell of changes.
    node.tree.add_igb_vf(0, 2);
    let view = kubelet
        .until("the new VF is listed", |view| view.ids(VF).is_some_and(|ids| ids.contains(&"0000:01:10.4")))
        .await;
    assert_eq!(view.registrations.len(), 2);
    daemon.stop().await;
}

#[tokio::test]
async fn a_kubelet_that_hangs_up_is_registered_with_again() {
    let node = Node::new();
    let kubelet = node.kubelet();
    let daemon = node.daemon(1);
    kubelet.until_complete().await;
    kubelet.hang_up();
    let view = kubelet.until("both pools are back", |view| view.registrations.len() >= 4).await;
    assert_eq!(view.registrations.len(), 4, "once more per pool");
    kubelet.until_complete().await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_refused_registration_is_tried_again() {
    let node = Node::new();
    let kubelet = node.kubelet();
    kubelet.refuse(5);
    let daemon = node.daemon(1);
    let view = kubelet.until_complete().await;
    assert_eq!(view.registrations.len(), 2);
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
    let (moved, rebound) = ("0000:01:10.1".parse().unwrap(), "0000:01:10.3".parse().unwrap());
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
async fn no_preference_is_an_empty_answer_and_no_error() {
    let node = Node::new();
    let kubelet = node.kubelet();
    let daemon = node.daemon(1);
    kubelet.until_complete().await;
    let request = PreferredAllocationRequest { container_requests: Vec::new() };
    let answer = kubelet.client(VF).get_preferred_allocation(request).await.unwrap().into_inner();
    assert!(answer.container_responses.is_empty());
    daemon.stop().await;
}

#[tokio::test]
async fn two_instances_leave_each_others_sockets_alone() {
    let node = Node::new();
    let kubelet = node.kubelet();
    let old = node.daemon(1);
    kubelet.until_complete().await;
    let olds = node.sockets();

    let new = node.daemon(2);
    kubelet.until("the new instance registers", |view| view.registrations.len() == 4).await;
    let both = node.sockets();
    assert_eq!(both.len(), 4);
    assert!(olds.iter().all(|socket| both.contains(socket)));

    old.stop().await;
    let left = node.sockets();
    assert_eq!(left.len(), 2);
    assert!(left.iter().all(|socket| !olds.contains(socket)));
    new.stop().await;
}

#[tokio::test]
async fn sockets_of_a_killed_predecessor_are_removed_at_start() {
    let node = Node::new();
    let stale = node.plugins().join("zerobridge-vf-0-1-18f00000000.sock");
    let kubelet = node.kubelet();
    drop(UnixListener::bind(&stale).unwrap());
    let daemon = node.daemon(1);
    kubelet.until_complete().await;
    assert!(!stale.exists());
    daemon.stop().await;
}

#[tokio::test]
async fn a_daemon_that_stops_ends_its_streams_and_takes_its_sockets_with_it() {
    let node = Node::new();
    let kubelet = node.kubelet();
    let daemon = node.daemon(1);
    kubelet.until_complete().await;
    daemon.stop().await;
    assert_eq!(node.sockets(), Vec::<String>::new());
    let view = kubelet.until("both streams end", |view| view.devices.is_empty()).await;
    assert_eq!(view.registrations.len(), 2);
}
