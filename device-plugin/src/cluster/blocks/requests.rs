//! What the steward asks of the API server, as requests of it.

use std::collections::{BTreeMap, BTreeSet};

use kube::Api;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use serde_json::json;
use tracing::{debug, warn};
use zerobridge_blocks::{Answer, Claim, Held, Holder, IPBlock, IPBlockSpec, Pool, Request};
use zerobridge_proto::chain;

use crate::cluster::api::{ApiError, ApiServer};

/// Makes one request of the steward. Whatever is not surely known is no answer.
pub(super) async fn perform(server: &ApiServer, pool: &Pool, me: &Holder, request: &Request) -> Answer {
    match attempt(server, pool, me, request).await {
        Ok(answer) => answer,
        Err(ApiError::Exists { .. }) => Answer::Conflict,
        Err(ApiError::NotFound { .. }) if !matches!(request, Request::Create { .. } | Request::Survey) => {
            Answer::Gone
        }
        Err(error) if error.is_transient() => {
            debug!(pool = pool.name(), error = chain(&error), "no answer");
            Answer::None
        }
        Err(error) => {
            warn!(pool = pool.name(), error = chain(&error), "cannot claim or return blocks; trying again");
            Answer::None
        }
    }
}

async fn attempt(
    server: &ApiServer,
    pool: &Pool,
    me: &Holder,
    request: &Request,
) -> Result<Answer, ApiError> {
    let missing = || "IPBlock; are the definitions of manifests/crds/ applied?".to_owned();
    match request {
        Request::Create { index } => {
            let object = object(pool, me, *index, ObjectMeta::default());
            let create =
                async |client| Api::<IPBlock>::all(client).create(&PostParams::default(), &object).await;
            let made = server.ask("claim a block", missing, create).await?;
            Ok(Answer::Object(claim(&made)))
        }
        Request::Replace { index, uid, version } => {
            let object = object(pool, me, *index, as_it_was(uid, version));
            let name = pool.object_name(*index);
            let replace = async |client| {
                Api::<IPBlock>::all(client).replace(&name, &PostParams::default(), &object).await
            };
            let written = server.ask("confirm a block", missing, replace).await?;
            // The API server does not write what is as it was, and then the version is the one that an earlier deletion
            // of ours may name; a status is always new.
            if written.metadata.resource_version.as_deref() != Some(version) {
                return Ok(Answer::Object(claim(&written)));
            }
            let beat = written.status.as_ref().map_or(0, |status| status.beat) + 1;
            let patch = Patch::Merge(json!({
                "metadata": {"uid": uid, "resourceVersion": version},
                "status": {"beat": beat},
            }));
            let touch = async |client| {
                Api::<IPBlock>::all(client).patch_status(&name, &PatchParams::default(), &patch).await
            };
            let touched = server.ask("confirm a block", missing, touch).await?;
            let is_new = touched.metadata.resource_version.as_deref() != Some(version);
            Ok(if is_new { Answer::Object(claim(&touched)) } else { Answer::None })
        }
        Request::Delete { index, uid, version } => {
            return_block(server, pool, *index, (uid, version), missing).await?;
            Ok(Answer::Gone)
        }
        Request::Read { index } => {
            let name = pool.object_name(*index);
            let get = async |client| Api::<IPBlock>::all(client).get(&name).await;
            Ok(Answer::Object(claim(&server.ask("read a block", missing, get).await?)))
        }
        Request::Survey => Ok(Answer::Taken(taken(server, pool, missing).await?)),
    }
}

/// Deletes the object of a block, if it still has this UID and version.
pub(super) async fn return_block(
    server: &ApiServer,
    pool: &Pool,
    index: u32,
    (uid, version): (&str, &str),
    missing: impl Fn() -> String,
) -> Result<(), ApiError> {
    let preconditions =
        Preconditions { uid: Some(uid.to_owned()), resource_version: Some(version.to_owned()) };
    let parameters = DeleteParams::default().preconditions(preconditions);
    let name = pool.object_name(index);
    let delete = async |client| Api::<IPBlock>::all(client).delete(&name, &parameters).await;
    server.ask("return a block", missing, delete).await.map(drop)
}

/// By which a replacement is refused, unless the object still has this UID and version.
pub(super) fn as_it_was(uid: &str, version: &str) -> ObjectMeta {
    ObjectMeta {
        uid: Some(uid.to_owned()),
        resource_version: Some(version.to_owned()),
        ..ObjectMeta::default()
    }
}

/// Which blocks of a pool have an object, by number. `missing` says what it means when there are none of the kind.
pub(super) async fn taken(
    server: &ApiServer,
    pool: &Pool,
    missing: impl Fn() -> String,
) -> Result<BTreeSet<u32>, ApiError> {
    let parameters = ListParams::default().fields(&format!("spec.pool={}", pool.name())).match_any();
    let list = async |client| Api::<IPBlock>::all(client).list_metadata(&parameters).await;
    let all = server.ask("list blocks", missing, list).await?;
    let names = all.items.into_iter().filter_map(|object| object.metadata.name);
    Ok(names.filter_map(|name| index_of(pool.name(), &name)).collect())
}

/// Tells what is in use of each block.
pub(super) async fn tell_use(
    server: &ApiServer,
    pool: &Pool,
    beat: u64,
    held: &BTreeMap<u32, Held>,
) -> Result<(), ApiError> {
    for (index, held) in held {
        let name = pool.object_name(*index);
        let status = json!({"used": held.leased, "resting": held.resting, "beat": beat});
        let patch = Patch::Merge(json!({"status": status}));
        let tell = async |client| {
            Api::<IPBlock>::all(client).patch_status(&name, &PatchParams::default(), &patch).await
        };
        server.ask("tell what of a block is in use", || format!("IPBlock {name}"), tell).await?;
    }
    Ok(())
}

/// The block that an object of this name claims.
pub(super) fn index_of(pool: &str, name: &str) -> Option<u32> {
    let digits = name.strip_prefix(pool)?.strip_prefix('-')?;
    digits.parse().ok().filter(|index: &u32| index.to_string() == digits)
}

/// What an object says.
pub(super) fn claim(object: &IPBlock) -> Claim {
    Claim {
        uid: object.metadata.uid.clone().unwrap_or_default(),
        version: object.metadata.resource_version.clone().unwrap_or_default(),
        holder: object.spec.holder.clone(),
    }
}

fn object(pool: &Pool, me: &Holder, index: u32, metadata: ObjectMeta) -> IPBlock {
    let block = pool.block(index).map(|block| block.to_string()).unwrap_or_default();
    let (pool_name, holder) = (pool.name().to_owned(), me.clone());
    let spec = IPBlockSpec { pool: pool_name, index, block, holder, ..IPBlockSpec::default() };
    let mut object = IPBlock::new(&pool.object_name(index), spec);
    object.metadata = ObjectMeta { name: object.metadata.name, ..metadata };
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_pool_and_index() {
        assert_eq!(index_of("gold", "gold-17"), Some(17));
        assert_eq!(index_of("gold-1", "gold-1-7"), Some(7));
        for name in ["gold-1-7", "gold-", "gold-07", "silver-1", "gold17", "gold--1", "gold-+1"] {
            assert_eq!(index_of("gold", name), None, "{name}");
        }
    }
}
