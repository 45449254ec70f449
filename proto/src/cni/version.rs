//! Which versions of the specification are spoken, and the answer to VERSION.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

use crate::text::serde_as_text;

/// A version of the CNI specification that this code reads and writes.
///
/// Ordered by age. 0.1.0 and 0.2.0 are left out: their result has no interfaces, so a moved device cannot be reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// 0.3.0
    V0_3_0,
    /// 0.3.1
    V0_3_1,
    /// 0.4.0, the first with CHECK.
    V0_4_0,
    /// 1.0.0, the first without `ips[].version`.
    V1_0_0,
    /// 1.1.0, the first with GC and STATUS.
    V1_1_0,
}

/// A `cniVersion` outside [`supported_versions`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("cniVersion \"{text}\" is not supported; use one of {}", supported_versions().map(Version::as_str).join(", "))]
pub struct VersionError {
    text: String,
}

impl Version {
    /// The newest version spoken here.
    pub const LATEST: Self = Self::V1_1_0;

    /// As it stands in `cniVersion`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }
}

/// Every version spoken here, oldest first.
#[must_use]
pub const fn supported_versions() -> [Version; 5] {
    [Version::V0_3_0, Version::V0_3_1, Version::V0_4_0, Version::V1_0_0, Version::V1_1_0]
}

/// The object that VERSION prints.
///
/// `stdin` is what the runtime sent: an object with `cniVersion`, which comes back as it was (SPEC, VERSION), or nothing
/// at all, as older runtimes do.
#[must_use]
pub fn version_answer(stdin: &[u8]) -> Value {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Request {
        cni_version: String,
    }
    let asked = serde_json::from_slice::<Request>(stdin).map(|request| request.cni_version);
    json!({
        "cniVersion": asked.unwrap_or_else(|_| Version::LATEST.to_string()),
        "supportedVersions": supported_versions(),
    })
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        supported_versions()
            .into_iter()
            .find(|version| version.as_str() == text)
            .ok_or_else(|| VersionError { text: text.to_owned() })
    }
}

serde_as_text!(Version);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_supported_version_reads_back_and_they_are_in_order() {
        for version in supported_versions() {
            assert_eq!(version.as_str().parse(), Ok(version));
        }
        assert!(supported_versions().is_sorted());
    }

    #[test]
    fn another_version_is_named_with_the_supported_ones() {
        let error = "0.2.0".parse::<Version>().unwrap_err().to_string();
        assert_eq!(
            error,
            "cniVersion \"0.2.0\" is not supported; use one of 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0"
        );
    }

    #[test]
    fn the_answer_repeats_the_version_asked_with_and_stands_without_input() {
        let all = json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
        for (stdin, version) in [(r#"{"cniVersion":"1.0.0"}"#, "1.0.0"), ("", "1.1.0"), ("[", "1.1.0")] {
            let answer = version_answer(stdin.as_bytes());
            assert_eq!(answer, json!({"cniVersion": version, "supportedVersions": all}));
        }
    }
}
