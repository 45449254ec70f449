//! Configurations that are read, and every complaint with the place and the remedy it must name.

mod formats;
mod leg;
mod own;
mod print;
mod rdma;
mod schema;

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use zerobridge_proto::chain;

use super::*;

fn complaint(text: &str) -> String {
    chain(&ConfigFile::parse(text, None).unwrap_err())
}

fn one_pool(pool: &str) -> String {
    complaint(&format!(r#"{{"pools": [{pool}]}}"#))
}

/// The files below one folder of `tests/configurations`, with their contents.
fn samples(folder: &str) -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/configurations").join(folder);
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

fn sample(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/configurations").join(path)).unwrap()
}

proptest! {
    /// A file may be cut off, or have been edited by accident: that is an error or a configuration, and never a panic.
    #[test]
    fn a_damaged_file_is_an_error_with_a_message(
        (text, from, to, instead) in (
            prop::sample::select(["own", "sriov-network", "rdma-shared"].map(samples).concat()),
            any::<prop::sample::Index>(),
            any::<prop::sample::Index>(),
            prop::sample::select(vec!["", "null", "[]", "{}", "\"\"", "-1", "1e9", "#", "\u{e9}"]),
        ).prop_map(|((_, text), from, to, instead)| (text, from, to, instead)),
    ) {
        let (from, to) = (from.index(text.len() + 1), to.index(text.len() + 1));
        let damaged = format!("{}{instead}{}", &text[..from.min(to)], &text[from.max(to)..]);
        if let Err(error) = ConfigFile::parse(&damaged, None) {
            prop_assert!(!chain(&error).is_empty());
        }
    }
}
