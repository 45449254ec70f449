//! Whether the network namespace of a record still exists.
//!
//! More careful than the CNI plugin, which the runtime tells that a pod is gone: the daemon usually runs in a container,
//! and a namespace that its mounts do not show is not gone.

use zerobridge_kernel::{Netns, NetnsError, NetnsId};
use zerobridge_ledger::Sandbox;
use zerobridge_proto::chain;

/// What became of a record's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is there.
    Lives,
    /// Its path is absent, or another namespace has it.
    Gone,
    /// Nobody can say from here.
    Unknown {
        /// Why not.
        reason: String,
    },
}

/// Looks for a namespace where the record says that it is.
pub(super) fn fate(sandbox: &Sandbox) -> Fate {
    let recorded = NetnsId { device: sandbox.dev, inode: sandbox.ino };
    let path = &sandbox.path;
    let unknown = |reason: String| Fate::Unknown { reason };
    match Netns::open(path) {
        Ok(netns) if netns.id() == recorded => Fate::Lives,
        Ok(_) => Fate::Gone,
        // An empty file stands for a namespace that was mounted after this container's mounts were copied.
        Err(NetnsError::NotANamespace { .. }) => unknown(format!(
            "{} is no namespace; mount its folder with propagation HostToContainer",
            path.display()
        )),
        Err(error) if error.is_gone() => match path.parent().filter(|folder| !folder.is_dir()) {
            None => Fate::Gone,
            Some(folder) => unknown(format!("{} is not there; mount it from the host", folder.display())),
        },
        Err(error) => unknown(chain(&error)),
    }
}

#[cfg(test)]
mod tests {
    use zerobridge_kernel::testing::TestNetns;

    use super::*;

    #[test]
    fn only_absence_and_another_number_mean_that_it_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let [netns, other] = [TestNetns::new(), TestNetns::new()];
        let NetnsId { device: dev, inode: ino } = netns.netns().id();
        let at = |path: &std::path::Path| fate(&Sandbox { path: path.to_owned(), dev, ino });

        assert_eq!(at(netns.netns().path()), Fate::Lives);
        assert_eq!(at(other.netns().path()), Fate::Gone);
        let plain = folder.path().join("plain");
        std::fs::write(&plain, "").unwrap();
        for (path, words) in
            [(plain, "HostToContainer"), (folder.path().join("absent/netns"), "mount it from the host")]
        {
            let Fate::Unknown { reason } = at(&path) else { panic!("{} is known", path.display()) };
            assert!(reason.contains(words), "{reason}");
        }
        let path = netns.netns().path().to_owned();
        drop(netns);
        assert_eq!(at(&path), Fate::Gone);
    }
}
