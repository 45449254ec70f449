//! How much memory the processes of a container runtime may lock. A container without the capability `IPC_LOCK` has the
//! limit that its runtime has, and registering memory for RDMA is locking it.
//!
//! Refuses to know how much is enough.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

/// The processes of container runtimes by which containers are started, as `/proc/PID/comm` names them.
const RUNTIMES: [&str; 2] = ["containerd", "crio"];

/// How the line in `/proc/PID/limits` begins (`lnames` in the kernel's fs/proc/base.c).
const LINE: &str = "Max locked memory";

/// A limit, ordered from the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemoryLimit {
    /// So many bytes.
    Bytes(u64),
    /// None.
    Unlimited,
}

/// The limits of the container runtimes among the processes that `procfs` shows, by name; the least of several with one
/// name. Empty where it does not show those of the host.
pub(super) fn of_runtimes(procfs: &Path) -> BTreeMap<String, MemoryLimit> {
    let mut limits = BTreeMap::new();
    let Ok(processes) = fs::read_dir(procfs) else { return limits };
    for process in processes.flatten() {
        let is_process =
            process.file_name().to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
        if !is_process {
            continue;
        }
        // A process may end at any time.
        let Ok(name) = fs::read_to_string(process.path().join("comm")) else { continue };
        let name = name.trim_end();
        if !RUNTIMES.contains(&name) {
            continue;
        }
        let limit = fs::read_to_string(process.path().join("limits")).ok();
        if let Some(limit) = limit.as_deref().and_then(parse) {
            limits
                .entry(name.to_owned())
                .and_modify(|least: &mut MemoryLimit| *least = limit.min(*least))
                .or_insert(limit);
        }
    }
    limits
}

/// The soft limit, which is the one that counts, in the content of `/proc/PID/limits`.
fn parse(limits: &str) -> Option<MemoryLimit> {
    let line = limits.lines().find_map(|line| line.strip_prefix(LINE))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(MemoryLimit::Unlimited),
        bytes => Some(MemoryLimit::Bytes(bytes.parse().ok()?)),
    }
}

impl fmt::Display for MemoryLimit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(out, "{bytes} bytes"),
            Self::Unlimited => out.write_str("any amount"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: &str = "\
Limit                     Soft Limit           Hard Limit           Units     
Max processes             unlimited            unlimited            processes 
Max locked memory         8388608              unlimited            bytes     
Max address space         unlimited            unlimited            bytes     
";

    #[test]
    fn the_soft_limit_of_each_runtime_is_found_and_the_least_of_several() {
        let procfs = tempfile::tempdir().unwrap();
        let process = |pid: &str, comm: &str, limits: &str| {
            let folder = procfs.path().join(pid);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("comm"), format!("{comm}\n")).unwrap();
            fs::write(folder.join("limits"), limits).unwrap();
        };
        let unlimited = LIMITS.replace("8388608", "unlimited");
        process("1", "systemd", &LIMITS.replace("8388608", "1"));
        process("70", "containerd", &unlimited);
        process("71", "containerd", LIMITS);
        process("72", "containerd", &unlimited);
        process("73", "containerd-shim", &LIMITS.replace("8388608", "2"));
        process("80", "crio", &unlimited);
        process("self", "crio", &LIMITS.replace("8388608", "3"));
        let expected = BTreeMap::from([
            ("containerd".to_owned(), MemoryLimit::Bytes(8_388_608)),
            ("crio".to_owned(), MemoryLimit::Unlimited),
        ]);
        assert_eq!(of_runtimes(procfs.path()), expected);
        assert_eq!(of_runtimes(&procfs.path().join("nowhere")), BTreeMap::new());
    }

    #[test]
    fn a_runtime_whose_limits_are_not_told_has_none_here() {
        let procfs = tempfile::tempdir().unwrap();
        fs::create_dir(procfs.path().join("7")).unwrap();
        fs::write(procfs.path().join("7/comm"), "crio\n").unwrap();
        for limits in
            [None, Some(""), Some("Max locked memory\n"), Some("Max locked memory many many bytes\n")]
        {
            if let Some(text) = limits {
                fs::write(procfs.path().join("7/limits"), text).unwrap();
            }
            assert_eq!(of_runtimes(procfs.path()), BTreeMap::new(), "{limits:?}");
        }
    }
}
