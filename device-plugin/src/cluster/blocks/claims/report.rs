//! What is told of IPClaims in their status, and that none disappears while addresses are reserved for it.

use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tracing::{debug, warn};
use zerobridge_blocks::{CLAIM_FINALIZER, ClaimReport, ClaimedAddress, IPClaim, Wishes};
use zerobridge_proto::chain;

use super::requests::patch_status;
use crate::cluster::api::{ApiError, ApiServer};

/// Tells what was found of each claim.
pub(super) async fn tell(server: &ApiServer, claims: &[IPClaim], wishes: &Wishes, found: &ClaimReport) {
    for claim in claims {
        if let Err(error) = tell_one(server, claim, wishes, found).await {
            let (name, namespace) = (&claim.metadata.name, &claim.metadata.namespace);
            match error {
                ApiError::Exists { .. } | ApiError::NotFound { .. } => {
                    debug!(?namespace, ?name, "the claim has changed meanwhile");
                }
                error => warn!(?namespace, ?name, error = chain(&error), "cannot tell of an IPClaim"),
            }
        }
    }
}

async fn tell_one(
    server: &ApiServer,
    claim: &IPClaim,
    wishes: &Wishes,
    found: &ClaimReport,
) -> Result<(), ApiError> {
    let uid = claim.metadata.uid.clone().unwrap_or_default();
    let is_deleted = claim.metadata.deletion_timestamp.is_some();
    let addresses = found.addresses.get(&uid).map(Vec::as_slice).unwrap_or_default();
    let mut finalizers = claim.metadata.finalizers.clone().unwrap_or_default();
    let present = finalizers.iter().position(|finalizer| finalizer == CLAIM_FINALIZER);
    match present {
        None if !is_deleted => {
            finalizers.push(CLAIM_FINALIZER.to_owned());
            return guard(server, claim, &finalizers).await;
        }
        Some(place) if is_deleted && addresses.is_empty() => {
            finalizers.remove(place);
            return guard(server, claim, &finalizers).await;
        }
        _ => {}
    }
    let before = claim.status.clone().unwrap_or_default();
    let (pods, problem) = (pods(claim, wishes, addresses), found.problems.get(&uid));
    if is_deleted || (pods == before.pods && problem == before.problem.as_ref()) {
        return Ok(());
    }
    let metadata = json!({"uid": uid, "resourceVersion": claim.metadata.resource_version});
    let patch = json!({"metadata": metadata, "status": {"pods": pods, "problem": problem}});
    patch_status(server, claim, patch).await.map(drop)
}

/// What was chosen stays for as long as the claim names the pod; where it is now is what was found.
fn pods(claim: &IPClaim, wishes: &Wishes, addresses: &[ClaimedAddress]) -> Vec<ClaimedAddress> {
    let uid = claim.metadata.uid.as_deref().unwrap_or_default();
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    let is_named = |pod: &str| {
        wishes.unusable.contains_key(uid)
            || wishes
                .pods
                .iter()
                .any(|(name, wish)| wish.claim == uid && (&*name.namespace, &*name.name) == (namespace, pod))
    };
    let chosen = claim.status.iter().flat_map(|status| &status.pods).filter(|known| is_named(&known.pod));
    if claim.spec.address.is_some() {
        return addresses.to_vec();
    }
    let now = |known: &ClaimedAddress| {
        let same = |other: &&ClaimedAddress| (&other.pod, &other.address) == (&known.pod, &known.address);
        let node = addresses.iter().find(same).and_then(|found| found.node.clone());
        ClaimedAddress { node, ..known.clone() }
    };
    chosen.map(now).collect()
}

async fn guard(server: &ApiServer, claim: &IPClaim, finalizers: &[String]) -> Result<(), ApiError> {
    let namespace = claim.metadata.namespace.clone().unwrap_or_default();
    let name = claim.metadata.name.clone().unwrap_or_default();
    let version = &claim.metadata.resource_version;
    let metadata = json!({"uid": claim.metadata.uid, "resourceVersion": version, "finalizers": finalizers});
    let patch = Patch::Merge(json!({"metadata": metadata}));
    let write = async |client| {
        let claims = Api::<IPClaim>::namespaced(client, &namespace);
        claims.patch(&name, &PatchParams::default(), &patch).await
    };
    server.ask("guard an IPClaim", || format!("IPClaim {namespace}/{name}"), write).await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;
    use zerobridge_blocks::Pool;

    use super::*;

    fn address(pod: &str, address: &str, node: Option<&str>) -> ClaimedAddress {
        let node = node.map(str::to_owned);
        ClaimedAddress { pod: pod.to_owned(), address: address.to_owned(), node }
    }

    fn told(spec: Value, found: &[ClaimedAddress]) -> Vec<ClaimedAddress> {
        let known = [address("web-0", "10.0.0.9", Some("n1")), address("web-1", "10.0.0.8", None)];
        let metadata = json!({"name": "c", "namespace": "team", "uid": "u"});
        let claim = json!({"metadata": metadata, "spec": spec, "status": {"pods": known}});
        let claim: IPClaim = serde_json::from_value(claim).unwrap();
        let pool = Pool::parse("gold", &json!({"subnet": "10.0.0.0/24", "blockSize": 16})).unwrap();
        pods(&claim, &Wishes::of(&pool, [&claim], &BTreeSet::new()), found)
    }

    #[test]
    fn what_was_chosen_stays_while_it_is_asked_for() {
        let sticky = |replicas: u32| json!({"pool": "gold", "statefulSet": "web", "replicas": replicas});
        let found = [address("web-0", "10.0.0.9", Some("n2")), address("web-1", "10.0.0.7", Some("n3"))];
        let expected = [address("web-0", "10.0.0.9", Some("n2")), address("web-1", "10.0.0.8", None)];
        assert_eq!(told(sticky(2), &found), expected, "another row than the chosen one says nothing");
        assert_eq!(told(sticky(1), &found), expected[..1]);
        assert_eq!(told(sticky(0), &[]).len(), 2, "a claim that cannot be used keeps what it has");
        let fixed = json!({"pool": "gold", "statefulSet": "web", "replicas": 1, "address": "10.0.0.9"});
        assert_eq!(told(fixed, &found[..1]), found[..1]);
    }
}
