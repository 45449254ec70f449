//! Calling a CNI plugin by hand, as a runtime would: environment and standard input in, JSON out.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::machine::{Guest, GuestError, Output, Program};

const LIMIT: Duration = Duration::from_secs(60);
/// Where plugins are in the guest.
pub const PLUGIN_FOLDER: &str = "/opt/cni/bin";

/// One call of a plugin.
#[derive(Clone, Debug)]
pub struct CniCall {
    /// `ADD`, `DEL`, `CHECK`, `GC`, `STATUS` or `VERSION`.
    pub command: &'static str,
    /// The sandbox's ID.
    pub container: String,
    /// The path of its network namespace; empty when it has none any more.
    pub netns: String,
    /// The name of the link inside.
    pub ifname: String,
    /// `CNI_ARGS`, empty for none.
    pub args: String,
    /// The network's configuration.
    pub config: Value,
}

/// What a plugin printed when it refused (CNI specification 1.1, section 5, "Error").
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct CniError {
    /// Below 100 the specification's own, from 100 the plugin's.
    pub code: u32,
    /// A short text.
    pub msg: String,
    /// A longer one.
    #[serde(default)]
    pub details: String,
}

impl CniCall {
    /// A call for the namespace `/run/netns/NAME`, which is also the sandbox's ID; the link inside is `net1`.
    #[must_use]
    pub fn new(command: &'static str, name: &str, config: &Value) -> Self {
        Self {
            command,
            container: name.into(),
            netns: format!("/run/netns/{name}"),
            ifname: "net1".into(),
            args: String::new(),
            config: config.clone(),
        }
    }

    /// The plugin as a program.
    #[must_use]
    pub fn program(&self) -> Program {
        let kind = self.config["type"].as_str().unwrap_or_default();
        let env = BTreeMap::from(
            [
                ("CNI_COMMAND", self.command),
                ("CNI_CONTAINERID", &self.container),
                ("CNI_NETNS", &self.netns),
                ("CNI_IFNAME", &self.ifname),
                ("CNI_ARGS", &self.args),
                ("CNI_PATH", PLUGIN_FOLDER),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        Program { argv: vec![format!("{PLUGIN_FOLDER}/{kind}")], env, stdin: self.config.to_string() }
    }
}

impl Guest {
    /// Calls a plugin, whatever comes of it.
    ///
    /// # Errors
    /// When it could not be started, or the VM is lost.
    pub fn cni(&mut self, call: &CniCall) -> Result<Output, GuestError> {
        self.output(call.program(), LIMIT)
    }

    /// Calls a plugin that must succeed; an empty output is `null`.
    ///
    /// # Errors
    /// With everything the plugin said when it failed.
    pub fn cni_success(&mut self, call: &CniCall) -> Result<Value, GuestError> {
        let command = format!("{} {}", call.command, call.container);
        let text = crate::machine::succeeded(&command, self.cni(call)?)?;
        if text.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).map_err(|source| GuestError::NotJson { command, text, source })
    }

    /// Calls a plugin that must refuse, with an error object on standard output.
    ///
    /// # Errors
    /// When it succeeds, or its output is no CNI error.
    pub fn cni_refusal(&mut self, call: &CniCall) -> Result<CniError, GuestError> {
        let command = format!("{} {}", call.command, call.container);
        let output = self.cni(call)?;
        if output.code == 0 {
            return Err(GuestError::Failed { command, ended: "was not refused".into(), said: output.stdout });
        }
        serde_json::from_str(&output.stdout).map_err(|source| GuestError::NotJson {
            command,
            text: output.stdout + &output.stderr,
            source,
        })
    }
}
