//! What an IPClaim asks for, completely checked: which pods are to have addresses of their own, and which ones.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use zerobridge_ipam::PoolError;

use crate::Pool;
use crate::crd::IPClaim;
use crate::pool::{invalid, nth_after};

/// As many pods as one claim may have: each has a row in the ledger of every node.
const MOST_REPLICAS: u32 = 1024;

/// A pod by its name, of which there is one in the cluster at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What is asked for one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The IPClaim's UID.
    pub claim: String,
    /// The address: that of the specification, or the one that was chosen once. `None` until one is chosen.
    pub address: Option<IpAddr>,
}

/// What all IPClaims of a pool ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// By pod.
    pub pods: BTreeMap<PodName, Wish>,
    /// All IPClaims that are not being deleted, by UID.
    pub claims: BTreeSet<String>,
    /// Those that cannot be used as they are, and why: what they have stays theirs.
    pub unusable: BTreeMap<String, String>,
    /// Those that name pods which another names, and which one.
    pub conflicts: BTreeMap<String, String>,
}

impl Wishes {
    /// Reads the IPClaims of `pool`. Of two that name the same pod, one that is `established`, because addresses are reserved
    /// for it, has it; else the one that was made first. Of two that ask for the same address both are heard: every node
    /// must know that their pods have claims, and which of them has the address the row says.
    #[must_use]
    pub fn of<'a>(
        pool: &Pool,
        objects: impl IntoIterator<Item = &'a IPClaim>,
        established: &BTreeSet<String>,
    ) -> Self {
        let mut objects: Vec<&IPClaim> =
            objects.into_iter().filter(|object| object.metadata.deletion_timestamp.is_none()).collect();
        objects.sort_by_key(|object| {
            let (uid, made) =
                (object.metadata.uid.clone().unwrap_or_default(), &object.metadata.creation_timestamp);
            (!established.contains(&uid), made.as_ref().map(|made| made.0), uid)
        });
        let (mut wishes, mut names) = (Self::default(), BTreeMap::new());
        for object in objects {
            let claim = object.metadata.uid.clone().unwrap_or_default();
            let namespace = object.metadata.namespace.clone().unwrap_or_default();
            names.insert(claim.clone(), name_of(object));
            wishes.claims.insert(claim.clone());
            let asked = match asked(pool, object) {
                Ok(asked) => asked,
                Err(error) => {
                    wishes.unusable.insert(claim, error.to_string());
                    continue;
                }
            };
            for (pod, address) in asked {
                let pod = PodName { namespace: namespace.clone(), name: pod };
                if let Some(other) = wishes.pods.get(&pod).and_then(|wish| names.get(&wish.claim)) {
                    let conflict = format!(
                        "pod {pod} has an address of pool {} by IPClaim {other} already",
                        pool.name()
                    );
                    wishes.conflicts.entry(claim.clone()).or_insert(conflict);
                    continue;
                }
                wishes.pods.insert(pod, Wish { claim: claim.clone(), address });
            }
        }
        wishes
    }

    /// What was known of IPClaims that cannot be used as they are now stays in force.
    pub fn keep(&mut self, known: impl IntoIterator<Item = (PodName, Wish)>) {
        for (pod, wish) in known {
            if self.unusable.contains_key(&wish.claim) {
                self.pods.entry(pod).or_insert(wish);
            }
        }
    }

    /// The blocks with addresses that are asked for.
    #[must_use]
    pub fn blocks(&self, pool: &Pool) -> BTreeSet<u32> {
        self.pods.values().filter_map(|wish| pool.block_of(wish.address?)).collect()
    }
}

/// The pods' names, and the addresses that are asked for or were chosen.
fn asked(pool: &Pool, object: &IPClaim) -> Result<Vec<(String, Option<IpAddr>)>, PoolError> {
    let spec = &object.spec;
    let text = |field, value: &str, rule: &str| invalid(field, Some(&value.into()), rule);
    if spec.pool != pool.name() {
        return Err(text("spec.pool", &spec.pool, &format!("this is about pool {}", pool.name())));
    }
    let count = |field, rule| invalid(field, spec.replicas.map(Into::into).as_ref(), rule);
    let pods: Vec<String> = match (&spec.pod, &spec.stateful_set) {
        (Some(_), None) if spec.replicas.is_some() => {
            return Err(count("spec.replicas", "it needs statefulSet beside it, and not pod"));
        }
        (Some(pod), None) if !pod.is_empty() => vec![pod.clone()],
        (None, Some(set)) if !set.is_empty() => {
            let number = spec.replicas.filter(|number| (1..=MOST_REPLICAS).contains(number));
            let rule = format!("write how many of the StatefulSet's pods it is for, 1 to {MOST_REPLICAS}");
            let number = number.ok_or_else(|| count("spec.replicas", &rule))?;
            (0..number).map(|ordinal| format!("{set}-{ordinal}")).collect()
        }
        (Some(pod), _) => {
            return Err(text("spec.pod", pod, "write the name of a pod, or statefulSet in its place"));
        }
        (None, set) => {
            let set = set.as_deref().map(Into::into);
            let rule = "write the name of a StatefulSet, or pod in its place";
            return Err(invalid("spec.statefulSet", set.as_ref(), rule));
        }
    };
    let Some(written) = &spec.address else {
        let status = object.status.as_ref();
        let chosen = |pod: &String| {
            let known = status?.pods.iter().find(|known| known.pod == *pod)?;
            known.address.parse().ok()
        };
        return Ok(pods.into_iter().map(|pod| (pod.clone(), chosen(&pod))).collect());
    };
    let first: Option<IpAddr> = written.parse().ok();
    let first = first.ok_or_else(|| text("spec.address", written, "write an address, such as 10.100.0.7"))?;
    let subnet = pool.addresses().subnet();
    let number = |(step, pod): (u32, String)| {
        let address = nth_after(first, step).filter(|address| pool.block_of(*address).is_some());
        let rule = || {
            let of = if step == 0 {
                String::new()
            } else {
                format!(", and so must that of {pod}, {step} behind it")
            };
            format!(
                "it must be one that pool {} gives out, of {subnet} without gateway and exclusions{of}",
                pool.name()
            )
        };
        address
            .map(|address| (pod.clone(), Some(address)))
            .ok_or_else(|| text("spec.address", written, &rule()))
    };
    (0..).zip(pods).map(number).collect()
}

/// An IPClaim as it is called in a problem.
pub(crate) fn name_of(object: &IPClaim) -> String {
    let metadata = &object.metadata;
    let [namespace, name] =
        [&metadata.namespace, &metadata.name].map(|part| part.as_deref().unwrap_or_default());
    format!("{namespace}/{name}")
}

impl fmt::Display for PodName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pool() -> Pool {
        let spec = json!({"subnet": "10.0.0.0/24", "blockSize": 16, "exclude": ["10.0.0.40"]});
        Pool::parse("gold", &spec).unwrap()
    }

    fn claim(name: &str, mut spec: Value) -> IPClaim {
        spec["pool"] = "gold".into();
        let metadata = json!({"name": name, "namespace": "team", "uid": name});
        let object = json!({"apiVersion": "zerobridge.io/v1alpha1", "kind": "IPClaim", "metadata": metadata, "spec": spec});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn what_was_chosen_once_is_asked_for_from_then_on() {
        let mut chosen = claim("a", json!({"statefulSet": "web", "replicas": 2}));
        let pods = json!({"pods": [{"pod": "web-1", "address": "10.0.0.9"}, {"pod": "web-2", "address": "10.0.0.8"}]});
        chosen.status = serde_json::from_value(pods).unwrap();
        let wishes = Wishes::of(&pool(), &[chosen], &BTreeSet::new());
        assert_eq!(shown(&wishes), ["team/web-0 a any", "team/web-1 a 10.0.0.9"]);
    }

    fn shown(wishes: &Wishes) -> Vec<String> {
        let address = |wish: &Wish| wish.address.map_or("any".to_owned(), |address| address.to_string());
        wishes.pods.iter().map(|(pod, wish)| format!("{pod} {} {}", wish.claim, address(wish))).collect()
    }

    #[test]
    fn a_pod_or_the_pods_of_a_stateful_set_are_named() {
        let claims = [
            claim("a", json!({"pod": "db"})),
            claim("b", json!({"pod": "cache", "address": "10.0.0.9"})),
            claim("c", json!({"statefulSet": "web", "replicas": 2, "address": "10.0.0.31"})),
            claim("d", json!({"statefulSet": "job", "replicas": 1})),
        ];
        let wishes = Wishes::of(&pool(), &claims, &BTreeSet::new());
        let expected = [
            "team/cache b 10.0.0.9",
            "team/db a any",
            "team/job-0 d any",
            "team/web-0 c 10.0.0.31",
            "team/web-1 c 10.0.0.32",
        ];
        assert_eq!(shown(&wishes), expected);
        assert_eq!((wishes.unusable.len(), wishes.conflicts.len()), (0, 0));
        assert_eq!(wishes.blocks(&pool()), BTreeSet::from([0, 1, 2]));
    }

    #[test]
    fn a_pod_is_one_claims_and_named_though_claims_ask_for_the_same_address() {
        let claims = [
            claim("a", json!({"statefulSet": "web", "replicas": 2, "address": "10.0.0.30"})),
            claim("b", json!({"pod": "web-1"})),
            claim("c", json!({"pod": "db", "address": "10.0.0.30"})),
        ];
        let wishes = Wishes::of(&pool(), &claims, &BTreeSet::new());
        let both = ["team/db c 10.0.0.30", "team/web-0 a 10.0.0.30", "team/web-1 a 10.0.0.31"];
        assert_eq!(shown(&wishes), both);
        let told = "pod team/web-1 has an address of pool gold by IPClaim team/a already";
        assert_eq!(wishes.conflicts, BTreeMap::from([("b".to_owned(), told.to_owned())]));
        assert_eq!((wishes.claims.len(), wishes.unusable.len()), (3, 0));

        // Whoever has it has it, though another claim were older.
        let wishes = Wishes::of(&pool(), &claims, &["b".to_owned()].into());
        assert_eq!(shown(&wishes)[2], "team/web-1 b any");
        assert!(wishes.conflicts.contains_key("a"));
    }

    #[test]
    fn what_a_claim_has_stays_its_own_while_it_cannot_be_used() {
        let pod = PodName { namespace: "team".to_owned(), name: "web-0".to_owned() };
        let known = |claim: &str| [(pod.clone(), Wish { claim: claim.to_owned(), address: None })];
        let mut wishes = Wishes::of(
            &pool(),
            &[claim("a", json!({"statefulSet": "web", "replicas": 0}))],
            &BTreeSet::new(),
        );
        wishes.keep(known("b"));
        assert_eq!(wishes.pods, BTreeMap::new(), "of a claim that is no more");
        wishes.keep(known("a"));
        assert_eq!(wishes.pods, BTreeMap::from(known("a")));
    }

    #[test]
    fn a_fault_names_its_field_and_what_is_allowed() {
        for (spec, field, word) in [
            (json!({}), "spec.statefulSet is missing", "pod in its place"),
            (
                json!({"pod": "a", "statefulSet": "b", "replicas": 1}),
                "spec.pod is \"a\"",
                "statefulSet in its place",
            ),
            (json!({"pod": ""}), "spec.pod is \"\"", "name of a pod"),
            (json!({"pod": "a", "replicas": 1}), "spec.replicas is 1", "statefulSet beside it"),
            (json!({"statefulSet": "a"}), "spec.replicas is missing", "1 to 1024"),
            (json!({"statefulSet": "a", "replicas": 1025}), "spec.replicas is 1025", "1 to 1024"),
            (json!({"pod": "a", "address": "x"}), "spec.address is \"x\"", "such as"),
            (json!({"pod": "a", "address": "10.0.1.9"}), "spec.address is \"10.0.1.9\"", "of 10.0.0.0/24"),
            (json!({"pod": "a", "address": "10.0.0.1"}), "spec.address is \"10.0.0.1\"", "without gateway"),
            (
                json!({"statefulSet": "a", "replicas": 9, "address": "10.0.0.36"}),
                "spec.address is \"10.0.0.36\"",
                "that of a-4, 4 behind it",
            ),
        ] {
            let wishes = Wishes::of(&pool(), &[claim("a", spec.clone())], &BTreeSet::new());
            assert_eq!(wishes.pods, BTreeMap::new(), "{spec}");
            let told = &wishes.unusable["a"];
            assert!(told.starts_with(field) && told.contains(word), "{spec}: {told}");
        }
    }
}
