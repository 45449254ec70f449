//! Things that are slow to make, each kept in a folder named after a hash of everything it was made from.
//!
//! Made in a folder beside and renamed into place, so an interrupted build is never taken for a finished one; under a
//! lock, so two processes never make the same thing. Refuses to know what is made.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use thiserror::Error;

/// Hexadecimal digits of a key in an entry's name.
const KEY_LENGTH: usize = 16;
/// How long an entry is kept that nobody uses.
const KEPT: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// What went wrong in the cache itself.
#[derive(Debug, Error)]
pub enum CacheError {
    /// Neither variable says where the cache is.
    #[error("set ZEROBRIDGE_CACHE, XDG_CACHE_HOME or HOME: the lab keeps what it has built there")]
    NoPlace,
    /// A file or folder could not be read or made.
    #[error("{action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl CacheError {
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }
}

/// A hash over named inputs; its text names a cache entry.
#[derive(Clone)]
pub(crate) struct Key(Sha256);

impl Key {
    pub(crate) fn new() -> Self {
        Self(Sha256::new())
    }

    /// Adds one input. Name and value carry their lengths, so that no two lists of inputs run together.
    pub(crate) fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        for part in [name.as_bytes(), value.as_ref()] {
            self.0.update(part.len().to_le_bytes());
            self.0.update(part);
        }
        self
    }

    /// Adds every file below `folder`, by relative path and content.
    pub(crate) fn with_folder(mut self, folder: &Path) -> Result<Self, CacheError> {
        for path in files_below(folder)? {
            let name = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned();
            self = self.with(&name, fs::read(&path).map_err(CacheError::file("read", &path))?);
        }
        Ok(self)
    }

    /// The first 64 bits in hexadecimal: enough to tell the versions of one thing apart.
    pub(crate) fn text(&self) -> String {
        hex(&self.0.clone().finalize())[..KEY_LENGTH].to_owned()
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn files_below(folder: &Path) -> Result<Vec<PathBuf>, CacheError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(CacheError::file("list", folder))? {
        let path = entry.map_err(CacheError::file("list", folder))?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Notes the time in the entry's own modification time. An entry that cannot be marked is merely made again some day.
fn mark_used(path: &Path) {
    let _ = File::open(path).and_then(|folder| folder.set_modified(SystemTime::now()));
}

/// Where finished things are kept.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

/// A finished thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its folder.
    pub(crate) path: PathBuf,
    /// Whether it was made just now.
    pub(crate) made: bool,
}

impl Cache {
    /// The cache at `root`, which need not exist yet.
    #[must_use]
    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// The cache where the environment wants it: `$ZEROBRIDGE_CACHE`, or `zerobridge` in `$XDG_CACHE_HOME` or
    /// `$HOME/.cache`.
    ///
    /// # Errors
    /// [`CacheError::NoPlace`] when none of the three is set.
    pub fn from_environment() -> Result<Self, CacheError> {
        Self::choose(|name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from))
    }

    fn choose(variable: impl Fn(&str) -> Option<PathBuf>) -> Result<Self, CacheError> {
        variable("ZEROBRIDGE_CACHE")
            .or_else(|| variable("XDG_CACHE_HOME").map(|path| path.join("zerobridge")))
            .or_else(|| variable("HOME").map(|path| path.join(".cache/zerobridge")))
            .map(Self::at)
            .ok_or(CacheError::NoPlace)
    }

    /// Its folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The entry `name` made from the inputs in `key`; `make` fills the empty folder it is given if there is none yet.
    ///
    /// # Errors
    /// What `make` returns, or a [`CacheError`].
    pub(crate) fn entry<E: From<CacheError>>(
        &self,
        name: &str,
        key: &Key,
        make: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<Entry, E> {
        let path = self.root.join(format!("{name}-{}", key.text()));
        if path.is_dir() {
            mark_used(&path);
            return Ok(Entry { path, made: false });
        }
        fs::create_dir_all(&self.root).map_err(CacheError::file("make", &self.root))?;
        // Held until the file is dropped; the kernel lets go of it when the process dies.
        let lock_path = self.root.join(format!("{name}.lock"));
        let lock = File::create(&lock_path).map_err(CacheError::file("create", &lock_path))?;
        lock.lock().map_err(CacheError::file("lock", &lock_path))?;
        if path.is_dir() {
            return Ok(Entry { path, made: false });
        }
        let unfinished = tempfile::Builder::new()
            .prefix(&format!(".{name}-"))
            .tempdir_in(&self.root)
            .map_err(CacheError::file("make a folder in", &self.root))?;
        // 0700 by default, but the VM may read it as another user.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(unfinished.path(), open)
            .map_err(CacheError::file("open up", unfinished.path()))?;
        make(unfinished.path())?;
        fs::rename(unfinished.keep(), &path).map_err(CacheError::file("rename into", &path))?;
        mark_used(&path);
        self.forget_unused(name, SystemTime::now());
        Ok(Entry { path, made: true })
    }

    /// Removes the entries of `name` that nobody has used for [`KEPT`], as far as that is possible: the cache works
    /// with them, too.
    fn forget_unused(&self, name: &str, now: SystemTime) {
        let prefix = format!("{name}-");
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let file_name = entry.file_name();
            let key = file_name.to_str().and_then(|text| text.strip_prefix(&prefix)).unwrap_or_default();
            let is_entry = key.len() == KEY_LENGTH && key.bytes().all(|byte| byte.is_ascii_hexdigit());
            let used = entry.metadata().and_then(|metadata| metadata.modified());
            let age = used.ok().and_then(|used| now.duration_since(used).ok()).unwrap_or_default();
            if is_entry && age > KEPT {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Error)]
    enum TestError {
        #[error(transparent)]
        Cache(#[from] CacheError),
        #[error("the build failed")]
        Build,
    }

    fn cache() -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().join("cache"));
        (folder, cache)
    }

    #[test]
    fn what_is_finished_is_not_made_again_until_an_input_changes() {
        let (_folder, cache) = cache();
        let key = Key::new().with("version", "1");
        let make = |path: &Path| fs::write(path.join("file"), "made").map_err(|_| TestError::Build);
        let first = cache.entry("thing", &key, make).unwrap();
        assert!(first.made);
        let again = cache.entry::<TestError>("thing", &key, |_| unreachable!("it is finished")).unwrap();
        assert_eq!(again, Entry { path: first.path.clone(), made: false });
        let other = cache.entry("thing", &Key::new().with("version", "2"), make).unwrap();
        assert!(other.made && other.path != first.path);
    }

    #[test]
    fn an_interrupted_build_leaves_nothing_that_looks_finished() {
        let (_folder, cache) = cache();
        let key = Key::new().with("version", "1");
        let broken = cache.entry("thing", &key, |path| {
            fs::write(path.join("half"), "").map_err(|_| TestError::Build)?;
            Err(TestError::Build)
        });
        assert!(matches!(broken, Err(TestError::Build)));
        let entry = cache.entry::<TestError>("thing", &key, |path| {
            assert_eq!(fs::read_dir(path).unwrap().count(), 0, "the remains of the first try are not reused");
            Ok(())
        });
        assert!(entry.unwrap().made);
    }

    #[test]
    fn of_many_that_want_the_same_thing_one_makes_it() {
        let (_folder, cache) = cache();
        let key = Key::new().with("version", "1");
        let made: usize = std::thread::scope(|scope| {
            let want = || cache.entry::<TestError>("thing", &key, |_| Ok(())).unwrap();
            let all: Vec<_> = (0..8).map(|_| scope.spawn(want)).collect();
            all.into_iter().map(|thread| usize::from(thread.join().unwrap().made)).sum()
        });
        assert_eq!(made, 1);
    }

    #[test]
    fn an_entry_that_nobody_uses_any_more_goes_and_others_stay() {
        let (_folder, cache) = cache();
        let make = |name: &str, version: &str| {
            cache.entry::<TestError>(name, &Key::new().with("version", version), |_| Ok(())).unwrap().path
        };
        let [old, used, other] = [make("thing", "1"), make("thing", "2"), make("thing-else", "1")];
        let later = SystemTime::now() + KEPT + Duration::from_secs(60);
        File::open(&used).unwrap().set_modified(later).unwrap();
        cache.forget_unused("thing", later);
        assert!(!old.exists() && used.exists() && other.exists());
    }

    #[test]
    fn inputs_do_not_run_together() {
        let apart = Key::new().with("a", "bc").with("d", "");
        let shifted = Key::new().with("a", "b").with("cd", "");
        assert_ne!(apart.text(), shifted.text());
        assert_eq!(Key::new().with("a", "b").text(), Key::new().with("a", "b").text());
    }

    #[test]
    fn a_folder_counts_by_names_and_contents() {
        let folder = tempfile::tempdir().unwrap();
        let key = || Key::new().with_folder(folder.path()).unwrap().text();
        fs::create_dir(folder.path().join("src")).unwrap();
        fs::write(folder.path().join("src/a"), "1").unwrap();
        let first = key();
        fs::write(folder.path().join("src/a"), "2").unwrap();
        let second = key();
        fs::rename(folder.path().join("src/a"), folder.path().join("src/b")).unwrap();
        let third = key();
        assert!(first != second && second != third && first != third);
    }

    #[test]
    fn the_environment_says_where_the_cache_is() {
        let choose = |set: &[(&str, &str)]| {
            Cache::choose(|name| set.iter().find(|pair| pair.0 == name).map(|pair| pair.1.into()))
                .map(|cache| cache.root.to_string_lossy().into_owned())
        };
        assert_eq!(choose(&[("HOME", "/h")]).unwrap(), "/h/.cache/zerobridge");
        assert_eq!(choose(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]).unwrap(), "/x/zerobridge");
        assert_eq!(choose(&[("HOME", "/h"), ("ZEROBRIDGE_CACHE", "/z")]).unwrap(), "/z");
        assert!(matches!(choose(&[]), Err(CacheError::NoPlace)));
    }
}
