//! The list of what is linked into the programs, as SPDX 2.3 in JSON (<https://spdx.github.io/spdx-spec/v2.3/>).
//!
//! Depends on nothing but what it is given, so that it is the same for the same source.

use serde_json::{Value, json};

use crate::crates::Linked;
use crate::layout::hex;

/// The package in which SQLite's source is.
const SQLITE_CRATE: &str = "libsqlite3-sys";

/// What nobody has said.
const UNKNOWN: &str = "NOASSERTION";

/// What the list is of.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// Its version.
    pub version: &'a str,
    /// When its source was written, as RFC 3339 has it.
    pub created: &'a str,
    /// The packages of the programs.
    pub programs: &'a [&'a str],
    /// The version of the SQLite that is compiled in.
    pub sqlite: &'a str,
}

/// The document.
///
/// # Errors
/// It cannot be written.
pub fn document(subject: &Subject<'_>, crates: &[Linked]) -> Result<Vec<u8>, serde_json::Error> {
    let mut packages = Vec::new();
    let mut relationships = Vec::new();
    let mut relate = |one: &str, how: &str, other: &str| {
        relationships
            .push(json!({"spdxElementId": one, "relationshipType": how, "relatedSpdxElement": other}));
    };
    for linked in crates {
        let id = id(&linked.name, &linked.version);
        let is_program = subject.programs.contains(&linked.name.as_str());
        packages.push(package(&id, linked, is_program));
        if is_program {
            relate("SPDXRef-DOCUMENT", "DESCRIBES", &id);
        }
        for (name, version) in &linked.needs {
            relate(&id, "DEPENDS_ON", &self::id(name, version));
        }
        if linked.name == SQLITE_CRATE {
            let sqlite = self::id("sqlite", subject.sqlite);
            packages.push(json!({
                "SPDXID": sqlite,
                "name": "sqlite",
                "versionInfo": subject.sqlite,
                "downloadLocation": UNKNOWN,
                "filesAnalyzed": false,
                "licenseConcluded": UNKNOWN,
                "licenseDeclared": "blessing",
                "copyrightText": "NONE",
                "externalRefs": [{
                    "referenceCategory": "SECURITY",
                    "referenceType": "cpe23Type",
                    "referenceLocator": format!("cpe:2.3:a:sqlite:sqlite:{}:*:*:*:*:*:*:*", subject.sqlite),
                }],
            }));
            relate(&id, "CONTAINS", &sqlite);
        }
    }
    // The namespace of a document must be nobody else's, so it is named after what the document says.
    let content = serde_json::to_vec(&(&packages, &relationships))?;
    let mut text = serde_json::to_vec_pretty(&json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("zerobridge-{}", subject.version),
        "documentNamespace": format!("https://zerobridge.io/spdx/{}-{}", subject.version, hex(&content)),
        "creationInfo": {
            "created": subject.created,
            "creators": [format!("Tool: zerobridge-image-{}", subject.version)],
        },
        "packages": packages,
        "relationships": relationships,
    }))?;
    text.push(b'\n');
    Ok(text)
}

fn package(id: &str, linked: &Linked, is_program: bool) -> Value {
    let Linked { name, version, licence, checksum, .. } = linked;
    let mut package = json!({
        "SPDXID": id,
        "name": name,
        "versionInfo": version,
        "downloadLocation": UNKNOWN,
        "filesAnalyzed": false,
        "licenseConcluded": UNKNOWN,
        "licenseDeclared": licence.as_deref().unwrap_or(UNKNOWN),
        "copyrightText": UNKNOWN,
        "primaryPackagePurpose": if is_program { "APPLICATION" } else { "LIBRARY" },
    });
    if let Some(checksum) = checksum {
        package["checksums"] = json!([{"algorithm": "SHA256", "checksumValue": checksum}]);
        package["externalRefs"] = json!([{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": format!("pkg:cargo/{name}@{}", version.replace('+', "%2B")),
        }]);
    }
    package
}

/// An identifier within the document: letters, digits, dots and hyphens only.
fn id(name: &str, version: &str) -> String {
    let allowed = |letter: char| if letter.is_ascii_alphanumeric() || letter == '.' { letter } else { '-' };
    format!("SPDXRef-{}", format!("{name}-{version}").chars().map(allowed).collect::<String>())
}

/// The version of SQLite that a header `sqlite3.h` is of.
#[must_use]
pub fn sqlite_version(header: &str) -> Option<&str> {
    let line = header.lines().find_map(|line| line.strip_prefix("#define SQLITE_VERSION "))?;
    line.trim().strip_prefix('"')?.strip_suffix('"')
}

/// Where [`sqlite_version`] finds its header, if SQLite is linked.
#[must_use]
pub fn sqlite_header(crates: &[Linked]) -> Option<std::path::PathBuf> {
    let linked = crates.iter().find(|linked| linked.name == SQLITE_CRATE)?;
    Some(linked.folder.join("sqlite3/sqlite3.h"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::crates::tests::{LOCK, TREE, metadata};

    fn subject() -> Subject<'static> {
        Subject { version: "0.1.0", created: "2020-01-01T00:00:00Z", programs: &["tool"], sqlite: "3.50.0" }
    }

    #[test]
    fn every_package_has_what_spdx_demands_and_is_reached_from_the_document() {
        let crates = crate::crates::linked(TREE, &metadata(), LOCK).unwrap();
        let text = document(&subject(), &crates).unwrap();
        assert_eq!(text, document(&subject(), &crates).unwrap());
        let document: Value = serde_json::from_slice(&text).unwrap();
        for key in ["spdxVersion", "dataLicense", "SPDXID", "name", "documentNamespace", "creationInfo"] {
            assert!(!document[key].is_null(), "{key}");
        }
        let mut ids = BTreeSet::from(["SPDXRef-DOCUMENT".to_owned()]);
        let mut told = Vec::new();
        for package in document["packages"].as_array().unwrap() {
            for key in ["name", "SPDXID", "downloadLocation", "licenseDeclared", "copyrightText"] {
                assert!(package[key].is_string(), "{key} of {package}");
            }
            let text = |key: &str| package[key].as_str().unwrap().to_owned();
            assert!(ids.insert(text("SPDXID")), "{package}");
            told.push([text("name"), text("versionInfo"), text("licenseDeclared")].join(" "));
        }
        assert_eq!(
            told,
            ["libsqlite3-sys 0.40.0 MIT OR Apache-2.0", "sqlite 3.50.0 blessing", "tool 0.1.0 Apache-2.0"]
        );
        let mut reached = BTreeSet::from(["SPDXRef-DOCUMENT".to_owned()]);
        for _ in 0..ids.len() {
            for relationship in document["relationships"].as_array().unwrap() {
                let [from, to] =
                    ["spdxElementId", "relatedSpdxElement"].map(|key| relationship[key].as_str().unwrap());
                assert!(ids.contains(from) && ids.contains(to), "{relationship}");
                if reached.contains(from) {
                    reached.insert(to.to_owned());
                }
            }
        }
        assert_eq!(reached, ids);
        assert_eq!(document["packages"][0]["checksums"][0]["checksumValue"], "00ff");
    }

    #[test]
    fn sqlite_tells_its_version() {
        let header =
            "/* x */\n#define SQLITE_VERSION        \"3.50.4\"\n#define SQLITE_VERSION_NUMBER 3050004\n";
        assert_eq!(sqlite_version(header), Some("3.50.4"));
        assert_eq!(sqlite_version("#define SQLITE_VERSION_NUMBER 3050004\n"), None);
    }
}
