//! Any result of another plugin: what can be read is written in every version, without what a version does not know, and
//! read again as the same.
#![no_main]
#![allow(
    clippy::unwrap_used,
    reason = "what must not happen ends the process, which is how a fuzzer is told"
)]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use zerobridge_proto::cni::{AddResult, Version, supported_versions};

/// Fields of an interface or a route that came with 1.1.0.
const NEW: [&str; 7] = ["mtu", "socketPath", "pciID", "advmss", "priority", "table", "scope"];

fuzz_target!(|bytes: &[u8]| {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
    let Ok(result) = AddResult::decode(&value) else { return };
    for version in supported_versions() {
        let written = result.encode(version);
        assert_eq!(written["cniVersion"], version.to_string());
        let read = AddResult::decode(&written).unwrap();
        assert_eq!((&read.ips, &read.dns), (&result.ips, &result.dns));
        assert_eq!(read.interfaces.len(), result.interfaces.len());
        assert_eq!(read.routes.len(), result.routes.len());
        if version == Version::LATEST {
            assert_eq!(read, result);
        }
        if version < Version::V1_1_0 {
            let parts =
                ["interfaces", "routes"].map(|part| written[part].as_array().cloned().unwrap_or_default());
            assert!(
                parts.concat().iter().all(|part| NEW.iter().all(|key| part.get(key).is_none())),
                "{written}"
            );
        }
        let families =
            written["ips"].as_array().into_iter().flatten().filter(|ip| ip.get("version").is_some());
        let expected = if version < Version::V1_0_0 { result.ips.len() } else { 0 };
        assert_eq!(families.count(), expected, "{written}");
    }
});
