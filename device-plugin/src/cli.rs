//! The command line. `docs/device-plugin.md` is its reference.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::Parser;
use tracing_subscriber::filter::LevelFilter;

use crate::daemon::Settings;

/// Offers this node's SR-IOV VFs to the kubelet and hands them to pods.
#[derive(Clone, Debug, Parser)]
#[command(name = "zerobridge-device-plugin", version)]
pub struct Cli {
    /// Which VFs form which pool
    #[arg(long, value_name = "FILE", default_value = "/etc/zerobridge/config.json")]
    pub config: PathBuf,
    /// Root directory of the kubelet (its --root-dir)
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubelet")]
    pub kubelet_root: PathBuf,
    /// Where sysfs is mounted
    #[arg(long, value_name = "DIR", default_value = "/sys")]
    pub sysfs: PathBuf,
    /// Where device-info files go
    #[arg(long, value_name = "DIR", default_value = "/var/run/k8s.cni.cncf.io/devinfo/dp")]
    pub devinfo_dir: PathBuf,
    /// How often to look for changed devices: a number with ms, s or m
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub rescan: Duration,
    /// What to log: off, error, warn, info, debug, trace
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = level)]
    pub log_level: LevelFilter,
}

impl Cli {
    /// The settings of a daemon that is process `pid` and started at `start`.
    #[must_use]
    pub fn settings(self, pid: u32, start: SystemTime) -> Settings {
        let Self { kubelet_root, sysfs, devinfo_dir, rescan, .. } = self;
        Settings { kubelet_root, sysfs, devinfo_dir, rescan, pid, start }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &text[digits.len()..];
    let milliseconds = match unit {
        "ms" => Some(1),
        "s" => Some(1000),
        "m" => Some(60_000),
        _ => None,
    };
    digits
        .parse::<u64>()
        .ok()
        .zip(milliseconds)
        .and_then(|(number, unit)| number.checked_mul(unit))
        .filter(|milliseconds| *milliseconds > 0)
        .map(Duration::from_millis)
        .ok_or_else(|| "write a number above 0 with ms, s or m, such as 500ms or 5s".to_owned())
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
        let settings = cli.settings(7, SystemTime::UNIX_EPOCH);
        assert_eq!(settings.kubelet_root.to_str(), Some("/var/lib/kubelet"));
        assert_eq!(settings.sysfs.to_str(), Some("/sys"));
        assert_eq!(settings.devinfo_dir.to_str(), Some("/var/run/k8s.cni.cncf.io/devinfo/dp"));
        assert_eq!(settings.rescan, Duration::from_secs(5));
    }

    #[test]
    fn times_have_units() {
        for (text, milliseconds) in [("500ms", 500), ("5s", 5000), ("2m", 120_000)] {
            assert_eq!(parse(&["--rescan", text]).unwrap().rescan, Duration::from_millis(milliseconds));
        }
        for text in ["5", "0s", "s", "-1s", "1h", "1.5s", "99999999999999999999s", "18446744073709551615m"] {
            let error = parse(&[&format!("--rescan={text}")]).unwrap_err().to_string();
            assert!(error.contains(text) && error.contains("such as 500ms"), "{error}");
        }
    }

    #[test]
    fn an_unknown_level_is_refused_with_the_known_ones() {
        let error = parse(&["--log-level", "loud"]).unwrap_err().to_string();
        assert!(error.contains("off, error, warn, info, debug, trace"), "{error}");
    }
}
