//! An IPAM plugin that writes down how it is called: a shell script, since any program can be one.
#![allow(dead_code, unreachable_pub, reason = "every test program of this crate uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot prepare its node has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Answers ADD with one address and anything else with success.
pub const GIVES: &str = r#"test "$CNI_COMMAND" != ADD || cat <<'END'
{"cniVersion": "1.1.0", "ips": [{"address": "10.9.0.5/24", "gateway": "10.9.0.1"}],
 "routes": [{"dst": "0.0.0.0/0"}], "dns": {"nameservers": ["10.9.0.53"]}}
END"#;

/// The plugin, installed in a folder of its own.
pub struct RecordingIpam {
    folder: PathBuf,
    name: String,
}

/// How it was called once.
pub struct Recorded {
    /// Its environment variables.
    pub variables: BTreeMap<String, String>,
    /// Its standard input.
    pub stdin: String,
}

impl RecordingIpam {
    /// Installs a plugin that does `body` after it has written down how it was called.
    pub fn install(folder: &Path, name: &str, body: &str) -> Self {
        let plugin = Self { folder: folder.join(format!("{name}.calls")), name: name.to_owned() };
        fs::create_dir_all(&plugin.folder).unwrap();
        let calls = plugin.folder.display();
        // Every call gets a number of its own, even of two at once.
        let script = format!(
            "#!/bin/sh\nn=1\nuntil mkdir '{calls}'/$n 2>/dev/null; do n=$((n + 1)); done\n\
             env > '{calls}'/$n/env\ncat > '{calls}'/$n/stdin\n{body}\n"
        );
        fs::write(plugin.program(), script).unwrap();
        fs::set_permissions(plugin.program(), fs::Permissions::from_mode(0o755)).unwrap();
        plugin
    }

    /// Where it is.
    pub fn program(&self) -> PathBuf {
        self.folder.with_file_name(&self.name)
    }

    /// Its calls, in order.
    pub fn calls(&self) -> Vec<Recorded> {
        let read = |number: usize| {
            let call = self.folder.join(number.to_string());
            let variables = fs::read_to_string(call.join("env")).ok()?;
            let variables = variables.lines().filter_map(|line| line.split_once('='));
            Some(Recorded {
                variables: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
                stdin: fs::read_to_string(call.join("stdin")).unwrap(),
            })
        };
        (1..).map_while(read).collect()
    }

    /// The commands of its calls, in order.
    pub fn commands(&self) -> Vec<String> {
        self.calls().iter().map(|call| call.variables["CNI_COMMAND"].clone()).collect()
    }
}

impl Recorded {
    /// Its configuration.
    pub fn config(&self) -> Value {
        serde_json::from_str(&self.stdin).unwrap()
    }
}
