//! The command line. `docs/device-plugin.md` is its reference.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{Parser, ValueEnum};
use tracing_subscriber::filter::LevelFilter;

use crate::cluster::ApiAccess;
use crate::daemon::Settings;
use crate::duration;
use crate::observer::Roots;

/// Offers this node's SR-IOV VFs and RDMA devices to the kubelet and hands them to pods.
#[derive(Clone, Debug, Parser)]
#[command(name = "zerobridge-device-plugin", version)]
pub struct Cli {
    /// Which devices form which pool: Zerobridge's format, or that of sriov-network-device-plugin or
    /// k8s-rdma-shared-dev-plugin
    #[arg(long, value_name = "FILE", default_value = "/etc/zerobridge/config.json")]
    pub config: PathBuf,
    /// Prefix of resources that name none, instead of the one that is usual in the format of the configuration
    #[arg(long, value_name = "DOMAIN")]
    pub resource_prefix: Option<String>,
    /// Name of this node, for sections of the configuration and for Kubernetes events
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    pub node_name: Option<String>,
    /// How the API server is reached; otherwise as the pod's service account, or not at all outside of a pod
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Do not talk to the API server, even where that is possible
    #[arg(long, conflicts_with = "kubeconfig")]
    pub without_api: bool,
    /// Claim blocks of this IPPool for the node; may be repeated
    #[arg(long, value_name = "NAME", conflicts_with = "without_api", requires = "node_name")]
    pub ip_pool: Vec<String>,
    /// Root directory of the kubelet (its --root-dir)
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubelet")]
    pub kubelet_root: PathBuf,
    /// Where sysfs is mounted; another folder stands for another machine
    #[arg(long, value_name = "DIR", default_value = "/sys")]
    pub sysfs: PathBuf,
    /// Where procfs is mounted
    #[arg(long, value_name = "DIR", default_value = "/proc")]
    pub procfs: PathBuf,
    /// Where device nodes are
    #[arg(long, value_name = "DIR", default_value = "/dev")]
    pub dev: PathBuf,
    /// Where device-info files go
    #[arg(long, value_name = "DIR", default_value = "/var/run/k8s.cni.cncf.io/devinfo/dp")]
    pub devinfo_dir: PathBuf,
    /// Where CDI specifications go
    #[arg(long, value_name = "DIR", default_value = "/var/run/cdi")]
    pub cdi_dir: PathBuf,
    /// Where the CNI plugin keeps its ledger
    #[arg(long, value_name = "DIR", default_value = "/var/lib/zerobridge")]
    pub state_dir: PathBuf,
    /// Where the CNI plugin keeps its locks
    #[arg(long, value_name = "DIR", default_value = "/run/zerobridge")]
    pub run_dir: PathBuf,
    /// How often to look for changed devices without a kernel event: a number with ms, s or m
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = period)]
    pub rescan: Duration,
    /// Serve /metrics, /healthz, /readyz and /devices here; off if not given
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub http: Option<SocketAddr>,
    /// Serve the same at this socket file, which no other instance answers at: for probes (`zbctl probe`)
    #[arg(long, value_name = "FILE")]
    pub http_socket: Option<PathBuf>,
    /// Print the configuration of this node in Zerobridge's format, and end
    #[arg(long)]
    pub print_config: bool,
    /// Print which device would be in which pool, and end
    #[arg(long, conflicts_with = "print_config")]
    pub dry_run: bool,
    /// What to log: off, error, warn, info, debug, trace
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = level)]
    pub log_level: LevelFilter,
    /// How to log: text, json
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// An object a line.
    Json,
}

impl Cli {
    /// How the API server is reached, given what the environment says of the pod that this is.
    pub fn api_access<V: AsRef<OsStr>>(
        &self,
        environment: impl FnOnce(&'static str) -> Option<V>,
    ) -> ApiAccess {
        if self.without_api { ApiAccess::None } else { ApiAccess::find(self.kubeconfig.clone(), environment) }
    }

    /// The settings of a daemon that is process `pid`, started at `start`, and reaches the API server by `api`.
    #[must_use]
    pub fn settings(self, pid: u32, start: SystemTime, api: ApiAccess) -> Settings {
        Settings {
            config: self.config,
            resource_prefix: self.resource_prefix,
            node_name: self.node_name,
            api,
            ip_pools: self.ip_pool,
            kubelet_root: self.kubelet_root,
            roots: Roots { sysfs: self.sysfs, procfs: self.procfs, dev: self.dev },
            devinfo_dir: self.devinfo_dir,
            cdi_dir: self.cdi_dir,
            state_dir: self.state_dir,
            run_dir: self.run_dir,
            rescan: self.rescan,
            http: self.http,
            http_socket: self.http_socket,
            pid,
            start,
        }
    }
}

fn period(text: &str) -> Result<Duration, String> {
    let period = duration::parse(text).map_err(|error| error.to_string())?;
    if period.is_zero() { Err("it has to be above 0".to_owned()) } else { Ok(period) }
}

fn level(text: &str) -> Result<LevelFilter, String> {
    let known = ["off", "error", "warn", "info", "debug", "trace"];
    let level = known.contains(&text).then(|| text.parse().ok()).flatten();
    level.ok_or_else(|| format!("write one of {}", known.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["zerobridge-device-plugin"], arguments].concat())
    }

    #[test]
    fn the_defaults_are_those_of_a_node() {
        let cli = parse(&[]).unwrap();
        assert_eq!(cli.config.to_str(), Some("/etc/zerobridge/config.json"));
        assert_eq!(cli.log_level, LevelFilter::INFO);
        let settings = cli.settings(7, SystemTime::UNIX_EPOCH, ApiAccess::None);
        assert_eq!(settings.kubelet_root.to_str(), Some("/var/lib/kubelet"));
        assert_eq!(settings.roots.sysfs.to_str(), Some("/sys"));
        assert_eq!(settings.devinfo_dir.to_str(), Some("/var/run/k8s.cni.cncf.io/devinfo/dp"));
        assert_eq!(settings.rescan, Duration::from_secs(30));
        assert_eq!(settings.http, None, "nothing listens unless it is asked to");
    }

    #[test]
    fn times_have_units() {
        for (text, milliseconds) in [("500ms", 500), ("5s", 5000), ("2m", 120_000)] {
            assert_eq!(parse(&["--rescan", text]).unwrap().rescan, Duration::from_millis(milliseconds));
        }
        for text in ["5", "0s", "s", "-1s", "1h", "1.5s", "99999999999999999999s", "18446744073709551615m"] {
            let error = parse(&[&format!("--rescan={text}")]).unwrap_err().to_string();
            assert!(
                error.contains(text) && (error.contains("500ms") || error.contains("above 0")),
                "{error}"
            );
        }
    }

    #[test]
    fn an_unknown_level_is_refused_with_the_known_ones() {
        let error = parse(&["--log-level", "loud"]).unwrap_err().to_string();
        assert!(error.contains("off, error, warn, info, debug, trace"), "{error}");
    }
}
