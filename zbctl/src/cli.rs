//! The command line. `docs/zbctl.md` is its reference.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use zerobridge_cni_sriov::network_file::REPLACED;
use zerobridge_device_plugin::Hardware;

/// Shows what Zerobridge makes of a node.
#[derive(Clone, Debug, Parser)]
#[command(name = "zbctl", version)]
pub struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// Lists PFs, VFs and SFs: what each is, its pool, and the pod that has it
    Devices(DevicesArguments),
    /// Tells for each pool why it takes a device or does not
    Explain(ExplainArguments),
    /// Lists the node's own legs in the pods' networks, and what is in the way of each
    Legs(LegsArguments),
    /// Works on configurations
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Works on address leases
    #[command(subcommand)]
    Ipam(IpamCommand),
    /// Works on the ledger's files
    #[command(subcommand)]
    Ledger(LedgerCommand),
    /// Asks the daemon whether it is ready, or healthy: a container's probe
    Probe(ProbeArguments),
    /// Puts programs and networks on this node and takes them off
    #[command(subcommand)]
    Node(NodeCommand),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ProbeArguments {
    /// What to ask
    #[arg(value_name = "WHAT")]
    pub(crate) kind: ProbeKind,
    /// The daemon's --http-socket
    #[arg(long, value_name = "FILE")]
    pub(crate) socket: PathBuf,
}

/// What the daemon is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProbeKind {
    /// Whether the kubelet knows every pool.
    Ready,
    /// Whether it still looks at the machine.
    Healthy,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Puts the CNI plugins and networks into their places; what is there already is left as it is
    Install(InstallArguments),
    /// Takes off what was installed, once no pod needs it, and puts back what was there before
    Uninstall(UninstallArguments),
    /// Tells what is installed, whether it is as it was installed, and what keeps it on the node
    Status(StatusArguments),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct InstallArguments {
    /// Where the programs are that are to be installed
    #[arg(long, value_name = "DIR", default_value = "/bin")]
    pub(crate) from: PathBuf,
    /// Where the runtime looks for CNI plugins
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin", value_parser = absolute)]
    pub(crate) cni_bin_dir: PathBuf,
    /// Where the runtime looks for networks
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d", value_parser = absolute)]
    pub(crate) cni_conf_dir: PathBuf,
    /// A network to put there, under the file's name; may be repeated. One of an earlier installation goes
    #[arg(long = "network", value_name = "FILE")]
    pub(crate) networks: Vec<PathBuf>,
    /// Install the plugin also in the place of this one, which is kept; may be repeated
    #[arg(long = "as", value_name = "NAME", value_parser = PossibleValuesParser::new(REPLACED))]
    pub(crate) names: Vec<String>,
    /// Install zbctl, too, into this folder
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    pub(crate) with_zbctl: Option<PathBuf>,
    /// Where the ledger is; what was installed is remembered there
    #[arg(long, value_name = "DIR", default_value = "/var/lib/zerobridge", value_parser = absolute)]
    pub(crate) state_dir: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct UninstallArguments {
    /// Do it; without, it is only said what would be done
    #[arg(long)]
    pub(crate) apply: bool,
    /// Keep the ledger and the other files that the programs wrote
    #[arg(long)]
    pub(crate) keep_state: bool,
    /// When all is done, wait for SIGTERM, as the container of a DaemonSet must
    #[arg(long, requires = "apply")]
    pub(crate) stay: bool,
    /// Where device-info files are
    #[arg(long, value_name = "DIR", default_value = "/var/run/k8s.cni.cncf.io/devinfo/dp")]
    pub(crate) devinfo_dir: PathBuf,
    #[command(flatten)]
    pub(crate) promises: PromiseArguments,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct StatusArguments {
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) promises: PromiseArguments,
}

/// Where is found what the node owes to pods.
#[derive(Clone, Debug, Args)]
pub(crate) struct PromiseArguments {
    /// Where the ledger is
    #[arg(long, value_name = "DIR", default_value = "/var/lib/zerobridge")]
    pub(crate) state_dir: PathBuf,
    /// Where the CNI plugin keeps its locks
    #[arg(long, value_name = "DIR", default_value = "/run/zerobridge")]
    pub(crate) run_dir: PathBuf,
    /// Where CDI specifications are
    #[arg(long, value_name = "DIR", default_value = "/var/run/cdi")]
    pub(crate) cdi_dir: PathBuf,
    /// Root directory of the kubelet (its --root-dir)
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubelet")]
    pub(crate) kubelet_root: PathBuf,
    /// Where sysfs is mounted
    #[arg(long, value_name = "DIR", default_value = "/sys")]
    pub(crate) sysfs: PathBuf,
    /// Where procfs is mounted
    #[arg(long, value_name = "DIR", default_value = "/proc")]
    pub(crate) procfs: PathBuf,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum IpamCommand {
    /// Lists addresses that are leased, rest or are set aside, and blocks and claims of cluster-wide pools
    List(ListArguments),
    /// Takes over the addresses that host-local has given out
    Adopt(AdoptArguments),
    /// Compares the ledger with the addresses that interfaces have, and with the API server's objects
    Audit(AuditArguments),
    /// Puts right what a report of an audit names, where it is still so
    Repair(RepairArguments),
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum LedgerCommand {
    /// Makes a new ledger from what is left of a damaged one and from the addresses that living pods have
    Rebuild(RebuildArguments),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ListArguments {
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Only this network
    #[arg(long, value_name = "NAME")]
    pub(crate) network: Option<String>,
    /// The configuration's "restSeconds", by which the end of a rest is told; that of a cluster-wide pool is known
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) rest_seconds: u32,
    /// The configuration's "setAsideSeconds", by which is told when an address is readmitted
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub(crate) set_aside_seconds: u32,
    /// Where the ledger is
    #[arg(long, value_name = "DIR", default_value = "/var/lib/zerobridge")]
    pub(crate) state_dir: PathBuf,
    /// Where procfs is mounted
    #[arg(long, value_name = "DIR", default_value = "/proc")]
    pub(crate) procfs: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct AdoptArguments {
    /// host-local's directory for the network, such as /var/lib/cni/networks/blue
    #[arg(long, value_name = "DIR")]
    pub(crate) from: PathBuf,
    /// The network that the addresses are leased in: the configuration's "name"
    #[arg(long, value_name = "NAME")]
    pub(crate) network: String,
    /// Do it; without, it is only said what would be done
    #[arg(long)]
    pub(crate) apply: bool,
    /// Where the ledger is
    #[arg(long, value_name = "DIR", default_value = "/var/lib/zerobridge")]
    pub(crate) state_dir: PathBuf,
    /// Where procfs is mounted
    #[arg(long, value_name = "DIR", default_value = "/proc")]
    pub(crate) procfs: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct AuditArguments {
    /// Write a report in JSON, for `zbctl ipam repair`
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) evidence: EvidenceArguments,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RepairArguments {
    /// What `zbctl ipam audit --json` wrote, perhaps with fewer faults in it; - is standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) from_report: PathBuf,
    /// Do it; without, it is only said what would be done
    #[arg(long)]
    pub(crate) apply: bool,
    #[command(flatten)]
    pub(crate) evidence: EvidenceArguments,
}

/// What the ledger is compared with.
#[derive(Clone, Debug, Args)]
pub(crate) struct EvidenceArguments {
    #[command(flatten)]
    pub(crate) survey: SurveyArguments,
    /// What `kubectl get ipblocks -o json` writes, to compare blocks of cluster-wide pools; - is standard input
    #[arg(long, value_name = "FILE", requires = "node")]
    pub(crate) ip_blocks: Option<PathBuf>,
    /// The name of this node's Node object
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<String>,
}

/// Where the ledger is, and what tells which addresses are in use.
#[derive(Clone, Debug, Args)]
pub(crate) struct SurveyArguments {
    /// A network to which addresses may belong that nothing else tells the network of; may be repeated
    #[arg(long = "network", value_name = "NAME")]
    pub(crate) networks: Vec<String>,
    /// Where the ledger is
    #[arg(long, value_name = "DIR", default_value = "/var/lib/zerobridge")]
    pub(crate) state_dir: PathBuf,
    /// Where the runtime has its network namespaces
    #[arg(long, value_name = "DIR", default_value = "/run/netns")]
    pub(crate) netns_dir: PathBuf,
    /// Where the runtime keeps the results of its CNI calls
    #[arg(long, value_name = "DIR", default_value = "/var/lib/cni/results")]
    pub(crate) cni_cache: PathBuf,
    /// Where procfs is mounted
    #[arg(long, value_name = "DIR", default_value = "/proc")]
    pub(crate) procfs: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RebuildArguments {
    /// Also when some namespace cannot be looked into, so that the addresses in it are not known
    #[arg(long)]
    pub(crate) despite_unseen: bool,
    #[command(flatten)]
    pub(crate) survey: SurveyArguments,
    /// Do it; without, it is only said what would be done
    #[arg(long)]
    pub(crate) apply: bool,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Checks a file in any of the three formats
    Check(CheckArguments),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DevicesArguments {
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) node: NodeArguments,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct LegsArguments {
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) node: NodeArguments,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ExplainArguments {
    /// PCI address, such as 0000:01:10.0, or name of an auxiliary device, such as mlx5_core.sf.4
    #[arg(value_name = "DEVICE", value_parser = hardware)]
    pub(crate) device: Hardware,
    /// Only this pool: its resource, with or without the prefix
    #[arg(long, value_name = "RESOURCE")]
    pub(crate) pool: Option<String>,
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) node: NodeArguments,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct CheckArguments {
    /// The file
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) identity: IdentityArguments,
    /// Also write the configuration as it is understood, in this project's own format
    #[arg(long)]
    pub(crate) print: bool,
}

/// Where a node's facts are.
#[derive(Clone, Debug, Args)]
pub(crate) struct NodeArguments {
    /// The configuration, in any of the three formats
    #[arg(long, value_name = "FILE", default_value = "/etc/zerobridge/config.json")]
    pub(crate) config: PathBuf,
    #[command(flatten)]
    pub(crate) identity: IdentityArguments,
    /// Root directory of the kubelet (its --root-dir)
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubelet")]
    pub(crate) kubelet_root: PathBuf,
    /// Where the ledger is
    #[arg(long, value_name = "DIR", default_value = "/var/lib/zerobridge")]
    pub(crate) state_dir: PathBuf,
    /// Where sysfs is mounted; another one than /sys stands for another machine
    #[arg(long, value_name = "DIR", default_value = "/sys")]
    pub(crate) sysfs: PathBuf,
    /// Where procfs is mounted
    #[arg(long, value_name = "DIR", default_value = "/proc")]
    pub(crate) procfs: PathBuf,
    /// Where the device nodes are
    #[arg(long, value_name = "DIR", default_value = "/dev")]
    pub(crate) dev: PathBuf,
}

/// Which node a configuration is read for.
#[derive(Clone, Debug, Args)]
pub(crate) struct IdentityArguments {
    /// Name of the node, for configurations with sections per node
    #[arg(long, value_name = "NAME", env = "NODE_NAME", default_value = "")]
    pub(crate) node: String,
    /// A label of the node, for configurations with sections per label; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Prefix of resources that name none, instead of the one that is usual in the file's format
    #[arg(long, value_name = "PREFIX")]
    pub(crate) resource_prefix: Option<String>,
}

fn hardware(text: &str) -> Result<Hardware, String> {
    let id: zerobridge_device_plugin::DeviceId =
        text.parse().map_err(|error: zerobridge_device_plugin::DeviceIdError| error.to_string())?;
    // `0000:01:00.0#3` is one of several shares of a device, all of which have the same reasons.
    Ok(id.hardware)
}

/// What is remembered must be found again, whatever the working directory.
fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err("write a path that begins with /".to_owned()) }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE, such as rack=r7")?;
    if key.is_empty() {
        return Err("the key is missing; write KEY=VALUE, such as rack=r7".to_owned());
    }
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(arguments: &[&str]) -> (i32, String) {
        let error = Cli::try_parse_from([&["zbctl"], arguments].concat()).unwrap_err();
        (error.exit_code(), error.to_string())
    }

    #[test]
    fn a_device_is_an_address_or_an_auxiliary_name() {
        for text in ["0000:01:10.0", "01:10.0", "mlx5_core.sf.4", "0000:01:00.0#3"] {
            Cli::try_parse_from(["zbctl", "explain", text]).unwrap();
        }
        let (code, told) = error(&["explain", "eth0"]);
        assert!(code == 2 && told.contains("eth0") && told.contains("mlx5_core.sf.4"), "{told}");
    }

    #[test]
    fn labels_have_a_key_and_a_value() {
        for text in ["rack", "=r7"] {
            let (code, told) = error(&["config", "check", "c.json", "--label", text]);
            assert!(code == 2 && told.contains("KEY=VALUE"), "{told}");
        }
        Cli::try_parse_from(["zbctl", "config", "check", "c.json", "--label", "a=b=c", "--label", "e="])
            .unwrap();
    }
}
