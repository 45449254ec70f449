//! Whole commands on a node made of files and a socket.

use std::path::Path;

use clap::Parser as _;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use zerobridge_kernel::testing::SysfsTree;
use zerobridge_ledger::{Attachment, Ledger, Owner, Pod, Sandbox, UnixSeconds};
use zerobridge_proto::podresources as api;

use super::*;

const POOLS: &str = r#"{"pools": [{"resourceName": "vf", "selectors": {"pfNames": ["enp1s0f0"]}}]}"#;

/// A node with two VFs and a configuration.
fn node() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    SysfsTree::new(folder.path().join("sys")).add_igb(0, 2);
    std::fs::write(folder.path().join("config.json"), POOLS).unwrap();
    folder
}

/// Exit code, answer and problems.
fn zbctl(root: &Path, arguments: &[&str]) -> (bool, String, String) {
    let places = ["config.json", "kubelet", "state", "sys", "proc", "dev"].map(|name| root.join(name));
    let options = ["--config", "--kubelet-root", "--state-dir", "--sysfs", "--procfs", "--dev"];
    let places = options
        .iter()
        .zip(&places)
        .flat_map(|(option, place)| [(*option).into(), place.clone().into_os_string()]);
    let words = arguments.iter().map(|argument| std::ffi::OsString::from(*argument));
    let cli = Cli::try_parse_from([std::ffi::OsString::from("zbctl")].into_iter().chain(words).chain(places))
        .unwrap();
    let (mut out, mut problems) = (Vec::new(), Vec::new());
    let code = run(&cli, &mut out, &mut problems);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (code == ExitCode::SUCCESS, text(out), text(problems))
}

fn row<'a>(table: &'a str, device: &str) -> &'a str {
    table.lines().find(|line| line.starts_with(device)).unwrap()
}

struct Lister;

#[tonic::async_trait]
impl api::PodResourcesLister for Lister {
    async fn list(
        &self,
        _: tonic::Request<api::ListPodResourcesRequest>,
    ) -> Result<tonic::Response<api::ListPodResourcesResponse>, tonic::Status> {
        let devices = |resource: &str, ids: &[&str]| api::ContainerDevices {
            resource_name: resource.to_owned(),
            device_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            topology: None,
        };
        let container = api::ContainerResources {
            name: "main".to_owned(),
            devices: vec![
                devices("zerobridge.io/vf", &["0000:01:10.2"]),
                devices("example.com/gpu", &["GPU-7"]),
            ],
            ..api::ContainerResources::default()
        };
        let pod = api::PodResources {
            namespace: "team".to_owned(),
            name: "train-0".to_owned(),
            containers: vec![container],
        };
        Ok(tonic::Response::new(api::ListPodResourcesResponse { pod_resources: vec![pod] }))
    }

    async fn get_allocatable_resources(
        &self,
        _: tonic::Request<api::AllocatableResourcesRequest>,
    ) -> Result<tonic::Response<api::AllocatableResourcesResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented("nobody asks for it"))
    }

    async fn get(
        &self,
        _: tonic::Request<api::GetPodResourcesRequest>,
    ) -> Result<tonic::Response<api::GetPodResourcesResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented("nobody asks for it"))
    }
}

#[test]
fn owners_are_asked_of_the_kubelet() {
    let folder = node();
    let socket = folder.path().join("kubelet").join(api::DIRECTORY);
    std::fs::create_dir_all(&socket).unwrap();
    let runtime = Runtime::new().unwrap();
    let listener = {
        let _inside = runtime.enter();
        UnixListenerStream::new(UnixListener::bind(socket.join(api::SOCKET)).unwrap())
    };
    let service = api::PodResourcesListerServer::new(Lister);
    runtime.spawn(Server::builder().add_service(service).serve_with_incoming(listener));

    let (ok, table, problems) = zbctl(folder.path(), &["devices"]);
    assert!(ok && problems.is_empty(), "{problems}");
    assert!(row(&table, "0000:01:10.2").ends_with("team/train-0  in use"), "{table}");
    assert!(row(&table, "0000:01:10.0").ends_with("-             free"), "{table}");
}

#[test]
fn without_the_kubelet_owners_are_read_from_the_ledger() {
    let folder = node();
    let mut ledger = Ledger::open(&folder.path().join("state")).unwrap();
    let mut transaction = ledger.begin().unwrap();
    let attachment = Attachment {
        device: "0000:01:10.0".parse().unwrap(),
        owner: Owner { container_id: "c1".to_owned(), ifname: "net1".to_owned() },
        network: "blue".to_owned(),
        sandbox: Sandbox { path: "/run/netns/x".into(), dev: 4, ino: 5 },
        pod: Some(Pod { namespace: "team".to_owned(), name: "train-1".to_owned(), uid: None }),
        original: "{}".to_owned(),
        wanted: "{}".to_owned(),
        boot_id: "b".to_owned(),
        created_at: UnixSeconds(1),
    };
    transaction.insert_attachment(&attachment).unwrap();
    transaction.commit().unwrap();

    let (ok, table, problems) = zbctl(folder.path(), &["devices"]);
    assert!(ok && problems.contains("no kubelet"), "{problems}");
    assert!(row(&table, "0000:01:10.0").ends_with("team/train-1  in use"), "{table}");
}

#[test]
fn nothing_is_made_by_looking() {
    let folder = node();
    let (ok, _, problems) = zbctl(folder.path(), &["devices"]);
    assert!(ok && problems.contains("no ledger"), "{problems}");
    assert!(!folder.path().join("state").exists());
}

#[test]
fn without_a_configuration_devices_are_shown_and_have_no_pool() {
    let folder = node();
    std::fs::remove_file(folder.path().join("config.json")).unwrap();
    let (ok, table, problems) = zbctl(folder.path(), &["devices"]);
    assert!(ok && problems.contains("no configuration"), "{problems}");
    assert!(row(&table, "0000:01:10.0").contains("not selected"), "{table}");
}

#[test]
fn a_faulty_configuration_is_a_problem_and_not_an_empty_one() {
    let folder = node();
    std::fs::write(folder.path().join("config.json"), r#"{"pool": []}"#).unwrap();
    let (ok, table, problems) = zbctl(folder.path(), &["devices"]);
    assert!(!ok && table.is_empty() && problems.contains("pools"), "{problems}");
}

#[test]
fn explaining_an_unknown_device_is_a_problem() {
    let folder = node();
    let (ok, _, problems) = zbctl(folder.path(), &["explain", "0000:99:00.0"]);
    assert!(!ok && problems.contains("0000:99:00.0"), "{problems}");
    let (ok, text, _) = zbctl(folder.path(), &["explain", "0000:01:10.0"]);
    assert!(ok && text.contains("zerobridge.io/vf: offered"), "{text}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_problem() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let folder = node();
    let sysfs = folder.path().join("sys");
    for json in [None, Some("--json")] {
        let words = ["zbctl", "devices", "--sysfs", sysfs.to_str().unwrap(), "--config", "/nowhere"];
        let cli = Cli::try_parse_from(words.into_iter().chain(json)).unwrap();
        assert_eq!(run(&cli, &mut Closed, &mut Vec::new()), ExitCode::SUCCESS);
    }
}
