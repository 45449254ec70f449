//! A network's IPAM plugin when it is another program (SPEC, section 4, "Plugin Delegation"): finding it, running it, and
//! what the ledger must keep so that its addresses can be given back when no runtime asks any more.
//!
//! Refuses to know when it is called and what its answer is used for.

use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{self, Child, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tracing::{debug, info};
use zerobridge_ledger::Owner;
use zerobridge_proto::cni::{AddResult, CniError, Command, ErrorCode};

use crate::call::Call;
use crate::codes;

/// No answer of the specification is nearly as long. A program that writes more is cut off.
const LONGEST_ANSWER: u64 = 1 << 20;

/// How often and after which pause a program that is just being installed is tried again (`ETXTBSY`).
const BUSY_TRIES: u32 = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// How long a plugin may take when no runtime waits that would end it: the daemon has more to do.
const UNATTENDED: Duration = Duration::from_secs(30);

/// How often is looked whether a plugin has ended that has no more to say.
const END_INTERVAL: Duration = Duration::from_millis(5);

/// An IPAM plugin with everything that it is to be told.
#[derive(Clone, Debug)]
pub(crate) struct Delegate {
    network: String,
    plugin: String,
    variables: Vec<(OsString, OsString)>,
    stdin: Vec<u8>,
    /// How long it may take; `None` leaves that to the runtime, which alone knows how long it waits.
    patience: Option<Duration>,
}

/// A delegated plugin's part of an attachment's record: enough to give its addresses back, and to answer a repeated ADD
/// without asking the plugin again, since several (host-local among them) refuse a second ADD for the same interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Delegation {
    /// The network that it gave the addresses of.
    network: String,
    /// Its name, `ipam.type`.
    plugin: String,
    /// `CNI_PATH` of the ADD.
    path: String,
    /// `CNI_ARGS` of the ADD.
    args: String,
    /// The configuration that it was given.
    config: Value,
    /// What it gave; `None` from before it was called until it had answered.
    pub(crate) result: Option<AddResult>,
}

impl Delegate {
    /// The plugin `plugin` of network `network`, with the environment and the configuration that this call came with.
    ///
    /// The configuration is passed on byte for byte. Only one with `networks`, which no IPAM plugin knows, is turned into
    /// what it would be if that network stood alone.
    pub(crate) fn of_call(call: &Call<'_>, network: &str, plugin: &str) -> Self {
        let stdin = match call.config.own.get("networks") {
            None => call.stdin.to_vec(),
            Some(entries) => alone(call.stdin, entries, network),
        };
        Self {
            network: network.to_owned(),
            plugin: plugin.to_owned(),
            variables: call.variables.to_vec(),
            stdin,
            patience: None,
        }
    }

    /// The plugin as the ledger remembers it. It is told no namespace: that one is gone, and its path may be another's.
    pub(crate) fn of_record(delegation: &Delegation, owner: &Owner) -> Self {
        let variables = [
            ("CNI_CONTAINERID", &owner.container_id),
            ("CNI_IFNAME", &owner.ifname),
            ("CNI_PATH", &delegation.path),
            ("CNI_ARGS", &delegation.args),
        ];
        Self {
            network: delegation.network.clone(),
            plugin: delegation.plugin.clone(),
            variables: variables.map(|(name, value)| (name.into(), value.into())).to_vec(),
            stdin: delegation.config.to_string().into_bytes(),
            patience: Some(UNATTENDED),
        }
    }

    /// What the ledger is to keep of it.
    pub(crate) fn to_record(&self, result: Option<AddResult>) -> Delegation {
        let text = |name| self.variable(name).map(|value| value.to_string_lossy().into_owned());
        Delegation {
            network: self.network.clone(),
            plugin: self.plugin.clone(),
            path: text("CNI_PATH").unwrap_or_default(),
            args: text("CNI_ARGS").unwrap_or_default(),
            config: serde_json::from_slice(&self.stdin).unwrap_or_default(),
            result,
        }
    }

    /// Whether `delegation` is of this plugin and network.
    pub(crate) fn is_that_of(&self, delegation: &Delegation) -> bool {
        self.plugin == delegation.plugin && self.network == delegation.network
    }

    /// Whether `CNI_PATH` leads to it.
    ///
    /// # Errors
    /// Where it was looked for.
    pub(crate) fn require(&self) -> Result<(), CniError> {
        self.find().map(drop)
    }

    /// The network that it gives addresses of.
    pub(crate) fn network(&self) -> &str {
        &self.network
    }

    /// Asks for addresses. The caller owes it a DEL when this fails.
    ///
    /// # Errors
    /// What it answered, or that it gave no address.
    pub(crate) fn add(&self) -> Result<AddResult, CniError> {
        let answer = self.run(Command::Add)?;
        let value: Value = serde_json::from_slice(&answer)
            .map_err(|error| self.no_answer(Command::Add, &answer, &error.to_string()))?;
        let result = AddResult::decode(&value).map_err(|error| self.named(Command::Add, error))?;
        if result.ips.is_empty() {
            let error = CniError::new(codes::IPAM_FAILED, "it gave no address")
                .with_details("a network without addresses has no key ipam");
            return Err(self.named(Command::Add, error));
        }
        info!(plugin = self.plugin, network = self.network, ips = ?result.ips, "was given addresses");
        Ok(result)
    }

    /// Passes on a command that has no answer but success.
    ///
    /// # Errors
    /// What it answered.
    pub(crate) fn forward(&self, command: Command) -> Result<(), CniError> {
        self.run(command).map(drop)
    }

    /// Runs it to its end. No other pod waits for it, because the ledger is free meanwhile.
    fn run(&self, command: Command) -> Result<Vec<u8>, CniError> {
        let program = self.find()?;
        debug!(program = %program.display(), %command, network = self.network, "run the IPAM plugin");
        let io_error = |error: io::Error| {
            let error = CniError::new(ErrorCode::IO, format!("cannot run {}", program.display()))
                .with_details(error.to_string());
            self.named(command, error)
        };
        let mut child = self.spawn(&program, command).map_err(io_error)?;
        let (answer, status) = self.talk(&mut child).map_err(io_error)?;
        if status.success() {
            return Ok(answer);
        }
        Err(match CniError::decode(&answer) {
            Some(error) => self.named(command, error),
            None => self.no_answer(command, &answer, &status.to_string()),
        })
    }

    /// The first directory of `CNI_PATH` that has a file of this name.
    fn find(&self) -> Result<PathBuf, CniError> {
        let path = self.variable("CNI_PATH").cloned().unwrap_or_default();
        let directories = std::env::split_paths(&path).filter(|directory| !directory.as_os_str().is_empty());
        let found =
            directories.map(|directory| directory.join(&self.plugin)).find(|program| program.is_file());
        found.ok_or_else(|| {
            let (network, plugin) = (&self.network, &self.plugin);
            let msg = format!(
                "ipam.type of network {network} is \"{plugin}\", and no directory of CNI_PATH has it"
            );
            let details = format!("CNI_PATH is \"{}\"; install the plugin there", path.display());
            CniError::new(ErrorCode::INVALID_CONFIG, msg).with_details(details)
        })
    }

    fn spawn(&self, program: &Path, command: Command) -> io::Result<Child> {
        let mut process = process::Command::new(program);
        // What this process has beside is inherited, but no CNI variable that is not the call's.
        let own = std::env::vars_os().map(|(name, _)| name);
        for name in own.filter(|name| name.as_encoded_bytes().starts_with(b"CNI_")) {
            process.env_remove(name);
        }
        process
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .env("CNI_COMMAND", command.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut tries = 0;
        loop {
            match process.spawn() {
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy && tries < BUSY_TRIES => {
                    tries += 1;
                    thread::sleep(BUSY_PAUSE);
                }
                other => return other,
            }
        }
    }

    /// Writes the configuration while the answer is read: either may be longer than a pipe holds. The threads that do it
    /// end with the pipes, which a child of a plugin that was killed may keep open.
    fn talk(&self, child: &mut Child) -> io::Result<(Vec<u8>, ExitStatus)> {
        let deadline = self.patience.map(|patience| Instant::now() + patience);
        if let Some(mut stdin) = child.stdin.take() {
            let text = self.stdin.clone();
            // A plugin need not read what it was given, so a pipe that it closed is no failure.
            thread::Builder::new().spawn(move || stdin.write_all(&text))?;
        }
        let (answered, answer) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            thread::Builder::new().spawn(move || {
                let mut answer = Vec::new();
                let read = stdout.take(LONGEST_ANSWER).read_to_end(&mut answer).map(|_| answer);
                // An error means that nobody waits any more.
                let _gone = answered.send(read);
            })?;
        }
        let ended = match deadline {
            None => answer.recv().map_err(io::Error::other)?.and_then(|answer| Ok((answer, child.wait()?))),
            Some(deadline) => until(deadline, child, &answer),
        };
        if ended.is_err() {
            // It may have ended by itself.
            let _ended = child.kill();
            child.wait()?;
        }
        ended
    }

    fn variable(&self, name: &str) -> Option<&OsString> {
        self.variables.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The plugin's own error, said to be its own.
    fn named(&self, command: Command, error: CniError) -> CniError {
        let msg =
            format!("{command} of IPAM plugin {} for network {}: {}", self.plugin, self.network, error.msg);
        CniError { msg, ..error }
    }

    fn no_answer(&self, command: Command, answer: &[u8], reason: &str) -> CniError {
        let start: String = String::from_utf8_lossy(answer).chars().take(200).collect();
        let error = CniError::new(codes::IPAM_FAILED, format!("no answer of the specification ({reason})"));
        let details =
            if start.is_empty() { "it printed nothing".to_owned() } else { format!("it printed {start:?}") };
        self.named(command, error.with_details(details))
    }
}

/// The answer and the end of a plugin, if both come in time.
fn until(
    deadline: Instant,
    child: &mut Child,
    answer: &mpsc::Receiver<io::Result<Vec<u8>>>,
) -> io::Result<(Vec<u8>, ExitStatus)> {
    let too_late = || io::Error::new(ErrorKind::TimedOut, "it did not end in time and was killed");
    let remaining = deadline.saturating_duration_since(Instant::now());
    let answer = answer.recv_timeout(remaining).map_err(|_| too_late())??;
    loop {
        match child.try_wait()? {
            Some(status) => return Ok((answer, status)),
            None if Instant::now() < deadline => thread::sleep(END_INTERVAL),
            None => return Err(too_late()),
        }
    }
}

/// A configuration with `networks` as if the one of them stood alone.
fn alone(stdin: &[u8], networks: &Value, network: &str) -> Vec<u8> {
    let mut object: Map<String, Value> = serde_json::from_slice(stdin).unwrap_or_default();
    object.remove("networks");
    let entries = networks.as_array().into_iter().flatten().filter_map(Value::as_object);
    for entry in entries.filter(|entry| entry.get("name").and_then(Value::as_str) == Some(network)) {
        object.extend(entry.clone());
    }
    Value::Object(object).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording_ipam::RecordingIpam;

    #[test]
    fn a_network_among_several_is_told_as_if_it_stood_alone() {
        let stdin = br#"{"cniVersion":"1.1.0","name":"pods","cni.dev/valid-attachments":[],"networks":[
            {"name":"a","ipam":{"type":"x"}},{"name":"b","vlan":2,"ipam":{"type":"y"}}]}"#;
        let object: Value = serde_json::from_slice(stdin).unwrap();
        let alone: Value = serde_json::from_slice(&alone(stdin, &object["networks"], "b")).unwrap();
        let expected = r#"{"cniVersion":"1.1.0","name":"b","cni.dev/valid-attachments":[],"vlan":2,
            "ipam":{"type":"y"}}"#;
        assert_eq!(alone, serde_json::from_str::<Value>(expected).unwrap());
    }

    #[test]
    fn a_record_leads_back_to_its_plugin_without_a_namespace() {
        let delegate = Delegate {
            network: "blue".to_owned(),
            plugin: "host-local".to_owned(),
            variables: [("CNI_PATH", "/a:/b"), ("CNI_ARGS", "A=1"), ("CNI_NETNS", "/run/netns/x")]
                .map(|(name, value)| (name.into(), value.into()))
                .to_vec(),
            stdin: br#"{"name":"blue"}"#.to_vec(),
            patience: None,
        };
        let record = delegate.to_record(Some(AddResult::default()));
        let record: Delegation = serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
        assert!(delegate.is_that_of(&record) && record.result.is_some());
        let owner = Owner { container_id: "c1".to_owned(), ifname: "eth0".to_owned() };
        let again = Delegate::of_record(&record, &owner);
        assert_eq!(again.stdin, delegate.stdin);
        let variables = ["CNI_PATH", "CNI_ARGS", "CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS"]
            .map(|name| again.variable(name).and_then(|value| value.to_str()));
        assert_eq!(variables, [Some("/a:/b"), Some("A=1"), Some("c1"), Some("eth0"), None]);
    }

    #[test]
    fn a_plugin_that_nobody_waits_for_is_killed_when_its_time_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let delegate = |patience| Delegate {
            network: "blue".to_owned(),
            plugin: "recording".to_owned(),
            variables: vec![("CNI_PATH".into(), folder.path().into())],
            stdin: b"{}".to_vec(),
            patience: Some(patience),
        };
        for hangs in ["exec sleep 600", "exec >&-; exec sleep 600"] {
            RecordingIpam::install(folder.path(), "recording", hangs);
            let error = delegate(Duration::from_millis(50)).forward(Command::Del).unwrap_err();
            assert!(error.details.contains("did not end in time"), "{error}");
        }
        RecordingIpam::install(folder.path(), "recording", "");
        delegate(Duration::from_secs(600)).forward(Command::Del).unwrap();
    }
}
