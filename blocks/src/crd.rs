//! The objects at the API server, group `zerobridge.io`, version `v1alpha1`. `manifests/crds/` is generated from here.
#![allow(unreachable_pub, reason = "KubeSchema repeats the type in a scope of its own")]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What keeps an IPPool from disappearing while nodes hold blocks of it.
pub const FINALIZER: &str = "zerobridge.io/blocks";

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
