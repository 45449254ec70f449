//! Tells when a configuration file has other content than before.
//!
//! A ConfigMap is mounted as a folder in which `config.json` leads through the link `..data` to a folder of its own; an
//! update makes a new folder and renames a new link over `..data` (the kubelet's `AtomicWriter`). So the folder is watched
//! and not the file, and content is compared and not times. Refuses to know what the content means.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;

use super::ConfigError;
use crate::folder_watch::watch_folder;

/// How often the file is read even though no event came: a link in its path may lead out of the folder that is watched.
const POLL: Duration = Duration::from_secs(10);

/// A file and its content, as far as they are known.
#[derive(Debug)]
pub(crate) struct ConfigWatch {
    path: PathBuf,
    /// What was read last, whether it was a valid configuration or not.
    content: String,
    /// Why the latest attempt to read it failed, so that it is told once.
    failure: Option<io::ErrorKind>,
    changes: watch::Receiver<u64>,
}

impl ConfigWatch {
    /// Watches a file that had this content.
    ///
    /// # Errors
    ///
    /// No thread could be started for it.
    pub(crate) fn new(path: &Path, content: String) -> io::Result<Self> {
        Self::polling(path, content, Some(POLL))
    }

    fn polling(path: &Path, content: String, poll: Option<Duration>) -> io::Result<Self> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let changes = watch_folder(folder, "configuration", poll)?;
        Ok(Self { path: path.to_owned(), content, failure: None, changes })
    }

    /// Waits for other content and returns it. A file that is missing is waited for. May be dropped while it waits.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Read`] if the file is there and cannot be read; once, until it can be read again or fails otherwise.
    /// Waiting may go on.
    pub(crate) async fn changed(&mut self) -> Result<String, ConfigError> {
        loop {
            if self.changes.changed().await.is_err() {
                // The thread ends only with this value.
                std::future::pending::<()>().await;
            }
            // A file of this size is in memory as good as always, so reading it here holds nobody up.
            match fs::read_to_string(&self.path) {
                Ok(content) => {
                    self.failure = None;
                    if content != self.content {
                        self.content.clone_from(&content);
                        return Ok(content);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) if self.failure == Some(source.kind()) => {}
                Err(source) => {
                    self.failure = Some(source.kind());
                    return Err(ConfigError::Read { path: self.path.clone(), source });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tokio::time::timeout;

    use super::*;

    /// A folder as the kubelet makes it for a ConfigMap.
    struct ConfigMap {
        folder: tempfile::TempDir,
        updates: u32,
    }

    impl ConfigMap {
        fn new(content: &str) -> Self {
            let mut map = Self { folder: tempfile::tempdir().unwrap(), updates: 0 };
            map.update(content);
            symlink("..data/config.json", map.file()).unwrap();
            map
        }

        fn file(&self) -> PathBuf {
            self.folder.path().join("config.json")
        }

        /// What `AtomicWriter.Write` does, in its order.
        fn update(&mut self, content: &str) {
            let root = self.folder.path();
            let old = fs::read_link(root.join("..data")).ok();
            self.updates += 1;
            let name = format!("..2026_11_24_{}", self.updates);
            fs::create_dir(root.join(&name)).unwrap();
            fs::write(root.join(&name).join("config.json"), content).unwrap();
            symlink(&name, root.join("..data_tmp")).unwrap();
            fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
            if let Some(old) = old {
                fs::remove_dir_all(root.join(old)).unwrap();
            }
        }

        /// Without polling, so that only events can be the cause.
        fn watch(&self) -> ConfigWatch {
            ConfigWatch::polling(&self.file(), fs::read_to_string(self.file()).unwrap(), None).unwrap()
        }
    }

    /// A test that waits in vain fails, and does not hang.
    async fn next(watch: &mut ConfigWatch) -> Result<String, ConfigError> {
        timeout(Duration::from_secs(60), watch.changed()).await.unwrap()
    }

    #[tokio::test]
    async fn a_config_map_that_is_swapped_is_read_again() {
        let mut map = ConfigMap::new("one");
        let mut watch = map.watch();
        for content in ["two", "three"] {
            map.update(content);
            assert_eq!(next(&mut watch).await.unwrap(), content);
        }
    }

    #[tokio::test]
    async fn a_swap_without_another_content_is_no_change() {
        let mut map = ConfigMap::new("one");
        let mut watch = map.watch();
        map.update("one");
        map.update("one");
        map.update("two");
        assert_eq!(next(&mut watch).await.unwrap(), "two", "the first that is told");
    }

    #[tokio::test]
    async fn what_changed_between_reading_and_watching_is_told() {
        let mut map = ConfigMap::new("one");
        map.update("two");
        let mut watch = ConfigWatch::polling(&map.file(), "one".to_owned(), None).unwrap();
        assert_eq!(next(&mut watch).await.unwrap(), "two");
    }

    #[tokio::test]
    async fn a_plain_file_may_be_written_in_place_or_replaced_and_missing_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.json");
        fs::write(&file, "one").unwrap();
        let mut watch = ConfigWatch::polling(&file, "one".to_owned(), None).unwrap();
        fs::write(&file, "two").unwrap();
        // Opening for writing empties the file first, and that may be seen.
        let mut content = next(&mut watch).await.unwrap();
        if content.is_empty() {
            content = next(&mut watch).await.unwrap();
        }
        assert_eq!(content, "two");

        fs::remove_file(&file).unwrap();
        assert!(
            timeout(Duration::from_millis(50), watch.changed()).await.is_err(),
            "a missing file is waited for"
        );
        fs::write(folder.path().join("new"), "three").unwrap();
        fs::rename(folder.path().join("new"), &file).unwrap();
        assert_eq!(next(&mut watch).await.unwrap(), "three");
    }

    #[tokio::test]
    async fn a_folder_that_is_replaced_is_watched_again() {
        let root = tempfile::tempdir().unwrap();
        let (folder, away) = (root.path().join("etc"), root.path().join("away"));
        let file = folder.join("config.json");
        fs::create_dir(&folder).unwrap();
        fs::write(&file, "one").unwrap();
        let poll = Some(Duration::from_millis(10));
        let mut watch = ConfigWatch::polling(&file, "one".to_owned(), poll).unwrap();
        fs::rename(&folder, &away).unwrap();
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("new"), "two").unwrap();
        fs::rename(folder.join("new"), &file).unwrap();
        assert_eq!(next(&mut watch).await.unwrap(), "two");
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_is_told_once() {
        let mut map = ConfigMap::new("one");
        let mut watch = map.watch();
        fs::remove_file(map.file()).unwrap();
        fs::create_dir(map.file()).unwrap();
        let error = next(&mut watch).await.unwrap_err();
        assert!(error.to_string().contains("config.json"), "{error}");
        fs::write(map.folder.path().join("other"), "").unwrap();
        assert!(timeout(Duration::from_millis(50), watch.changed()).await.is_err(), "it was told already");
        fs::remove_dir(map.file()).unwrap();
        symlink("..data/config.json", map.file()).unwrap();
        map.update("two");
        assert_eq!(next(&mut watch).await.unwrap(), "two");
    }
}
