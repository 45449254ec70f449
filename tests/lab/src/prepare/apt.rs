//! Debian packages from suites that the machine does not use: private lists, the machine's own mirror.
//!
//! Refuses to change the machine's own sources or lists.

use std::fs;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::cache::CacheError;
use super::host::{HostCommand, HostError};

const ETC_APT: &str = "/etc/apt";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Why a package cannot be fetched.
#[derive(Debug, Error)]
pub enum AptError {
    /// The machine's own sources name no Debian mirror.
    #[error("no Debian mirror for {codename} in {ETC_APT}/sources.list or sources.list.d: add one there")]
    NoMirror {
        /// The machine's release.
        codename: String,
    },
    /// /etc/os-release names no release.
    #[error("/etc/os-release has no VERSION_CODENAME: the lab needs Debian 12 or later")]
    NoCodename,
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] CacheError),
    /// apt failed.
    #[error(transparent)]
    Host(#[from] HostError),
}

/// A place that Debian packages come from.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mirror {
    uri: String,
    signed_by: String,
}

/// The machine's release name, such as `bookworm`.
pub(crate) fn codename() -> Result<String, AptError> {
    let path = Path::new("/etc/os-release");
    let text = fs::read_to_string(path).map_err(CacheError::file("read", path))?;
    text.lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|value| value.trim_matches('"').to_owned())
        .ok_or(AptError::NoCodename)
}

/// apt's view of the machine's sources and one more suite, in files of its own below a folder.
pub(crate) struct PrivateApt {
    options: Vec<String>,
}

impl PrivateApt {
    /// Fetches the lists of `suite`; with `beside_own`, also those of the machine's own sources, so that packages of
    /// `suite` find their dependencies.
    pub(crate) fn update(folder: &Path, suite: &str, beside_own: bool) -> Result<Self, AptError> {
        let parts = folder.join("sources");
        for path in [&parts, &folder.join("lists/partial"), &folder.join("cache/archives/partial")] {
            fs::create_dir_all(path).map_err(CacheError::file("make", path))?;
        }
        let own = own_sources(Path::new(ETC_APT))?;
        let codename = codename()?;
        let mirror = own.iter().find_map(|(_, text)| mirror(text, &codename));
        let mirror = mirror.ok_or(AptError::NoMirror { codename })?;
        if beside_own {
            for (name, text) in &own {
                write(&parts.join(name), text)?;
            }
        }
        write(&parts.join(format!("{suite}.sources")), &stanza(&mirror, suite))?;
        let set = |name: &str, path: PathBuf| format!("-oDir::{name}={}", path.display());
        let apt = Self {
            options: vec![
                "-oDir::Etc::sourcelist=/dev/null".into(),
                set("Etc::sourceparts", parts),
                set("State::lists", folder.join("lists")),
                set("Cache", folder.join("cache")),
                // Fetched packages belong to whoever prepares the lab; the sandbox user cannot enter its folders.
                "-oAPT::Sandbox::User=".into(),
            ],
        };
        apt.command("apt-get").args(["update"]).run()?;
        Ok(apt)
    }

    /// `apt-get` or `apt-cache` over these sources.
    pub(crate) fn command(&self, program: &str) -> HostCommand {
        HostCommand::new(program)
            .args(&self.options)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("LC_ALL", "C")
    }
}

fn write(path: &Path, text: &str) -> Result<(), CacheError> {
    fs::write(path, text).map_err(CacheError::file("write", path))
}

/// Name and text of every source file of the machine.
fn own_sources(etc: &Path) -> Result<Vec<(String, String)>, CacheError> {
    let mut paths = vec![etc.join("sources.list")];
    let folder = etc.join("sources.list.d");
    if let Ok(entries) = fs::read_dir(&folder) {
        paths.extend(entries.flatten().map(|entry| entry.path()));
    }
    paths.sort();
    let mut sources = Vec::new();
    for path in paths {
        let known = path.extension().is_some_and(|extension| extension == "list" || extension == "sources");
        if let (true, Ok(text), Some(name)) = (known, fs::read_to_string(&path), path.file_name()) {
            sources.push((name.to_string_lossy().into_owned(), text));
        }
    }
    Ok(sources)
}

/// The mirror that `text` (either of apt's two formats) names for the release `codename`.
fn mirror(text: &str, codename: &str) -> Option<Mirror> {
    text.split("\n\n")
        .find_map(|stanza| deb822(stanza, codename))
        .or_else(|| text.lines().find_map(|line| one_line(line, codename)))
}

fn deb822(stanza: &str, codename: &str) -> Option<Mirror> {
    let field = |name: &str| {
        stanza.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let named = field("Suites")?.split_whitespace().any(|suite| suite == codename);
    let packages = field("Types")?.split_whitespace().any(|kind| kind == "deb");
    let enabled = field("Enabled").is_none_or(|value| value != "no");
    (named && packages && enabled).then_some(())?;
    Some(Mirror {
        uri: field("URIs")?.split_whitespace().next()?.to_owned(),
        signed_by: field("Signed-By").filter(|path| path.starts_with('/')).unwrap_or(KEYRING).to_owned(),
    })
}

fn one_line(line: &str, codename: &str) -> Option<Mirror> {
    let rest = line.trim().strip_prefix("deb ")?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace();
    let uri = words.next()?.to_owned();
    (words.next()? == codename).then_some(())?;
    let signed_by = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
    Some(Mirror { uri, signed_by: signed_by.unwrap_or(KEYRING).to_owned() })
}

fn stanza(mirror: &Mirror, suite: &str) -> String {
    format!(
        "Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\nSigned-By: {}\n",
        mirror.uri, mirror.signed_by
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCES: &str = "Types: deb\n# a comment\nURIs: http://mirror.example/security\nSuites: bookworm-security\n\
                           Components: main\n\nTypes: deb deb-src\nURIs: http://mirror.example/debian http://b.example\n\
                           Suites: bookworm bookworm-updates\nComponents: main\nSigned-By: /keys/debian.gpg\n";

    #[test]
    fn the_mirror_of_the_release_itself_is_chosen_from_stanzas() {
        let expected =
            Mirror { uri: "http://mirror.example/debian".into(), signed_by: "/keys/debian.gpg".into() };
        assert_eq!(mirror(SOURCES, "bookworm"), Some(expected));
        assert_eq!(mirror(SOURCES, "trixie"), None);
    }

    #[test]
    fn the_older_one_line_format_is_read_too() {
        let text = "# deb http://old.example/debian bookworm main\n\
                    deb-src http://src.example/debian bookworm main\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian bookworm main\n";
        let expected = Mirror { uri: "http://mirror.example/debian".into(), signed_by: "/k.gpg".into() };
        assert_eq!(mirror(text, "bookworm"), Some(expected));
        let plain = mirror("deb http://mirror.example/debian trixie main", "trixie").unwrap();
        assert_eq!(plain.signed_by, KEYRING);
    }

    #[test]
    fn a_disabled_stanza_and_an_inline_key_are_not_taken() {
        assert_eq!(mirror(&format!("{SOURCES}Enabled: no\n"), "bookworm"), None);
        let inline = "Types: deb\nURIs: http://m.example\nSuites: trixie\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n";
        assert_eq!(mirror(inline, "trixie").unwrap().signed_by, KEYRING);
    }
}
