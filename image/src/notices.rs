//! The licences of the crates that are linked into the programs, as their authors wrote them: most ask to come along.
//!
//! Refuses to judge them; `deny.toml` says which are allowed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::crates::Linked;

/// How the names of files begin that have terms or notices in them.
const BEGINNINGS: [&str; 5] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE"];

/// A folder or a file that cannot be read.
#[derive(Debug, Error)]
#[error("cannot read {}, for the licences of linked crates", path.display())]
pub struct NoticeError {
    path: PathBuf,
    source: io::Error,
}

/// One text: each licence once, with the crates whose folder has it. Crates of this workspace are left out; their licence
/// stands beside.
///
/// # Errors
/// [`NoticeError`].
pub fn document(crates: &[Linked]) -> Result<String, NoticeError> {
    let mut owners: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut silent = Vec::new();
    for linked in crates.iter().filter(|linked| linked.checksum.is_some()) {
        let name = format!("{} {}", linked.name, linked.version);
        let texts = texts(&linked.folder)?;
        if texts.is_empty() {
            silent.push(format!("{name}: {}", linked.licence.as_deref().unwrap_or("no licence is named")));
        }
        for text in texts {
            let owners = owners.entry(text).or_default();
            if !owners.contains(&name) {
                owners.push(name.clone());
            }
        }
    }
    let mut document = "Linked into the programs, each under its own terms:\n".to_owned();
    let mut sections: Vec<(Vec<String>, String)> =
        owners.into_iter().map(|(text, owners)| (owners, text)).collect();
    sections.sort();
    for (owners, text) in sections {
        let rule = "-".repeat(78);
        document.push_str(&format!("\n{rule}\n{}\n{rule}\n\n{}\n", owners.join(", "), text.trim_end()));
    }
    if !silent.is_empty() {
        document.push_str(&format!("\nWithout a text of their own:\n\n{}\n", silent.join("\n")));
    }
    Ok(document)
}

fn texts(folder: &Path) -> Result<Vec<String>, NoticeError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        |source| NoticeError { path, source }
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(at(folder))? {
        let path = entry.map_err(at(folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        // What ends so is a program, such as one that checks licences.
        let is_text = !name.ends_with(".RS") && path.is_file();
        if is_text && BEGINNINGS.iter().any(|beginning| name.starts_with(beginning)) {
            paths.push(path);
        }
    }
    paths.sort();
    let read = |path: &PathBuf| {
        Ok(String::from_utf8_lossy(&fs::read(path).map_err(at(path))?).replace("\r\n", "\n"))
    };
    paths.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn linked(name: &str, folder: &Path, checksum: Option<&str>) -> Linked {
        Linked {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            licence: Some("MIT".to_owned()),
            checksum: checksum.map(str::to_owned),
            folder: folder.join(name),
            needs: BTreeSet::new(),
        }
    }

    #[test]
    fn each_text_is_there_once_with_all_whose_it_is() {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in [
            ("a/LICENSE-MIT", "permission\r\n"),
            ("a/license.rs", "fn main() {}"),
            ("b/LICENSE", "permission\n"),
            ("b/NOTICE.txt", "by b"),
            ("c/README", "nothing"),
            ("own/LICENSE", "ours"),
        ] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let mut crates = ["a", "b", "c"].map(|name| linked(name, folder.path(), Some("00"))).to_vec();
        crates.push(linked("own", folder.path(), None));
        let text = document(&crates).unwrap();
        assert_eq!(text.matches("permission").count(), 1, "{text}");
        assert!(
            text.contains("\na 1.0.0, b 1.0.0\n") && text.contains("\nb 1.0.0\n") && text.contains("by b"),
            "{text}"
        );
        assert!(
            text.contains("c 1.0.0: MIT") && !text.contains("ours") && !text.contains("fn main"),
            "{text}"
        );
        let absent = document(&[linked("absent", folder.path(), Some("00"))]).unwrap_err();
        assert!(absent.to_string().contains("absent"), "{absent}");
    }
}
