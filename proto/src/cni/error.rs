//! The error object of the specification: what a plugin prints instead of a result.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;

use super::Version;
use crate::chain;

/// The `code` of an error. 0 to 99 belong to the specification (SPEC, section 5, "Error"), the rest to the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ErrorCode(u32);

/// Why a CNI operation failed, in the form that the runtime reads.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct CniError {
    /// What kind of failure this is; some runtimes act on it.
    pub code: ErrorCode,
    /// One short sentence: what failed, with the object's name.
    pub msg: String,
    /// What stood behind it and what to do; may be empty.
    pub details: String,
}

impl ErrorCode {
    /// 1: `cniVersion` is not spoken here.
    pub const INCOMPATIBLE_VERSION: Self = Self(1);
    /// 2: a field of the configuration is not known; `msg` holds its key and value.
    pub const UNSUPPORTED_FIELD: Self = Self(2);
    /// 3: the container does not exist; the runtime need not send DEL.
    pub const UNKNOWN_CONTAINER: Self = Self(3);
    /// 4: an environment variable is missing or invalid; `msg` holds its name.
    pub const INVALID_ENVIRONMENT: Self = Self(4);
    /// 5: reading or writing failed.
    pub const IO: Self = Self(5);
    /// 6: the input could not be decoded.
    pub const DECODE: Self = Self(6);
    /// 7: the network configuration is invalid.
    pub const INVALID_CONFIG: Self = Self(7);
    /// 11: a transient condition; the runtime may try again later.
    pub const TRY_AGAIN_LATER: Self = Self(11);
    /// 50: STATUS only; ADD would not succeed now.
    pub const NOT_AVAILABLE: Self = Self(50);
    /// 51: STATUS only; ADD would not succeed now, and containers that exist may lack connectivity.
    pub const NOT_AVAILABLE_LIMITED: Self = Self(51);

    /// A code of this plugin's own: `number` counts from 100, the first that the specification leaves free.
    #[must_use]
    pub const fn plugin(number: u16) -> Self {
        Self(100 + number as u32)
    }

    /// The number as it is written.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl CniError {
    /// An error without details.
    #[must_use]
    pub fn new(code: ErrorCode, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }

    /// The same error with what stood behind it.
    #[must_use]
    pub fn with_details(self, details: impl Into<String>) -> Self {
        Self { details: details.into(), ..self }
    }

    /// An error whose message is `error` and whose details are the chain of its sources.
    #[must_use]
    pub fn from_chain(code: ErrorCode, error: &dyn std::error::Error) -> Self {
        let details = error.source().map(chain).unwrap_or_default();
        Self::new(code, error.to_string()).with_details(details)
    }

    /// The object to print for a request that came with `version`.
    #[must_use]
    pub fn encode(&self, version: Version) -> Value {
        let mut object = json!({"cniVersion": version, "code": self.code, "msg": self.msg});
        if !self.details.is_empty() {
            object["details"] = json!(self.details);
        }
        object
    }

    /// Reads the error that a delegated plugin printed; `None` when `stdout` holds none.
    #[must_use]
    pub fn decode(stdout: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Wire {
            code: ErrorCode,
            #[serde(default)]
            msg: String,
            #[serde(default)]
            details: String,
        }
        let wire: Wire = serde_json::from_slice(stdout).ok()?;
        Some(Self { code: wire.code, msg: wire.msg, details: wire.details })
    }
}

impl fmt::Display for CniError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.msg)?;
        if !self.details.is_empty() {
            write!(out, ": {}", self.details)?;
        }
        write!(out, " (CNI code {})", self.code.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_written_with_the_version_of_its_request_and_read_back() {
        let error = CniError::new(ErrorCode::TRY_AGAIN_LATER, "no address").with_details("254 held");
        let object = error.encode(Version::V0_4_0);
        assert_eq!(
            object,
            json!({"cniVersion": "0.4.0", "code": 11, "msg": "no address", "details": "254 held"})
        );
        assert_eq!(CniError::decode(object.to_string().as_bytes()), Some(error));
        assert_eq!(CniError::decode(b"segfault"), None);
    }

    #[test]
    fn empty_details_are_left_out() {
        let object = CniError::new(ErrorCode::plugin(1), "x").encode(Version::LATEST);
        assert_eq!(object, json!({"cniVersion": "1.1.0", "code": 101, "msg": "x"}));
    }

    #[test]
    fn the_sources_of_an_error_become_its_details() {
        #[derive(Debug, Error)]
        #[error("outer")]
        struct Outer(#[source] std::io::Error);
        let error = CniError::from_chain(ErrorCode::IO, &Outer(std::io::Error::other("inner")));
        assert_eq!((error.msg.as_str(), error.details.as_str()), ("outer", "inner"));
    }
}
