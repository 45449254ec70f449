use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::cluster::testing::FakeApi;
use crate::health::Check;
use crate::resource::ResourceName;

const NODE: &str = "worker-7";

fn clock() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn recorder(api: &FakeApi) -> (EventSink, EventRecorder) {
    EventRecorder::new(Arc::new(api.server()), NODE.to_owned(), Counter::default(), clock)
}

fn unhealthy(vf: u8) -> Event {
    Event::DeviceUnhealthy {
        pool: ResourceName::new("zerobridge.io", "vf").unwrap(),
        devices: BTreeSet::from([format!("0000:01:10.{vf}").parse().unwrap()]),
        check: Check::PfCarrier,
    }
}

fn reloaded(pools: usize) -> Event {
    Event::ConfigurationReloaded { pools }
}

fn text<'a>(body: &'a Value, pointer: &str) -> &'a str {
    body.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Sends, ends the sink, and lets the recorder finish.
async fn told(
    recorder: EventRecorder,
    sink: EventSink,
    events: impl IntoIterator<Item = Event>,
) -> EventSink {
    let running = tokio::spawn(recorder.run());
    for event in events {
        sink.send(Subject::Node, event);
    }
    let kept = EventSink { queue: None, ..sink.clone() };
    drop(sink);
    running.await.unwrap();
    kept
}

#[tokio::test]
async fn an_event_is_what_the_api_server_demands() {
    let api = FakeApi::start().await;
    let (sink, recorder) = recorder(&api);
    told(recorder, sink, [unhealthy(0)]).await;
    let [request] = &api.requests()[..] else { panic!("one request") };
    assert_eq!(request.method.as_str(), "POST");
    assert_eq!(request.path, "/apis/events.k8s.io/v1/namespaces/default/events");
    for (pointer, expected) in [
        ("/metadata/namespace", "default"),
        ("/eventTime", "2027-01-15T08:00:00.000000Z"),
        ("/reportingController", "zerobridge.io/device-plugin"),
        ("/reportingInstance", NODE),
        ("/action", "HealthCheck"),
        ("/reason", "DeviceUnhealthy"),
        ("/type", "Warning"),
        ("/note", "the check pfCarrier fails for zerobridge.io/vf: 0000:01:10.0"),
        ("/regarding/kind", "Node"),
        ("/regarding/name", NODE),
        ("/regarding/uid", NODE),
    ] {
        assert_eq!(text(&request.body, pointer), expected, "{pointer}");
    }
    assert!(text(&request.body, "/metadata/name").starts_with("worker-7."));
    assert!(request.body.get("series").is_none() && request.body.get("deprecatedSource").is_none());
}

#[tokio::test]
async fn an_event_about_a_pod_is_in_the_pods_namespace() {
    let api = FakeApi::start().await;
    let (sink, recorder) = recorder(&api);
    let subject = Subject::Pod {
        namespace: "team".to_owned(),
        name: "train-0".to_owned(),
        uid: Some("u-1".to_owned()),
    };
    sink.send(subject, unhealthy(3));
    told(recorder, sink, []).await;
    let [request] = &api.requests()[..] else { panic!("one request") };
    assert_eq!(request.path, "/apis/events.k8s.io/v1/namespaces/team/events");
    for (field, expected) in [("kind", "Pod"), ("namespace", "team"), ("name", "train-0"), ("uid", "u-1")] {
        assert_eq!(text(&request.body, &format!("/regarding/{field}")), expected);
    }
}

#[tokio::test]
async fn a_pf_that_takes_all_its_vfs_along_is_one_event() {
    let api = FakeApi::start().await;
    let (sink, recorder) = recorder(&api);
    told(recorder, sink, (0..8).map(unhealthy)).await;
    let [request] = &api.requests()[..] else { panic!("one request") };
    assert_eq!(text(&request.body, "/note").matches("0000:01:10.").count(), 8);
}

#[tokio::test]
async fn a_flapping_device_is_counted_in_one_event() {
    let api = FakeApi::start().await;
    let (sink, recorder) = recorder(&api);
    let running = tokio::spawn(recorder.run());
    for round in 1..=3 {
        sink.send(Subject::Node, unhealthy(0));
        sink.send(Subject::Node, reloaded(round));
        // A new configuration each time is a new event, and so tells that this round was written.
        api.asked(1 + round).await;
    }
    drop(sink);
    running.await.unwrap();

    let requests = api.requests();
    let [patch] = &requests.iter().filter(|request| request.method == "PATCH").collect::<Vec<_>>()[..] else {
        panic!("one count: {requests:?}")
    };
    let created: Vec<_> =
        requests.iter().filter(|request| text(&request.body, "/reason") == "DeviceUnhealthy").collect();
    assert_eq!(created.len(), 1);
    let name = text(&created[0].body, "/metadata/name");
    assert_eq!(patch.path, format!("/apis/events.k8s.io/v1/namespaces/default/events/{name}"));
    assert_eq!(
        patch.body,
        json!({"series": {"count": 3, "lastObservedTime": "2027-01-15T08:00:00.000000Z"}})
    );
}

#[tokio::test]
async fn what_the_server_refuses_is_dropped_and_counted() {
    let api = FakeApi::start().await;
    let (sink, recorder) = recorder(&api);
    api.refuse(403, "events is forbidden");
    let sink = told(recorder, sink, [reloaded(1), reloaded(2)]).await;
    assert_eq!((api.requests().len(), sink.dropped.get()), (2, 1), "the next one is tried all the same");
}

#[tokio::test]
async fn what_the_server_cannot_take_now_is_tried_again() {
    let api = FakeApi::start().await;
    let (sink, recorder) = recorder(&api);
    api.refuse(503, "etcd is away");
    let running = tokio::spawn(recorder.run());
    sink.send(Subject::Node, reloaded(1));
    let requests = api.asked(2).await;
    assert_eq!(requests[0].body, requests[1].body, "the same object, so that it cannot be there twice");
    assert_eq!(sink.dropped.get(), 0);
    drop(sink);
    running.await.unwrap();
}

#[tokio::test]
async fn an_event_that_arrived_without_an_answer_is_not_written_twice() {
    let api = FakeApi::start().await;
    let (sink, recorder) = recorder(&api);
    api.refuse(409, "already exists");
    let sink = told(recorder, sink, [reloaded(1)]).await;
    assert_eq!((api.requests().len(), sink.dropped.get()), (1, 0));
}

#[tokio::test]
async fn a_server_that_is_away_does_not_hold_up_the_end() {
    let api = FakeApi::start().await;
    let (sink, recorder) = recorder(&api);
    let _kubeconfig = api.stop().await;
    let sink = told(recorder, sink, [reloaded(1), reloaded(2)]).await;
    assert_eq!(sink.dropped.get(), 2);
}

#[tokio::test]
async fn a_full_queue_drops_and_counts() {
    let api = FakeApi::start().await;
    let (sink, _recorder) = recorder(&api);
    for pools in 0..QUEUE + 5 {
        sink.send(Subject::Node, reloaded(pools));
    }
    assert_eq!(sink.dropped.get(), 5);
}

#[tokio::test]
async fn a_flood_of_different_events_is_rationed() {
    let api = FakeApi::start().await;
    let (sink, recorder) = recorder(&api);
    let sink = told(recorder, sink, (0..100).map(reloaded)).await;
    let written = u64::try_from(api.requests().len()).unwrap();
    assert!((25..100).contains(&written), "{written}");
    assert_eq!(written + sink.dropped.get(), 100);
}

#[tokio::test]
async fn without_access_events_go_nowhere() {
    let (sink, recorder) = EventRecorder::new(
        Arc::new(ApiServer::new(ApiAccess::None)),
        NODE.to_owned(),
        Counter::default(),
        clock,
    );
    recorder.run().await;
    sink.send(Subject::Node, reloaded(1));
    assert!(sink.queue.is_none() && sink.dropped.get() == 0);
}

#[test]
fn names_of_events_fit_and_differ() {
    let longest = object_name(&"n".repeat(253), clock(), 1);
    assert!(longest.len() <= 253);
    assert_ne!(longest, object_name(&"n".repeat(253), clock(), 2));
    assert!(!object_name(&format!("{}-.x", "n".repeat(198)), clock(), 1).contains("-."));
}
