//! What is to be done about one file, decided by what is remembered of it and what stands at its place.
//!
//! Pure: what stands anywhere is asked of the caller.

use std::path::{Path, PathBuf};

use super::file::Content;
use super::record::{Entry, Kept, Kind};

/// How a name ends under which is kept what stood at a path before ours. No runtime reads such a file.
const BEFORE: &str = "before-zerobridge";

/// How a name ends under which is kept what somebody put in the place of ours. No runtime reads such a file.
const ASIDE: &str = "set-aside";

/// A file that is to be at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
    pub(super) content: Content,
}

/// What is to be done so that a file of ours stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Put {
    /// What is to be remembered first.
    pub(super) entry: Entry,
    /// Another name that what stands there is to be given.
    pub(super) keep: Option<PathBuf>,
    /// Whether the file is to be written.
    pub(super) write: bool,
}

/// What is to be done so that no file of ours stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Take {
    /// Nothing.
    Nothing,
    /// Ours goes, and nothing was there before.
    Remove,
    /// What was there before comes back, in the place of ours or of nothing.
    PutBack(PathBuf),
    /// What was there before is there again; its second name goes.
    Forget(PathBuf),
    /// What is there is somebody else's and stays.
    Leave,
}

/// How to put `wanted` where `found` stands. `remembered` is what is known of the path, `at` tells what stands under another
/// name.
pub(super) fn put<E>(
    wanted: &Wanted,
    remembered: Option<&Entry>,
    found: Option<&Content>,
    at: impl Fn(&Path) -> Result<Option<Content>, E>,
) -> Result<Put, E> {
    let path = &wanted.path;
    let mut entry = remembered.cloned().unwrap_or_else(|| Entry {
        path: path.clone(),
        kind: wanted.kind,
        contents: Vec::new(),
        before: None,
        aside: Vec::new(),
    });
    // Only an installation makes a file of this name, so one that nobody remembers is what stood here before the first one.
    if remembered.is_none() {
        let name = named(path, BEFORE, 1);
        entry.before = at(&name)?.map(|content| Kept { path: name, content });
    }
    let mut keep = None;
    if let Some(found) = found.filter(|found| **found != wanted.content && !entry.is_ours(found)) {
        let kept = match &entry.before {
            Some(before) => at(&before.path)?,
            None => None,
        };
        let is_second = remembered.is_some() && wanted.kind == Kind::Network && entry.before.is_none();
        if kept.as_ref() == Some(found) {
            // A killed installation had come as far as this.
        } else if kept.is_some() || is_second {
            let name = free_name(path, ASIDE, found, &at)?;
            keep = at(&name)?.is_none().then(|| name.clone());
            if !entry.aside.contains(&name) {
                entry.aside.push(name);
            }
        } else {
            let name = free_name(path, BEFORE, found, &at)?;
            keep = at(&name)?.is_none().then(|| name.clone());
            entry.before = Some(Kept { path: name, content: found.clone() });
        }
    }
    entry.contents.retain(|content| *content != wanted.content);
    entry.contents.push(wanted.content.clone());
    Ok(Put { entry, keep, write: found != Some(&wanted.content) })
}

/// How to take what `entry` remembers from where `found` stands. `kept` is what stands where it says that is what was before.
pub(super) fn take(entry: &Entry, found: Option<&Content>, kept: Option<&Content>) -> Take {
    let before = entry.before.as_ref().filter(|_| kept.is_some()).map(|before| before.path.clone());
    match (found, before) {
        (Some(found), Some(before)) if !entry.is_ours(found) && kept == Some(found) => Take::Forget(before),
        (Some(found), _) if !entry.is_ours(found) => Take::Leave,
        (_, Some(before)) => Take::PutBack(before),
        (Some(_), None) => Take::Remove,
        (None, None) => Take::Nothing,
    }
}

/// The first name of this kind under which nothing stands, or the same already.
fn free_name<E>(
    path: &Path,
    ending: &str,
    content: &Content,
    at: impl Fn(&Path) -> Result<Option<Content>, E>,
) -> Result<PathBuf, E> {
    let mut number = 1;
    loop {
        let name = named(path, ending, number);
        if at(&name)?.is_none_or(|there| there == *content) {
            return Ok(name);
        }
        number += 1;
    }
}

fn named(path: &Path, ending: &str, number: u32) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(match number {
        1 => format!("{name}.{ending}"),
        _ => format!("{name}.{ending}-{number}"),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    const PATH: &str = "/opt/cni/bin/sriov";

    type Folder = BTreeMap<PathBuf, Content>;

    fn wanted(kind: Kind, text: &str) -> Wanted {
        Wanted { path: PATH.into(), kind, content: Content::of(text.as_bytes()) }
    }

    /// A folder in which installations and others work, and what the installations remember.
    #[derive(Clone, Debug, Default)]
    struct World {
        folder: Folder,
        entry: Option<Entry>,
    }

    impl World {
        /// Installs, and is killed before its step number `steps`.
        fn install(&mut self, wanted: &Wanted, steps: usize) -> Put {
            let at = |name: &Path| Ok::<_, Infallible>(self.folder.get(name).cloned());
            let found = self.folder.get(Path::new(PATH)).cloned();
            let put = put(wanted, self.entry.as_ref(), found.as_ref(), at).unwrap();
            if steps > 0 {
                self.entry = Some(put.entry.clone());
            }
            if steps > 1
                && let Some(name) = &put.keep
            {
                assert!(self.folder.insert(name.clone(), found.unwrap()).is_none(), "nothing is replaced");
            }
            if steps > 2 && put.write {
                self.folder.insert(PATH.into(), wanted.content.clone());
            }
            put
        }

        fn uninstall(&mut self) -> Take {
            let entry = self.entry.take().unwrap();
            let before = entry.before.as_ref().and_then(|before| self.folder.get(&before.path));
            let step = take(&entry, self.folder.get(Path::new(PATH)), before);
            match &step {
                Take::Nothing | Take::Leave => {}
                Take::Remove => drop(self.folder.remove(Path::new(PATH))),
                Take::PutBack(name) => {
                    let content = self.folder.remove(name).unwrap();
                    self.folder.insert(PATH.into(), content);
                }
                Take::Forget(name) => drop(self.folder.remove(name)),
            }
            step
        }

        fn others(&mut self, text: &str) {
            self.folder.insert(PATH.into(), Content::of(text.as_bytes()));
        }

        fn has(&self, text: &str) -> bool {
            self.folder.values().any(|content| *content == Content::of(text.as_bytes()))
        }
    }

    #[test]
    fn what_was_there_before_is_kept_once_and_comes_back() {
        let mut world = World::default();
        world.others("theirs");
        let before = world.clone();
        let put = world.install(&wanted(Kind::Replacement, "ours"), 3);
        assert_eq!(put.keep, Some("/opt/cni/bin/sriov.before-zerobridge".into()));
        let again = world.install(&wanted(Kind::Replacement, "ours"), 3);
        assert_eq!((again.keep, again.write), (None, false));
        let newer = world.install(&wanted(Kind::Replacement, "ours, newer"), 3);
        assert_eq!((newer.keep, newer.write), (None, true), "our own is never kept");
        assert!(matches!(world.uninstall(), Take::PutBack(_)));
        assert_eq!(world.folder, before.folder);
    }

    #[test]
    fn a_forgotten_installation_is_known_by_what_it_kept() {
        let mut world = World::default();
        world.others("theirs");
        world.install(&wanted(Kind::Replacement, "ours"), 3);
        world.entry = None;
        let put = world.install(&wanted(Kind::Replacement, "ours, newer"), 3);
        assert_eq!(put.keep, Some("/opt/cni/bin/sriov.set-aside".into()));
        world.uninstall();
        assert_eq!(world.folder[Path::new(PATH)], Content::of(b"theirs"));
    }

    #[test]
    fn a_program_that_came_later_is_what_comes_back_and_a_network_is_not() {
        for (kind, comes_back) in [(Kind::Replacement, true), (Kind::Network, false)] {
            let mut world = World::default();
            world.install(&wanted(kind, "ours"), 3);
            world.others("theirs");
            world.install(&wanted(kind, "ours"), 3);
            assert!(world.has("theirs"));
            world.uninstall();
            assert_eq!(world.folder.contains_key(Path::new(PATH)), comes_back, "{kind:?}");
            assert!(world.has("theirs"), "nothing is lost");
        }
    }

    #[test]
    fn what_is_not_ours_stays_where_it_is() {
        let mut world = World::default();
        world.others("theirs");
        world.install(&wanted(Kind::Replacement, "ours"), 3);
        world.others("somebody else's");
        assert_eq!(world.uninstall(), Take::Leave);
        assert!(world.has("theirs") && world.has("somebody else's") && !world.has("ours"));
    }

    proptest! {
        /// Whatever is killed where, and whoever else writes: nothing of others is lost, and with nobody else the folder is
        /// as it was.
        #[test]
        fn nothing_of_others_is_lost(
            network in any::<bool>(),
            there in any::<bool>(),
            acts in proptest::collection::vec((0_usize..4, 0_usize..3, 0_u8..8), 1..12),
        ) {
            let kind = if network { Kind::Network } else { Kind::Replacement };
            let mut world = World::default();
            let mut written: Vec<String> = Vec::new();
            if there {
                world.others("theirs");
                written.push("theirs".to_owned());
            }
            let before = world.folder.clone();
            for (number, (steps, version, other)) in acts.into_iter().enumerate() {
                world.install(&wanted(kind, &format!("ours {version}")), steps);
                // What somebody overwrites is his own doing, unless it was ours.
                let ours_is_there = world.entry.as_ref().is_some_and(|entry| {
                    world.folder.get(Path::new(PATH)).is_some_and(|found| entry.is_ours(found))
                });
                if other == 0 && ours_is_there {
                    let text = format!("theirs {number}");
                    world.others(&text);
                    written.push(text);
                }
            }
            world.install(&wanted(kind, "ours"), 3);
            for text in &written {
                prop_assert!(world.has(text), "{text} is lost: {world:?}");
            }
            world.uninstall();
            for text in &written {
                prop_assert!(world.has(text), "{text} is lost: {world:?}");
            }
            if written.len() == before.len() {
                prop_assert_eq!(world.folder, before);
            }
        }
    }
}
