//! A configuration file as a whole: which format it has, and what it says to which node.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use super::document::Placed;
use super::glob::Glob;
use super::{CdiMode, Config, ConfigError, LegConfig, PoolConfig, own, rdma_shared, sriov_network};
use crate::resource::ResourceName;

/// A file, completely checked: a mistake in what is for another node is a mistake too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFile {
    /// What it was written for.
    pub format: Format,
    /// What is read and has another effect than its author may expect.
    pub notices: Vec<Notice>,
    pub(super) sections: Vec<Section>,
    pub(super) pools: Vec<PoolConfig>,
    pub(super) legs: Vec<LegConfig>,
    pub(super) cdi: CdiMode,
}

/// What a file was written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// This program.
    Own,
    /// sriov-network-device-plugin.
    SriovNetwork,
    /// k8s-rdma-shared-dev-plugin.
    RdmaShared,
}

/// Something in a file of another program that has no effect here, or another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Where it stands.
    pub place: String,
    /// What becomes of it.
    pub effect: String,
}

/// What is known of the node that a configuration is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeIdentity {
    /// The name of its Node object.
    pub name: String,
    /// Its labels; `None` without access to the API server.
    pub labels: Option<BTreeMap<String, String>>,
}

/// What a file says to one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// The node's configuration.
    pub config: Config,
    /// Where it stands in the file: `nodes[1]`, or `pools`.
    pub section: String,
    /// Earlier sections that may be meant for this node and were passed over, because they ask for labels that nobody
    /// could read.
    pub undecided: Vec<String>,
}

/// Pools and legs for some nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    /// The node has one of these names. Empty if any will do.
    pub(super) names: Vec<Glob>,
    /// The node has all of these labels.
    pub(super) labels: BTreeMap<String, Glob>,
    pub(super) pools: Vec<PoolConfig>,
    pub(super) legs: Vec<LegConfig>,
}

impl ConfigFile {
    /// Reads and checks a file.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], which names the place, the value, what is allowed, and what to do.
    pub fn load(path: &Path, resource_prefix: Option<&str>) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, resource_prefix)
    }

    /// Reads and checks the content of a file. `resource_prefix` is for pools that name none, instead of the one that is
    /// usual in the file's format.
    ///
    /// # Errors
    ///
    /// As for [`ConfigFile::load`].
    pub fn parse(text: &str, resource_prefix: Option<&str>) -> Result<Self, ConfigError> {
        let document = Placed::document(text)?;
        match format(&document)? {
            Format::Own => own::read(document, resource_prefix),
            Format::SriovNetwork => sriov_network::read(document, resource_prefix),
            Format::RdmaShared => rdma_shared::read(document, resource_prefix),
        }
    }

    /// The resources of all pools, those of other nodes included.
    pub fn resources(&self) -> impl Iterator<Item = &ResourceName> {
        let of_sections = self.sections.iter().flat_map(|section| &section.pools);
        self.pools.iter().chain(of_sections).map(|pool| &pool.resource)
    }

    /// What it says to a node: the first section that is for it, or else what stands in `pools` and `legs`.
    #[must_use]
    pub fn for_node(&self, node: &NodeIdentity) -> NodeConfig {
        let mut undecided = Vec::new();
        let mut chosen = ("pools".to_owned(), &self.pools, &self.legs);
        for (position, section) in self.sections.iter().enumerate() {
            let place = format!("nodes[{position}]");
            match section.is_for(node) {
                Some(true) => {
                    chosen = (place, &section.pools, &section.legs);
                    break;
                }
                Some(false) => {}
                None => undecided.push(place),
            }
        }
        let (section, pools, legs) = chosen;
        let config = Config { pools: pools.clone(), legs: legs.clone(), cdi: self.cdi };
        NodeConfig { config, section, undecided }
    }
}

impl Format {
    /// What it is called in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Own => "zerobridge",
            Self::SriovNetwork => "sriov-network-device-plugin",
            Self::RdmaShared => "k8s-rdma-shared-dev-plugin",
        }
    }
}

impl Section {
    /// `None` if only the labels can tell and nobody could read them.
    fn is_for(&self, node: &NodeIdentity) -> Option<bool> {
        if !self.names.is_empty() && !self.names.iter().any(|name| name.matches(&node.name)) {
            return Some(false);
        }
        if self.labels.is_empty() {
            return Some(true);
        }
        let labels = node.labels.as_ref()?;
        let has =
            |(key, wanted): (&String, &Glob)| labels.get(key).is_some_and(|value| wanted.matches(value));
        Some(self.labels.iter().all(has))
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.place, self.effect)
    }
}

/// The keys at the top tell the format, in any case of letters, because that is how the other two programs read them.
fn format(document: &Placed) -> Result<Format, ConfigError> {
    let formats = [
        (Format::SriovNetwork, sriov_network::TOP_KEYS),
        (Format::RdmaShared, rdma_shared::TOP_KEYS),
        (Format::Own, own::TOP_KEYS),
    ];
    let of = |key: &str| {
        let among = |known: &[&str]| known.iter().any(|name| name.eq_ignore_ascii_case(key));
        formats.iter().find(|(_, keys)| among(keys)).map(|(format, _)| *format)
    };
    let mut found: Option<(&str, Format)> = None;
    for key in document.keys() {
        let Some(format) = of(key) else { continue };
        match found {
            Some((first, earlier)) if earlier != format => {
                return Err(ConfigError::Mixed { first: first.to_owned(), second: key.to_owned() });
            }
            Some(_) => {}
            None => found = Some((key, format)),
        }
    }
    Ok(found.map_or(Format::Own, |(_, format)| format))
}
