//! The objects at the API server, group `zerobridge.io`, version `v1alpha1`. `manifests/crds/` is generated from here.
#![allow(unreachable_pub, reason = "KubeSchema repeats the type in a scope of its own")]

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What keeps an IPPool from disappearing while nodes hold blocks of it.
pub const FINALIZER: &str = "zerobridge.io/blocks";

/// What keeps an IPClaim from disappearing while addresses are reserved for it.
pub const CLAIM_FINALIZER: &str = "zerobridge.io/addresses";

/// The holder, in place of a node, of blocks whose addresses are reserved for pods. No Node has this name: theirs are in
/// small letters.
pub const RESERVED: &str = "IPClaims";

/// Addresses that the nodes of the cluster share. A subnet is cut into blocks, and each node leases from those that it
/// has claimed.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "zerobridge.io",
    version = "v1alpha1",
    kind = "IPPool",
    plural = "ippools",
    singular = "ippool",
    status = "IPPoolStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Subnet","type":"string","jsonPath":".spec.subnet"}"#,
    printcolumn = r#"{"name":"Blocks","type":"integer","jsonPath":".status.blocks"}"#,
    printcolumn = r#"{"name":"Free","type":"integer","jsonPath":".status.freeBlocks"}"#,
    printcolumn = r#"{"name":"Used","type":"integer","jsonPath":".status.used"}"#,
    printcolumn = r#"{"name":"Problem","type":"string","jsonPath":".status.problem"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct IPPoolSpec {
    /// The subnet, an address and a prefix length without host bits, such as 10.100.0.0/16. Pods get its prefix length.
    /// It never changes: another subnet is another pool.
    #[x_kube(validation = ("self == oldSelf", "the subnet never changes; make another IPPool"))]
    pub subnet: String,
    /// Addresses in a block: a power of two, at most 4096 and at most the subnet; 64 if absent. It never changes.
    #[serde(default = "default_block_size")]
    #[x_kube(validation = ("self == oldSelf", "the block size never changes; make another IPPool"))]
    pub block_size: u32,
    /// The gateway; the subnet's second address if absent. Never given out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Addresses and prefixes that are never given out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Routes for the pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<PoolRoute>,
    /// How long a released address rests, in seconds, at most a day; 60 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rest_seconds: Option<u32>,
    /// A node with fewer free addresses than this claims another block; a quarter of a block if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_free: Option<u32>,
    /// A node returns an empty block when this many free addresses remain; minFree and one block if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_free: Option<u32>,
}

/// A route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolRoute {
    /// The destination, without host bits.
    pub dst: String,
    /// The next hop; the gateway if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<String>,
}

/// What a pool has and what of it is in use, some minutes old. No node decides by it whether an address is free.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IPPoolStatus {
    /// Blocks in all.
    #[serde(default)]
    pub blocks: u32,
    /// Blocks that nobody has claimed.
    #[serde(default)]
    pub free_blocks: u32,
    /// Addresses that can be given out in all.
    #[serde(default)]
    pub capacity: u64,
    /// Addresses that are leased, as far as the nodes have told.
    #[serde(default)]
    pub used: u64,
    /// Addresses that rest.
    #[serde(default)]
    pub resting: u64,
    /// Nodes that hold blocks.
    #[serde(default)]
    pub nodes: u32,
    /// In how many seconds the last block will be claimed, if it goes on as in the last hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exhausted_in_seconds: Option<u64>,
    /// What is wrong with the specification; the last good one stays in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The node that wrote this.
    #[serde(default)]
    pub reporter: String,
    /// How often this was written.
    #[serde(default)]
    pub sequence: u64,
}

/// A block of an IPPool that a node has claimed. Made and deleted by the node; its name is `POOL-INDEX`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "zerobridge.io",
    version = "v1alpha1",
    kind = "IPBlock",
    plural = "ipblocks",
    singular = "ipblock",
    status = "IPBlockStatus",
    derive = "PartialEq",
    selectable = ".spec.pool",
    selectable = ".spec.holder.node",
    printcolumn = r#"{"name":"Pool","type":"string","jsonPath":".spec.pool"}"#,
    printcolumn = r#"{"name":"Block","type":"string","jsonPath":".spec.block"}"#,
    printcolumn = r#"{"name":"Node","type":"string","jsonPath":".spec.holder.node"}"#,
    printcolumn = r#"{"name":"Used","type":"integer","jsonPath":".status.used"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct IPBlockSpec {
    /// The IPPool.
    pub pool: String,
    /// Which block, counted from the beginning of the subnet.
    pub index: u32,
    /// Its addresses.
    pub block: String,
    /// Whose it is.
    pub holder: Holder,
    /// Addresses that are reserved for pods, by address; only in a block whose holder is `IPClaims`, and then no node
    /// leases from it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reservations: BTreeMap<String, Reservation>,
}

/// An address that is reserved for a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reservation {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The UID of the IPClaim.
    pub claim: String,
    /// The ledger that the address is in, and so the node that may lease it to the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<Holder>,
    /// Rises whenever a holder is written: a write that is as the one before would be none.
    #[serde(default)]
    pub turns: u64,
}

/// The ledger that a block is in.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    /// The node.
    pub node: String,
    /// Which ledger of that node: a node that is installed anew has another one.
    pub incarnation: String,
    /// The boot in which the claim was last confirmed.
    pub boot_id: String,
}

/// Reserves addresses of an IPPool for pods of its namespace, by the pods' names: one pod, or the pods of a StatefulSet.
/// Wherever such a pod runs, it has its address, and nobody else has it.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "zerobridge.io",
    version = "v1alpha1",
    kind = "IPClaim",
    plural = "ipclaims",
    singular = "ipclaim",
    namespaced,
    status = "IPClaimStatus",
    derive = "PartialEq",
    selectable = ".spec.pool",
    printcolumn = r#"{"name":"Pool","type":"string","jsonPath":".spec.pool"}"#,
    printcolumn = r#"{"name":"Pod","type":"string","jsonPath":".spec.pod"}"#,
    printcolumn = r#"{"name":"StatefulSet","type":"string","jsonPath":".spec.statefulSet"}"#,
    printcolumn = r#"{"name":"Address","type":"string","jsonPath":".status.pods[0].address"}"#,
    printcolumn = r#"{"name":"Problem","type":"string","jsonPath":".status.problem"}"#
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.pod) == has(oldSelf.pod) && has(self.statefulSet) == has(oldSelf.statefulSet) && \
     has(self.address) == has(oldSelf.address)",
    "only replicas may change; make another IPClaim"
))]
pub struct IPClaimSpec {
    /// The IPPool.
    #[schemars(length(max = 253))]
    #[x_kube(validation = ("self == oldSelf", "only replicas may change; make another IPClaim"))]
    pub pool: String,
    /// The pod's name. This or statefulSet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = ("self == oldSelf", "only replicas may change; make another IPClaim"))]
    pub pod: Option<String>,
    /// The StatefulSet's name; its pods are called by it and their ordinals, from 0 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = ("self == oldSelf", "only replicas may change; make another IPClaim"))]
    pub stateful_set: Option<String>,
    /// How many of the StatefulSet's pods have addresses of their own, from ordinal 0 on; 1 to 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// The pod's address, or that of ordinal 0, whose successors have the addresses that follow. If absent, an address is
    /// chosen for each pod and kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 45))]
    #[x_kube(validation = ("self == oldSelf", "only replicas may change; make another IPClaim"))]
    pub address: Option<String>,
}

/// What a claim has got. An address that was chosen stands here before a pod gets it, and is that pod's for as long as the
/// claim names it; everything else is some seconds to a minute old.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IPClaimStatus {
    /// The pods' addresses.
    #[serde(default)]
    pub pods: Vec<ClaimedAddress>,
    /// What keeps the claim from an address; what is reserved already stays so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A pod's address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimedAddress {
    /// The pod.
    pub pod: String,
    /// Its address.
    pub address: String,
    /// The node that may lease it to the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// What of a block is in use, some minutes old.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IPBlockStatus {
    /// Addresses that are leased.
    #[serde(default)]
    pub used: u32,
    /// Addresses that rest.
    #[serde(default)]
    pub resting: u32,
    /// Rises as long as the holder lives.
    #[serde(default)]
    pub beat: u64,
}

fn default_block_size() -> u32 {
    crate::pool::DEFAULT_BLOCK_SIZE
}
