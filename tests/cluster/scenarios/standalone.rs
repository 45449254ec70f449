//! A VF as each pod's first and only interface, and a leg of each node in the pods' network.

use std::error::Error;
use std::io;
use std::time::Duration;

use serde_json::{Value, json};
use zerobridge_cluster::Cluster;
use zerobridge_lab::{Cache, IMAGE, Progress, control_plane, program};

use crate::expect;
use crate::group::{Outcome, say};
use crate::install::{self, LIMIT};
use crate::overlay::{Overlay, manifest};
use crate::pods::{self, Pod};

const RESOURCE: &str = "zerobridge.io/vf";
const LABEL: &str = "app=web";
const DEPLOYMENT: &str = "deployment/web";
const PORT: &str = "8080";
/// What a node serves, to see who asks.
const NODE_PORT: &str = "8081";
/// A request of the node; its busybox is linked statically, and may not look names up.
const ASK: &str =
    r"exec 3<> /dev/tcp/$1/$2; printf 'GET /index.html HTTP/1.0\r\n\r\n' >&3; grep -q hello <&3";
/// VFs of the first card, whose pool it is.
const VFS: u32 = 7;
const PODS: usize = 4;

/// As the overlay has it, with the lab's PF.
fn config() -> Value {
    json!({
        "pools": [{"resourceName": "vf", "selectors": {"pfNames": ["enp1s0"]}}],
        "legs": [{"name": "pods", "kind": "vlan", "pf": "enp1s0", "vlan": 100, "network": "pods",
                  "ipam": {"type": "zerobridge-ipam", "mode": "cluster", "pool": "pods"}}],
    })
}

/// A pod that answers `grpc.health.v1`: etcd, of which nothing else is used.
fn health_server(programs: &str) -> Value {
    let urls =
        ["--listen-client-urls", "--advertise-client-urls"].map(|flag| format!("{flag}=http://0.0.0.0:8082"));
    let words =
        [format!("{programs}/etcd"), "--data-dir=/work/data".to_owned(), "--log-level=warn".to_owned()];
    let command: Vec<String> = words.into_iter().chain(urls).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "health"},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "etcd", "image": IMAGE, "imagePullPolicy": "Never", "command": command,
                "volumeMounts": [{"name": "programs", "mountPath": programs, "readOnly": true},
                                 {"name": "work", "mountPath": "/work"}],
                "readinessProbe": {"grpc": {"port": 8082}, "periodSeconds": 2, "timeoutSeconds": 5},
                "resources": {"limits": {RESOURCE: 1}},
            }],
            "volumes": [{"name": "programs", "hostPath": {"path": programs}}, {"name": "work", "emptyDir": {}}],
        },
    })
}

fn deployment() -> Value {
    let serve = format!("echo hello > /tmp/index.html; exec httpd -f -vv -p {PORT} -h /tmp");
    let probe =
        json!({"httpGet": {"path": "/index.html", "port": 8080}, "periodSeconds": 2, "timeoutSeconds": 5});
    let alive = json!({"tcpSocket": {"port": 8080}, "periodSeconds": 5, "timeoutSeconds": 5});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": PODS,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "topologySpreadConstraints": [{
                        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
                        "labelSelector": {"matchLabels": {"app": "web"}},
                    }],
                    "containers": [
                        {"name": "web", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sh", "-ec", serve],
                         "readinessProbe": probe, "livenessProbe": alive, "resources": {"limits": {RESOURCE: 1}}},
                    ],
                },
            },
        },
    })
}

/// Probes by HTTP, TCP and gRPC come from the kubelet of the node and reach the pods by the leg.
pub(crate) fn probes(cluster: &mut Cluster) -> Outcome {
    let overlay = Overlay::on("overlays/standalone", &[("zerobridge-config", "config.json", config())])?;
    install::apply(cluster, &overlay.path())?;
    cluster.kubectl(&["apply", "-f", &manifest("networks/pool.yaml")])?;
    for index in 0..cluster.nodes() {
        cluster.wait_ready(index)?;
    }
    pods::wait_allocatable(cluster, RESOURCE, |count| count == VFS, LIMIT)?;
    let programs = control_plane(&Cache::from_environment()?, &Progress::to(io::stderr()))?;
    cluster.apply(&deployment().to_string())?;
    cluster.apply(&health_server(&programs.display().to_string()).to_string())?;
    cluster.wait_rollout("default", DEPLOYMENT, LIMIT)?;
    cluster.wait_condition("default", "pod/health", "Ready", LIMIT)?;
    // A liveness probe that fails kills its container after three times.
    std::thread::sleep(Duration::from_secs(20));
    let pods = cluster.kubectl_json(&["get", "pods", "-l", LABEL])?;
    for pod in pods["items"].as_array().into_iter().flatten() {
        let containers = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
        for container in containers {
            let well = container["ready"] == true && container["restartCount"] == 0;
            expect::that(well, || {
                format!("{} of {}: {container}", container["name"], pod["metadata"]["name"])
            })?;
        }
    }
    for pod in pods::list(cluster, LABEL)? {
        let links = cluster.kubectl(&["exec", &pod.name, "-c", "web", "--", "ip", "-o", "link"])?;
        let names: Vec<&str> =
            links.lines().filter_map(|line| line.split(':').nth(1)).map(str::trim).collect();
        expect::equal("the interfaces of a pod", &names, &vec!["lo", "eth0"])?;
        let addresses =
            cluster.kubectl(&["exec", &pod.name, "-c", "web", "--", "ip", "-o", "-4", "address"])?;
        expect::that(addresses.contains(&format!("inet {}/", pod.ip)), || {
            format!("the pod sees {addresses}, the API server {}", pod.ip)
        })?;
    }
    Ok(())
}

/// The address of a node's leg.
fn leg(cluster: &mut Cluster, index: usize) -> Result<String, Box<dyn Error>> {
    let name = cluster.node(index)?.name().to_owned();
    let legs: Value = serde_json::from_str(&install::zbctl(cluster, &name, &["legs", "--json"])?)?;
    let address = legs["legs"][0]["addresses"][0].as_str().or(legs[0]["addresses"][0].as_str());
    let address = expect::some(address, &format!("zbctl legs shows no address: {legs}"))?;
    Ok(address.split('/').next().unwrap_or(address).to_owned())
}

/// Whether the web server's log names one who asked; busybox writes an IPv4 address as IPv6 maps it.
fn was_asked_by(log: &str, address: &str) -> bool {
    log.lines().any(|line| line.contains(&format!(":{address}]:")) && line.contains("url:/index.html"))
}

/// Each node asks each pod and each pod asks each node and each pod, and each is asked from the address that the asker has.
pub(crate) fn addresses(cluster: &mut Cluster) -> Outcome {
    let pods = pods::list(cluster, LABEL)?;
    expect::equal("the number of pods", &pods.len(), &PODS)?;
    let nodes = cluster.nodes();
    let legs = (0..nodes).map(|index| leg(cluster, index)).collect::<Result<Vec<_>, _>>()?;
    for index in 0..nodes {
        let guest = cluster.node(index)?.guest()?;
        let bridges = guest.shell("ip -o link show type bridge; ip -o link show type veth")?;
        expect::equal("bridges and veth pairs of the host", &bridges.as_str(), &"")?;
        guest.shell("mkdir -p /tmp/served && echo hello > /tmp/served/index.html")?;
        let serve = ["busybox", "httpd", "-f", "-vv", "-p", NODE_PORT, "-h", "/tmp/served"];
        guest.start(program(&serve), "served")?;
        for pod in &pods {
            guest.run(&["bash", "-ec", ASK, "ask", &pod.ip, PORT])?;
        }
    }
    for pod in &pods {
        // Not wget: linked statically, busybox crashes when it looks up which port HTTP has.
        let ask = |address: &str, port: &str| {
            format!(
                "printf 'GET /index.html HTTP/1.0\\r\\n\\r\\n' | nc -w 20 {address} {port} | grep -q hello"
            )
        };
        let of_pods = pods.iter().map(|other| ask(&other.ip, PORT));
        let script: Vec<String> = of_pods.chain(legs.iter().map(|leg| ask(leg, NODE_PORT))).collect();
        cluster.kubectl(&["exec", &pod.name, "-c", "web", "--", "sh", "-ec", &script.join("\n")])?;
    }
    for pod in &pods {
        let log = cluster.kubectl(&["logs", &pod.name, "-c", "web"])?;
        let askers = legs.iter().chain(pods.iter().map(|other: &Pod| &other.ip));
        for asker in askers {
            expect::that(was_asked_by(&log, asker), || {
                format!("{} was never asked by {asker}:\n{log}", pod.name)
            })?;
        }
    }
    for index in 0..nodes {
        let log = cluster.node(index)?.guest()?.shell("cat /out/served.log")?;
        for pod in &pods {
            expect::that(was_asked_by(&log, &pod.ip), || format!("no node was asked by {}:\n{log}", pod.ip))?;
        }
    }
    say(&format!(
        "  {} pods and {nodes} nodes reach each other; the legs are {}",
        pods.len(),
        legs.join(", ")
    ));
    Ok(())
}
