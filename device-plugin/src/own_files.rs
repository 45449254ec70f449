//! The files that the daemon keeps for itself, beside the ledger and the plugins' locks. Refuses to know what is in them.

use std::path::{Path, PathBuf};

use crate::allocation::RESOURCES;
use crate::cluster::{INCARNATIONS, LOCK};

/// All of them, for whoever takes the daemon from the node: nothing in them is owed to anybody once no pod has a VF.
#[must_use]
pub fn own_files(state_dir: &Path, run_dir: &Path) -> [PathBuf; 3] {
    [state_dir.join(LOCK), run_dir.join(INCARNATIONS), run_dir.join(RESOURCES)]
}
