//! Requests and answers are those of a real kernel, recorded in `recorded/`: this project's test machines may have no RDMA
//! subsystem. A socket stands in for the kernel.

use super::*;
use crate::netlink::stand_in::{self, acknowledgement, done, message, refusal};
use crate::testing::TestNetns;

/// A request of a recording, and the datagrams that answered it.
#[derive(Debug, Default)]
struct Recorded {
    request: Vec<u8>,
    answers: Vec<Vec<u8>>,
}

fn recorded(name: &str) -> Vec<Recorded> {
    let file = format!("{}/src/rdma/recorded/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    let mut exchanges: Vec<Recorded> = Vec::new();
    let mut is_answer = false;
    for line in std::fs::read_to_string(file).unwrap().lines() {
        match line {
            "# request" => (is_answer, _) = (false, exchanges.push(Recorded::default())),
            "# answer" => is_answer = true,
            comment if comment.starts_with('#') => {}
            hex => {
                let bytes =
                    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap());
                let exchange = exchanges.last_mut().unwrap();
                if is_answer {
                    exchange.answers.push(bytes.collect());
                } else {
                    exchange.request.extend(bytes);
                }
            }
        }
    }
    exchanges
}

/// What `work` makes of the answers to each of `exchanges`, whose requests it must make but for the flags.
fn replayed<T>(
    exchanges: Vec<Recorded>,
    work: impl FnOnce(&mut RdmaSocket) -> Result<T, NetlinkError>,
) -> Result<T, NetlinkError> {
    let (requests, answers): (Vec<_>, Vec<_>) =
        exchanges.into_iter().map(|exchange| (exchange.request, exchange.answers)).unzip();
    // `rdma` asks without an acknowledgement; one that nobody awaits is passed over.
    let acknowledged = answers.into_iter().map(|mut datagrams| {
        datagrams.push(acknowledgement());
        datagrams
    });
    let (conversation, asked) = stand_in::answering(acknowledged.collect());
    let mut socket = RdmaSocket { conversation };
    let found = work(&mut socket);
    for (asked, recorded) in asked.join().unwrap().iter().zip(&requests) {
        assert_eq!(asked[4..6], recorded[4..6], "the command");
        assert_eq!(asked[16..], recorded[16..], "the attributes");
    }
    found
}

fn exchange(name: &str, number: usize) -> Vec<Recorded> {
    vec![recorded(name).swap_remove(number)]
}

fn device(index: u32, name: &str) -> RdmaLink {
    RdmaLink {
        index: RdmaIndex(index),
        name: name.to_owned(),
        ports: 1,
        node_guid: 0x1001_00ff_fe00_0000,
        protocol: RdmaProtocol::Roce,
    }
}

#[test]
fn the_devices_of_a_namespace_are_listed_with_what_they_are() {
    let found = replayed(exchange("exclusive-get-dev-dump", 0), RdmaSocket::devices).unwrap();
    let guid = found[0].node_guid;
    assert_eq!(found, [RdmaLink { node_guid: guid, ..device(0, "roce0") }]);
    assert_eq!(guid.to_be_bytes()[3..5], [0xff, 0xfe], "an EUI-64 made of a MAC");
    let none = replayed(exchange("exclusive-get-dev-dump", 0), |socket| socket.device_by_name("rxe0"));
    assert_eq!(none.unwrap(), None);
}

#[test]
fn a_device_that_a_list_lacks_is_looked_for_again() {
    let whole = recorded("exclusive-get-dev-dump").swap_remove(0).answers;
    let (conversation, requests) = stand_in::answering(vec![vec![done(0, &[])], whole]);
    let found = RdmaSocket { conversation }.shown_device("roce0").unwrap();
    assert_eq!((found.unwrap().index, requests.join().unwrap().len()), (RdmaIndex(0), 2));
}

#[test]
fn a_port_names_its_netdev_when_that_is_in_the_same_namespace() {
    let port = |netdev| RdmaPortLink { number: 1, active: true, netdev };
    let found = replayed(exchange("shared-get-port", 2), |socket| socket.ports(RdmaIndex(2))).unwrap();
    assert_eq!(found, [port(Some((IfIndex(2), "enp1s0".to_owned())))]);
    let gone = replayed(exchange("shared-get-port", 3), |socket| socket.ports(RdmaIndex(4242))).unwrap();
    assert_eq!(gone, []);
    let elsewhere = recorded("shared-link-a").swap_remove(2).answers.swap_remove(0);
    let (conversation, _requests) = stand_in::answering(vec![vec![elsewhere, done(0, &[])]]);
    let found = RdmaSocket { conversation }.ports(RdmaIndex(1)).unwrap();
    assert_eq!(found, [port(None)]);
}

#[test]
fn the_mode_of_namespaces_is_one_of_two_and_shared_where_a_kernel_does_not_say() {
    let mode = |name| replayed(exchange(name, 0), RdmaSocket::netns_mode).unwrap();
    assert_eq!(mode("shared-get-system"), RdmaNetnsMode::Shared);
    assert_eq!(mode("exclusive-get-system"), RdmaNetnsMode::Exclusive);
    let (conversation, _requests) = stand_in::answering(vec![vec![acknowledgement()]]);
    assert_eq!(RdmaSocket { conversation }.netns_mode().unwrap(), RdmaNetnsMode::Shared);
}

#[test]
fn a_device_is_renamed_and_made_and_removed() {
    replayed(exchange("exclusive-setname", 1), |socket| socket.rename(&device(0, "rxea"), "roce0")).unwrap();
    replayed(exchange("shared-newlink-in-ns", 1), |socket| socket.add_link("rxea", "rxe", "net1")).unwrap();
    replayed(exchange("shared-del", 1), |socket| socket.delete_link(&device(2, "rxehost"))).unwrap();
}

#[test]
fn refusals_are_told_with_the_kernels_words() {
    let taken =
        replayed(exchange("shared-setname-taken", 1), |socket| socket.rename(&device(2, "rxehost"), "rxea"));
    assert!(taken.unwrap_err().is_present());
    let taken =
        replayed(exchange("shared-newlink-exists", 1), |socket| socket.add_link("rxea", "rxe", "enp2s0"));
    assert_eq!(taken.unwrap_err().errno(), Some(libc::ENFILE));
    let netns = TestNetns::new();
    let (conversation, requests) = stand_in::answering(vec![recorded("shared-setns").swap_remove(1).answers]);
    let refused = RdmaSocket { conversation }.move_to(&device(2, "rxehost"), netns.netns()).unwrap_err();
    assert_eq!(refused.errno(), Some(libc::EOPNOTSUPP));
    assert!(refused.to_string().contains("in shared netns mode"), "{refused}");
    // All but the number of the descriptor.
    let asked = &requests.join().unwrap()[0];
    let recorded = &recorded("shared-setns")[1].request;
    assert_eq!((&asked[4..6], &asked[16..28]), (&recorded[4..6], &recorded[16..28]));
}

#[test]
fn what_is_gone_need_not_be_removed_and_hardware_cannot_be() {
    let seen = |device_seen: Vec<Vec<u8>>| {
        let refused = vec![refusal(libc::EINVAL)];
        let (conversation, _requests) = stand_in::answering(vec![refused, device_seen]);
        RdmaSocket { conversation }.delete_link(&device(4242, "mlx5_0"))
    };
    seen(vec![refusal(libc::EINVAL)]).unwrap();
    let attributes = [
        stand_in::attribute(attribute::DEV_INDEX, &4242_u32.to_ne_bytes()),
        stand_in::attribute(attribute::DEV_NAME, b"mlx5_0\0"),
    ];
    let present = message(0x1401, 0, &attributes.concat());
    let error = seen(vec![present, acknowledgement()]).unwrap_err();
    assert_eq!(error.errno(), Some(libc::EINVAL));
}

#[test]
fn a_device_node_is_told_with_its_numbers() {
    let node = |number, device, port, kind: &'static str| {
        replayed(exchange("shared-get-chardev", number), |socket| socket.node(RdmaIndex(device), port, kind))
    };
    let uverbs = RdmaNode { name: "uverbs2".to_owned(), major: 231, minor: 194 };
    assert_eq!(node(0, 2, None, "uverbs").unwrap(), Some(uverbs));
    let unknown = recorded("shared-get-chardev").swap_remove(3).answers;
    let (conversation, _requests) = stand_in::answering(vec![unknown]);
    assert_eq!(RdmaSocket { conversation }.node(RdmaIndex(2), None, "nonsense").unwrap(), None);
    let umad = RdmaNode { name: "umad2".to_owned(), major: 231, minor: 2 };
    assert_eq!(node(2, 2, Some(1), "umad").unwrap(), Some(umad));
}

#[test]
fn resources_in_use_are_counted_by_kind() {
    let found = replayed(exchange("exclusive-get-resources", 0), |socket| socket.resources(RdmaIndex(0)));
    let found = found.unwrap();
    for kind in ["pd", "cq", "qp", "mr"] {
        assert!(found.iter().any(|(name, _)| name == kind), "{kind}: {found:?}");
    }
}

#[test]
fn the_subsystem_is_spoken_to_where_it_is() {
    assert!(RdmaSocket::open(&Sysfs::new("/absent")).unwrap().is_none());
    if let Some(mut socket) = RdmaSocket::open(&Sysfs::new("/sys")).unwrap() {
        socket.netns_mode().unwrap();
        assert_eq!(socket.device_by_name("no such device").unwrap(), None);
    }
}
