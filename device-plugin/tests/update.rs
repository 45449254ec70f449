//! Two instances of the daemon on one node, as in a rolling update, with kubelets of both generations.
#![allow(clippy::unwrap_used, reason = "a helper that fails has failed the test that called it")]

mod node;

use node::{Generation, Kubelet, Node, View};

const POOLS: [&str; 2] = ["zerobridge.io/vf", "zerobridge.io/vf-green"];

/// The kubelet knows every device, and has been told so by the rules.
fn right(view: &View) {
    assert_eq!(view.violations, Vec::<String>::new());
    assert_eq!(view.ids(POOLS[0]).unwrap(), ["0000:01:10.0", "0000:01:10.2"]);
    assert_eq!(view.ids(POOLS[1]).unwrap(), ["0000:01:10.1", "0000:01:10.3"]);
}

/// How often nothing was allocatable of a resource.
fn gaps(view: &View, resource: &str) -> usize {
    view.allocatable[resource].iter().filter(|allocatable| **allocatable == 0).count()
}

async fn both(kubelet: &Kubelet) -> View {
    kubelet.until("the new instance is registered", |view| view.lists == 4 && view.open() == 4).await
}

#[tokio::test]
async fn two_instances_leave_each_others_sockets_alone() {
    let node = Node::new();
    let kubelet = node.kubelet();
    let old = node.daemon(1);
    kubelet.until_complete().await;
    let olds = node.sockets();

    let new = node.daemon(2);
    both(&kubelet).await;
    let sockets = node.sockets();
    assert_eq!(sockets.len(), 4);
    assert!(olds.iter().all(|socket| sockets.contains(socket)));

    old.stop().await;
    let left = node.sockets();
    assert_eq!(left.len(), 2);
    assert!(left.iter().all(|socket| !olds.contains(socket)));
    new.stop().await;
}

/// A kubelet of today tells the two instances apart. An older one takes the end of the old instance for that of the new
/// one, unless the old one withdraws its name.
#[tokio::test]
async fn everything_stays_allocatable_throughout() {
    for generation in [Generation::BySocket, Generation::ByName] {
        let node = Node::new();
        let kubelet = Kubelet::start(&node.plugins(), generation);
        let mut running = node.daemon(1);
        kubelet.until_complete().await;
        for pid in 2..5 {
            let lists = kubelet.view().lists;
            let new = node.daemon(pid);
            let listed = |view: &View| view.lists == lists + 2 && view.open() == 4;
            kubelet.until("the new instance is registered", listed).await;
            running.stop().await;
            running = new;
            right(&kubelet.until("the old instance is gone", |view| view.open() == 2).await);
        }
        // What the last instance sends still arrives.
        node.tree.add_igb_vf(0, 2);
        let listed = |view: &View| view.ids(POOLS[0]).is_some_and(|ids| ids.len() == 3);
        let view = kubelet.until("the new VF is listed", listed).await;
        assert_eq!(view.registrations.len(), 8, "{generation:?}: each instance registers each pool once");
        assert_eq!(view.attempts, 8 + 6, "{generation:?}: and each but the last withdraws it once");
        assert_eq!(POOLS.map(|pool| gaps(&view, pool)), [0, 0], "{generation:?}");
        running.stop().await;
    }
}

#[tokio::test]
async fn the_new_instance_is_asked_for_what_the_old_one_was() {
    for generation in [Generation::ByName, Generation::BySocket] {
        let node = Node::new();
        let kubelet = Kubelet::start(&node.plugins(), generation);
        let old = node.daemon(1);
        kubelet.until_complete().await;
        let before = kubelet.allocate(POOLS[0], &["0000:01:10.0"]).await.unwrap();
        let new = node.daemon(2);
        both(&kubelet).await;
        old.stop().await;
        kubelet.until("the new instance is there", |view| view.devices.len() == 2 && view.open() == 2).await;
        let after = kubelet.allocate(POOLS[0], &["0000:01:10.0"]).await.unwrap();
        assert_eq!(after, before);
        new.stop().await;
    }
}

#[tokio::test]
async fn a_kubelet_that_restarts_between_two_instances_has_both() {
    let node = Node::new();
    let kubelet = node.kubelet();
    let (old, new) = (node.daemon(1), node.daemon(2));
    both(&kubelet).await;
    drop(kubelet);
    let kubelet = node.kubelet();
    let view = both(&kubelet).await;
    right(&view);
    assert_eq!(view.registrations.len(), 4);
    old.stop().await;
    right(&kubelet.until("the old instance is gone", |view| view.open() == 2).await);
    new.stop().await;
}
