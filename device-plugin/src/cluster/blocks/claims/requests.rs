//! What the registrar asks of the API server, as requests of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use kube::Api;
use kube::api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;
use tracing::{debug, warn};
use zerobridge_blocks::{
    Edit, Holder, IPBlock, IPBlockSpec, IPClaim, Pool, Question, RESERVED, Reply, Reservation, ReservedBlock,
};
use zerobridge_proto::chain;

use super::super::requests::{as_it_was, index_of, return_block, taken};
use crate::cluster::api::{ApiError, ApiServer};

/// Makes one request of the registrar, who read `claims` before. Whatever is not surely known is no reply.
pub(super) async fn perform(
    server: &ApiServer,
    pool: &Pool,
    claims: &[IPClaim],
    question: &Question,
) -> Reply {
    let outcome = match question {
        Question::List => list(server, pool).await,
        Question::Edit(edit) => write(server, pool, claims, edit).await,
    };
    match outcome {
        Ok(reply) => reply,
        Err(ApiError::Exists { .. }) => Reply::Conflict,
        Err(ApiError::NotFound { .. })
            if matches!(
                question,
                Question::Edit(Edit::Replace { .. } | Edit::Delete { .. } | Edit::Choose { .. })
            ) =>
        {
            Reply::Gone
        }
        Err(error) if error.is_transient() => {
            debug!(pool = pool.name(), error = chain(&error), "no answer");
            Reply::None
        }
        Err(error) => {
            warn!(pool = pool.name(), error = chain(&error), "cannot see to IPClaims; trying again");
            Reply::None
        }
    }
}

async fn list(server: &ApiServer, pool: &Pool) -> Result<Reply, ApiError> {
    // Without a version: as new as the request. The claims after the blocks, so that whoever has a row is among them.
    let reserved =
        ListParams::default().fields(&format!("spec.pool={},spec.holder.node={RESERVED}", pool.name()));
    let list = async |client| Api::<IPBlock>::all(client).list(&reserved).await;
    let blocks = server.ask("list blocks", missing, list).await?.items;
    let of_pool = ListParams::default().fields(&format!("spec.pool={}", pool.name()));
    let list = async |client| Api::<IPClaim>::all(client).list(&of_pool).await;
    let claims = match server.ask("list IPClaims", missing, list).await {
        Err(ApiError::NotFound { .. }) => Vec::new(),
        other => other?.items,
    };
    let blocks = blocks.iter().filter_map(|object| {
        let index = index_of(pool.name(), object.metadata.name.as_deref()?)?;
        Some((index, reserved_block(object)))
    });
    Ok(Reply::Listed(blocks.collect(), claims))
}

async fn write(server: &ApiServer, pool: &Pool, claims: &[IPClaim], edit: &Edit) -> Result<Reply, ApiError> {
    match edit {
        Edit::Create { index, reservations } => {
            let object = object(pool, *index, reservations, ObjectMeta::default());
            let create =
                async |client| Api::<IPBlock>::all(client).create(&PostParams::default(), &object).await;
            Ok(Reply::Object(reserved_block(&server.ask("reserve a block", missing, create).await?)))
        }
        Edit::Replace { index, uid, version, reservations } => {
            let object = object(pool, *index, reservations, as_it_was(uid, version));
            let name = pool.object_name(*index);
            let replace = async |client| {
                Api::<IPBlock>::all(client).replace(&name, &PostParams::default(), &object).await
            };
            Ok(Reply::Object(reserved_block(&server.ask("reserve an address", missing, replace).await?)))
        }
        Edit::Delete { index, uid, version } => {
            return_block(server, pool, *index, (uid, version), missing).await?;
            Ok(Reply::Gone)
        }
        Edit::Choose { claim, version, pods } => {
            let known = claims.iter().find(|object| object.metadata.uid.as_ref() == Some(claim));
            let Some(known) = known else { return Ok(Reply::Gone) };
            let patch =
                json!({"metadata": {"uid": claim, "resourceVersion": version}, "status": {"pods": pods}});
            let written = patch_status(server, known, patch).await?;
            Ok(Reply::Claim(Box::new(written)))
        }
        Edit::Survey => Ok(Reply::Taken(taken(server, pool, missing).await?)),
    }
}

/// Changes the status of an IPClaim.
pub(super) async fn patch_status(
    server: &ApiServer,
    claim: &IPClaim,
    patch: serde_json::Value,
) -> Result<IPClaim, ApiError> {
    let namespace = claim.metadata.namespace.clone().unwrap_or_default();
    let name = claim.metadata.name.clone().unwrap_or_default();
    let patch = Patch::Merge(patch);
    let write = async |client| {
        let claims = Api::<IPClaim>::namespaced(client, &namespace);
        claims.patch_status(&name, &PatchParams::default(), &patch).await
    };
    server.ask("write the status of an IPClaim", || format!("IPClaim {namespace}/{name}"), write).await
}

fn missing() -> String {
    "IPBlock or IPClaim; are the definitions of manifests/crds/ applied?".to_owned()
}

fn reserved_block(object: &IPBlock) -> ReservedBlock {
    let rows = object.spec.reservations.iter();
    let reservations = rows.filter_map(|(address, row)| Some((address.parse::<IpAddr>().ok()?, row.clone())));
    ReservedBlock {
        uid: object.metadata.uid.clone().unwrap_or_default(),
        version: object.metadata.resource_version.clone().unwrap_or_default(),
        reservations: reservations.collect(),
    }
}

fn object(
    pool: &Pool,
    index: u32,
    reservations: &BTreeMap<IpAddr, Reservation>,
    metadata: ObjectMeta,
) -> IPBlock {
    let reservations = reservations.iter().map(|(address, row)| (address.to_string(), row.clone()));
    let spec = IPBlockSpec {
        pool: pool.name().to_owned(),
        index,
        block: pool.block(index).map(|block| block.to_string()).unwrap_or_default(),
        holder: Holder { node: RESERVED.to_owned(), ..Holder::default() },
        reservations: reservations.collect(),
    };
    let mut object = IPBlock::new(&pool.object_name(index), spec);
    object.metadata = ObjectMeta { name: object.metadata.name, ..metadata };
    object
}
