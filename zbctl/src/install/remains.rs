//! What the programs have written on the node beside what was installed: the ledger, locks, CDI specifications and
//! device-info files. Only what is surely ours goes.
//!
//! Refuses to know when it is time.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use zerobridge_cni_sriov::forget_rdma_nodes;
use zerobridge_device_plugin::{Allocator, Held, own_files};
use zerobridge_kernel::{DevFolder, Sysfs};
use zerobridge_proto::chain;

use super::file;
use super::promises::Promiser;
use crate::cli::UninstallArguments;
use zerobridge_ledger::Ledger;

/// What became of it.
#[derive(Debug, Default)]
pub(super) struct Remains {
    /// What was done, and what stays for a reason.
    pub(super) lines: Vec<String>,
    /// What could not be done. The rest was.
    pub(super) problems: Vec<String>,
}

/// Removes it all.
pub(super) fn remove(arguments: &UninstallArguments, promiser: &Promiser) -> Remains {
    let mut remains = Remains::default();
    remains.device_files(arguments, promiser.held());
    // Once a file stays for a fault, the next attempt needs to know whose it is.
    if remains.problems.is_empty() {
        for path in own_files(&arguments.promises.state_dir, &arguments.promises.run_dir) {
            remains.done(file::remove(&path));
        }
    }
    remains.locks(&arguments.promises.run_dir);
    remains.ledger(&arguments.promises.state_dir, promiser);
    remains
}

/// Whether this is the lock of a VF.
pub(super) fn is_vf_lock(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.strip_prefix("vf-").is_some_and(|rest| rest.ends_with(".lock"))
}

impl Remains {
    fn ledger(&mut self, state_dir: &Path, promiser: &Promiser) {
        let existed = Ledger::exists(state_dir);
        match Ledger::remove(state_dir, |content| promiser.is_free(content)) {
            Ok(true) if existed => self.lines.push(format!("the ledger in {} is gone", state_dir.display())),
            Ok(true) => {}
            Ok(false) => self.problems.push(format!(
                "the ledger in {} has got new records meanwhile and stays; do this again",
                state_dir.display()
            )),
            Err(error) => self.problems.push(chain(&error)),
        }
    }

    fn locks(&mut self, run_dir: &Path) {
        let entries = fs::read_dir(run_dir).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()).filter(|path| is_vf_lock(path)) {
            self.done(file::remove(&path));
        }
        self.done(file::remove_empty_folder(run_dir).map(drop));
    }

    fn device_files(&mut self, arguments: &UninstallArguments, held: &Result<Held, String>) {
        let cdi_dir = &arguments.promises.cdi_dir;
        self.problems.extend(forget_rdma_nodes(cdi_dir).iter().map(|error| chain(error)));
        let held = match held {
            Ok(held) => held.of_pools(),
            Err(why) => {
                self.lines.push(format!(
                    "files of devices in {} and {} stay until the next boot, since nobody says which devices pods hold: {why}",
                    cdi_dir.display(),
                    arguments.devinfo_dir.display()
                ));
                return;
            }
        };
        let roots = (Sysfs::new(&arguments.promises.sysfs), DevFolder::new("/dev"));
        let run_dir = &arguments.promises.run_dir;
        let allocator = Allocator::new(roots.0, roots.1, &arguments.devinfo_dir, cdi_dir, run_dir);
        let collected = allocator.collect(&held, SystemTime::now(), Duration::ZERO);
        if collected.removed > 0 {
            self.lines.push(format!("{} files of devices are gone", collected.removed));
        }
        if collected.held > 0 {
            let held = collected.held;
            self.lines.push(format!("files of {held} devices that pods hold stay until the next boot"));
        }
        self.problems.extend(collected.errors.iter().map(|error| chain(error)));
    }

    fn done(&mut self, outcome: Result<(), super::InstallError>) {
        self.problems.extend(outcome.err().map(|error| chain(&error)));
    }
}
