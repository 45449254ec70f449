//! The program as a process: exit codes, signals, what it says.
#![allow(clippy::unwrap_used, reason = "a helper that fails has failed the test that called it")]

mod node;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};

use node::{Generation, Kubelet, Node, TWO_POOLS, View, soon};

fn program(node: &Node) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zerobridge-device-plugin"));
    command
        .args(["--config".into(), node.path("config.json")])
        .args(["--kubelet-root".into(), node.path("kubelet")])
        .args(["--sysfs".into(), node.path("sys")])
        .args(["--dev".into(), node.path("dev")])
        .args(["--devinfo-dir".into(), node.path("devinfo")])
        .args(["--cdi-dir".into(), node.path("cdi")])
        .args(["--state-dir".into(), node.path("state")])
        .args(["--run-dir".into(), node.path("run")])
        .args(["--rescan", "20ms", "--without-api"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn signal(child: &Child, signal: &str) {
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

async fn ended(child: Child) -> Output {
    soon("the program ends", tokio::task::spawn_blocking(|| child.wait_with_output())).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_signal_ends_it_with_code_0_and_without_a_trace() {
    for name in ["-TERM", "-INT"] {
        let node = Node::new();
        fs::write(node.path("config.json"), TWO_POOLS).unwrap();
        let kubelet = node.kubelet();
        let mut child = program(&node).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        kubelet.until_complete().await;
        // The kubelet may have its list before its answer to the registration has arrived.
        let mut said: Vec<String> = Vec::new();
        while said.iter().filter(|line| line.contains(" registered ")).count() < 2 {
            said.push(log.next().unwrap());
        }
        assert_eq!(node.sockets().len(), 2);
        kubelet.allocate("zerobridge.io/vf", &["0000:01:10.0"]).await.unwrap();

        signal(&child, name);
        let output = ended(child).await;
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(node.sockets(), Vec::<String>::new());
        let info = node.path("devinfo/zerobridge.io-vf-0000:01:10.0-device.json");
        assert!(info.exists(), "the pod may start after this");
        assert!(output.stdout.is_empty());
        said.extend(log);
        for line in [
            "devices changed pool=zerobridge.io/vf devices=2",
            "registered pool=zerobridge.io/vf-green",
            "stopping",
        ] {
            assert!(said.iter().any(|said| said.contains(line)), "{line} is not in {said:#?}");
        }
        assert!(!said.iter().any(|said| said.contains("the kubelet has gone")), "it is the daemon that goes");
    }
}

/// The status line and the body of an answer; `None` while nobody listens.
fn get(address: SocketAddr, path: &str) -> Option<(String, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.lines().next()?.to_owned(), body.to_owned()))
}

/// Asks until the answer is right, and gives its body.
async fn asked(
    address: SocketAddr,
    path: &'static str,
    what: &str,
    right: impl Fn(&str, &str) -> bool,
) -> String {
    soon(what, async {
        loop {
            let answer = tokio::task::spawn_blocking(move || get(address, path)).await.unwrap();
            match answer {
                Some((status, body)) if right(&status, &body) => return body,
                _ => tokio::task::yield_now().await,
            }
        }
    })
    .await
}

fn ready(status: &str, body: &str) -> bool {
    status.contains("200") && body == "ok\n"
}

#[tokio::test]
async fn it_is_ready_while_the_kubelet_knows_its_pools_and_counts_what_it_does() {
    let node = Node::new();
    fs::write(node.path("config.json"), TWO_POOLS).unwrap();
    // Free a moment ago. The program ends, and this test with it, if somebody has taken it meanwhile.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let child = program(&node).args(["--http", &address.to_string()]).spawn().unwrap();
    let waiting = |_: &str, body: &str| body.matches("socket").count() == 2;
    let body = asked(address, "/readyz", "it waits for the kubelet", waiting).await;
    let unregistered =
        |pool| format!("zerobridge.io/{pool} is not registered: the kubelet's socket is not there\n");
    assert_eq!(body, unregistered("vf") + &unregistered("vf-green"));
    asked(address, "/healthz", "it is well", ready).await;

    let kubelet = node.kubelet();
    asked(address, "/readyz", "it is ready", ready).await;
    kubelet.allocate("zerobridge.io/vf", &["0000:01:10.0"]).await.unwrap();
    kubelet.hang_up();
    kubelet.until("it comes back", |view| view.lists == 4).await;
    asked(address, "/readyz", "it is ready again", ready).await;
    let looks = |_: &str, body: &str| {
        let count = body.lines().find_map(|line| line.strip_prefix("zerobridge_rescan_seconds_count "));
        count.is_some_and(|count| count.parse::<u32>().unwrap() > 10)
    };
    let body = asked(address, "/metrics", "the machine is looked at", looks).await;
    let vf = r#"pool="zerobridge.io/vf""#;
    for line in [
        format!("zerobridge_registered{{{vf}}} 1"),
        format!("zerobridge_registrations_total{{{vf},result=\"success\"}} 2"),
        format!("zerobridge_reconnects_total{{{vf}}} 1"),
        format!("zerobridge_allocations_total{{{vf},result=\"success\"}} 1"),
        format!("zerobridge_list_messages_total{{{vf}}} 2"),
    ] {
        assert!(body.lines().any(|own| own == line), "{line} is not in:\n{body}");
    }
    assert_eq!(kubelet.view().lists, 4, "looks that find nothing new are not told");

    drop(kubelet);
    let gone = |status: &str, _: &str| status.contains("503");
    asked(address, "/readyz", "it notices that the kubelet is gone", gone).await;
    signal(&child, "-TERM");
    assert_eq!(ended(child).await.status.code(), Some(0));
}

#[tokio::test]
async fn an_address_that_is_not_this_machines_ends_it_with_a_message_and_code_1() {
    let node = Node::new();
    fs::write(node.path("config.json"), TWO_POOLS).unwrap();
    // From TEST-NET-1 (RFC 5737), which no machine has.
    let output = ended(program(&node).args(["--http", "192.0.2.1:9"]).spawn().unwrap()).await;
    assert_eq!(output.status.code(), Some(1));
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains("cannot answer HTTP at 192.0.2.1:9"), "{log}");
}

/// As during a rolling update on the host's network.
#[tokio::test]
async fn an_address_that_another_process_has_is_waited_for_while_everything_else_goes_on() {
    let node = Node::new();
    fs::write(node.path("config.json"), TWO_POOLS).unwrap();
    let kubelet = node.kubelet();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut child = program(&node).args(["--http", &address.to_string()]).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    kubelet.until_complete().await;
    drop(taken);
    assert!(log.any(|line| line.contains("answering HTTP")));
    signal(&child, "-TERM");
    ended(child).await;
}

#[tokio::test]
async fn a_killed_process_leaves_sockets_that_the_next_one_removes() {
    let node = Node::new();
    fs::write(node.path("config.json"), TWO_POOLS).unwrap();
    let kubelet = node.kubelet();
    let child = program(&node).spawn().unwrap();
    kubelet.until_complete().await;
    let left = node.sockets();
    signal(&child, "-KILL");
    ended(child).await;
    kubelet.until("the kubelet notices", |view| view.devices.is_empty()).await;
    assert_eq!(node.sockets(), left);

    let child = program(&node).spawn().unwrap();
    kubelet.until_complete().await;
    let sockets = node.sockets();
    assert_eq!(sockets.len(), 2);
    assert!(sockets.iter().all(|socket| !left.contains(socket)));
    signal(&child, "-TERM");
    ended(child).await;
}

/// An older kubelet takes the end of the killed process for that of its successor, which has to register once more.
#[tokio::test]
async fn a_process_that_is_killed_during_an_update_leaves_one_gap_with_an_older_kubelet() {
    let node = Node::new();
    fs::write(node.path("config.json"), TWO_POOLS).unwrap();
    let kubelet = Kubelet::start(&node.plugins(), Generation::ByName);
    let old = program(&node).spawn().unwrap();
    kubelet.until_complete().await;
    let new = program(&node).spawn().unwrap();
    kubelet.until("both are registered", |view| view.lists == 4 && view.open() == 4).await;
    signal(&old, "-KILL");
    ended(old).await;
    let again = |view: &View| view.registrations.len() == 6 && view.devices.len() == 2 && view.open() == 2;
    let view = kubelet.until("the new one has registered again", again).await;
    assert_eq!(view.violations, Vec::<String>::new());
    for allocatable in view.allocatable.values() {
        assert_eq!(*allocatable, [2, 2, 0, 2]);
    }
    signal(&new, "-TERM");
    ended(new).await;
}

#[tokio::test]
async fn a_bad_configuration_ends_it_with_a_message_and_code_1() {
    let node = Node::new();
    let config = r#"{"pools": [{"resourceName": "vf", "selectors": {"pfName": ["enp1s0"]}}]}"#;
    fs::write(node.path("config.json"), config).unwrap();
    let output = ended(program(&node).spawn().unwrap()).await;
    assert_eq!(output.status.code(), Some(1));
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains("unknown key pools[0].selectors.pfName; did you mean"), "{log}");
}

#[tokio::test]
async fn a_machine_that_cannot_be_read_ends_it_with_a_message_and_code_1() {
    let node = Node::new();
    fs::write(node.path("config.json"), TWO_POOLS).unwrap();
    fs::rename(node.path("sys"), node.path("moved")).unwrap();
    let output = ended(program(&node).spawn().unwrap()).await;
    assert_eq!(output.status.code(), Some(1));
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains("cannot read the devices of this machine"), "{log}");
    assert!(log.contains("bus/pci/devices"), "{log}");
}

#[tokio::test]
async fn what_the_node_is_not_ready_for_is_told_once_when_it_begins_and_once_when_it_ends() {
    let node = Node::new();
    let config = |cdi: &str| {
        let pools = r#"[{"resourceName": "vf", "rdma": "soft", "selectors": {"any": true}}]"#;
        fs::write(node.path("config.json"), format!(r#"{{"cdi": "{cdi}", "pools": {pools}}}"#)).unwrap();
    };
    config("off");
    let mut child = program(&node).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut said: Vec<String> = Vec::new();
    let mut until = |part: &str| {
        while !said.last().is_some_and(|line| line.contains(part)) {
            said.push(log.next().unwrap());
        }
        said.clone()
    };
    until("zerobridge.io/vf: no container gets a software RDMA device");
    // Changed configurations come after many a look.
    for cdi in ["on", "off", "on"] {
        config(cdi);
        until("the changed configuration is in force");
        until(if cdi == "on" { "no longer in the way" } else { "no container gets a software RDMA device" });
    }
    signal(&child, "-TERM");
    let said = until("stopping");
    let count = |part: &str| said.iter().filter(|line| line.contains(part)).count();
    assert_eq!(count("no container gets a software RDMA device"), 2, "{said:#?}");
    assert_eq!(
        count("no longer in the way reason=\"soft_without_cdi\" pools=\"zerobridge.io/vf\""),
        2,
        "{said:#?}"
    );
    ended(child).await;
}
