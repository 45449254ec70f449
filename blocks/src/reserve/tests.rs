use serde_json::json;

use super::*;

/// Eight blocks of eight, of which the first gives out six and the last seven.
fn pool() -> Pool {
    Pool::parse("gold", &json!({"subnet": "10.0.0.0/26", "blockSize": 8})).unwrap()
}

fn holder(node: &str) -> Holder {
    Holder { node: node.to_owned(), incarnation: format!("of-{node}"), boot_id: "b1".to_owned() }
}

fn pod(name: &str) -> PodName {
    PodName { namespace: "team".to_owned(), name: name.to_owned() }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What node `n1` knows.
#[derive(Default)]
struct Case {
    claims: Vec<IPClaim>,
    here: BTreeSet<PodName>,
    entered: BTreeMap<PodName, IpAddr>,
    blocks: BTreeMap<u32, ReservedBlock>,
    taken: BTreeSet<u32>,
    is_surveyed: bool,
    dead: BTreeSet<String>,
    is_clerk: bool,
}

impl Case {
    /// A claim for a pod of its own name; the address that was chosen, or is asked for, with `=` before it.
    fn claim(mut self, name: &str, address: &str) -> Self {
        let (asked, chosen) = match address.strip_prefix('=') {
            Some(asked) => (Some(asked), None),
            None => (None, Some(address).filter(|address| !address.is_empty())),
        };
        let pods: Vec<_> = chosen.iter().map(|address| json!({"pod": name, "address": address})).collect();
        let object = json!({
            "apiVersion": "zerobridge.io/v1alpha1", "kind": "IPClaim",
            "metadata": {"name": name, "namespace": "team", "uid": format!("u-{name}"), "resourceVersion": "7"},
            "spec": {"pool": "gold", "pod": name, "address": asked}, "status": {"pods": pods}
        });
        self.claims.push(serde_json::from_value(object).unwrap());
        self
    }

    fn here(mut self, name: &str) -> Self {
        self.here.insert(pod(name));
        self
    }

    fn entered(mut self, name: &str, address: &str) -> Self {
        self.entered.insert(pod(name), ip(address));
        self
    }

    /// A row for a pod, in the ledger of a node or of none.
    fn row(mut self, address: &str, name: &str, node: Option<&str>) -> Self {
        let index = pool().block_of(ip(address)).unwrap();
        let block = self.blocks.entry(index).or_insert_with(|| ReservedBlock {
            uid: "u".to_owned(),
            version: "5".to_owned(),
            reservations: BTreeMap::new(),
        });
        let row = Reservation {
            namespace: "team".to_owned(),
            pod: name.to_owned(),
            claim: format!("u-{name}"),
            holder: node.map(holder),
            turns: 3,
        };
        block.reservations.insert(ip(address), row);
        self
    }

    fn clerk(self) -> Self {
        Self { is_clerk: true, ..self }
    }

    fn judge(&self) -> Judgement {
        let pool = pool();
        let wishes = Wishes::of(&pool, &self.claims, &BTreeSet::new());
        judge(&Register {
            pool: &pool,
            me: &holder("n1"),
            wishes: &wishes,
            claims: &self.claims,
            here: &self.here,
            entered: &self.entered,
            blocks: &self.blocks,
            taken: &self.taken,
            is_surveyed: self.is_surveyed,
            dead: &self.dead,
            is_clerk: self.is_clerk,
        })
    }

    /// The edit in short: the block, and its rows as `ADDRESS POD NODE`; the pods that are entered upon its answer.
    fn edit(&self) -> String {
        let judgement = self.judge();
        let rows = |rows: &BTreeMap<IpAddr, Reservation>| {
            let row = |(address, row): (&IpAddr, &Reservation)| {
                format!(" {address} {} {}", row.pod, row.holder.as_ref().map_or("-", |holder| &holder.node))
            };
            rows.iter().map(row).collect::<String>()
        };
        let entered: String =
            judgement.entries.iter().map(|entry| format!("; {} at {}", entry.pod, entry.address)).collect();
        match judgement.edit {
            None => "nothing".to_owned(),
            Some(Edit::Create { index, reservations }) => {
                format!("create {index}:{}{entered}", rows(&reservations))
            }
            Some(Edit::Replace { index, reservations, uid, version }) => {
                assert_eq!((&*uid, &*version), ("u", "5"));
                format!("replace {index}:{}{entered}", rows(&reservations))
            }
            Some(Edit::Delete { index, .. }) => format!("delete {index}"),
            Some(Edit::Choose { claim, version, pods }) => {
                assert_eq!(version, "7");
                format!("choose {claim}: {} {}", pods[0].pod, pods[0].address)
            }
            Some(Edit::Survey) => "survey".to_owned(),
        }
    }
}

#[test]
fn an_address_that_is_asked_for_is_reserved_ahead_and_entered_where_its_pod_is() {
    let claim = || Case::default().claim("db", "=10.0.0.20");
    assert_eq!(claim().edit(), "nothing", "that is the clerk's");
    assert_eq!(claim().clerk().edit(), "create 2: 10.0.0.20 db -");
    assert_eq!(claim().here("db").edit(), "create 2: 10.0.0.20 db n1; team/db at 10.0.0.20");
    let row = || claim().row("10.0.0.20", "db", None);
    assert_eq!(row().clerk().edit(), "nothing");
    assert_eq!(row().here("db").edit(), "replace 2: 10.0.0.20 db n1; team/db at 10.0.0.20");
    let entered = || claim().here("db").entered("db", "10.0.0.20");
    assert_eq!(entered().row("10.0.0.20", "db", Some("n1")).edit(), "nothing");
    let again = "replace 2: 10.0.0.20 db n1; team/db at 10.0.0.20";
    assert_eq!(claim().here("db").row("10.0.0.20", "db", Some("n1")).edit(), again, "by another write");
}

#[test]
fn an_address_moves_only_when_no_ledger_has_it() {
    let moved =
        |node| Case::default().claim("db", "=10.0.0.20").row("10.0.0.20", "db", Some(node)).here("db");
    assert_eq!(moved("n2").edit(), "nothing");
    assert_eq!(moved("n2").judge().in_the_way, BTreeSet::from([holder("n2")]));
    let dead = Case { dead: ["of-n2".to_owned()].into(), ..moved("n2") };
    assert_eq!(dead.edit(), "replace 2: 10.0.0.20 db n1; team/db at 10.0.0.20");
    let left = Case::default().claim("db", "=10.0.0.20").row("10.0.0.20", "db", Some("n1"));
    assert_eq!(left.edit(), "replace 2: 10.0.0.20 db -", "it is in no ledger any more");
    let lost = moved("n2").entered("db", "10.0.0.20").judge();
    assert_eq!((lost.edit, lost.lost), (None, BTreeSet::from([pod("db")])));
}

#[test]
fn an_address_is_chosen_once_and_before_it_is_used() {
    let claim = |chosen| Case::default().claim("web", chosen).here("web");
    assert_eq!(claim("").edit(), "survey");
    let order: Vec<u32> = pool().order_for(RESERVED).collect();
    let surveyed = Case { is_surveyed: true, taken: [order[0]].into(), ..claim("") };
    assert!(surveyed.edit().starts_with(&format!("create {}:", order[1])), "{}", surveyed.edit());
    assert!(surveyed.judge().entries.is_empty(), "it is not chosen yet");
    let other = || claim("").claim("db", "=10.0.0.16").row("10.0.0.17", "a", None).claim("a", "10.0.0.17");
    assert_eq!(other().edit(), "replace 2: 10.0.0.17 a - 10.0.0.18 web -", "16 is asked for");
    assert_eq!(claim("").row("10.0.0.18", "web", None).edit(), "choose u-web: web 10.0.0.18");
    let two = claim("10.0.0.30").row("10.0.0.18", "web", None).row("10.0.0.30", "web", None);
    assert_eq!(two.edit(), "replace 3: 10.0.0.30 web n1; team/web at 10.0.0.30");
    let two = claim("10.0.0.30").row("10.0.0.18", "web", None).row("10.0.0.30", "web", Some("n1"));
    assert_eq!(two.entered("web", "10.0.0.30").clerk().edit(), "delete 2", "nobody chose that one");
}

#[test]
fn a_claims_rows_end_when_no_ledger_has_them() {
    let row = |node| {
        Case::default().row("10.0.0.20", "db", node).row("10.0.0.21", "a", None).claim("a", "=10.0.0.21")
    };
    assert_eq!(row(None).edit(), "nothing", "that is the clerk's");
    assert_eq!(row(None).clerk().edit(), "replace 2: 10.0.0.21 a -");
    assert_eq!(row(Some("n2")).clerk().edit(), "nothing");
    assert_eq!(row(Some("n2")).clerk().judge().in_the_way, BTreeSet::from([holder("n2")]));
    assert_eq!(
        row(Some("n1")).entered("db", "10.0.0.20").clerk().edit(),
        "nothing",
        "a container may have it"
    );
    assert_eq!(Case::default().row("10.0.0.20", "db", None).clerk().edit(), "delete 2");
    // One that cannot be used as it is keeps what it has.
    let faulty = Case::default().claim("db", "=10.0.0.99").row("10.0.0.20", "db", None);
    assert_eq!(faulty.clerk().edit(), "nothing");
}

#[test]
fn what_cannot_be_reserved_is_told() {
    let told = |case: Case| case.judge().problems.remove("u-db").unwrap_or_default();
    let claim = || Case::default().claim("db", "=10.0.0.20").clerk();
    let held = Case { taken: [2].into(), ..claim() };
    assert_eq!(held.edit(), "nothing");
    let problem = told(held);
    assert!(problem.contains("10.0.0.16/29, which a node leases from (IPBlock gold-2)"), "{problem}");
    let problem = told(claim().row("10.0.0.20", "other", Some("n2")));
    assert_eq!(problem, "10.0.0.20 is reserved for pod team/other until that has ended");
    let rival = || claim().claim("a", "=10.0.0.20");
    let problem = told(rival().row("10.0.0.20", "a", None));
    assert_eq!(problem, "10.0.0.20 is reserved for pod team/a by IPClaim team/a; choose another");
    assert_eq!(rival().edit(), "create 2: 10.0.0.20 a -", "of two that are new, one has it");
    let full = Case { taken: (0..8).collect(), is_surveyed: true, ..Case::default().claim("db", "").clerk() };
    let problem = told(full);
    assert!(problem.contains("no block of pool gold is free"), "{problem}");
}
