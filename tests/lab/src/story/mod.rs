//! A pod's first interface, told step by step from live commands: what `lab demo` shows.

mod rdma;
mod screen;

use std::io::{self, Write};

use thiserror::Error;
use zerobridge_proto::PciAddress;

use crate::lab::{Lab, LabError};
use crate::machine::GuestError;
use crate::network::Snapshot;
use crate::node::{BLUE, GREEN, Pod, PodRequest};
use crate::prepare::Progress;
use crate::programs::LEDGER;
use screen::Screen;

/// What the before/after table compares, besides the VF's address.
const FIELDS: [&str; 6] = ["name", "MAC", "admin MAC", "vlan", "spoof check", "mtu"];

/// Why the story broke off.
#[derive(Debug, Error)]
pub enum StoryError {
    /// The lab did not come up.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A command failed.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// Nobody listens.
    #[error("print the story")]
    Print(#[from] io::Error),
}

/// Tells the story on `out` and returns whether every expectation in it was met. `bold` is for terminals.
///
/// # Errors
/// When a step fails, rather than turns out other than expected.
pub fn tell(lab: &mut Lab, progress: &Progress, out: &mut dyn Write, bold: bool) -> Result<bool, StoryError> {
    let before = lab.pristine();
    let own = lab.guest_program();
    // So that the commands shown are short; the overlay takes it, the host's folder stays as it is.
    lab.vm.guest.run(&["ln", "-sf", &own, "/usr/local/bin/lab-guest"])?;
    let mut story = Story { lab, progress, screen: Screen::new(out, bold) };
    story.hardware()?;
    story.registration()?;
    let pods = story.placement()?;
    story.inside(&pods)?;
    story.reachability(&pods)?;
    story.absence()?;
    story.give_back(&pods, &before)?;
    story.rdma()?;
    Ok(story.screen.end()?)
}

struct Story<'a> {
    lab: &'a mut Lab,
    progress: &'a Progress,
    screen: Screen<'a>,
}

impl Story<'_> {
    /// Shows a command, runs it, shows its output.
    fn run(&mut self, command: &str) -> Result<String, StoryError> {
        self.screen.command(command)?;
        let output = self.lab.vm.guest.shell(command)?;
        self.screen.output(&output)?;
        Ok(output)
    }

    fn hardware(&mut self) -> Result<(), StoryError> {
        self.screen.chapter(
            "The network cards",
            "Two physical functions (PFs), enp1s0 and enp2s0, on one wire; each offers four virtual functions (VFs).",
        )?;
        let links = self.run("ip -br link")?;
        self.run("ip link show enp1s0")?;
        let vfs = links.lines().filter(|line| line.contains("s0v")).count();
        self.screen.expect("eight VFs, each with a link of its own on the host", vfs == 8)?;
        Ok(())
    }

    fn registration(&mut self) -> Result<(), StoryError> {
        self.screen.chapter(
            "The node",
            "containerd and a kubelet without an API server; Zerobridge is the only CNI plugin. Its device plugin sorts\n\
             the VFs into two resources and registers them.",
        )?;
        self.progress.step(
            "containerd, kubelet, device plugin",
            || self.lab.node().map(|_| ()),
            |()| "up".into(),
        )?;
        self.run("ls /opt/cni/bin /etc/cni/net.d")?;
        self.run("cat /etc/zerobridge/config.json")?;
        self.run("sed 's/^.*INFO zerobridge_device_plugin:://' /out/device-plugin.log")?;
        self.run("lab-guest resources allocatable")?;
        let (guest, node) = self.lab.node()?;
        let allocatable = node.allocatable(guest)?;
        for resource in [BLUE, GREEN] {
            let count = allocatable.get(resource).map_or(0, Vec::len);
            self.screen.expect(&format!("the kubelet can allocate four {resource}"), count == 4)?;
        }
        Ok(())
    }

    fn placement(&mut self) -> Result<Vec<Pod>, StoryError> {
        self.screen.chapter(
            "Three pods",
            "ada and bob ask for one zerobridge.io/vf each (VLAN 100), eve for one zerobridge.io/vf-green (VLAN 200).",
        )?;
        let requests = [("ada", BLUE), ("bob", BLUE), ("eve", GREEN)]
            .map(|(name, resource)| PodRequest::with_one(name, resource));
        let (guest, node) = self.lab.node()?;
        let run = || node.run_pods(guest, &requests);
        let pods = self.progress.step("three static pods", run, |pods| format!("{} running", pods.len()))?;
        self.run("lab-guest resources pods")?;
        self.run(&format!("sqlite3 {LEDGER} -column 'SELECT device, network, pod_name FROM attachments'"))?;
        let mut addresses: Vec<&str> = pods.iter().map(|pod| pod.ip.as_str()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        self.screen.expect("three pods run, each with an address of its own", addresses.len() == 3)?;
        Ok(pods)
    }

    fn inside(&mut self, pods: &[Pod]) -> Result<(), StoryError> {
        self.screen.chapter("What is in a pod", "The VF itself: a PCI function, not one end of a pair.")?;
        for pod in pods {
            let enter = format!("nsenter -t {} -n", pod.pid);
            self.run(&format!("{enter} ip -br addr   # {}", pod.name))?;
            self.run(&format!("{enter} ip -d link show eth0 | grep -o 'parentbus.*'"))?;
            self.run(&format!("tr '\\0' '\\n' < /proc/{}/environ | grep '^PCIDEVICE_[A-Z_]*='", pod.pid))?;
            let links = pod.addresses(&mut self.lab.vm.guest)?;
            let own = links.iter().find(|link| link.ifname == "eth0");
            let device = own.and_then(|link| link.parentdev.clone());
            let carries =
                own.is_some_and(|link| link.addr_info.iter().any(|address| address.local == pod.ip));
            let named = pod.environment(&mut self.lab.vm.guest)?.iter().any(|(name, value)| {
                name.starts_with("PCIDEVICE_ZEROBRIDGE_IO_") && Some(value) == device.as_ref()
            });
            self.screen
                .expect(&format!("{}'s eth0 carries the pod's address {}", pod.name, pod.ip), carries)?;
            self.screen.expect(&format!("{}'s environment names the VF that is in it", pod.name), named)?;
        }
        let vlans = self.run("ip link | grep -o 'vf .*vlan [0-9]*'")?;
        let tagged = |id: u16| vlans.matches(&format!("vlan {id}\n")).count();
        self.screen
            .expect("two VFs are in VLAN 100, one in VLAN 200", (tagged(100), tagged(200)) == (2, 1))?;
        Ok(())
    }

    fn reachability(&mut self, pods: &[Pod]) -> Result<(), StoryError> {
        self.screen.chapter(
            "Who reaches whom",
            "Through the cards' own switches and the wire, within a VLAN only.",
        )?;
        self.screen
            .command("nsenter -t PID --all ping -c 3 -W 2 -A ADDRESS   # from each pod to each address")?;
        let mut rows = vec![vec!["from \\ to".to_owned()]];
        rows[0].extend(pods.iter().map(|pod| format!("{} {}", pod.name, pod.ip)));
        let mut expectations = Vec::new();
        for from in pods {
            let mut row = vec![format!("{} {}", from.name, from.ip)];
            for to in pods {
                let reached = from.reaches(&mut self.lab.vm.guest, &to.ip)?;
                let same = (from.name == "eve") == (to.name == "eve");
                row.push(if reached { "reached" } else { "silence" }.into());
                let verb = if same { "reaches" } else { "does not reach" };
                let object = if from.name == to.name { "itself under its own address" } else { &to.name };
                expectations.push((format!("{} {verb} {object}", from.name), reached == same));
            }
            rows.push(row);
        }
        self.screen.table(&rows)?;
        for (sentence, holds) in expectations {
            self.screen.expect(&sentence, holds)?;
        }
        Ok(())
    }

    fn absence(&mut self) -> Result<(), StoryError> {
        self.screen.chapter(
            "What the host does not have",
            "Three pods talk, and the host's namespace got no new link.",
        )?;
        self.run("ip -br link")?;
        for kind in ["bridge", "veth"] {
            let count = self.run(&format!("ip -d -o link | grep -w {kind} | wc -l"))?;
            self.screen.expect(&format!("no {kind}"), count.trim() == "0")?;
        }
        let links = self.lab.vm.guest.links()?;
        self.screen.expect("no virtual link at all", links.iter().all(|link| link.kind().is_none()))?;
        Ok(())
    }

    fn give_back(&mut self, pods: &[Pod], before: &Snapshot) -> Result<(), StoryError> {
        self.screen.chapter(
            "The pods go, the VFs come back",
            "Everything that an attachment changed is as it was.",
        )?;
        let with_pods = self.lab.vm.guest.snapshot()?;
        self.screen.command("rm /etc/kubernetes/manifests/*.json")?;
        let (guest, node) = self.lab.node()?;
        self.progress.step("three pods", || node.delete_pods(guest, pods), |()| "deleted".into())?;
        let after = self.lab.vm.guest.snapshot()?;
        self.screen.table(&comparison(before, &with_pods, &after))?;
        let differences = after.differences(before);
        self.screen.expect("all eight VFs are as they were before the first pod", differences.is_empty())?;
        for difference in &differences {
            self.screen.output(difference)?;
        }
        let records = self.run(&format!("sqlite3 {LEDGER} 'SELECT count(*) FROM attachments'"))?;
        self.screen.expect("the ledger has no attachment", records.trim() == "0")?;
        Ok(())
    }
}

/// Three rows for each VF that was in a pod.
fn comparison(before: &Snapshot, during: &Snapshot, after: &Snapshot) -> Vec<Vec<String>> {
    let mut rows = vec![["VF", "when"].iter().chain(&FIELDS).map(|title| (*title).to_owned()).collect()];
    let used = before.addresses().filter(|vf| before.field(*vf, "name") != during.field(*vf, "name"));
    for vf in used {
        for (when, snapshot) in [("before", before), ("in a pod", during), ("after", after)] {
            rows.push(row(vf, when, snapshot));
        }
    }
    rows
}

fn row(vf: PciAddress, when: &str, snapshot: &Snapshot) -> Vec<String> {
    let fields = FIELDS.iter().map(|field| snapshot.field(vf, field).unwrap_or("–").to_owned());
    [vf.to_string(), when.to_owned()].into_iter().chain(fields).collect()
}
