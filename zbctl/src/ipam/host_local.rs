//! The directory in which host-local keeps the addresses of one network (containernetworking/plugins v1.9.1,
//! `plugins/ipam/host-local/backend/disk/backend.go`).
//!
//! A file for each address, named by it, holds the container's id and the interface's name with `\r\n` between;
//! `last_reserved_ip.N` holds the address that range set N gave out last; `lock` is empty. A file is created first and
//! written then, so one that is empty belongs to nobody: host-local died in between, and never gives the address out again.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use zerobridge_ledger::Owner;

/// What stands in the directory, by address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HostLocal {
    /// Addresses that are given out.
    pub(crate) reserved: Vec<Reserved>,
    /// The address given out last, by the number of its range set.
    pub(crate) last: Vec<(u16, IpAddr)>,
    /// Files that cannot be understood, and why.
    pub(crate) refused: Vec<(PathBuf, String)>,
}

/// An address that a container has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reserved {
    pub(crate) address: IpAddr,
    pub(crate) owner: Owner,
    /// When its file was written.
    pub(crate) since: SystemTime,
}

impl HostLocal {
    /// Reads a directory while host-local's own lock is held, so that no address changes hands meanwhile.
    ///
    /// # Errors
    /// The directory or a file in it cannot be read; with the path.
    pub(crate) fn read(directory: &Path) -> Result<Self, (PathBuf, io::Error)> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error| (path, error)
        };
        let lock = directory.join("lock");
        // One that host-local has not made yet is not ours to make.
        let _locked = match fs::File::open(&lock) {
            Ok(file) => file.lock().map(|()| Some(file)).map_err(at(&lock))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(at(&lock)(error)),
        };
        let mut found = Self::default();
        for entry in fs::read_dir(directory).map_err(at(directory))? {
            let path = entry.map_err(at(directory))?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if name == "lock" {
                continue;
            }
            let text = match fs::read(&path) {
                Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Err(error) => return Err(at(&path)(error)),
            };
            if let Some(number) = name.strip_prefix("last_reserved_ip.") {
                // One that cannot be read is passed over: only where the search begins depends on it.
                if let (Ok(number), Ok(address)) = (number.parse(), text.trim().parse()) {
                    found.last.push((number, address));
                }
                continue;
            }
            match (name.parse(), owner(&text)) {
                (Err(_), _) => found.refused.push((path, "its name is no address".to_owned())),
                (Ok(_), Err(reason)) => found.refused.push((path, reason.to_owned())),
                (Ok(address), Ok(owner)) => {
                    let since =
                        fs::metadata(&path).and_then(|metadata| metadata.modified()).map_err(at(&path))?;
                    found.reserved.push(Reserved { address, owner, since });
                }
            }
        }
        found.reserved.sort_by_key(|reserved| reserved.address);
        found.last.sort_unstable();
        found.refused.sort();
        Ok(found)
    }
}

fn owner(text: &str) -> Result<Owner, &'static str> {
    let (container_id, ifname) = match text.split_once('\n') {
        _ if text.trim().is_empty() => {
            return Err(
                "it is empty: no container has the address, host-local was killed while it gave it out; delete the file",
            );
        }
        None => (text, ""),
        Some((container_id, ifname)) => (container_id, ifname),
    };
    let (container_id, ifname) = (container_id.trim(), ifname.trim());
    match (container_id, ifname) {
        (_, "") => Err(
            "it names no interface, as old versions of host-local wrote it; add a second line with the interface's \
             name, such as eth0",
        ),
        ("", _) => Err("it names no container; delete it if no container has the address"),
        _ => Ok(Owner { container_id: container_id.to_owned(), ifname: ifname.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_file_is_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in [
            ("lock", ""),
            ("last_reserved_ip.0", "10.0.0.9"),
            ("last_reserved_ip.1", "fd00::9"),
            ("last_reserved_ip.2", "scribble"),
            ("10.0.0.10", "c2\r\neth0"),
            ("10.0.0.9", "c1\r\nnet1"),
            ("fd00::9", "c1\neth0\n"),
            ("10.0.0.11", ""),
            ("10.0.0.12", "\r\n"),
            ("10.0.0.13", "c3"),
            ("10.0.0.14", "\r\neth0"),
            ("notes.txt", "mine"),
        ] {
            fs::write(directory.path().join(name), content).unwrap();
        }
        let found = HostLocal::read(directory.path()).unwrap();
        let reserved: Vec<String> = found
            .reserved
            .iter()
            .map(|reserved| format!("{} {}", reserved.address, reserved.owner))
            .collect();
        assert_eq!(
            reserved,
            [
                "10.0.0.9 net1 of container c1",
                "10.0.0.10 eth0 of container c2",
                "fd00::9 eth0 of container c1"
            ]
        );
        assert_eq!(found.last, [(0, "10.0.0.9".parse().unwrap()), (1, "fd00::9".parse().unwrap())]);
        let refused: Vec<(String, &str)> = found
            .refused
            .iter()
            .map(|(path, reason)| {
                (
                    path.file_name().unwrap().to_string_lossy().into_owned(),
                    reason.split([':', ',', ';']).next().unwrap(),
                )
            })
            .collect();
        let expected = [
            ("10.0.0.11", "it is empty"),
            ("10.0.0.12", "it is empty"),
            ("10.0.0.13", "it names no interface"),
            ("10.0.0.14", "it names no container"),
            ("notes.txt", "its name is no address"),
        ];
        assert_eq!(refused, expected.map(|(name, reason)| (name.to_owned(), reason)));
        let (path, _) = HostLocal::read(&directory.path().join("absent")).unwrap_err();
        assert!(path.ends_with("absent"));
    }
}
