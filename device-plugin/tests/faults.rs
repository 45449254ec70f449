//! The daemon, and a kubelet or a folder that misbehaves: after each fault the kubelet knows every device again, and
//! nothing was registered while a stream was open.
#![allow(clippy::unwrap_used, reason = "a helper that fails has failed the test that called it")]

mod node;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use node::{Fault, Generation, Kubelet, Node, View, soon};

const VF: &str = "zerobridge.io/vf";
const GENERATIONS: [Generation; 2] = [Generation::ByName, Generation::BySocket];

/// Everything is as it should be.
fn right(view: &View) {
    assert_eq!(view.violations, Vec::<String>::new());
    assert_eq!(view.ids(VF).unwrap(), ["0000:01:10.0", "0000:01:10.2"]);
    assert_eq!(view.devices.len(), 2);
}

async fn until_sockets(node: &Node) {
    soon("the sockets are there", async {
        while node.sockets().len() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_kubelet_that_comes_later_is_waited_for() {
    let node = Node::new();
    let daemon = node.daemon(1);
    until_sockets(&node).await;
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
    let kubelet = Kubelet::start_in(&node.plugins(), Generation::BySocket);
    for socket in node.sockets() {
        fs::remove_file(node.plugins().join(socket)).unwrap();
    }
    kubelet.until_complete().await;
    until_sockets(&node).await;
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
    for generation in GENERATIONS {
        let node = Node::new();
        let kubelet = Kubelet::start(&node.plugins(), generation);
        let daemon = node.daemon(1);
        kubelet.until_complete().await;
        for round in 2..5 {
            kubelet.hang_up();
            let back = |view: &View| view.registrations.len() >= 2 * round && view.devices.len() == 2;
            let view = kubelet.until("both pools are back", back).await;
            right(&view);
            assert_eq!(view.registrations.len(), 2 * round, "once more per pool");
        }
        daemon.stop().await;
    }
}

/// It answers a repetition of what it still knows with nothing, or takes the new registration for the ended one.
#[tokio::test]
async fn a_kubelet_that_forgets_late_is_outwaited() {
    for generation in GENERATIONS {
        let node = Node::new();
        let kubelet = Kubelet::start(&node.plugins(), generation);
        let daemon = node.daemon(1);
        kubelet.until_complete().await;
        kubelet.lag(Duration::from_millis(300));
        kubelet.hang_up();
        let again = |view: &View| view.registrations.len() >= 4 && view.devices.len() == 2;
        kubelet.until("both pools are back", again).await;
        // What is still to come of the first hanging up is over when a stream has outlived the lag.
        let mut settled = kubelet.view().lists;
        soon("it settles", async {
            loop {
                tokio::time::sleep(Duration::from_millis(700)).await;
                let view = kubelet.view();
                if view.lists == settled && view.open() == 2 && view.devices.len() == 2 {
                    break;
                }
                settled = view.lists;
            }
        })
        .await;
        right(&kubelet.view());
        daemon.stop().await;
    }
}

#[tokio::test]
async fn a_registration_that_is_accepted_and_forgotten_is_tried_again() {
    let node = Node::new();
    let kubelet = node.kubelet();
    kubelet.fail(Fault::AcceptOnly, 2);
    let daemon = node.daemon(1);
    let view = kubelet.until_complete().await;
    right(&view);
    assert_eq!((view.attempts, view.registrations.len()), (4, 2));
    daemon.stop().await;
}

#[tokio::test]
async fn a_registration_without_an_answer_is_tried_again() {
    let node = Node::new();
    let kubelet = node.kubelet();
    kubelet.fail(Fault::Hang, 2);
    let daemon = node.daemon(1);
    let view = kubelet.until_complete().await;
    right(&view);
    assert_eq!((view.attempts, view.registrations.len()), (4, 2));
    daemon.stop().await;
}

#[tokio::test]
async fn a_kubelet_that_hangs_is_left_for_the_one_that_replaces_it() {
    let node = Node::new();
    let hanging = node.kubelet();
    hanging.fail(Fault::Hang, 1000);
    let daemon = node.daemon(1);
    hanging.until("both pools have asked", |view| view.attempts >= 2).await;
    let kubelet = node.kubelet();
    right(&kubelet.until_complete().await);
    daemon.stop().await;
    drop(hanging);
}

/// The kubelet dials for ten seconds: the socket that it is to find is made while it is at it.
#[tokio::test]
async fn a_socket_that_is_deleted_during_the_registration_is_made_again_for_the_dial_back() {
    let node = Node::new();
    let kubelet = node.kubelet();
    kubelet.fail(Fault::DeleteSocket, 2);
    let daemon = node.daemon(1);
    let view = kubelet.until_complete().await;
    right(&view);
    assert_eq!(view.attempts, 2, "the first registration of each pool succeeds");
    assert_eq!(node.sockets().len(), 2);
    daemon.stop().await;
}

/// A stream is the registration, also when somebody has put another socket in the place of the kubelet's.
#[tokio::test]
async fn another_kubelet_gets_nothing_while_the_first_has_streams() {
    let node = Node::new();
    let first = node.kubelet();
    let daemon = node.daemon(1);
    first.until_complete().await;
    let second = Kubelet::start_in(&node.plugins(), Generation::BySocket);
    // Our sockets are made again only by who has looked at the folder again.
    for _ in 0..3 {
        for socket in node.sockets() {
            fs::remove_file(node.plugins().join(socket)).unwrap();
        }
        until_sockets(&node).await;
    }
    assert_eq!(second.view().attempts, 0);
    assert_eq!(first.view().attempts, 2);
    drop(first);
    right(&second.until_complete().await);
    daemon.stop().await;
}

#[tokio::test]
async fn a_killed_kubelet_whose_socket_stays_is_replaced_by_the_next() {
    let node = Node::new();
    let kubelet = node.kubelet();
    let daemon = node.daemon(1);
    kubelet.until_complete().await;
    let socket = node.plugins().join("kubelet.sock");
    let inode = fs::metadata(&socket).unwrap().ino();
    drop(kubelet);
    assert_eq!(fs::metadata(&socket).unwrap().ino(), inode, "nobody listens, and the file is there");
    let kubelet = node.kubelet();
    let view = kubelet.until_complete().await;
    right(&view);
    assert_eq!(view.registrations.len(), 2);
    daemon.stop().await;
}

#[tokio::test]
async fn a_folder_that_is_replaced_is_found_again() {
    let node = Node::new();
    let kubelet = node.kubelet();
    let daemon = node.daemon(1);
    kubelet.until_complete().await;
    drop(kubelet);
    fs::rename(node.plugins(), node.path("kubelet/old")).unwrap();
    fs::create_dir(node.plugins()).unwrap();
    let kubelet = node.kubelet();
    let view = kubelet.until_complete().await;
    right(&view);
    assert_eq!(node.sockets().len(), 2);
    daemon.stop().await;
}

#[tokio::test]
async fn a_refused_registration_is_tried_again() {
    let node = Node::new();
    let kubelet = node.kubelet();
    kubelet.fail(Fault::Refuse, 5);
    let daemon = node.daemon(1);
    let view = kubelet.until_complete().await;
    right(&view);
    assert_eq!((view.attempts, view.registrations.len()), (7, 2));
    daemon.stop().await;
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
