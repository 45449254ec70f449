//! What users of sriov-network-device-plugin and sriov-cni have, unchanged: the ConfigMap as its documentation writes it, with the
//! hardware of the lab, and a network of type `sriov` with host-local.

use zerobridge_cluster::Cluster;
use zerobridge_lab::IMAGE;

use crate::expect;
use crate::group::{Outcome, say};
use crate::install::{self, LIMIT, NAMESPACE};
use crate::multus;
use crate::overlay::manifest;
use crate::pods;
use crate::removal;

const RESOURCE: &str = "intel.com/intel_sriov_netdevice";
const LABEL: &str = "app=older";

const CONFIG_MAP: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata:
  name: sriovdp-config
  namespace: kube-system
data:
  config.json: |
    {
        "resourceList": [{
                "resourceName": "intel_sriov_netdevice",
                "selectors": [{
                    "vendors": ["8086"],
                    "devices": ["154c", "10ed", "10ca"],
                    "drivers": ["i40evf", "iavf", "ixgbevf", "igbvf"]
                }]
            },
            {
                "resourceName": "intel_sriov_dpdk",
                "resourcePrefix": "intel.com",
                "selectors": [{
                    "vendors": ["8086"],
                    "devices": ["154c", "10ed"],
                    "drivers": ["vfio-pci"],
                    "pfNames": ["enp0s0f0","enp2s2f1"]
                }]
            }
        ]
    }
"#;

const NETWORK: &str = r#"
apiVersion: "k8s.cni.cncf.io/v1"
kind: NetworkAttachmentDefinition
metadata:
  name: sriov-net1
  annotations:
    k8s.v1.cni.cncf.io/resourceName: intel.com/intel_sriov_netdevice
spec:
  config: '{
  "type": "sriov",
  "cniVersion": "0.3.1",
  "name": "sriov-network",
  "vlan": 1000,
  "spoofchk": "on",
  "ipam": {
    "type": "host-local",
    "subnet": "10.56.217.0/24",
    "routes": [{
      "dst": "10.57.0.0/16"
    }],
    "gateway": "10.56.217.1"
  }
}'
"#;

fn pod(name: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  labels: {{app: older}}
  annotations:
    k8s.v1.cni.cncf.io/networks: sriov-net1
spec:
  nodeSelector: {{kubernetes.io/hostname: n1}}
  terminationGracePeriodSeconds: 0
  containers:
  - name: appcntr1
    image: {IMAGE}
    imagePullPolicy: IfNotPresent
    command: [ "sleep" ]
    args: [ "300000" ]
    resources:
      requests:
        intel.com/intel_sriov_netdevice: '1'
      limits:
        intel.com/intel_sriov_netdevice: '1'
---
"#
    )
}

pub(crate) fn unchanged(cluster: &mut Cluster) -> Outcome {
    // Something answers to the name already, as on a node that has sriov-cni.
    let older = "/opt/cni/bin/sriov";
    for index in 0..cluster.nodes() {
        cluster.node(index)?.guest()?.write(older, "#!/bin/sh\nexit 1\n")?;
    }
    removal::remember(cluster)?;
    cluster.apply(CONFIG_MAP)?;
    install::apply(cluster, &manifest("overlays/migrate"))?;
    multus::wait_all_vfs(cluster, RESOURCE)?;
    cluster.apply(NETWORK)?;
    cluster.apply(&(pod("older-1") + &pod("older-2")))?;
    for name in ["pod/older-1", "pod/older-2"] {
        cluster.wait_condition("default", name, "Ready", LIMIT)?;
    }
    let pods = pods::list(cluster, LABEL)?;
    let addresses = pods::distinct_addresses(&pods, "sriov-net1")?;
    expect::that(addresses.iter().all(|address| address.starts_with("10.56.217.")), || {
        format!("not host-local's: {addresses:?}")
    })?;
    pods::all_reach_all(cluster, &pods, &addresses)?;
    for pod in &pods {
        let environment = cluster.kubectl(&["exec", &pod.name, "--", "env"])?;
        let told = environment.contains("PCIDEVICE_INTEL_COM_INTEL_SRIOV_NETDEVICE=0000:");
        expect::that(told, || format!("the environment of {}: {environment}", pod.name))?;
        let device = &pod.network("sriov-net1")?["device-info"]["pci"]["pci-address"];
        expect::that(device.is_string(), || format!("no device-info of {}: {:?}", pod.name, pod.networks))?;
    }
    cluster.kubectl(&["delete", "pod", "older-1", "older-2"])?;
    pods::wait_gone(cluster, LABEL, LIMIT)?;
    removal::remove(cluster, "overlays/migrate")?;
    cluster.kubectl(&["-n", NAMESPACE, "delete", "configmap", "sriovdp-config"])?;
    say("  and the older plugin's program is back where it was");
    Ok(())
}
