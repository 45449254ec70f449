use std::sync::Mutex;
use std::sync::mpsc::{Receiver, sync_channel};

use tokio_stream::StreamExt as _;
use tonic::Code;
use zerobridge_proto::deviceplugin::{
    ContainerAllocateRequest, ContainerAllocateResponse, ContainerPreferredAllocationRequest,
};

use super::*;
use crate::device::Device;

fn devices(numa_node: Option<u32>, driver: &str) -> Arc<PoolDevices> {
    let device = Device {
        id: "0000:01:10.0".parse().unwrap(),
        function: "0000:01:10.0".parse().unwrap(),
        pf: Some("0000:01:00.0".parse().unwrap()),
        vf_index: Some(0),
        driver: Some(driver.to_owned()),
        numa_node,
        topology: numa_node,
        upstream: Vec::new(),
        representor: None,
        healthy: true,
    };
    Arc::new(PoolDevices::from([(device.id.clone(), device)]))
}

/// Gives what was asked for, and prefers the last ones.
struct Echo {
    preference: bool,
    /// Answers come when this does.
    gate: Option<Mutex<Receiver<()>>>,
}

impl Echo {
    fn pass(&self) {
        if let Some(gate) = &self.gate {
            let _ = gate.lock().unwrap().recv();
        }
    }
}

impl Answers for Echo {
    fn has_preference(&self) -> bool {
        self.preference
    }

    fn allocate(&self, ids: &[String]) -> Result<ContainerAllocateResponse, Status> {
        self.pass();
        if ids.iter().any(|id| id == "missing") {
            return Err(Status::not_found("\"missing\" is not a device"));
        }
        let envs = [("IDS".to_owned(), ids.join(","))].into();
        Ok(ContainerAllocateResponse { envs, ..ContainerAllocateResponse::default() })
    }

    fn prefer(&self, available: &[String], required: &[String], size: usize) -> Vec<String> {
        self.pass();
        assert!(available.iter().all(|id| id != "panic"), "a defect");
        let rest = available.iter().rev().filter(|id| !required.contains(id));
        required.iter().chain(rest).take(size).cloned().collect()
    }
}

fn service(answers: Echo) -> PoolService {
    let pool = ResourceName::new("zerobridge.io", "vf").unwrap();
    let devices = watch::Sender::new(devices(None, "igbvf")).subscribe();
    PoolService::new(pool, devices, Arc::new(answers), watch::Sender::default(), Metrics::new())
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn allocation(ids: &[&str]) -> Request<AllocateRequest> {
    let container = ContainerAllocateRequest { devices_ids: texts(ids) };
    Request::new(AllocateRequest { container_requests: vec![container] })
}

fn preference(available: &[&str], required: &[&str], size: i32) -> Request<PreferredAllocationRequest> {
    let container = ContainerPreferredAllocationRequest {
        available_device_i_ds: texts(available),
        must_include_device_i_ds: texts(required),
        allocation_size: size,
    };
    Request::new(PreferredAllocationRequest { container_requests: vec![container] })
}

fn counted(service: &PoolService, line: &str) {
    let mut text = String::new();
    service.metrics.write(&mut text).unwrap();
    assert!(text.lines().any(|own| own == line), "{line} is not in:\n{text}");
}

#[test]
fn topology_is_told_where_the_device_has_one_to_tell() {
    let list = offer(&devices(Some(1), "igbvf"));
    assert_eq!(list.devices[0].id, "0000:01:10.0");
    assert_eq!(list.devices[0].health, "Healthy");
    assert_eq!(list.devices[0].topology, Some(TopologyInfo { nodes: vec![NumaNode { id: 1 }] }));
    assert_eq!(offer(&devices(None, "igbvf")).devices[0].topology, None);
}

#[test]
fn an_unhealthy_device_stays_in_the_list_with_its_topology() {
    let mut sick = PoolDevices::clone(&devices(Some(1), "igbvf"));
    sick.values_mut().for_each(|device| device.healthy = false);
    let list = offer(&sick);
    assert_eq!(list.devices[0].health, "Unhealthy");
    assert_eq!(list.devices[0].topology, Some(TopologyInfo { nodes: vec![NumaNode { id: 1 }] }));
}

#[tokio::test]
async fn only_what_the_kubelet_can_see_is_sent_and_the_end_is_the_end() {
    let sender = watch::Sender::new(devices(None, "igbvf"));
    let mut service = service(Echo { preference: false, gate: None });
    service.devices = sender.subscribe();
    let streams = service.streams.clone();
    let mut stream = service.list_and_watch(Request::new(Empty {})).await.unwrap().into_inner();
    assert_eq!(*streams.borrow(), Streams { open: 1, opened: 1 });
    assert_eq!(stream.next().await.unwrap().unwrap(), offer(&devices(None, "igbvf")));

    // Another driver is no change of the list. The next message is the one about the topology.
    sender.send_replace(devices(None, "vfio-pci"));
    let next = tokio::spawn(async move { (stream.next().await, stream) });
    tokio::task::yield_now().await;
    sender.send_replace(devices(Some(1), "vfio-pci"));
    let (next, mut stream) = next.await.unwrap();
    assert_eq!(next.unwrap().unwrap(), offer(&devices(Some(1), "vfio-pci")));
    counted(&service, r#"zerobridge_list_messages_total{pool="zerobridge.io/vf"} 2"#);

    drop((sender, service));
    assert!(stream.next().await.is_none());
    drop(stream);
    assert_eq!(*streams.borrow(), Streams { open: 0, opened: 1 });
}

#[tokio::test]
async fn allocations_are_carried_and_counted() {
    let service = service(Echo { preference: false, gate: None });
    let answer = service.allocate(allocation(&["a", "b"])).await.unwrap().into_inner();
    assert_eq!(answer.container_responses.len(), 1);
    assert_eq!(answer.container_responses[0].envs["IDS"], "a,b");
    let refusal = service.allocate(allocation(&["missing"])).await.unwrap_err();
    assert_eq!((refusal.code(), refusal.message()), (Code::NotFound, "\"missing\" is not a device"));
    for (result, count) in [("success", 1), ("refused", 1), ("timeout", 0), ("error", 0)] {
        let series = format!(r#"zerobridge_allocations_total{{pool="zerobridge.io/vf",result="{result}"}}"#);
        counted(&service, &format!("{series} {count}"));
    }
    counted(&service, "zerobridge_allocate_seconds_count 2");
}

#[tokio::test]
async fn an_allocation_that_hangs_is_given_up() {
    let (open, gate) = sync_channel(0);
    let mut service = service(Echo { preference: false, gate: Some(Mutex::new(gate)) });
    service.allocate_limit = Duration::from_millis(1);
    let refusal = service.allocate(allocation(&["a"])).await.unwrap_err();
    assert_eq!(refusal.code(), Code::DeadlineExceeded);
    assert!(refusal.message().contains("zerobridge.io/vf"), "{refusal}");
    counted(&service, r#"zerobridge_allocations_total{pool="zerobridge.io/vf",result="timeout"} 1"#);
    drop(open);
}

#[tokio::test]
async fn a_preference_is_told_in_the_options_and_asked_for() {
    let service = service(Echo { preference: true, gate: None });
    let options = service.get_device_plugin_options(Request::new(Empty {})).await.unwrap().into_inner();
    assert!(options.get_preferred_allocation_available && !options.pre_start_required);
    let question = preference(&["a", "b", "c"], &["a"], 2);
    let answer = service.get_preferred_allocation(question).await.unwrap().into_inner();
    assert_eq!(answer.container_responses[0].device_i_ds, ["a", "c"]);
    counted(&service, r#"zerobridge_preferred_allocations_total{pool="zerobridge.io/vf"} 1"#);
}

#[tokio::test]
async fn a_pool_without_a_preference_says_so_and_is_not_asked() {
    let service = service(Echo { preference: false, gate: None });
    let options = service.get_device_plugin_options(Request::new(Empty {})).await.unwrap().into_inner();
    assert!(!options.get_preferred_allocation_available);
    let answer = service.get_preferred_allocation(preference(&["panic"], &[], 1)).await.unwrap();
    assert_eq!(answer.into_inner(), PreferredAllocationResponse::default());
}

#[tokio::test]
async fn a_preference_that_hangs_panics_or_is_asked_for_nonsense_is_no_error() {
    let (open, gate) = sync_channel(0);
    let mut hanging = service(Echo { preference: true, gate: Some(Mutex::new(gate)) });
    hanging.prefer_limit = Duration::from_millis(1);
    let answer = hanging.get_preferred_allocation(preference(&["a"], &[], 1)).await.unwrap();
    assert_eq!(answer.into_inner(), PreferredAllocationResponse::default());
    drop(open);

    let service = service(Echo { preference: true, gate: None });
    let answer = service.get_preferred_allocation(preference(&["panic"], &[], 1)).await.unwrap();
    assert_eq!(answer.into_inner(), PreferredAllocationResponse::default());
    for question in [
        preference(&[], &[], 0),
        preference(&["a"], &[], -1),
        preference(&["a"], &["b", "b"], i32::MAX),
        Request::new(PreferredAllocationRequest { container_requests: Vec::new() }),
    ] {
        service.get_preferred_allocation(question).await.unwrap();
    }
}
