//! The program as a process: exit codes, signals, what it says.
#![allow(clippy::unwrap_used, reason = "a helper that fails has failed the test that called it")]

mod node;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Output, Stdio};

use node::{Node, TWO_POOLS, soon};

fn program(node: &Node) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zerobridge-device-plugin"));
    command
        .args(["--config".into(), node.path("config.json")])
        .args(["--kubelet-root".into(), node.path("kubelet")])
        .args(["--sysfs".into(), node.path("sys")])
        .args(["--devinfo-dir".into(), node.path("devinfo")])
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

        signal(&child, name);
        let output = ended(child).await;
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(node.sockets(), Vec::<String>::new());
        assert!(output.stdout.is_empty());
        said.extend(log);
        for line in [
            "pool built pool=zerobridge.io/vf devices=2",
            "registered pool=zerobridge.io/vf-green",
            "stopping",
        ] {
            assert!(said.iter().any(|said| said.contains(line)), "{line} is not in {said:#?}");
        }
    }
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
