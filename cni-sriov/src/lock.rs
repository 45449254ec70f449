//! One process at a time per VF, and a name for whoever is in the way.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;
use zerobridge_proto::PciAddress;

/// How often a lock that is held is tried again.
const INTERVAL: Duration = Duration::from_millis(5);

/// The exclusive right to change one VF. Given up when dropped, and by the kernel when the process dies.
#[derive(Debug)]
pub(crate) struct VfLock {
    _file: File,
}

/// Why a VF could not be locked.
#[derive(Debug, Error)]
pub enum LockError {
    /// The lock file is out of reach.
    #[error("cannot open lock {}", path.display())]
    Open {
        /// The lock file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else has it.
    #[error("VF {device} is locked by {owner} for more than {} s", waited.as_secs())]
    Held {
        /// The VF.
        device: PciAddress,
        /// What the holder wrote into the lock file.
        owner: String,
        /// How long was waited.
        waited: Duration,
    },
}

impl VfLock {
    /// Locks VF `device` by a file in `run_dir`, writes `owner` into it, and waits up to `patience` for another holder.
    ///
    /// # Errors
    /// [`LockError`].
    pub(crate) fn acquire(
        run_dir: &Path,
        device: PciAddress,
        owner: &str,
        patience: Duration,
    ) -> Result<Self, LockError> {
        let path = run_dir.join(format!("vf-{device}.lock"));
        let open_error = |source| LockError::Open { path: path.clone(), source };
        fs::create_dir_all(run_dir).map_err(open_error)?;
        // Never deleted: a lock on a file that another process unlinked would exclude nobody.
        let options = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = options.map_err(open_error)?;
        let started = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if started.elapsed() < patience => thread::sleep(INTERVAL),
                Err(TryLockError::WouldBlock) => {
                    let mut owner = String::new();
                    file.read_to_string(&mut owner).map_err(open_error)?;
                    return Err(LockError::Held { device, owner, waited: patience });
                }
                Err(TryLockError::Error(source)) => return Err(open_error(source)),
            }
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(open_error)?;
        file.write_all(owner.as_bytes()).map_err(open_error)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_waits_and_is_told_who_is_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let device = "0000:01:10.0".parse().unwrap();
        let run_dir = dir.path().join("run");
        let held = VfLock::acquire(&run_dir, device, "ADD of eth0 of container c1", Duration::ZERO).unwrap();
        let error = VfLock::acquire(&run_dir, device, "second", Duration::from_millis(20)).unwrap_err();
        assert!(error.to_string().contains("ADD of eth0 of container c1"), "{error}");
        VfLock::acquire(&run_dir, "0000:01:10.2".parse().unwrap(), "other VF", Duration::ZERO).unwrap();
        drop(held);
        // A process that another test is just starting holds the file open until it runs its program.
        VfLock::acquire(&run_dir, device, "second", Duration::from_secs(10)).unwrap();
    }
}
