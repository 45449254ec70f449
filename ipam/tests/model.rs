//! The allocator beside a model of it that a person can check by reading: random pools, requests, releases, crashes,
//! clocks and boots.
//!
//! The model is one map from address to what the ledger should say of it. Before each lease it foretells the answer by
//! going through the rules of docs/ipam.md one by one over all addresses, without spans, chunks and indexes.
#![expect(clippy::unwrap_used, reason = "a test program, of which clippy takes the helpers for none")]

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;

use proptest::prelude::*;
use serde_json::{Value, json};
use zerobridge_ipam::{IpamError, LeaseRequest, PoolConfig, RangeSet, lease, release};
use zerobridge_ledger::{Ledger, Owner, Pod, UnixSeconds};

const NETWORK: &str = "blue";

/// A container: of one pod in eight, where pods 0 and 6, and 1 and 7, share a name; every fourth names no pod.
type Container = u8;

fn owner(container: Container) -> Owner {
    Owner { container_id: format!("c{container}"), ifname: "eth0".to_owned() }
}

fn uid(container: Container) -> Option<u8> {
    (container % 4 != 3).then_some(container / 4 % 8)
}

fn name(container: Container) -> Option<u8> {
    uid(container).map(|uid| uid % 6)
}

fn pod(container: Container) -> Option<Pod> {
    Some(Pod {
        namespace: "team".to_owned(),
        name: format!("p{}", name(container)?),
        uid: Some(format!("u{}", uid(container)?)),
    })
}

/// What the ledger should say of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    container: Container,
    boot: u8,
    created: i64,
    released: Option<i64>,
}

#[derive(Clone, Debug)]
struct Model {
    rows: BTreeMap<IpAddr, Row>,
    cursors: BTreeMap<usize, IpAddr>,
    now: i64,
    boot: u8,
}

/// What a set should answer.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    /// The owner has it.
    Held(IpAddr),
    /// It is asked for, or the pod had it before.
    This(IpAddr),
    /// The next in turn: any of these.
    Next(Vec<IpAddr>),
    /// None.
    Refused,
}

/// Every address that a set gives out, in the order of its ranges.
fn addresses(set: &RangeSet) -> Vec<IpAddr> {
    let all = set.ranges().iter().flat_map(|range| range.subnet().hosts_and_ends());
    let mut seen = Vec::new();
    for address in all.filter(|address| set.gives_out(*address)) {
        if !seen.contains(&address) {
            seen.push(address);
        }
    }
    seen
}

/// All addresses of a small prefix.
trait Ends {
    fn hosts_and_ends(&self) -> Vec<IpAddr>;
}

impl Ends for ipnet::IpNet {
    fn hosts_and_ends(&self) -> Vec<IpAddr> {
        let mut all = vec![self.network()];
        while all.last() != Some(&self.broadcast()) {
            all.push(match all.last().unwrap() {
                IpAddr::V4(last) => std::net::Ipv4Addr::from_bits(last.to_bits() + 1).into(),
                IpAddr::V6(last) => std::net::Ipv6Addr::from_bits(last.to_bits() + 1).into(),
            });
        }
        all
    }
}

impl Model {
    fn end_rests(&mut self, rest: i64) {
        let now = self.now;
        for row in self.rows.values_mut() {
            row.released = row.released.map(|released| released.min(now));
        }
        self.rows.retain(|_, row| row.released.is_none_or(|released| released > now - rest));
    }

    /// The rules, in their order. `before` is the model before rests ended.
    fn foretell(
        &self,
        before: &Self,
        slot: usize,
        set: &RangeSet,
        container: Container,
        asked: Option<IpAddr>,
    ) -> Answer {
        let all = addresses(set);
        let row = |address: &IpAddr| self.rows.get(address);
        let lives = |row: &Row| row.released.is_none() && row.boot == self.boot;
        let is_same_pod = |row: &Row| uid(row.container).is_some() && uid(row.container) == uid(container);
        let to_take_over = |row: &Row| lives(row) && is_same_pod(row) && row.container != container;

        let held = all.iter().find(|address| {
            row(address).is_some_and(|row| row.released.is_none() && row.container == container)
        });
        if let Some(held) = held {
            return if asked.is_none_or(|asked| asked == *held) {
                Answer::Held(*held)
            } else {
                Answer::Refused
            };
        }
        if let Some(asked) = asked {
            let free = row(&asked).is_none_or(|row| !lives(row) || to_take_over(row));
            return if free { Answer::This(asked) } else { Answer::Refused };
        }
        let mut had: Vec<(&IpAddr, &Row)> = before
            .rows
            .iter()
            .filter(|(address, row)| {
                all.contains(address)
                    && name(container).is_some()
                    && name(row.container) == name(container)
                    && !lives(row)
            })
            .collect();
        had.sort_by_key(|(address, row)| {
            (
                !is_same_pod(row),
                row.released.is_none(),
                Reverse(row.released.map(|at| (at, row.created))),
                **address,
            )
        });
        if let Some((address, _)) = had.first() {
            return Answer::This(**address);
        }
        let start =
            self.cursors.get(&slot).and_then(|cursor| all.iter().position(|address| address == cursor));
        let start = start.map_or(0, |place| place + 1);
        let free = all[start..].iter().chain(&all[..start]).find(|address| row(address).is_none());
        if let Some(free) = free {
            return Answer::Next(vec![*free]);
        }
        let resting = all.iter().filter_map(|address| Some((row(address)?.released?, *address))).min();
        if let Some((_, resting)) = resting {
            return Answer::Next(vec![resting]);
        }
        let bygone: Vec<IpAddr> = all
            .iter()
            .copied()
            .filter(|address| row(address).is_some_and(|row| row.boot != self.boot))
            .collect();
        if !bygone.is_empty() {
            return Answer::Next(bygone);
        }
        match all.iter().filter(|address| row(address).is_some_and(to_take_over)).min() {
            Some(address) => Answer::This(*address),
            None => Answer::Refused,
        }
    }

    fn release(&mut self, container: Container) -> Vec<IpAddr> {
        let mut released = Vec::new();
        for (address, row) in &mut self.rows {
            if row.container == container && row.released.is_none() {
                row.released = Some(self.now);
                released.push(*address);
            }
        }
        released
    }
}

/// What the ledger says.
fn rows(ledger: &Ledger) -> BTreeMap<IpAddr, (String, String, i64, Option<i64>)> {
    let resting =
        ledger.resting_in(NETWORK).unwrap().into_iter().map(|it| (it.lease, Some(it.released_at.0)));
    let leases = ledger.leases_in(NETWORK).unwrap().into_iter().map(|lease| (lease, None));
    leases
        .chain(resting)
        .map(|(lease, released)| {
            (lease.address, (lease.owner.container_id, lease.boot_id, lease.created_at.0, released))
        })
        .collect()
}

fn boot(number: u8) -> String {
    format!("b{number}")
}

#[derive(Clone, Debug)]
enum Step {
    /// `asked` picks one address of the pool or, by chance, one outside. Not `committed` is a crash before the commit.
    Lease {
        container: Container,
        asked: Option<prop::sample::Index>,
        committed: bool,
    },
    Release {
        container: Container,
        committed: bool,
    },
    Clock(i64),
    Boot,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let container = 0_u8..32;
    let asked = prop::option::weighted(0.15, any::<prop::sample::Index>());
    let committed = prop::bool::weighted(0.9);
    let step = prop_oneof![
        8 => (container.clone(), asked, committed)
            .prop_map(|(container, asked, committed)| Step::Lease { container, asked, committed }),
        5 => (container, committed).prop_map(|(container, committed)| Step::Release { container, committed }),
        2 => prop_oneof![0_i64..70, -500_i64..500, -4_000_000_000_i64..4_000_000_000].prop_map(Step::Clock),
        1 => Just(Step::Boot),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..80)
}

/// Pools of at most 30 addresses: more rests could end than one lease ends.
fn pools() -> impl Strategy<Value = PoolConfig> {
    let v4 = prop::collection::vec(29_u8..=32, 1..3);
    let v6 = prop::option::of(125_u8..=128);
    let excluded = prop::collection::btree_set((0_u8..2, 0_u8..8), 0..5);
    let rest = prop_oneof![Just(0_u32), Just(60), Just(3_600)];
    (v4, v6, any::<bool>(), excluded, rest).prop_filter_map(
        "nothing left to give out",
        |(v4, v6, apart, excluded, rest)| {
            let ranges: Vec<Value> = v4
                .iter()
                .enumerate()
                .map(|(number, prefix)| json!({"subnet": format!("10.0.{number}.0/{prefix}")}))
                .collect();
            let mut sets: Vec<Value> = match apart {
                true => ranges.into_iter().map(|range| json!([range])).collect(),
                false => vec![Value::Array(ranges)],
            };
            sets.extend(v6.map(|prefix| json!([{"subnet": format!("fd00::/{prefix}")}])));
            let exclude: Vec<String> =
                excluded.iter().map(|(net, low)| format!("10.0.{net}.{low}")).collect();
            // What lies in none of the subnets is refused, and so is a pool with nothing left.
            let parse = |exclude: &[String]| {
                PoolConfig::parse(&json!({"ranges": sets, "exclude": exclude, "restSeconds": rest}), None)
                    .ok()
            };
            let fitting: Vec<String> =
                exclude.into_iter().filter(|one| parse(std::slice::from_ref(one)).is_some()).collect();
            parse(&fitting)
        },
    )
}

proptest! {
    // Each case writes and syncs some dozens of transactions.
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn the_allocator_does_what_the_model_foretells(pool in pools(), steps in steps()) {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(directory.path()).unwrap();
        let mut model = Model { rows: BTreeMap::new(), cursors: BTreeMap::new(), now: 1_000_000, boot: 0 };
        let all: Vec<IpAddr> = pool.sets().iter().flat_map(addresses).collect();
        for step in steps {
            match step {
                Step::Clock(by) => model.now += by,
                Step::Boot => model.boot += 1,
                Step::Reopen => {
                    drop(ledger);
                    ledger = Ledger::open(directory.path()).unwrap();
                }
                Step::Release { container, committed } => {
                    let before = model.clone();
                    let mut transaction = ledger.begin().unwrap();
                    let released = release(&mut transaction, &owner(container), NETWORK, UnixSeconds(model.now)).unwrap();
                    prop_assert_eq!(released, model.release(container));
                    if committed { transaction.commit().unwrap() } else { model = before }
                }
                Step::Lease { container, asked, committed } => {
                    let outside: IpAddr = "10.0.0.0".parse().unwrap();
                    let asked = asked.map(|index| all.iter().chain([&outside]).nth(index.index(all.len() + 1)).copied().unwrap());
                    let outside = asked.is_some_and(|asked| !all.contains(&asked));
                    let before = model.clone();
                    model.end_rests(pool.rest_seconds.into());
                    let answers: Vec<Answer> = pool.sets().iter().enumerate().map(|(slot, set)| {
                        let asked = asked.filter(|asked| set.gives_out(*asked));
                        model.foretell(&before, slot, set, container, asked)
                    }).collect();
                    let request = LeaseRequest {
                        owner: owner(container),
                        pod: pod(container),
                        device: None,
                        mac: None,
                        vlan: None,
                        rdma: None,
                        requested: asked.into_iter().collect(),
                        now: UnixSeconds(model.now),
                        boot_id: boot(model.boot),
                    };
                    let mut transaction = ledger.begin().unwrap();
                    let leased = lease(&mut transaction, NETWORK, &pool, &request);
                    match leased {
                        Err(error) => {
                            prop_assert!(!matches!(error, IpamError::Ledger(_)), "{}", error);
                            prop_assert!(outside || answers.contains(&Answer::Refused), "{}: {:?}", error, answers);
                        }
                        Ok(leased) => {
                            prop_assert!(!outside && !answers.contains(&Answer::Refused), "{:?}", answers);
                            prop_assert_eq!(leased.ips.len(), answers.len());
                            for ((slot, answer), ip) in answers.iter().enumerate().zip(&leased.ips) {
                                let address = ip.address.addr();
                                match answer {
                                    Answer::Held(held) => prop_assert_eq!(address, *held),
                                    Answer::This(this) => prop_assert_eq!(address, *this),
                                    Answer::Next(next) => prop_assert!(next.contains(&address), "{} of {:?}", address, next),
                                    Answer::Refused => unreachable!(),
                                }
                                if !matches!(answer, Answer::Held(_)) {
                                    let row = Row { container, boot: model.boot, created: model.now, released: None };
                                    model.rows.insert(address, row);
                                }
                                if matches!(answer, Answer::Next(_)) && asked.is_none() {
                                    model.cursors.insert(slot, address);
                                }
                            }
                        }
                    }
                    // A lease that failed has changed nothing by itself, so what ended by the way may be committed.
                    if committed { transaction.commit().unwrap() } else { model = before }
                }
            }
            let expected: BTreeMap<_, _> = model.rows.iter().map(|(address, row)| {
                (*address, (owner(row.container).container_id, boot(row.boot), row.created, row.released))
            }).collect();
            prop_assert_eq!(rows(&ledger), expected);
        }
        prop_assert_eq!(ledger.audit().unwrap(), []);

        // Nothing is lost: once everybody has left and all rests are over, every address can be had.
        for container in 0..32 {
            model.release(container);
            let mut transaction = ledger.begin().unwrap();
            release(&mut transaction, &owner(container), NETWORK, UnixSeconds(model.now)).unwrap();
            transaction.commit().unwrap();
        }
        let now = UnixSeconds(model.now + 100_000);
        for set in pool.sets() {
            for (number, address) in addresses(set).into_iter().enumerate() {
                let requested = pool.sets().iter().map(|set| addresses(set)[number % addresses(set).len()]);
                let requested: Vec<IpAddr> =
                    requested.map(|other| if set.gives_out(other) { address } else { other }).collect();
                let container = 100 + u8::try_from(number).unwrap();
                let request = LeaseRequest {
                    owner: owner(container), pod: None, device: None, mac: None, vlan: None, rdma: None,
                    requested, now, boot_id: boot(model.boot),
                };
                let mut transaction = ledger.begin().unwrap();
                let leased = lease(&mut transaction, NETWORK, &pool, &request).unwrap();
                prop_assert!(leased.ips.iter().any(|ip| ip.address.addr() == address));
                release(&mut transaction, &owner(container), NETWORK, now).unwrap();
            }
        }
    }
}
