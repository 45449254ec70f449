//! The last chapters: two pods that talk over RDMA devices of their own.

use serde_json::{Value, json};

use super::{Story, StoryError};
use crate::machine::program;
use crate::network::{HOST, RdmaMode, VerbsEnd};
use crate::node::{BLUE, CNI_CONFIG, Pod, PodRequest};

const DEVICES: usize = 8;
const LIMIT: std::time::Duration = std::time::Duration::from_secs(60);

/// Every VF, each with an RDMA device that is made of it in the pod.
fn device_config() -> Value {
    json!({"cdi": "on", "pools": [
        {"resourceName": "vf", "rdma": "soft", "selectors": {"pfNames": ["enp1s0", "enp2s0"]}},
    ]})
}

fn cni_config() -> Value {
    json!({"cniVersion": "1.1.0", "name": "rdma", "plugins": [
        {"type": "zerobridge", "resourceName": BLUE, "vlan": 100, "rdma": "soft",
         "ipam": {"type": "zerobridge-ipam", "ranges": [[{"subnet": "10.101.0.0/24"}]]}}]})
}

impl Story<'_> {
    pub(super) fn rdma(&mut self) -> Result<(), StoryError> {
        self.screen.chapter(
            "RDMA",
            "uma and vic ask for one VF each, in a network that says \"rdma\": \"soft\": the plugin makes an RDMA device of the\n\
             VF and moves it into the pod. Both run as nobody; IPC_LOCK is all they may do beside.",
        )?;
        let pods = self.rdma_pods()?;
        self.run("rdma system")?;
        let on_host = self.run("rdma dev")?;
        self.screen.expect("the host has no RDMA device", on_host.is_empty())?;
        let mut ends = Vec::new();
        for pod in &pods {
            let seen = self.inside_of(pod, &["ibv_devices"])?;
            let devices: Vec<&str> =
                seen.split_whitespace().filter(|word| word.starts_with("rxe_")).collect();
            let nodes = self.inside_of(pod, &["ls", "/dev/infiniband"])?;
            let own = devices.len() == 1 && nodes.matches("uverbs").count() == 1;
            self.screen
                .expect(&format!("{} sees one RDMA device and its node, no other's", pod.name), own)?;
            let device = devices.first().copied().unwrap_or_default().to_owned();
            let enter = self.lab.node()?.1.exec(pod);
            ends.push(VerbsEnd { enter, namespace: pod.netns.clone(), device, address: pod.ip.clone() });
        }
        if let [uma, vic] = ends.as_slice() {
            self.screen.command("ibv_rc_pingpong -d DEVICE -g GID ADDRESS   # vic to uma")?;
            let talk = self.lab.vm.guest.ping_pong(uma, vic, &uma.address)?;
            self.screen.output(&talk.stdout)?;
            self.screen.expect("messages go by RDMA between the pods", talk.code == 0)?;
        }
        let (guest, node) = self.lab.node()?;
        let delete = || node.delete_pods(guest, &pods);
        self.progress.step("two pods", delete, |()| "deleted".into())?;
        let left = self.lab.vm.guest.rdma_devices(HOST)?;
        self.screen.expect("no RDMA device is left, nor a specification of its nodes", {
            left.is_empty() && self.lab.vm.guest.shell("ls /var/run/cdi | grep rdma || true")?.is_empty()
        })?;
        Ok(())
    }

    fn rdma_pods(&mut self) -> Result<Vec<Pod>, StoryError> {
        self.screen.command("modprobe ib_core netns_mode=0   # each RDMA device in one namespace")?;
        self.lab.vm.guest.load_rdma(RdmaMode::Exclusive)?;
        let (guest, node) = self.lab.node()?;
        let run = || {
            node.import_rdma_image(guest)?;
            guest.write(CNI_CONFIG, &cni_config().to_string())?;
            node.reconfigure(guest, &device_config(), &[])?;
            node.wait_allocatable(guest, BLUE, DEVICES, LIMIT, None)?;
            node.run_pods(guest, &["uma", "vic"].map(|name| PodRequest::with_verbs(name, BLUE)))
        };
        let pods = self.progress.step("two static pods", run, |pods| format!("{} running", pods.len()))?;
        self.run("cat /var/run/cdi/zerobridge.rdma-*")?;
        Ok(pods)
    }

    /// Shows what a program says in a pod's container, run with the pod's user and capabilities.
    fn inside_of(&mut self, pod: &Pod, argv: &[&str]) -> Result<String, StoryError> {
        self.screen.command(&format!("{}   # in {}", argv.join(" "), pod.name))?;
        let (guest, node) = self.lab.node()?;
        let enter = node.exec(pod);
        let words: Vec<&str> = enter.iter().map(String::as_str).chain(argv.iter().copied()).collect();
        let said = guest.output(program(&words), LIMIT)?.stdout;
        self.screen.output(&said)?;
        Ok(said)
    }
}
