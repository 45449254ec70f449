//! The addresses that the network namespaces of this machine have: facts, whoever promised them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use zerobridge_kernel::{Netns, NetnsError, NetnsId, RtnlError, RtnlSocket};
use zerobridge_proto::{Mac, PciAddress, chain};

/// An interface with addresses, in a namespace other than this program's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Living {
    /// The namespace.
    pub(crate) netns: NetnsId,
    /// A path that leads to it.
    pub(crate) path: PathBuf,
    /// The interface's name there.
    pub(crate) ifname: String,
    /// Its Ethernet address.
    pub(crate) mac: Option<Mac>,
    /// The PCI function behind it: what was moved there, and not made there.
    pub(crate) device: Option<PciAddress>,
    /// What somebody gave it; nothing that the kernel derived itself.
    pub(crate) addresses: Vec<IpNet>,
}

/// Looks into every namespace that has a file in `netns_dir` or a process. Also returns what could not be looked into.
pub(crate) fn survey(netns_dir: &Path, procfs: &Path) -> Result<(Vec<Living>, Vec<String>), NetnsError> {
    let mut seen = BTreeSet::from([number(Netns::current()?.id())]);
    let (mut living, mut unseen) = (Vec::new(), Vec::new());
    let mut paths = entries(netns_dir, &mut unseen);
    let is_process = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit))
    };
    let processes = entries(procfs, &mut unseen).into_iter().filter(is_process);
    paths.extend(processes.map(|path| path.join("ns/net")));
    for path in paths {
        let netns = match Netns::open(&path) {
            Ok(netns) => netns,
            // A process or a pod has ended meanwhile.
            Err(error) if error.is_gone() || is_dead(&error) => continue,
            Err(error) => {
                unseen.push(chain(&error));
                continue;
            }
        };
        if !seen.insert(number(netns.id())) {
            continue;
        }
        match look(&netns) {
            Ok(found) => living.extend(found),
            Err(error) => unseen.push(format!("{}: {}", path.display(), chain(&error))),
        }
    }
    Ok((living, unseen))
}

fn number(id: NetnsId) -> (u64, u64) {
    (id.device, id.inode)
}

/// A zombie's namespaces cannot be opened (`ESRCH`): they are gone.
fn is_dead(error: &NetnsError) -> bool {
    const ESRCH: i32 = 3;
    matches!(error, NetnsError::Open { source, .. } if source.raw_os_error() == Some(ESRCH))
}

fn look(netns: &Netns) -> Result<Vec<Living>, RtnlError> {
    const LOOPBACK: &str = "lo";
    let mut rtnl = RtnlSocket::open_in(netns)?;
    let mut found = Vec::new();
    for link in rtnl.links()?.into_iter().filter(|link| link.name != LOOPBACK) {
        let addresses = rtnl.addresses(link.index)?;
        if addresses.is_empty() {
            continue;
        }
        found.push(Living {
            netns: netns.id(),
            path: netns.path().to_owned(),
            ifname: link.name,
            mac: link.mac,
            device: link.parent.and_then(|parent| parent.parse().ok()),
            addresses,
        });
    }
    Ok(found)
}

/// What stands in a directory; nothing where there is none.
fn entries(directory: &Path, unseen: &mut Vec<String>) -> Vec<PathBuf> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            unseen.push(format!("{}: {error}", directory.display()));
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use zerobridge_kernel::testing::TestNetns;

    use super::*;

    #[test]
    fn addresses_of_namespaces_are_found_by_file_and_by_process_and_each_once() {
        let pod = TestNetns::new();
        pod.ip("link add v0 address 02:00:00:00:00:77 type veth peer name v1");
        pod.ip("addr add 10.77.0.5/24 dev v0");
        pod.ip("addr add fd00:77::5/64 dev v0 nodad");
        pod.ip("link set v0 up");
        let mut inside =
            Command::new("ip").args(["netns", "exec", pod.name(), "sleep", "60"]).spawn().unwrap();
        let of_pod = |netns_dir: &Path, procfs: &Path| {
            let (living, _) = survey(netns_dir, procfs).unwrap();
            living.into_iter().filter(|living| living.netns == pod.netns().id()).collect::<Vec<_>>()
        };
        let nowhere = Path::new("/nowhere");
        let by_file = of_pod(Path::new("/run/netns"), nowhere);
        let expected = Living {
            netns: pod.netns().id(),
            path: pod.netns().path().to_owned(),
            ifname: "v0".to_owned(),
            mac: Some("02:00:00:00:00:77".parse().unwrap()),
            device: None,
            addresses: ["10.77.0.5/24", "fd00:77::5/64"].map(|net| net.parse().unwrap()).to_vec(),
        };
        assert_eq!(by_file, [expected]);
        assert_eq!(of_pod(Path::new("/run/netns"), Path::new("/proc")), by_file);
        // `ip netns exec` needs a moment to become the program inside.
        let by_process = (0..100).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            of_pod(nowhere, Path::new("/proc")).pop()
        });
        inside.kill().unwrap();
        inside.wait().unwrap();
        assert_eq!(by_process.unwrap().addresses, by_file[0].addresses);
    }
}
