//! The protocol under everything that a cluster does to it: requests and answers that are late, lost or doubled, watches
//! that lag, agents that are killed between any two steps, nodes that boot, lose their ledger, or are gone for good.
//!
//! What runs is the [`Steward`] of the daemon; only API server, network and ledger are simulated. The seed is printed and
//! decides everything: `SEED=7 cargo test -p zerobridge-blocks --test simulation`; `SEEDS=500` tries so many.
#![expect(clippy::unwrap_used, reason = "a test program, of which clippy takes the helpers for none")]
#![expect(clippy::panic, reason = "how a violated promise is reported")]

mod random;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use random::Random;
use serde_json::json;
use zerobridge_blocks::{
    Answer, BlockLedger, Claim, Held, Holder, Next, Pool, Request, Silence, Steward, Timing,
};

const BLOCK: u32 = 8;
const TICKS: u64 = 4_000;
const QUIET_TICKS: u64 = 2_000;
const REST: u64 = 20;
/// How long an answer is waited for.
const PATIENCE: u64 = 12;
const BEAT: u64 = 60;
const SILENCE: u64 = 400;

fn at(tick: u64) -> Duration {
    Duration::from_millis(tick * 100)
}

/// What is broken on purpose, to see that the simulation notices.
#[derive(Clone, Copy, Default, PartialEq)]
struct Sabotage {
    /// Deletions and replacements do not heed UID and version.
    no_preconditions: bool,
    /// A block leaves the ledger although addresses of it are leased.
    no_proof: bool,
    /// An earlier ledger's blocks are freed without asking whether its containers live.
    one_proof: bool,
}

#[derive(Clone)]
struct Event {
    index: u32,
    claim: Option<Claim>,
    node: String,
}

#[derive(Default)]
struct Api {
    objects: BTreeMap<u32, Claim>,
    version: u64,
    uids: u64,
    history: Vec<Event>,
    requests: u64,
}

impl Api {
    fn write(&mut self, index: u32, uid: String, holder: Holder) -> Claim {
        self.version += 1;
        let node = holder.node.clone();
        let claim = Claim { uid, version: self.version.to_string(), holder };
        self.objects.insert(index, claim.clone());
        self.history.push(Event { index, claim: Some(claim.clone()), node });
        claim
    }

    fn delete(&mut self, index: u32) {
        let claim = self.objects.remove(&index).unwrap();
        self.version += 1;
        self.history.push(Event { index, claim: None, node: claim.holder.node });
    }

    fn handle(&mut self, request: &Request, holder: &Holder, sabotage: Sabotage) -> Answer {
        self.requests += 1;
        let matches = |claim: &Claim, uid: &str, version: &str| {
            sabotage.no_preconditions || (claim.uid == uid && claim.version == version)
        };
        match request {
            Request::Create { index } => {
                if self.objects.contains_key(index) {
                    return Answer::Conflict;
                }
                self.uids += 1;
                Answer::Object(self.write(*index, format!("u{}", self.uids), holder.clone()))
            }
            Request::Replace { index, uid, version } => match self.objects.get(index).cloned() {
                None => Answer::Gone,
                Some(claim) if matches(&claim, uid, version) => {
                    Answer::Object(self.write(*index, claim.uid, holder.clone()))
                }
                Some(_) => Answer::Conflict,
            },
            Request::Delete { index, uid, version } => match self.objects.get(index).cloned() {
                None => Answer::Gone,
                Some(claim) if matches(&claim, uid, version) => {
                    self.delete(*index);
                    Answer::Gone
                }
                Some(_) => Answer::Conflict,
            },
            Request::Read { index } => self.objects.get(index).cloned().map_or(Answer::Gone, Answer::Object),
            Request::Survey => Answer::Taken(self.objects.keys().copied().collect()),
        }
    }
}

#[derive(Clone, Default)]
struct Ledger {
    incarnation: String,
    blocks: BTreeMap<u32, bool>,
    leases: BTreeSet<u32>,
    resting: BTreeMap<u32, u64>,
}

struct View<'a> {
    ledger: &'a mut Ledger,
    pods: &'a mut BTreeSet<u32>,
    /// An ADD comes between the look at a block and its removal.
    hurry: bool,
    sabotage: Sabotage,
}

fn of_block(index: u32) -> std::ops::Range<u32> {
    index * BLOCK..(index + 1) * BLOCK
}

impl BlockLedger for View<'_> {
    type Error = Infallible;

    fn held(&mut self) -> Result<BTreeMap<u32, Held>, Infallible> {
        let count = |number: usize| u32::try_from(number).unwrap();
        let held = self.ledger.blocks.iter().map(|(index, draining)| {
            let leased = count(self.ledger.leases.range(of_block(*index)).count());
            let resting = count(self.ledger.resting.range(of_block(*index)).count());
            (*index, Held { leased, resting, draining: *draining })
        });
        Ok(held.collect())
    }

    fn enter(&mut self, index: u32) -> Result<(), Infallible> {
        self.ledger.blocks.insert(index, false);
        Ok(())
    }

    fn leave(&mut self, index: u32) -> Result<bool, Infallible> {
        let first = index * BLOCK;
        if self.hurry && !self.ledger.blocks[&index] && !self.ledger.resting.contains_key(&first) {
            self.ledger.leases.insert(first);
            self.pods.insert(first);
        }
        let held = self.held()?[&index];
        if !held.is_empty() && !self.sabotage.no_proof {
            return Ok(false);
        }
        self.ledger.blocks.remove(&index);
        Ok(true)
    }

    fn set_draining(&mut self, index: u32, draining: bool) -> Result<(), Infallible> {
        self.ledger.blocks.insert(index, draining);
        Ok(())
    }
}

struct Node {
    name: String,
    ledger: Ledger,
    boot: u64,
    /// Incarnations of this boot, as the daemon notes them in a folder that a boot empties.
    of_this_boot: BTreeSet<String>,
    /// Addresses of containers that run, whatever the ledger knows.
    pods: BTreeSet<u32>,
    steward: Option<Steward>,
    /// Counts starts of the agent and its requests: answers to another one are thrown away.
    asked: u64,
    deadline: u64,
    /// How much of the history the watch has delivered.
    seen: usize,
    removed: bool,
    /// How many pods it wants.
    wanted: u64,
}

struct Message {
    due: u64,
    node: usize,
    asked: u64,
    what: Travelling,
}

enum Travelling {
    Request(Request, Holder),
    Answer(Answer),
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
    incarnations: u64,
    silence: Silence,
    log: VecDeque<String>,
    seed: u64,
}

impl World {
    fn new(seed: u64, nodes: usize, subnet: &str, sabotage: Sabotage) -> Self {
        let spec = json!({"subnet": subnet, "blockSize": BLOCK, "minFree": 3, "maxFree": 12});
        let mut world = Self {
            random: Random(seed),
            sabotage,
            pool: Pool::parse("gold", &spec).unwrap(),
            api: Api::default(),
            nodes: Vec::new(),
            network: Vec::new(),
            tick: 0,
            faults: true,
            calm: false,
            incarnations: 0,
            silence: Silence::default(),
            log: VecDeque::new(),
            seed,
        };
        for number in 0..nodes {
            let ledger = world.fresh_ledger();
            world.nodes.push(Node {
                name: format!("n{number}"),
                ledger,
                boot: 0,
                of_this_boot: BTreeSet::new(),
                pods: BTreeSet::new(),
                steward: None,
                asked: 0,
                deadline: 0,
                seen: 0,
                removed: false,
                wanted: 5,
            });
        }
        world
    }

    fn fresh_ledger(&mut self) -> Ledger {
        self.incarnations += 1;
        Ledger { incarnation: format!("i{}", self.incarnations), ..Ledger::default() }
    }

    fn note(&mut self, text: String) {
        self.log.push_back(format!("{:6} {text}", self.tick));
        if self.log.len() > 60 {
            self.log.pop_front();
        }
    }

    fn holder(&self, node: usize) -> Holder {
        let node = &self.nodes[node];
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
        let of_this_boot = if self.sabotage.one_proof { BTreeSet::new() } else { node.of_this_boot.clone() };
        let mut me = me;
        if self.sabotage.one_proof {
            me.boot_id = format!("any{}", self.tick);
        }
        let mut steward = Steward::new(self.pool.clone(), me, of_this_boot, timing);
        let own = self.api.objects.iter().filter(|(_, claim)| claim.holder.node == node.name);
        steward.listed(own.map(|(index, claim)| (*index, claim.clone())).collect());
        node.seen = self.api.history.len();
        node.asked += 1;
        node.steward = Some(steward);
    }

    fn kill_agent(&mut self, number: usize) {
        self.nodes[number].steward = None;
        self.nodes[number].asked += 1;
    }

    fn boot(&mut self, number: usize) {
        self.kill_agent(number);
        let tick = self.tick;
        let node = &mut self.nodes[number];
        node.boot += 1;
        node.of_this_boot.clear();
        node.pods.clear();
        let leases = std::mem::take(&mut node.ledger.leases);
        node.ledger.resting.extend(leases.into_iter().map(|address| (address, tick + REST)));
    }

    fn send(&mut self, node: usize, request: Request) {
        let holder = self.holder(node);
        self.note(format!("n{node} asks {request:?}"));
        let (asked, copies) =
            (self.nodes[node].asked, if self.faults && self.random.chance(50) { 2 } else { 1 });
        for _ in 0..copies {
            if self.faults && self.random.chance(60) {
                continue;
            }
            // Mostly quick; sometimes much later than anybody waits.
            let delay = if self.faults && self.random.chance(80) {
                self.random.below(200)
            } else {
                self.random.below(3)
            };
            let what = Travelling::Request(request.clone(), holder.clone());
            self.network.push(Message { due: self.tick + 1 + delay, node, asked, what });
        }
    }

    fn deliver(&mut self) {
        let mut due = Vec::new();
        let tick = self.tick;
        let mut kept = Vec::new();
        for message in self.network.drain(..) {
            if message.due <= tick { due.push(message) } else { kept.push(message) }
        }
        self.network = kept;
        for Message { node, asked, what, .. } in due {
            match what {
                Travelling::Request(request, holder) => {
                    let answer = self.api.handle(&request, &holder, self.sabotage);
                    self.note(format!("api answers n{node} {request:?}: {}", short(&answer)));
                    self.check();
                    if self.faults && self.random.chance(80) {
                        continue;
                    }
                    let delay = if self.faults { self.random.below(4) } else { 0 };
                    let what = Travelling::Answer(answer);
                    self.network.push(Message { due: tick + 1 + delay, node, asked, what });
                }
                Travelling::Answer(answer) => {
                    if self.nodes[node].asked != asked || self.nodes[node].steward.is_none() {
                        continue;
                    }
                    // Killed with the answer in hand.
                    if self.faults && self.random.chance(20) {
                        self.note(format!("n{node} is killed"));
                        self.kill_agent(node);
                    } else {
                        self.answer(node, answer);
                    }
                }
            }
        }
    }

    fn answer(&mut self, number: usize, answer: Answer) {
        let (sabotage, now) = (self.sabotage, at(self.tick));
        let node = &mut self.nodes[number];
        node.asked += 1;
        let mut view = View { ledger: &mut node.ledger, pods: &mut node.pods, hurry: false, sabotage };
        node.steward.as_mut().unwrap().answered(&mut view, answer, now).unwrap();
        self.check();
    }

    fn step_agent(&mut self, number: usize) {
        let hurry = self.faults && self.random.chance(200);
        let lag = self.faults && self.random.chance(700);
        let (sabotage, now, tick) = (self.sabotage, at(self.tick), self.tick);
        let scarce = self.api.objects.len() * 10 >= usize::try_from(self.pool.blocks()).unwrap() * 9;
        let node = &mut self.nodes[number];
        let Some(steward) = &mut node.steward else { return };
        while !lag && node.seen < self.api.history.len() {
            let event = &self.api.history[node.seen];
            node.seen += 1;
            match (&event.claim, event.node == node.name) {
                (Some(claim), true) => steward.changed(event.index, claim.clone()),
                (None, true) => steward.deleted(event.index),
                _ => {}
            }
        }
        steward.set_scarce(scarce);
        let mut view = View { ledger: &mut node.ledger, pods: &mut node.pods, hurry, sabotage };
        match steward.next(&mut view, now).unwrap() {
            Next::Ask(request) => {
                node.asked += 1;
                node.deadline = tick + PATIENCE;
                self.send(number, request);
            }
            Next::Wait(_) => {
                if tick >= node.deadline && node.deadline > 0 {
                    node.deadline = 0;
                    self.answer(number, Answer::None);
                }
            }
        }
        self.check();
    }

    fn pods(&mut self, number: usize) {
        let tick = self.tick;
        let change = self.random.chance(10);
        let wanted = self.random.below(30);
        let (add, del) = (self.random.chance(300), self.random.chance(200));
        let node = &mut self.nodes[number];
        node.ledger.resting.retain(|_, until| *until > tick);
        if change {
            node.wanted = wanted;
        }
        let many = u64::try_from(node.pods.len()).unwrap();
        if add && many < node.wanted {
            let free = node
                .ledger
                .blocks
                .iter()
                .filter(|(_, draining)| !**draining)
                .flat_map(|(index, _)| of_block(*index));
            let mut free = free.filter(|address| {
                !node.ledger.leases.contains(address) && !node.ledger.resting.contains_key(address)
            });
            if let Some(address) = free.next() {
                node.ledger.leases.insert(address);
                node.pods.insert(address);
            }
        } else if del && many > node.wanted {
            let address = node.pods.pop_last().unwrap();
            // A ledger that came after the lease releases nothing.
            if node.ledger.leases.remove(&address) {
                node.ledger.resting.insert(address, tick + REST);
            }
        }
        self.check();
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
            16..17 if self.nodes[number].steward.is_some() => {
                self.note(format!("n{number} loses its ledger"));
                self.kill_agent(number);
                self.nodes[number].ledger = self.fresh_ledger();
            }
            17..18
                if self.nodes.iter().filter(|node| !node.removed).count() > 3 && self.random.chance(300) =>
            {
                self.note(format!("n{number} is gone"));
                self.boot(number);
                self.nodes[number].removed = true;
            }
            _ => {}
        }
    }

    /// What a living agent tells of itself.
    fn beat(&mut self) {
        if self.tick.is_multiple_of(BEAT) {
            for node in self.nodes.iter().filter(|node| node.steward.is_some()) {
                let own = |(_, claim): &(&u32, &Claim)| {
                    claim.holder.node == node.name && claim.holder.incarnation == node.ledger.incarnation
                };
                let claims: Vec<_> = self
                    .api
                    .objects
                    .iter()
                    .filter(own)
                    .map(|(index, claim)| (*index, claim.clone()))
                    .collect();
                for (index, claim) in claims {
                    self.api.write(index, claim.uid, claim.holder);
                }
            }
        }
    }

    /// The reporter: frees what nodes held that are gone, by two proofs.
    fn free_what_is_left(&mut self) {
        if self.tick % BEAT != 30 {
            return;
        }
        let objects: Vec<_> = self
            .api
            .objects
            .iter()
            .map(|(index, claim)| (*index, index.to_string(), claim.clone()))
            .collect();
        let now = at(self.tick);
        self.silence
            .heard(objects.iter().map(|(_, name, claim)| (name.as_str(), claim.version.as_str())), now);
        for (index, name, claim) in objects {
            let exists = self.nodes.iter().any(|node| node.name == claim.holder.node && !node.removed);
            if !exists && self.silence.of(&name, now) >= at(SILENCE) {
                let holder = claim.holder.clone();
                let request = Request::Delete { index, uid: claim.uid, version: claim.version };
                self.api.handle(&request, &holder, self.sabotage);
            }
        }
    }

    fn tick(&mut self) {
        self.tick += 1;
        self.deliver();
        self.beat();
        self.free_what_is_left();
        for number in 0..self.nodes.len() {
            if self.nodes[number].removed {
                continue;
            }
            if self.faults {
                self.misfortune(number);
            }
            // The daemon starts with the node: nothing is leased in a boot before it has noted its ledger.
            if self.nodes[number].steward.is_none() {
                let first = self.nodes[number].of_this_boot.is_empty();
                if !self.nodes[number].removed && (first || !self.faults || self.random.chance(50)) {
                    self.start_agent(number);
                }
            }
            if !self.calm {
                self.pods(number);
            }
            self.step_agent(number);
        }
    }

    /// What must hold at every moment.
    fn check(&self) {
        let mut ledgers: BTreeMap<u32, &str> = BTreeMap::new();
        let mut addresses: BTreeMap<u32, &str> = BTreeMap::new();
        for node in self.nodes.iter().filter(|node| !node.removed) {
            for index in node.ledger.blocks.keys() {
                if let Some(other) = ledgers.insert(*index, &node.name) {
                    self.fail(&format!("block {index} is in the ledgers of {other} and {}", node.name));
                }
            }
            for address in &node.pods {
                if let Some(other) = addresses.insert(*address, &node.name) {
                    self.fail(&format!("address {address} is used on {other} and {}", node.name));
                }
            }
        }
    }

    fn fail(&self, what: &str) {
        let log: Vec<&str> = self.log.iter().map(String::as_str).collect();
        panic!("SEED={} tick {}: {what}\n{}", self.seed, self.tick, log.join("\n"));
    }

    /// Faults end; in the end every block is in the ledger of the node that holds it, or free.
    fn settle(&mut self) {
        self.faults = false;
        for number in 0..self.nodes.len() {
            if !self.nodes[number].removed {
                self.boot(number);
            }
        }
        for tick in 0..QUIET_TICKS {
            self.calm = tick > QUIET_TICKS / 2;
            self.tick();
        }
        for (index, claim) in &self.api.objects {
            let holds = self.nodes.iter().any(|node| {
                !node.removed
                    && node.name == claim.holder.node
                    && node.ledger.incarnation == claim.holder.incarnation
                    && node.ledger.blocks.contains_key(index)
            });
            if !holds {
                self.fail(&format!("block {index} is leaked: {:?} has it in no ledger", claim.holder));
            }
        }
        for node in self.nodes.iter().filter(|node| !node.removed) {
            for index in node.ledger.blocks.keys() {
                if self.api.objects.get(index).is_none_or(|claim| claim.holder.node != node.name) {
                    self.fail(&format!("{} uses block {index}, which is not its own", node.name));
                }
            }
        }
    }

    fn run(mut self) -> Self {
        for _ in 0..TICKS {
            self.tick();
        }
        self.settle();
        self
    }
}

fn short(answer: &Answer) -> String {
    match answer {
        Answer::Object(claim) => format!("{} {} {}", claim.uid, claim.version, claim.holder.node),
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
fn no_address_is_in_two_ledgers_and_no_block_is_leaked() {
    for seed in seeds(8) {
        println!("SEED={seed}");
        // Plenty of blocks, as many as are wanted, too few.
        for (nodes, subnet) in [(6, "10.0.0.0/22"), (8, "10.0.0.0/24"), (8, "10.0.0.0/25")] {
            let world = World::new(seed, nodes, subnet, Sabotage::default()).run();
            assert!(world.api.requests > 100, "SEED={seed}: something has happened");
        }
    }
}

fn is_noticed(sabotage: Sabotage) -> bool {
    (1..=30)
        .any(|seed| std::panic::catch_unwind(|| World::new(seed, 8, "10.0.0.0/25", sabotage).run()).is_err())
}

#[test]
fn the_simulation_notices_what_the_rules_are_for() {
    let none = Sabotage::default();
    assert!(is_noticed(Sabotage { no_preconditions: true, ..none }), "deletions without preconditions");
    assert!(is_noticed(Sabotage { no_proof: true, ..none }), "a block that leaves with leases");
    assert!(
        is_noticed(Sabotage { one_proof: true, ..none }),
        "a lost ledger's blocks freed while its pods live"
    );
}
