//! What was read of the entries of a folder, kept for as long as an entry is the same one.
//!
//! Refuses to know what is kept, and whether it can change during an entry's life.

use std::collections::BTreeMap;
use std::mem;
use std::os::unix::fs::DirEntryExt as _;
use std::path::Path;
use std::str::FromStr;

use super::SysfsError;
use super::attribute;

/// Values by the names in one folder of sysfs.
///
/// An entry that was removed and made again has another inode number: the kernel counts them up in 64 bits
/// (`__kernfs_new_node` in `fs/kernfs/dir.c`), and a listing tells them without another system call.
#[derive(Clone, Debug)]
pub(super) struct Memory<K, T> {
    kept: BTreeMap<K, Kept<T>>,
}

#[derive(Clone, Debug)]
struct Kept<T> {
    inode: u64,
    value: T,
}

impl<K, T> Default for Memory<K, T> {
    fn default() -> Self {
        Self { kept: BTreeMap::new() }
    }
}

impl<K: Ord + FromStr, T> Memory<K, T> {
    /// Follows `folder`: forgets what is gone, and calls `read` for each entry that is new. An entry for which that has
    /// nothing to say is asked for again the next time, and one whose name is no `K` is not asked for at all.
    ///
    /// Returns whether the folder exists. If `read` fails, what was not reached is forgotten.
    pub(super) fn follow(
        &mut self,
        folder: &Path,
        mut read: impl FnMut(&K) -> Result<Option<T>, SysfsError>,
    ) -> Result<bool, SysfsError> {
        let mut before = mem::take(&mut self.kept);
        let Some(listing) = attribute::listing(folder)? else { return Ok(false) };
        for entry in listing {
            let entry = entry.map_err(|source| SysfsError::read(folder, source))?;
            let name = entry.file_name();
            let Some(key) = name.to_str().and_then(|name| name.parse::<K>().ok()) else { continue };
            let inode = entry.ino();
            let value = match before.remove(&key) {
                Some(kept) if kept.inode == inode => Some(kept.value),
                _ => read(&key)?,
            };
            if let Some(value) = value {
                self.kept.insert(key, Kept { inode, value });
            }
        }
        Ok(true)
    }

    /// The entries with their values, in the order of their keys.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &T)> {
        self.kept.iter().map(|(key, kept)| (key, &kept.value))
    }

    /// As [`Memory::iter`], for values that can be improved.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut T)> {
        self.kept.iter_mut().map(|(key, kept)| (key, &mut kept.value))
    }

    /// The value of an entry.
    pub(super) fn get(&self, key: &K) -> Option<&T> {
        Some(&self.kept.get(key)?.value)
    }

    /// Which entry stands behind a name: the same number only for the same one.
    pub(super) fn inode(&self, key: &K) -> Option<u64> {
        Some(self.kept.get(key)?.inode)
    }

    /// Whether there is no entry.
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn an_entry_is_read_once_and_again_when_it_is_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let mut memory: Memory<u32, u32> = Memory::default();
        let follow = |memory: &mut Memory<u32, u32>| {
            let mut read = Vec::new();
            let exists = memory.follow(folder.path(), |&key| {
                read.push(key);
                Ok((key != 7).then_some(key * 10))
            });
            assert!(exists.unwrap());
            read.sort_unstable();
            read
        };

        for name in ["3", "5", "7", "not a number"] {
            fs::write(file(name), "").unwrap();
        }
        assert_eq!(follow(&mut memory), [3, 5, 7]);
        assert_eq!(follow(&mut memory), [7], "only what had no value");
        let inode = memory.inode(&5);

        // The old file lives on elsewhere, so that the new one cannot get its number.
        fs::rename(file("5"), file("old")).unwrap();
        fs::write(file("5"), "").unwrap();
        fs::remove_file(file("3")).unwrap();
        assert_eq!(follow(&mut memory), [5, 7]);
        assert_ne!(memory.inode(&5), inode);
        assert_eq!(memory.iter().collect::<Vec<_>>(), [(&5, &50)]);
        assert_eq!((memory.get(&3), memory.is_empty()), (None, false));
    }

    #[test]
    fn a_folder_that_is_gone_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("1"), "").unwrap();
        let mut memory: Memory<u32, ()> = Memory::default();
        assert!(memory.follow(folder.path(), |_| Ok(Some(()))).unwrap());
        assert!(!memory.follow(&folder.path().join("gone"), |_| Ok(Some(()))).unwrap());
        assert!(memory.is_empty());
    }
}
