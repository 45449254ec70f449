//! Pods with addresses of their own, moved between nodes under everything that a cluster does to them: requests and answers
//! that are late, lost or doubled, watches that lag, agents that are killed between any two steps, DELs that never come, pods
//! that are deleted by force while their containers live, nodes that boot, lose their ledger, or are gone for good.
//!
//! What runs is the [`Registrar`] of the daemon; only API server, network, ledger and kubelet are simulated.
//! `SEED=7 cargo test -p zerobridge-blocks --test reservations`; `SEEDS=500` tries so many.
#![expect(clippy::unwrap_used, reason = "a test program, of which clippy takes the helpers for none")]
#![expect(clippy::panic, reason = "how a violated promise is reported")]

mod random;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::net::IpAddr;
use std::time::Duration;

use random::Random;
use serde_json::json;
use zerobridge_blocks::{
    Edit, Holder, IPClaim, IPClaimStatus, PodName, Pool, Question, Registrar, Reply, ReservationLedger,
    ReservedBlock, Step, Timing, Wish,
};

const TICKS: u64 = 4_000;
const QUIET_TICKS: u64 = 3_000;
/// How long an answer is waited for.
const PATIENCE: u64 = 12;
/// After this a node that is gone is proven gone.
const SILENCE: u64 = 400;

fn at(tick: u64) -> Duration {
    Duration::from_millis(tick * 100)
}

/// What is broken on purpose, to see that the simulation notices.
#[derive(Clone, Copy, Default, PartialEq)]
struct Sabotage {
    /// Writes do not heed UID and version.
    no_preconditions: bool,
    /// An address leaves the ledger although a container has it.
    no_proof: bool,
    /// Every ledger but one's own is taken for dead.
    no_silence: bool,
}

#[derive(Default)]
struct Api {
    blocks: BTreeMap<u32, ReservedBlock>,
    /// Blocks that nodes lease from.
    held: BTreeSet<u32>,
    claims: BTreeMap<String, IPClaim>,
    pods: BTreeMap<PodName, usize>,
    writes: u64,
}

impl Api {
    fn write(
        &mut self,
        index: u32,
        uid: &str,
        reservations: &BTreeMap<IpAddr, zerobridge_blocks::Reservation>,
    ) -> Reply {
        self.writes += 1;
        let (uid, version) = (uid.to_owned(), self.writes.to_string());
        let block = ReservedBlock { uid, version, reservations: reservations.clone() };
        self.blocks.insert(index, block.clone());
        Reply::Object(block)
    }

    fn handle(&mut self, question: &Question, sabotage: Sabotage) -> Reply {
        let is_as = |block: &ReservedBlock, uid: &str, version: &str| {
            sabotage.no_preconditions || (block.uid == uid && block.version == version)
        };
        match question {
            Question::List => Reply::Listed(self.blocks.clone(), self.claims.values().cloned().collect()),
            Question::Edit(Edit::Choose { claim, version, pods }) => {
                self.writes += 1;
                let found =
                    self.claims.values_mut().find(|object| object.metadata.uid.as_ref() == Some(claim));
                let Some(object) = found else { return Reply::Gone };
                if object.metadata.resource_version.as_ref() != Some(version) && !sabotage.no_preconditions {
                    return Reply::Conflict;
                }
                object.metadata.resource_version = Some(self.writes.to_string());
                object.status = Some(IPClaimStatus { pods: pods.clone(), problem: None });
                Reply::Claim(object.clone().into())
            }
            Question::Edit(Edit::Survey) => {
                Reply::Taken(self.blocks.keys().chain(&self.held).copied().collect())
            }
            Question::Edit(Edit::Create { index, reservations }) => {
                if self.blocks.contains_key(index) || self.held.contains(index) {
                    return Reply::Conflict;
                }
                let uid = format!("u{}", self.writes);
                self.write(*index, &uid, reservations)
            }
            Question::Edit(Edit::Replace { index, uid, version, reservations }) => {
                match self.blocks.get(index) {
                    None => Reply::Gone,
                    Some(block) if is_as(block, uid, version) => self.write(*index, uid, reservations),
                    Some(_) => Reply::Conflict,
                }
            }
            Question::Edit(Edit::Delete { index, uid, version }) => match self.blocks.get(index) {
                None => Reply::Gone,
                Some(block) if is_as(block, uid, version) => {
                    self.writes += 1;
                    self.blocks.remove(index);
                    Reply::Gone
                }
                Some(_) => Reply::Conflict,
            },
        }
    }
}

#[derive(Clone, Default)]
struct Ledger {
    incarnation: String,
    names: BTreeSet<PodName>,
    entered: BTreeMap<PodName, (String, IpAddr)>,
    /// By address, the container that has it.
    leases: BTreeMap<IpAddr, u64>,
}

struct View<'a> {
    ledger: &'a mut Ledger,
    sabotage: Sabotage,
}

impl ReservationLedger for View<'_> {
    type Error = Infallible;

    fn name(&mut self, pods: &BTreeMap<PodName, Wish>) -> Result<(), Infallible> {
        self.ledger.names = pods.keys().cloned().collect();
        Ok(())
    }

    fn entered(&mut self) -> Result<BTreeMap<PodName, (String, IpAddr)>, Infallible> {
        Ok(self.ledger.entered.clone())
    }

    fn enter(&mut self, pod: &PodName, claim: &str, address: IpAddr) -> Result<(), Infallible> {
        self.ledger.entered.insert(pod.clone(), (claim.to_owned(), address));
        Ok(())
    }

    fn leave(&mut self, pod: &PodName) -> Result<bool, Infallible> {
        let Some((_, address)) = self.ledger.entered.get(pod) else { return Ok(true) };
        if self.ledger.leases.contains_key(address) && !self.sabotage.no_proof {
            return Ok(false);
        }
        self.ledger.entered.remove(pod);
        Ok(true)
    }
}

/// A sandbox of a pod.
struct Container {
    id: u64,
    pod: PodName,
    address: IpAddr,
    /// When it ends, once its pod is deleted.
    ends: Option<u64>,
}

struct Node {
    name: String,
    ledger: Ledger,
    boot: u64,
    of_this_boot: BTreeSet<String>,
    containers: Vec<Container>,
    registrar: Option<Registrar>,
    /// Counts starts of the agent and its requests: answers to another one are thrown away.
    asked: u64,
    deadline: u64,
    gone: Option<u64>,
}

enum Travelling {
    Question(Question),
    Reply(Reply),
}

struct Message {
    due: u64,
    node: usize,
    asked: u64,
    what: Travelling,
}

struct World {
    random: Random,
    sabotage: Sabotage,
    pool: Pool,
    api: Api,
    nodes: Vec<Node>,
    network: Vec<Message>,
    tick: u64,
    faults: bool,
    /// No pod comes or goes.
    calm: bool,
    counter: u64,
    /// What each claim's pods got first.
    first: BTreeMap<(String, PodName), IpAddr>,
    log: VecDeque<String>,
    seed: u64,
    started: u64,
}

fn names(set: &str, number: u32) -> Vec<PodName> {
    (0..number)
        .map(|ordinal| PodName { namespace: "team".to_owned(), name: format!("{set}-{ordinal}") })
        .collect()
}

impl World {
    fn new(seed: u64, sabotage: Sabotage) -> Self {
        let spec = json!({"subnet": "10.0.0.0/26", "blockSize": 8});
        let mut world = Self {
            random: Random(seed),
            sabotage,
            pool: Pool::parse("gold", &spec).unwrap(),
            api: Api { held: [2, 3].into(), ..Api::default() },
            nodes: Vec::new(),
            network: Vec::new(),
            tick: 0,
            faults: true,
            calm: false,
            counter: 0,
            first: BTreeMap::new(),
            log: VecDeque::new(),
            seed,
            started: 0,
        };
        for number in 0..5 {
            let ledger = world.fresh_ledger();
            world.nodes.push(Node {
                name: format!("n{number}"),
                ledger,
                boot: 0,
                of_this_boot: BTreeSet::new(),
                containers: Vec::new(),
                registrar: None,
                asked: 0,
                deadline: 0,
                gone: None,
            });
        }
        for set in ["any", "fixed", "odd"] {
            world.make_claim(set);
        }
        world
    }

    fn make_claim(&mut self, set: &str) {
        let uid = format!("{set}-{}", self.count());
        let (made, address) = (
            format!("2026-01-01T00:00:{:02}Z", self.counter % 60),
            match set {
                "fixed" => json!("10.0.0.20"),
                // Of an address that another claim has.
                "odd" => json!("10.0.0.22"),
                _ => json!(null),
            },
        );
        let object = json!({
            "apiVersion": "zerobridge.io/v1alpha1", "kind": "IPClaim",
            "metadata": {"name": set, "namespace": "team", "uid": uid, "creationTimestamp": made, "resourceVersion": uid},
            "spec": {"pool": "gold", "statefulSet": set, "replicas": 4, "address": address}
        });
        self.api.claims.insert(set.to_owned(), serde_json::from_value(object).unwrap());
    }

    fn count(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn fresh_ledger(&mut self) -> Ledger {
        Ledger { incarnation: format!("i{}", self.count()), ..Ledger::default() }
    }

    fn note(&mut self, text: String) {
        self.log.push_back(format!("{:6} {text}", self.tick));
        if self.log.len() > 80 {
            self.log.pop_front();
        }
    }

    fn holder(&self, number: usize) -> Holder {
        let node = &self.nodes[number];
        Holder {
            node: node.name.clone(),
            incarnation: node.ledger.incarnation.clone(),
            boot_id: format!("{}-b{}", node.name, node.boot),
        }
    }

    fn start_agent(&mut self, number: usize) {
        let me = self.holder(number);
        let timing = Timing { pause: at(2), longest_pause: at(20), survey: at(10), silence: at(SILENCE) };
        let node = &mut self.nodes[number];
        node.of_this_boot.insert(me.incarnation.clone());
        node.registrar = Some(Registrar::new(self.pool.clone(), me, timing));
        node.asked += 1;
        node.deadline = 0;
    }

    fn kill_agent(&mut self, number: usize) {
        self.nodes[number].registrar = None;
        self.nodes[number].asked += 1;
    }

    /// No container outlives it, and leases of another boot count no more.
    fn boot(&mut self, number: usize) {
        self.kill_agent(number);
        let node = &mut self.nodes[number];
        node.boot += 1;
        node.of_this_boot.clear();
        node.containers.clear();
        node.ledger.leases.clear();
    }

    /// As the daemon proves it: of other nodes, that they are gone and silent; of this one, another boot.
    fn dead(&self, number: usize) -> BTreeSet<String> {
        let (me, node) = (self.holder(number), &self.nodes[number]);
        let holders = self.api.blocks.values().flat_map(|block| block.reservations.values());
        let holders = holders.filter_map(|row| row.holder.as_ref());
        let is_dead = |holder: &&Holder| {
            let other = self.nodes.iter().find(|node| node.name == holder.node).unwrap();
            match holder.node == me.node {
                true => holder.boot_id != me.boot_id && !node.of_this_boot.contains(&holder.incarnation),
                false => {
                    self.sabotage.no_silence || other.gone.is_some_and(|since| self.tick >= since + SILENCE)
                }
            }
        };
        holders.filter(is_dead).map(|holder| holder.incarnation.clone()).collect()
    }

    fn send(&mut self, node: usize, question: &Question) {
        self.note(format!("n{node} asks {}", short(question)));
        let (asked, copies) =
            (self.nodes[node].asked, if self.faults && self.random.chance(50) { 2 } else { 1 });
        for _ in 0..copies {
            if self.faults && self.random.chance(60) {
                continue;
            }
            // Mostly quick; sometimes much later than anybody waits, but never later than the API server holds a request.
            let late = self.faults && self.random.chance(80);
            let delay = self.random.below(if late {
                500
            } else if self.faults {
                3
            } else {
                1
            });
            let what = Travelling::Question(question.clone());
            self.network.push(Message { due: self.tick + 1 + delay, node, asked, what });
        }
    }

    fn deliver(&mut self) {
        let tick = self.tick;
        let (due, kept): (Vec<_>, Vec<_>) =
            self.network.drain(..).partition(|message: &Message| message.due <= tick);
        self.network = kept;
        for Message { node, asked, what, .. } in due {
            match what {
                Travelling::Question(question) => {
                    let reply = self.api.handle(&question, self.sabotage);
                    self.note(format!("api answers n{node} {}", short(&question)));
                    if self.faults && self.random.chance(80) {
                        continue;
                    }
                    let delay = if self.faults { self.random.below(4) } else { 0 };
                    self.network.push(Message {
                        due: tick + 1 + delay,
                        node,
                        asked,
                        what: Travelling::Reply(reply),
                    });
                }
                Travelling::Reply(reply) => {
                    if self.nodes[node].asked != asked || self.nodes[node].registrar.is_none() {
                        continue;
                    }
                    // Killed with the answer in hand.
                    if self.faults && self.random.chance(20) {
                        self.note(format!("n{node} is killed"));
                        self.kill_agent(node);
                    } else {
                        self.answer(node, reply);
                    }
                }
            }
        }
    }

    fn answer(&mut self, number: usize, reply: Reply) {
        let (sabotage, now) = (self.sabotage, at(self.tick));
        let node = &mut self.nodes[number];
        node.asked += 1;
        let mut view = View { ledger: &mut node.ledger, sabotage };
        node.registrar.as_mut().unwrap().answered(&mut view, reply, now).unwrap();
        self.check();
    }

    fn step_agent(&mut self, number: usize) {
        let dead = self.dead(number);
        let lag = self.faults && self.random.chance(700);
        let clerk =
            self.tick / 300 % 5 == u64::try_from(number).unwrap() || (self.faults && self.random.chance(2));
        let (sabotage, now, tick) = (self.sabotage, at(self.tick), self.tick);
        let node = &mut self.nodes[number];
        let Some(registrar) = &mut node.registrar else { return };
        registrar.set_clerk(clerk);
        registrar.set_dead(dead);
        if !lag {
            let here = self.api.pods.iter().filter(|(_, place)| **place == number);
            let (here, claims) =
                (here.map(|(pod, _)| pod.clone()).collect(), self.api.claims.values().cloned().collect());
            // As the daemon does: only what is news is told.
            if tick.is_multiple_of(7) || !self.faults {
                registrar.set_claims(claims);
                registrar.set_here(here);
            }
        }
        let mut view = View { ledger: &mut node.ledger, sabotage };
        match registrar.next(&mut view, now).unwrap() {
            Step::Ask(question) => {
                node.asked += 1;
                node.deadline = tick + PATIENCE;
                self.send(number, &question);
            }
            Step::Wait(_) => {
                if tick >= node.deadline && node.deadline > 0 {
                    node.deadline = 0;
                    self.answer(number, Reply::None);
                }
            }
        }
        self.check();
    }

    /// The kubelet and the runtime: a pod that is here and has no container gets one if it gets its address; containers of
    /// pods that are not here end in time, and most of their DELs come.
    fn kubelet(&mut self, number: usize) {
        let (tick, mut random) = (self.tick, Random(self.random.below(u64::MAX)));
        let here: Vec<PodName> =
            self.api.pods.iter().filter(|(_, place)| **place == number).map(|(pod, _)| pod.clone()).collect();
        let fresh = self.count();
        let node = &mut self.nodes[number];
        for container in &mut node.containers {
            if !here.contains(&container.pod) && container.ends.is_none() {
                container.ends = Some(tick + random.below(120));
            }
            if here.contains(&container.pod) && random.chance(2) {
                container.ends = Some(tick);
            }
        }
        let (ended, running): (Vec<_>, Vec<_>) =
            node.containers.drain(..).partition(|container| container.ends.is_some_and(|ends| tick >= ends));
        node.containers = running;
        for container in ended {
            // A DEL that is lost is made up for by a later GC.
            if node.ledger.leases.get(&container.address) == Some(&container.id) && !random.chance(100) {
                node.ledger.leases.remove(&container.address);
            }
        }
        if random.chance(30) {
            let living: BTreeSet<u64> = node.containers.iter().map(|container| container.id).collect();
            node.ledger.leases.retain(|_, id| living.contains(id));
        }
        for pod in here {
            let runs =
                node.containers.iter().any(|container| container.pod == pod && container.ends.is_none());
            let Some((_, address)) = node.ledger.entered.get(&pod) else { continue };
            if !runs && !node.ledger.leases.contains_key(address) && random.chance(300) {
                node.ledger.leases.insert(*address, fresh);
                node.containers.push(Container { id: fresh, pod, address: *address, ends: None });
                self.started += 1;
                break;
            }
        }
        self.check();
    }

    /// Pods come, move and go; sometimes by force, while their containers live.
    fn pods(&mut self) {
        let pods: Vec<PodName> = ["any", "fixed", "odd"].iter().flat_map(|set| names(set, 4)).collect();
        let place = usize::try_from(self.random.below(5)).unwrap();
        let which = usize::try_from(self.random.below(12)).unwrap();
        let pod = &pods[which];
        match self.api.pods.get(pod) {
            None if self.random.chance(200) && self.nodes[place].gone.is_none() => {
                self.note(format!("{pod} is on n{place}"));
                self.api.pods.insert(pod.clone(), place);
            }
            Some(there) if self.random.chance(20) => {
                // Kubernetes waits for the containers' end, unless it is told not to.
                let by_force = self.faults && self.random.chance(200);
                let runs = self.nodes[*there].containers.iter().any(|container| container.pod == *pod);
                if by_force || !runs || self.nodes[*there].gone.is_some() {
                    self.note(format!(
                        "{pod} is no more on n{there}{}",
                        if by_force { ", by force" } else { "" }
                    ));
                    self.api.pods.remove(pod);
                } else {
                    for container in &mut self.nodes[*there].containers {
                        if container.pod == *pod {
                            container.ends = Some(self.tick + 5);
                        }
                    }
                }
            }
            _ => {}
        }
        if self.faults && self.random.chance(3) {
            let set = ["any", "fixed", "odd"][usize::try_from(self.random.below(3)).unwrap()];
            self.note(format!("claim {set} is made anew"));
            self.make_claim(set);
        }
        if self.random.chance(5) {
            self.api.held = if self.random.chance(500) { [2, 3].into() } else { [4].into() };
            self.api.held.retain(|index| !self.api.blocks.contains_key(index));
        }
    }

    fn misfortune(&mut self, number: usize) {
        match self.random.below(2400) {
            0..12 => {
                self.note(format!("n{number} is killed"));
                self.kill_agent(number);
            }
            12..15 => {
                self.note(format!("n{number} boots"));
                self.boot(number);
            }
            15..16 => {
                self.note(format!("n{number} is installed anew"));
                self.boot(number);
                self.nodes[number].ledger = self.fresh_ledger();
            }
            16..17 if self.nodes[number].registrar.is_some() => {
                self.note(format!("n{number} loses its ledger"));
                self.kill_agent(number);
                self.nodes[number].ledger = self.fresh_ledger();
            }
            17..18
                if self.nodes.iter().filter(|node| node.gone.is_none()).count() > 3
                    && self.random.chance(300) =>
            {
                self.note(format!("n{number} is gone"));
                self.boot(number);
                self.nodes[number].gone = Some(self.tick);
            }
            _ => {}
        }
    }

    fn tick(&mut self) {
        self.tick += 1;
        self.deliver();
        if !self.calm && (self.faults || self.tick.is_multiple_of(20)) {
            self.pods();
        }
        for number in 0..self.nodes.len() {
            if self.nodes[number].gone.is_some() {
                continue;
            }
            if self.faults {
                self.misfortune(number);
            }
            if self.nodes[number].gone.is_none() && self.nodes[number].registrar.is_none() {
                let first = self.nodes[number].of_this_boot.is_empty();
                if first || !self.faults || self.random.chance(50) {
                    self.start_agent(number);
                }
            }
            self.kubelet(number);
            self.step_agent(number);
        }
    }

    /// What must hold at every moment.
    fn check(&mut self) {
        let mut used: BTreeMap<IpAddr, String> = BTreeMap::new();
        let mut ledgers: BTreeMap<IpAddr, String> = BTreeMap::new();
        let mut fault = None;
        for node in self.nodes.iter().filter(|node| node.gone.is_none()) {
            for container in &node.containers {
                let here = format!("{} on {}", container.pod, node.name);
                if let Some(other) = used.insert(container.address, here.clone()) {
                    fault = Some(format!("{} is used by {other} and by {here}", container.address));
                }
            }
            for (pod, (claim, address)) in &node.ledger.entered {
                let here = format!("{pod} on {}", node.name);
                if let Some(other) = ledgers.insert(*address, here.clone()) {
                    fault = Some(format!("{address} is in the ledgers of {other} and of {here}"));
                }
                let first = *self.first.entry((claim.clone(), pod.clone())).or_insert(*address);
                let fixed: IpAddr = "10.0.0.20".parse().unwrap();
                if pod.name == "fixed-0" && *address != fixed {
                    fault = Some(format!("{pod} has {address} and asked for {fixed}"));
                }
                if first != *address {
                    fault = Some(format!("{pod} has {address} and had {first} by the same claim"));
                }
                let block = self.pool.block_of(*address).unwrap();
                if self.api.held.contains(&block) {
                    fault = Some(format!("{address} lies in block {block}, which a node leases from"));
                }
            }
        }
        if let Some(fault) = fault {
            let log: Vec<&str> = self.log.iter().map(String::as_str).collect();
            panic!("SEED={} tick {}: {fault}\n{}", self.seed, self.tick, log.join("\n"));
        }
    }

    /// Faults end; in the end every pod that a claim names has its address, and nothing is reserved for anybody else, but
    /// what a container has that was started under a claim that is no more.
    fn settle(&mut self) {
        self.faults = false;
        for number in 0..self.nodes.len() {
            if self.nodes[number].gone.is_none() {
                self.boot(number);
            }
        }
        self.api.held.clear();
        for tick in 0..QUIET_TICKS {
            self.calm = tick > QUIET_TICKS - 1_000;
            self.tick();
        }
        let log: Vec<&str> = self.log.iter().map(String::as_str).collect();
        let log = log.join("\n");
        let known: BTreeSet<&str> =
            self.api.claims.values().filter_map(|claim| claim.metadata.uid.as_deref()).collect();
        for (address, row) in self.api.blocks.values().flat_map(|block| &block.reservations) {
            let there = self.nodes.iter().filter(|node| node.gone.is_none());
            let is_in_use = there
                .flat_map(|node| &node.containers)
                .any(|container| container.pod == row.pod_name() && container.address == *address);
            let is_right = is_in_use || known.contains(&*row.claim);
            assert!(is_right, "SEED={}: {address} is kept for {row:?}\n{log}", self.seed);
        }
        for node in self.nodes.iter().filter(|node| node.gone.is_none()) {
            // Without its name there, a pod would get any address.
            let names = node.ledger.names.len();
            assert_eq!(names, 12, "SEED={}: {} does not know every pod with a claim", self.seed, node.name);
        }
        for (pod, place) in &self.api.pods {
            let node = &self.nodes[*place];
            let rows = self.api.blocks.values().flat_map(|block| &block.reservations);
            let rows: Vec<_> = rows.filter(|(_, row)| row.pod_name() == *pod).collect();
            // Two claims ask for two addresses: one of them has them.
            let is_contested = ["fixed-2", "fixed-3", "odd-0", "odd-1"].contains(&&*pod.name);
            let waits = !node.ledger.entered.contains_key(pod) && !is_contested && node.gone.is_none();
            assert!(!waits, "SEED={}: {pod} waits on n{place}, and there is {rows:?}\n{log}", self.seed);
        }
    }

    fn run(mut self) -> Self {
        for _ in 0..TICKS {
            self.tick();
        }
        assert!(self.started > 50, "SEED={}: only {} pods were started", self.seed, self.started);
        self.settle();
        self
    }
}

fn short(question: &Question) -> String {
    let rows = |reservations: &BTreeMap<IpAddr, zerobridge_blocks::Reservation>| {
        let row = |(address, row): (&IpAddr, &zerobridge_blocks::Reservation)| {
            format!("{address}={}@{}", row.pod, row.holder.as_ref().map_or("-", |holder| &holder.incarnation))
        };
        reservations.iter().map(row).collect::<Vec<_>>().join(" ")
    };
    match question {
        Question::Edit(Edit::Create { index, reservations }) => {
            format!("create {index}: {}", rows(reservations))
        }
        Question::Edit(Edit::Replace { index, version, reservations, .. }) => {
            format!("replace {index}@{version}: {}", rows(reservations))
        }
        other => format!("{other:?}"),
    }
}

fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            let first = u64::from(now.subsec_nanos()) << 20 | now.as_secs() & 0xf_ffff;
            let count = std::env::var("SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(count);
            (0..count).map(|number| first + number).collect()
        }
    }
}

#[test]
fn a_pod_has_its_own_address_wherever_it_runs_and_nobody_else_has_it() {
    for seed in seeds(10) {
        println!("SEED={seed}");
        World::new(seed, Sabotage::default()).run();
    }
}

fn is_noticed(sabotage: Sabotage) -> bool {
    (1..=30).any(|seed| std::panic::catch_unwind(|| World::new(seed, sabotage).run()).is_err())
}

#[test]
fn the_simulation_notices_what_the_rules_are_for() {
    let none = Sabotage::default();
    assert!(is_noticed(Sabotage { no_preconditions: true, ..none }), "writes without preconditions");
    assert!(
        is_noticed(Sabotage { no_proof: true, ..none }),
        "an address that leaves while a container has it"
    );
    assert!(is_noticed(Sabotage { no_silence: true, ..none }), "a ledger taken for dead that lives");
}
