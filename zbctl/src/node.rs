//! Everything that a node says about its devices, read once.

use thiserror::Error;
use zerobridge_device_plugin::{
    CdiMode, Config, ConfigError, ConfigFile, Needs, NodeIdentity, NodeMethod, ObserveError, Observer,
    Obstacle, Roots, Surroundings, obstacles,
};

use crate::cli::{IdentityArguments, NodeArguments};
use crate::owners::{self, Owners, Source};

/// What a node says.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) config: Config,
    pub(crate) around: Surroundings,
    pub(crate) owners: Owners,
    pub(crate) owners_from: Option<Source>,
    /// What could not be found out, and is not fatal.
    pub(crate) notes: Vec<String>,
}

/// Why a node cannot be read.
#[derive(Debug, Error)]
pub(crate) enum NodeError {
    /// The configuration.
    #[error("the configuration cannot be used")]
    Config(#[from] ConfigError),
    /// The machine.
    #[error("cannot read the devices of this machine")]
    Observe(#[from] ObserveError),
}

impl Node {
    /// Reads a node. Without the configuration that it has by default, it has no pools.
    pub(crate) fn read(arguments: &NodeArguments) -> Result<Self, NodeError> {
        let mut notes = Vec::new();
        let config = if arguments.config.exists() {
            let file = ConfigFile::load(&arguments.config, arguments.identity.resource_prefix.as_deref())?;
            let node = file.for_node(&identity(&arguments.identity));
            notes.extend(undecided(&node.undecided, &arguments.identity));
            node.config
        } else {
            notes.push(format!(
                "there is no configuration {}: no device has a pool",
                arguments.config.display()
            ));
            Config::default()
        };
        let roots = Roots {
            sysfs: arguments.sysfs.clone(),
            procfs: arguments.procfs.clone(),
            dev: arguments.dev.clone(),
        };
        let around = Observer::open(&roots)?.look(Needs::of(&config.pools), true)?;
        let around = around.with_legs(&config.legs);
        let (owners, owners_from, unanswered) = owners::read(&arguments.kubelet_root, &arguments.state_dir);
        notes.extend(unanswered);
        Ok(Self { config, around, owners, owners_from, notes })
    }
}

impl Node {
    /// What keeps the node from giving what its pools promise. Whether nodes are told by CDI is known only where the
    /// configuration says so: otherwise it is for kubelet and runtime to say, who tell the API server.
    pub(crate) fn obstacles(&self) -> Vec<Obstacle> {
        let method = match self.config.cdi {
            CdiMode::On => Some(NodeMethod::Cdi),
            CdiMode::Off => Some(NodeMethod::Plain),
            CdiMode::Auto => None,
        };
        obstacles(&self.config.pools, &self.around.rdma, method)
    }
}

/// Which node a configuration is read for.
pub(crate) fn identity(arguments: &IdentityArguments) -> NodeIdentity {
    let labels = arguments.labels.iter().cloned().collect();
    NodeIdentity { name: arguments.node.clone(), labels: (!arguments.labels.is_empty()).then_some(labels) }
}

/// What to say about sections that may be meant for the node.
pub(crate) fn undecided(sections: &[String], identity: &IdentityArguments) -> Option<String> {
    let node = if identity.node.is_empty() { "this node" } else { &identity.node };
    (!sections.is_empty())
        .then(|| format!("{} may be for {node}: tell its labels with --label KEY=VALUE", sections.join(", ")))
}

/// Nodes for tests.
#[cfg(test)]
pub(crate) mod testing {
    use std::path::Path;

    use zerobridge_device_plugin::RdmaNode;
    use zerobridge_kernel::testing::SysfsTree;
    use zerobridge_kernel::{Scanner, Sysfs};

    use super::*;

    /// A machine made of files.
    pub(crate) fn machine_of(build: impl FnOnce(&SysfsTree)) -> Surroundings {
        let folder = tempfile::tempdir().unwrap();
        let tree = SysfsTree::new(folder.path());
        build(&tree);
        let machine = Scanner::new(Sysfs::new(tree.root())).scan().unwrap();
        // With the modules that RDMA needs.
        let rdma = RdmaNode { uverbs: true, connection_manager: true, ..RdmaNode::default() };
        Surroundings { machine, rdma, ..Surroundings::default() }
    }

    /// A node with a machine and a configuration.
    pub(crate) fn node(around: Surroundings, config: &str) -> Node {
        let config = Config::parse(config).unwrap();
        Node { config, around, owners: Owners::default(), owners_from: None, notes: Vec::new() }
    }

    /// The arguments of a node all of whose files are below `root`.
    pub(crate) fn arguments(root: &Path) -> NodeArguments {
        NodeArguments {
            config: root.join("config.json"),
            identity: IdentityArguments { node: String::new(), labels: Vec::new(), resource_prefix: None },
            kubelet_root: root.join("kubelet"),
            state_dir: root.join("state"),
            sysfs: root.join("sys"),
            procfs: root.join("proc"),
            dev: root.join("dev"),
        }
    }
}
