//! The node and what is known of its pods: carries out steps and expects of each what it must come to.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use zerobridge_lab::{CniCall, Guest, Lab, Snapshot, VfPlace, program};
use zerobridge_proto::PciAddress;
use zerobridge_scenarios::{PluginCall, Step, Verb};

use super::look::Look;
use super::script;
use crate::expect;
use crate::group::Outcome;
use crate::hand::config;

/// VFs that pods may have; the eighth is nobody's and must stay as it is.
pub(super) const VFS: usize = 7;
/// Pods that want them.
pub(super) const PODS: usize = 7;

/// A plugin waits half a minute for a VF that another one has; a step may be a chain of such.
const LIMIT: Duration = Duration::from_secs(180);
/// How often facts that do not agree yet are looked at again: the kernel returns a VF and udev names it in their time.
const LOOKS: usize = 10;
/// The CNI specification's code for an error that a later try may not meet.
const TRY_AGAIN_LATER: i64 = 11;
/// A program that SIGKILL ended, as a shell and as timeout(1) say it.
const KILLED: i32 = 137;

/// A pod's sandboxes, one after another.
#[derive(Clone, Debug, Default)]
struct Pod {
    /// Which of them.
    generation: u32,
    /// Whether its namespace is there.
    lives: bool,
    /// Whether the last ADD came to its end, and nothing has been done to its VF since.
    is_as_added: bool,
    /// What the last ADD returned, which a runtime keeps for CHECK.
    result: Value,
}

/// What a call came to.
struct Answer {
    code: i32,
    output: Value,
    log: String,
}

/// What a plugin says when it refuses.
#[derive(Deserialize)]
struct Refusal {
    code: i64,
}

pub(super) struct World<'a> {
    guest: &'a mut Guest,
    places: Vec<VfPlace>,
    before: Snapshot,
    pods: Vec<Pod>,
    seen: Look,
    tally: BTreeMap<String, usize>,
}

/// The name of a sandbox and of its namespace. No runtime gives one twice, which matters: the kernel gives the number of a
/// dead namespace to the next.
fn name(pod: usize, generation: u32) -> String {
    format!("chaos{pod}-{generation}")
}

/// One of the kinds of settings.
fn flavoured(device: PciAddress, vf: usize, flavour: usize) -> Value {
    let mut config = config(device);
    config["name"] = "chaos".into();
    config["mac"] = format!("02:00:00:00:0c:0{vf}").into();
    config["ipam"]["ranges"][0][0]["subnet"] = "10.48.0.0/14".into();
    let Some(keys) = config.as_object_mut() else { return config };
    match flavour {
        0 => {}
        1 => {
            keys.remove("mac");
            keys.remove("mtu");
            keys.extend([("trust".to_owned(), json!("on")), ("max_tx_rate".to_owned(), json!(200))]);
        }
        _ => ["mac", "mtu", "vlan", "spoofchk"].iter().for_each(|key| drop(keys.remove(*key))),
    }
    config
}

impl<'a> World<'a> {
    pub(super) fn new(lab: &'a mut Lab) -> Result<Self, Box<dyn Error>> {
        let before = lab.pristine();
        let guest = lab.install_plugins()?;
        let places = guest.vf_places()?;
        // The first call of all makes the ledger that every look reads.
        let status = CniCall::new("STATUS", &name(0, 0), &flavoured(places[0].pci, 0, 0));
        guest.cni_success(&status)?;
        let pods = vec![Pod::default(); PODS];
        let mut world = Self { guest, places, before, pods, seen: Look::default(), tally: BTreeMap::new() };
        world.act("", &[])?;
        Ok(world)
    }

    /// The name of a pod's present sandbox.
    fn name(&self, pod: usize) -> String {
        name(pod, self.pods[pod].generation)
    }

    /// Carries out one step; ends unless it came to what it must, and promises and facts agree.
    pub(super) fn step(&mut self, step: &Step) -> Outcome {
        match step {
            Step::Calls(calls) => self.call(calls),
            Step::NamespaceGone { pod } => {
                if !std::mem::take(&mut self.pods[*pod].lives) {
                    return Ok(());
                }
                self.pods[*pod].is_as_added = false;
                self.count("namespaces gone");
                self.act(&format!("ip netns del {}\n", self.name(*pod)), &[])
            }
            Step::Disturbed { pod, how } => {
                // One whose namespace is gone may still have a VF, which then is on the host.
                let prefix = format!("chaos{pod}-");
                let mut own = self.seen.attachments().iter().filter(|one| one.container.starts_with(&prefix));
                let Some(attachment) = own.next().cloned() else { return Ok(()) };
                let netns = self.seen.lives(&attachment).then(|| attachment.container.clone());
                let place = self.places.iter().find(|place| place.pci == attachment.device);
                let place = expect::some(place, "an attachment of no VF")?;
                let script =
                    script::disturb(*how, attachment.device, &place.pf, place.index, netns.as_deref());
                self.pods[*pod].is_as_added = false;
                self.count("disturbances");
                self.act(&script, &[*pod])
            }
        }
    }

    fn call(&mut self, calls: &[PluginCall]) -> Outcome {
        let mut script = String::new();
        let mut made = Vec::new();
        for call in calls {
            let pod = &mut self.pods[call.pod];
            if matches!(call.verb, Verb::Add { .. }) && !pod.lives {
                *pod = Pod { generation: pod.generation + 1, lives: true, ..Pod::default() };
                script += &format!("ip netns add {}\n", name(call.pod, pod.generation));
            }
            made.push((self.cni(call), call.killed_after));
        }
        script += &script::calls(&made);
        let about: Vec<usize> = calls.iter().map(|call| call.pod).collect();
        let (printed, seen) = self.look(&script, &about)?;
        let mut lines = printed.lines();
        for (call, (cni, _)) in calls.iter().zip(&made) {
            let answer = Answer::parse(&mut lines)?;
            self.judge_call(call, cni, &answer, calls.len() == 1).map_err(|error| {
                let Answer { code, output, log } = &answer;
                format!("{} of {}: {error}; it ended with {code}: {output} {log}", cni.command, cni.container)
            })?;
        }
        self.seen = seen;
        Ok(())
    }

    fn cni(&self, call: &PluginCall) -> CniCall {
        let pod = &self.pods[call.pod];
        let (vf, flavour) = match call.verb {
            Verb::Add { vf, flavour } => (vf, flavour),
            // Any other call has the configuration of some network; which device it names must not matter.
            _ => (0, 0),
        };
        let mut config = flavoured(self.places[vf].pci, vf, flavour);
        let (command, generation) = match call.verb {
            Verb::Add { .. } => ("ADD", pod.generation),
            Verb::Del => ("DEL", pod.generation),
            Verb::LateDel => ("DEL", pod.generation.saturating_sub(1)),
            Verb::Check => {
                config["prevResult"] = pod.result.clone();
                ("CHECK", pod.generation)
            }
            Verb::Gc { known } => {
                let known = (0..PODS)
                    .filter(|pod| known >> pod & 1 == 1)
                    .map(|pod| json!({"containerID": self.name(pod), "ifname": "net1"}));
                config["cni.dev/valid-attachments"] = known.collect();
                ("GC", pod.generation)
            }
        };
        CniCall::new(command, &name(call.pod, generation), &config)
    }

    /// Ends unless a call came to what it must, given what was seen before it; of several at once, only what holds
    /// whichever of them was first.
    fn judge_call(&mut self, call: &PluginCall, cni: &CniCall, answer: &Answer, alone: bool) -> Outcome {
        let succeeded = answer.code == 0;
        let verdict = match answer.code {
            0 => "",
            KILLED if call.killed_after.is_some() => " killed",
            1 => " refused",
            _ => return Err("it ended as a plugin never does".into()),
        };
        self.count(&format!("{}{verdict}", cni.command));
        if verdict == " killed" {
            match call.verb {
                Verb::Check | Verb::LateDel => {}
                Verb::Add { .. } | Verb::Del => self.pods[call.pod].is_as_added = false,
                Verb::Gc { .. } => self.pods.iter_mut().for_each(|pod| pod.is_as_added = false),
            }
            return Ok(());
        }
        let own = self.seen.of_container(&cni.container);
        match call.verb {
            Verb::Add { vf, .. } => {
                let device = self.places[vf].pci;
                let other = self.seen.of_device(device).filter(|other| other.container != cni.container);
                let in_use = other.is_some_and(|other| self.seen.lives(other));
                let has_another = own.is_some_and(|own| own.device != device);
                if succeeded {
                    let pod = &mut self.pods[call.pod];
                    (pod.is_as_added, pod.result) = (true, answer.output.clone());
                }
                if alone {
                    expect::equal("success", &succeeded, &!(in_use || has_another))?;
                }
                if in_use && !has_another && alone {
                    let refusal: Refusal = serde_json::from_value(answer.output.clone())?;
                    expect::equal("the code", &refusal.code, &TRY_AGAIN_LATER)?;
                }
                Ok(())
            }
            Verb::Del | Verb::LateDel | Verb::Gc { .. } => {
                if matches!(call.verb, Verb::Del) {
                    self.pods[call.pod].is_as_added = false;
                }
                expect::that(succeeded, || "it must succeed".into())
            }
            Verb::Check if alone => {
                let expected = self.pods[call.pod].is_as_added.then_some(own.is_some());
                let expected = expected.or(own.is_none().then_some(false));
                expect::that(expected.is_none_or(|expected| expected == succeeded), || {
                    format!("success is {succeeded}, expected {expected:?}")
                })
            }
            Verb::Check => Ok(()),
        }
    }

    /// Runs a script and looks until promises and facts agree, into the namespaces of some pods, too. Returns what the
    /// script printed, and what was seen.
    fn look(&mut self, script: &str, pods: &[usize]) -> Result<(String, Look), Box<dyn Error>> {
        let living = pods.iter().filter(|pod| self.pods[**pod].lives);
        let look = script::look(&living.map(|pod| self.name(*pod)).collect::<Vec<_>>());
        let mut printed = String::new();
        let mut disagreements = Vec::new();
        for round in 0..LOOKS {
            let own = if round == 0 { script } else { "udevadm settle; sleep 0.2\n" };
            let output = self.guest.output(program(&["sh", "-ec", &format!("{own}{look}")]), LIMIT)?;
            expect::that(output.code == 0, || {
                format!("the script failed: {}{}", output.stdout, output.stderr)
            })?;
            let seen = Look::parse(&output.stdout)?;
            if round == 0 {
                printed = output.stdout.split(script::MARK).next().unwrap_or_default().to_owned();
            }
            disagreements = seen.disagreements(&self.places, &self.before);
            if disagreements.is_empty() {
                return Ok((printed, seen));
            }
        }
        Err(format!("promises and facts differ:\n  {}\n{printed}", disagreements.join("\n  ")).into())
    }

    /// Runs a script and takes note of what came of it.
    fn act(&mut self, script: &str, pods: &[usize]) -> Outcome {
        self.seen = self.look(script, pods)?.1;
        Ok(())
    }

    /// Ends every attachment that is left, and ends itself unless everything is as it was at first.
    pub(super) fn end(&mut self) -> Outcome {
        self.act("", &(0..PODS).collect::<Vec<_>>())?;
        for attachment in self.seen.attachments() {
            let mut del = CniCall::new("DEL", "", &flavoured(attachment.device, 0, 0));
            (del.container, del.netns) = (attachment.container.clone(), attachment.path.clone());
            self.guest.cni_success(&del)?;
        }
        for pod in 0..PODS {
            if std::mem::take(&mut self.pods[pod].lives) {
                let name = self.name(pod);
                self.guest.run(&["ip", "netns", "del", &name])?;
            }
        }
        self.act("", &[])?;
        expect::that(self.seen.attachments().is_empty(), || format!("{:?}", self.seen.attachments()))?;
        expect::as_before(self.guest, &self.before)
    }

    fn count(&mut self, what: &str) {
        *self.tally.entry(what.to_owned()).or_default() += 1;
    }

    /// What has happened, in numbers.
    pub(super) fn tally(&self) -> String {
        let all: Vec<String> = self.tally.iter().map(|(what, count)| format!("{count} {what}")).collect();
        all.join(", ")
    }

    /// Ends if nothing has happened that could have gone wrong.
    pub(super) fn judge(&self) -> Outcome {
        expect::that(self.tally.contains_key("ADD"), || format!("no ADD succeeded: {}", self.tally()))
    }
}

impl Answer {
    fn parse<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Result<Self, Box<dyn Error>> {
        let mut line = || expect::some(lines.next(), "a call without an answer");
        let (code, output, log) = (line()?.trim().parse()?, line()?.trim(), line()?.trim().to_owned());
        // A killed one may have printed a part.
        Ok(Self { code, output: serde_json::from_str(output).unwrap_or_default(), log })
    }
}
