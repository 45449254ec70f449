//! Any configuration of a network: the answer is an error object that says something or what the verb prints, never a
//! panic.
#![no_main]
#![allow(
    clippy::unwrap_used,
    reason = "what must not happen ends the process, which is how a fuzzer is told"
)]

use std::time::SystemTime;

use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

/// Keys with which a configuration chooses files and folders, which are not to be this machine's.
const FOLDERS: [&str; 4] = ["stateDir", "runDir", "kubeletRoot", "sysfs"];
const NOWHERE: &str = "/nonexistent/fuzz";

fuzz_target!(|stdin: &[u8]| {
    let stdin = match serde_json::from_slice::<Map<String, Value>>(stdin) {
        Ok(object) => elsewhere(object),
        Err(_) => stdin.to_owned(),
    };
    // ADD reads all of the configuration before it looks for the sandbox, which does not exist.
    for (verb, must_fail) in [("ADD", true), ("DEL", false), ("VERSION", false)] {
        let variables = [
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", "fuzz"),
            ("CNI_NETNS", NOWHERE),
            ("CNI_IFNAME", "net1"),
            ("CNI_ARGS", "IgnoreUnknown=1;IP=10.1.2.3/24;MAC=02:00:00:00:00:01"),
            ("CNI_PATH", NOWHERE),
        ];
        let mut answer = Vec::new();
        let code = zerobridge_cni_sriov::run(variables, &stdin, SystemTime::UNIX_EPOCH, &mut answer).unwrap();
        assert!(code != 0 || !must_fail, "{verb} succeeded");
        if code != 0 {
            let error: Value = serde_json::from_slice(&answer).unwrap();
            assert!(error["code"].as_u64().is_some_and(|code| code > 0), "{error}");
            assert!(error["msg"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
        }
    }
});

fn elsewhere(mut object: Map<String, Value>) -> Vec<u8> {
    object.remove("logFile");
    for key in FOLDERS {
        object.insert(key.to_owned(), NOWHERE.into());
    }
    Value::Object(object).to_string().into_bytes()
}
