//! Which files processes have open, as `/proc` shows it.
//!
//! For device nodes that only one process may have open, where trying would disturb the one that is about to. Refuses to
//! know what the files are.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// `/proc` is not there.
#[derive(Debug, Error)]
#[error("cannot list the processes in {}", path.display())]
pub struct OpenFilesError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The open files directly in the folder `below`, and the processes that have each open. Processes of other PID
/// namespaces are seen as far as `procfs` shows them, and those that end meanwhile are left out.
///
/// # Errors
/// [`OpenFilesError`] when `procfs` cannot be read at all.
pub fn open_files(procfs: &Path, below: &Path) -> Result<BTreeMap<PathBuf, Vec<u32>>, OpenFilesError> {
    let processes =
        fs::read_dir(procfs).map_err(|source| OpenFilesError { path: procfs.to_owned(), source })?;
    let mut open: BTreeMap<PathBuf, Vec<u32>> = BTreeMap::new();
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        let files = descriptors.flatten().filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
        for file in files.filter(|file| file.parent() == Some(below)) {
            let pids = open.entry(file).or_default();
            if pids.last() != Some(&pid) {
                pids.push(pid);
            }
        }
    }
    Ok(open)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::Duration;
    use std::{process, thread};

    use super::*;

    #[test]
    fn a_file_is_seen_with_its_process_while_it_is_open_and_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let (path, deeper) = (folder.path().join("7"), folder.path().join("devices"));
        fs::create_dir(&deeper).unwrap();
        let files = [
            File::create(&path).unwrap(),
            File::open(&path).unwrap(),
            File::create(deeper.join("8")).unwrap(),
        ];
        // A child that another test starts has all files of this process for a moment, until it is a program of its own.
        let settled = |expected: &BTreeMap<PathBuf, Vec<u32>>| {
            let found = || open_files(Path::new("/proc"), folder.path()).unwrap();
            let is_so = (0..500).any(|_| {
                thread::sleep(Duration::from_millis(10));
                found() == *expected
            });
            assert!(is_so, "{:?} is not {expected:?}", found());
        };
        settled(&BTreeMap::from([(path, vec![process::id()])]));
        drop(files);
        settled(&BTreeMap::new());
    }

    #[test]
    fn a_proc_that_is_not_there_is_named() {
        let error = open_files(Path::new("/nowhere"), Path::new("/dev/vfio")).unwrap_err();
        assert!(error.to_string().contains("/nowhere"), "{error}");
    }
}
