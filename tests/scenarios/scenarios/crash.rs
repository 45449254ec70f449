//! A plugin killed before any of its system calls that change something leaves what one call of a runtime repairs.
//!
//! The points are found, not chosen: `lab-guest crash` counts, in a run of the released program, every system call that
//! changes something outside of the process, those of SQLite included, and then the program dies before each of them in
//! turn. One run hits the first and the last, and between them every fifth (of the first ADD of a node every tenth), and the
//! next numbers the others; of the ways to repair what is left each point has one, and another in each run, after a number
//! that is printed. `ZEROBRIDGE_CRASH` is such a number, or `all` to hit every point, or `every` to try each way at each
//! point, or `calls` to die before every system call whatsoever.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use zerobridge_lab::{
    CniCall, Count, CrashPlan, CrashPoint, CrashReport, Guest, LEDGER, Lab, Link, Program, Snapshot, VfPlace,
    program, rebinding,
};
use zerobridge_proto::PciAddress;

use crate::expect;
use crate::group::{Group, Outcome, say};
use crate::hand::{config, make_sandbox, remove_sandbox};
use crate::lab::Station;

/// Chooses the points and the ways to repair.
const VARIABLE: &str = "ZEROBRIDGE_CRASH";
/// Points of one call of the guest's program: between two calls something is to be seen on the screen.
const AT_ONCE: usize = 16;
/// How long these may take on a crowded machine.
const LIMIT: Duration = Duration::from_secs(300);
/// A run dies before every so many points, and another run before others.
const STRIDE: usize = 5;
/// To make a ledger takes many calls, nearly all of them SQLite's.
const STRIDE_OF_A_NEW_NODE: usize = 10;
/// Makes a ledger forget which addresses were leased, and which were found to be another's.
const FORGET: &str = "DELETE FROM leases; DELETE FROM set_aside; DELETE FROM chunks; DELETE FROM cursors";
/// What is seen of a ledger that is not there or not made to its end.
const NO_LEDGER: &str = "no ledger";
/// The sandbox of the attachment that is interrupted, and one for an attachment that takes the VF over.
const SANDBOX: &str = "crash";
const OTHER: &str = "crash-other";
/// The host in 10.9.0.0/24 that another has.
const TAKEN: u8 = 2;

pub(crate) const GROUP: Group = Group {
    name: "crash",
    vm: "pods",
    scenarios: &[
        ("add_of_a_netdev_killed_before_every_change_is_undone", |lab| {
            killed_before_every_change(lab, "ADD", Kind::Netdev)
        }),
        ("del_of_a_netdev_killed_before_every_change_is_finished", |lab| {
            killed_before_every_change(lab, "DEL", Kind::Netdev)
        }),
        ("first_add_of_a_node_killed_before_every_change_is_undone", |lab| {
            killed_before_every_change(lab, "ADD", Kind::NetdevOfANewNode)
        }),
        ("add_that_replaces_an_address_killed_before_every_change_is_undone", |lab| {
            killed_before_every_change(lab, "ADD", Kind::NetdevBesideAForeignHost)
        }),
        ("add_of_a_vfio_function_killed_before_every_change_is_undone", |lab| {
            killed_before_every_change(lab, "ADD", Kind::Vfio)
        }),
        ("del_of_a_vfio_function_killed_before_every_change_is_finished", |lab| {
            killed_before_every_change(lab, "DEL", Kind::Vfio)
        }),
    ],
};

/// What the VF is for its pod.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A network interface.
    Netdev,
    /// The same, and the node has no ledger yet.
    NetdevOfANewNode,
    /// The same on a wire where another host has the first address of the pool, which ADD finds out and takes the next.
    NetdevBesideAForeignHost,
    /// A PCI function for a program of its own.
    Vfio,
    /// A network interface with a software RDMA device, where RDMA devices are in one namespace each.
    SoftRdma,
}

/// How much of all that is possible one run does.
#[derive(Clone, Copy)]
enum Extent {
    /// Some of the points, one way to repair at each, after this number.
    Rotating(usize),
    /// Every point, one way to repair at each, beginning with this one.
    All(usize),
    /// Every point and every way.
    Every,
    /// Every system call, one way each.
    Calls,
}

impl Extent {
    fn from_environment() -> Result<Self, Box<dyn Error>> {
        let by_clock = || -> Result<usize, Box<dyn Error>> {
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
            Ok(usize::try_from(now % 1000)?)
        };
        match std::env::var(VARIABLE).ok().as_deref() {
            Some("all") => by_clock().map(Self::All),
            Some("every") => Ok(Self::Every),
            Some("calls") => Ok(Self::Calls),
            Some(number) => number
                .parse()
                .map(Self::Rotating)
                .map_err(|_| format!("{VARIABLE} is {number}; write a number, all, every or calls").into()),
            None => by_clock().map(Self::Rotating),
        }
    }

    fn count(self) -> Count {
        if matches!(self, Self::Calls) { Count::All } else { Count::Changes }
    }

    /// Where to die and what comes then, for a run of `calls` that count, of which a rotation takes every `stride`-th.
    fn points(self, calls: usize, ways: usize, stride: usize) -> Vec<CrashPoint> {
        let point = |call: usize, repair| CrashPoint { kill_at: u64::try_from(call).ok(), repair };
        let all = 1..=calls;
        match self {
            // Before the first change everything that DEL ends is there, and before the last one everything that ADD makes.
            Self::Rotating(first) => all
                .filter(|call| (call + first) % stride == 0 || [1, calls].contains(call))
                .map(|call| point(call, (call / stride + first) % ways))
                .collect(),
            Self::All(first) => all.map(|call| point(call, (call + first) % ways)).collect(),
            Self::Calls => all.map(|call| point(call, call % ways)).collect(),
            Self::Every => all.flat_map(|call| (0..ways).map(move |way| point(call, way))).collect(),
        }
    }
}

/// The programs around one VF.
struct Stage {
    add: CniCall,
    /// Ways to repair, by name.
    ways: Vec<(&'static str, Vec<Program>)>,
}

impl Stage {
    fn new(device: PciAddress, kind: Kind) -> Self {
        let mut config = config(device);
        // Every cycle takes an address, and addresses rest.
        config["ipam"]["ranges"][0][0]["subnet"] = "10.64.0.0/12".into();
        if kind == Kind::NetdevBesideAForeignHost {
            config["ipam"]["ranges"][0][0]["subnet"] = "10.9.0.0/24".into();
            config["ipam"]["conflictProbe"] =
                json!({"probes": 2, "intervalMilliseconds": 50, "waitMilliseconds": 50});
        }
        if kind == Kind::SoftRdma {
            config["rdma"] = "soft".into();
            config["rdmaDeviceName"] = "rdma0".into();
        }
        if kind == Kind::Vfio {
            config["mtu"].take();
            config.as_object_mut().map(|keys| keys.remove("mtu"));
        }
        let add = CniCall::new("ADD", SANDBOX, &config);
        let del = |call: &CniCall| CniCall { command: "DEL", ..call.clone() }.program();
        let mut gc = CniCall { command: "GC", ..add.clone() };
        gc.config["cni.dev/valid-attachments"] = json!([]);
        let gc = gc.program();
        let other = CniCall::new("ADD", OTHER, &config);
        // A new sandbox under the old name is another namespace.
        let [gone, made] = ["del", "add"].map(|verb| program(&["ip", "netns", verb, SANDBOX]));
        let add_again = add.program();
        let ways = vec![
            ("DEL", vec![del(&add)]),
            ("GC", vec![gc.clone()]),
            ("ADD again and DEL", vec![add_again, del(&add)]),
            ("DEL after the sandbox is gone", vec![gone.clone(), del(&add), made.clone()]),
            ("GC after the sandbox is gone", vec![gone.clone(), gc, made.clone()]),
            (
                "ADD to another sandbox after the first is gone, and DEL",
                vec![gone, other.program(), del(&other), made],
            ),
        ];
        Self { add, ways }
    }

    fn plan(&self, command: &str, kind: Kind, count: Count) -> CrashPlan {
        let del = CniCall { command: "DEL", ..self.add.clone() };
        let (prepare, victim) = match (command, kind) {
            ("ADD", Kind::NetdevOfANewNode) => {
                (vec![program(&["sh", "-c", "rm -f /var/lib/zerobridge/*"])], self.add.program())
            }
            // Each time the first address of the pool is leased first, and replaced.
            ("ADD", Kind::NetdevBesideAForeignHost) => {
                (vec![program(&["sqlite3", LEDGER, FORGET])], self.add.program())
            }
            ("ADD", _) => (vec![], self.add.program()),
            _ => (vec![self.add.program()], del.program()),
        };
        // A ledger that has not been made to its end promises nothing. Who closes one last after writing folds its log
        // back; only reading leaves what was killed as it is, for the repair to cope with.
        let counts = format!(
            "[ -s {LEDGER} ] && sqlite3 -readonly {LEDGER} 'SELECT (SELECT count(*) FROM attachments),
                (SELECT count(*) FROM leases WHERE released_at IS NULL)' 2>&1 || echo '{NO_LEDGER}'"
        );
        // A device that was in a namespace that is gone takes a moment to end.
        let rdma = match kind {
            Kind::SoftRdma => {
                "for _ in 1 2 3 4 5 6 7 8 9 10; do
                [ -n \"$(rdma dev)\" ] || break; sleep 0.1; done; rdma dev; ls /var/run/cdi 2>/dev/null || true"
            }
            _ => "true",
        };
        CrashPlan {
            prepare,
            victim,
            count,
            points: Vec::new(),
            repairs: self.ways.iter().map(|(_, programs)| programs.clone()).collect(),
            look: vec![
                program(&["ip", "-j", "-d", "link"]),
                program(&["sh", "-c", &counts]),
                program(&["sh", "-c", rdma]),
            ],
            settle: vec![program(&["udevadm", "settle"])],
        }
    }
}

/// What the guest saw, read once per state.
struct Seen {
    /// What is not as before, a sentence each.
    settings: Vec<String>,
    /// Attachments and leases in the ledger, as `1|1`.
    promises: String,
}

impl Seen {
    fn is_clean(&self) -> bool {
        self.settings.is_empty() && self.promises == "0|0"
    }
}

/// Compares every state with how the VFs were before.
fn seen(report: &CrashReport, places: &[VfPlace], before: &Snapshot) -> Result<Vec<Seen>, Box<dyn Error>> {
    let read = |state: &Vec<String>| {
        let [links, promises, rdma] = state.as_slice() else {
            return Err("three programs were to look".into());
        };
        let links: Vec<Link> = serde_json::from_str(links)?;
        let mut settings = Snapshot::of(places, &links).differences(before);
        settings.extend(rdma.lines().map(|line| format!("left on the host: {line}")));
        Ok(Seen { settings, promises: promises.trim().to_owned() })
    };
    report.states.iter().map(read).collect()
}

/// What the kills of one scenario did: a scenario in which none hit, or none left anything behind, proves nothing.
#[derive(Default)]
struct Tally {
    points: usize,
    killed: usize,
    with_promises: usize,
    with_settings: usize,
    repaired: BTreeMap<&'static str, usize>,
}

impl Tally {
    fn say(&self) {
        let ways: Vec<String> =
            self.repaired.iter().map(|(way, count)| format!("{count} by {way}")).collect();
        say(&format!(
            "  killed at {} of {} points; {} left promises, {} left a VF changed; all repaired: {}",
            self.killed,
            self.points,
            self.with_promises,
            self.with_settings,
            ways.join(", ")
        ));
    }

    fn judge(&self) -> Outcome {
        // A run may take a few calls less than the one that was counted.
        expect::that(self.killed * 10 >= self.points * 9, || {
            format!("only {} of {} runs were killed", self.killed, self.points)
        })?;
        expect::that(self.with_promises > 0 && self.with_settings > 0, || {
            "no kill left anything to repair".into()
        })
    }
}

pub(crate) fn killed_before_every_change(lab: &mut Lab, command: &'static str, kind: Kind) -> Outcome {
    let extent = Extent::from_environment()?;
    let pristine = lab.pristine();
    let guest = lab.install_plugins()?;
    let device = match (command, kind) {
        ("ADD", Kind::Netdev | Kind::NetdevOfANewNode | Kind::NetdevBesideAForeignHost | Kind::SoftRdma) => {
            guest.vf(1, 0)?
        }
        // One that chose its address itself: there is more to give back than with one whose address the PF imposed.
        (_, Kind::Netdev | Kind::NetdevOfANewNode | Kind::NetdevBesideAForeignHost | Kind::SoftRdma) => {
            guest.vf(2, 1)?
        }
        ("ADD", Kind::Vfio) => guest.vf(1, 2)?,
        (_, Kind::Vfio) => guest.vf(2, 2)?,
    };
    if kind == Kind::Vfio {
        guest.load_vfio()?;
        guest.shell(&rebinding(device, "vfio-pci"))?;
    }
    let foreign = match kind {
        Kind::NetdevBesideAForeignHost => Some(Station::add(guest, "foreign", 2, 0, 100, TAKEN)?),
        Kind::Netdev | Kind::NetdevOfANewNode | Kind::Vfio | Kind::SoftRdma => None,
    };
    let before = guest.snapshot()?;
    make_sandbox(guest, SANDBOX)?;
    make_sandbox(guest, OTHER)?;
    // The first call of all makes the ledger; the ones that are killed find it.
    let stage = Stage::new(device, kind);
    let first = guest.cni_success(&stage.add)?;
    if foreign.is_some() {
        expect::equal("the address of a pod", &first["ips"][0]["address"], &json!("10.9.0.3/24"))?;
    }
    guest.cni_success(&CniCall { command: "DEL", ..stage.add.clone() })?;

    run(lab, &stage, command, kind, extent, &before)?;

    let guest = &mut lab.vm.guest;
    remove_sandbox(guest, SANDBOX)?;
    remove_sandbox(guest, OTHER)?;
    expect::as_before(guest, &before)?;
    if kind == Kind::Vfio {
        guest.shell(&rebinding(device, "igbvf"))?;
    }
    foreign.map_or(Ok(()), |station| station.remove(guest))?;
    expect::as_before(guest, &pristine)
}

fn run(
    lab: &mut Lab,
    stage: &Stage,
    command: &str,
    kind: Kind,
    extent: Extent,
    before: &Snapshot,
) -> Outcome {
    let places = lab.vm.guest.vf_places()?;
    let mut plan = stage.plan(command, kind, extent.count());
    // One run in some twenty empties the ledger's log, which takes calls of its own; never two in a row.
    plan.points = vec![CrashPoint { kill_at: None, repair: 0 }; 2];
    let counted = crash(lab, &plan)?;
    expect::that(counted.failure.is_none(), || format!("{command} without a kill: {:?}", counted.failure))?;
    let shorter = counted.runs.into_iter().map(|run| run.calls).min_by_key(Vec::len);
    let calls = expect::some(shorter, "no run was counted")?;
    let stride = if kind == Kind::NetdevOfANewNode { STRIDE_OF_A_NEW_NODE } else { STRIDE };
    let points = extent.points(calls.len(), stage.ways.len(), stride);
    say(&format!("  {command}: {}", describe(&calls)));
    match extent {
        Extent::Rotating(first) => {
            say(&format!("  {} points, repairs from {VARIABLE}={first}", points.len()));
        }
        _ => say(&format!("  {} points", points.len())),
    }

    let mut tally = Tally { points: points.len(), ..Tally::default() };
    for some in points.chunks(AT_ONCE) {
        plan.points = some.to_vec();
        let report = crash(lab, &plan)?;
        let seen = seen(&report, &places, before)?;
        for (point, run) in some.iter().zip(&report.runs) {
            let (left, repaired) = (&seen[run.left], &seen[run.repaired]);
            let way = stage.ways[point.repair].0;
            let at = point.kill_at.unwrap_or_default();
            let call = run.calls.last().map_or("its end", String::as_str);
            let what = format!("{command} killed before number {at}, {call}, repaired by {way}");
            // Of an attachment and its address either both are promised or neither is.
            let whole = matches!(left.promises.as_str(), "0|0" | "1|1") || left.promises.ends_with(NO_LEDGER);
            expect::that(whole, || format!("{what}: the ledger had {} before", left.promises))?;
            expect::that(repaired.is_clean(), || {
                let settings = repaired.settings.join("\n  ");
                format!("{what}: {} promises are left\n  {settings}", repaired.promises)
            })?;
            if run.killed {
                tally.killed += 1;
                tally.with_promises += usize::from(left.promises == "1|1");
                tally.with_settings += usize::from(!left.settings.is_empty());
                *tally.repaired.entry(way).or_default() += 1;
            }
        }
        if let Some(failure) = &report.failure {
            let at = some.get(report.runs.len().saturating_sub(1));
            let way = at.map_or("?", |point| stage.ways[point.repair].0);
            let last = report.runs.last().and_then(|run| run.calls.last());
            return Err(
                format!("{command} killed before {last:?}, to be repaired by {way}: {failure}").into()
            );
        }
    }
    tally.say();
    tally.judge()
}

/// Has the guest carry out a plan.
fn crash(lab: &mut Lab, plan: &CrashPlan) -> Result<CrashReport, Box<dyn Error>> {
    let argv = vec![lab.guest_program(), "crash".into()];
    let program = Program { argv, stdin: serde_json::to_string(plan)?, ..Program::default() };
    let guest: &mut Guest = &mut lab.vm.guest;
    let output = guest.output(program, LIMIT)?;
    expect::that(output.code == 0, || format!("the tracer failed: {}", output.stderr))?;
    Ok(serde_json::from_str(&output.stdout)?)
}

/// `12 pwrite64, 8 sendto, …` for calls that are described one by one.
fn describe(calls: &[String]) -> String {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for call in calls {
        *kinds.entry(call.split(' ').next().unwrap_or_default()).or_default() += 1;
    }
    let kinds: Vec<String> = kinds.iter().map(|(name, count)| format!("{count} {name}")).collect();
    format!("{} system calls: {}", calls.len(), kinds.join(", "))
}
