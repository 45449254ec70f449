//! The environment variables of a CNI call, checked before anything else is looked at.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::{Args, CniError, ErrorCode, Version, is_container_id, is_interface_name};

/// What the runtime asks for (`CNI_COMMAND`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Attach a container to the network.
    Add,
    /// Detach it; may come twice, late, and without a namespace.
    Del,
    /// Verify that the attachment is still as ADD left it.
    Check,
    /// Remove what belongs to no attachment of the given list.
    Gc,
    /// Say whether ADD would succeed now.
    Status,
    /// Say which versions are spoken.
    Version,
}

/// A call's environment variables. Which are required depends on the command (SPEC, section 2, "CNI operations"):
///
/// | | ADD, CHECK | DEL | GC | STATUS, VERSION |
/// |---|---|---|---|---|
/// | `CNI_CONTAINERID`, `CNI_IFNAME` | required | required | not read | not read |
/// | `CNI_NETNS` | required | optional | not read | not read |
/// | `CNI_ARGS` | optional | optional, never an error | not read | not read |
/// | `CNI_PATH` | optional | optional | required | optional |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// `CNI_COMMAND`.
    pub command: Command,
    /// `CNI_CONTAINERID`; empty for commands that concern no container.
    pub container_id: String,
    /// `CNI_NETNS`, a path of the container's network namespace. `None` when it is absent or empty.
    pub netns: Option<PathBuf>,
    /// `CNI_IFNAME`, the interface's name inside the container; empty for commands that concern no container.
    pub ifname: String,
    /// `CNI_ARGS`.
    pub args: Args,
    /// `CNI_PATH`: the directories in which delegated plugins are looked for, in order.
    pub path: Vec<PathBuf>,
}

impl Environment {
    /// Reads a call's variables, such as from `std::env::vars_os()`. Variables of other names are passed over.
    ///
    /// # Errors
    /// Code 4, naming the variable, its value and the rule.
    pub fn parse<K, V>(variables: impl IntoIterator<Item = (K, V)>) -> Result<Self, CniError>
    where
        K: AsRef<OsStr>,
        V: Into<OsString>,
    {
        let variables = Variables::collect(variables);
        let command: Command = variables
            .text("CNI_COMMAND")?
            .ok_or_else(|| {
                invalid("CNI_COMMAND is not set; it must be one of ADD, DEL, CHECK, GC, STATUS, VERSION")
            })?
            .parse()?;
        let mut environment = Self {
            command,
            container_id: String::new(),
            netns: None,
            ifname: String::new(),
            args: Args::default(),
            path: variables
                .os("CNI_PATH")
                .map(|list| std::env::split_paths(list).collect())
                .unwrap_or_default(),
        };
        match command {
            Command::Add | Command::Check | Command::Del => environment.read_attachment(&variables)?,
            Command::Gc if environment.path.is_empty() => {
                return Err(invalid("CNI_PATH is not set; GC requires it"));
            }
            Command::Gc | Command::Status | Command::Version => {}
        }
        Ok(environment)
    }

    fn read_attachment(&mut self, variables: &Variables) -> Result<(), CniError> {
        let command = self.command;
        self.container_id = variables.required("CNI_CONTAINERID", command)?.to_owned();
        if !is_container_id(&self.container_id) {
            return Err(invalid(format!(
                "CNI_CONTAINERID is \"{}\"; it must begin with a letter or digit and go on with letters, digits, \
                 '_', '.' and '-'",
                self.container_id
            )));
        }
        self.ifname = variables.required("CNI_IFNAME", command)?.to_owned();
        if !is_interface_name(&self.ifname) {
            return Err(invalid(format!(
                "CNI_IFNAME is \"{}\"; it must have 1 to 15 bytes, no '/', ':' or white space, and not be '.' or '..'",
                self.ifname
            )));
        }
        self.netns = variables.os("CNI_NETNS").map(PathBuf::from);
        let args = variables.text("CNI_ARGS").and_then(|text| Args::parse(text.unwrap_or_default()));
        if command == Command::Del {
            // Nothing that DEL does hangs on them, and a DEL that fails keeps a pod from going away.
            self.args = args.unwrap_or_default();
            return Ok(());
        }
        self.args = args?;
        match self.netns {
            Some(_) => Ok(()),
            None => Err(invalid(format!("CNI_NETNS is not set; {command} requires it"))),
        }
    }
}

/// The CNI variables of a call; a variable set to nothing counts as absent, as the reference implementation has it.
struct Variables(HashMap<String, OsString>);

impl Variables {
    fn collect<K: AsRef<OsStr>, V: Into<OsString>>(variables: impl IntoIterator<Item = (K, V)>) -> Self {
        let ours = variables.into_iter().filter_map(|(key, value)| {
            let key = key.as_ref().to_str().filter(|key| key.starts_with("CNI_"))?.to_owned();
            Some((key, value.into())).filter(|(_, value)| !value.is_empty())
        });
        Self(ours.collect())
    }

    fn os(&self, name: &str) -> Option<&OsStr> {
        self.0.get(name).map(OsString::as_os_str)
    }

    fn text(&self, name: &str) -> Result<Option<&str>, CniError> {
        self.os(name)
            .map(|value| {
                value.to_str().ok_or_else(|| invalid(format!("{name} is {value:?}, which is not UTF-8")))
            })
            .transpose()
    }

    fn required(&self, name: &str, command: Command) -> Result<&str, CniError> {
        self.text(name)?.ok_or_else(|| invalid(format!("{name} is not set; {command} requires it")))
    }
}

impl Command {
    /// Fails when a configuration of `version` cannot have brought this command: CHECK exists since 0.4.0, GC and STATUS
    /// since 1.1.0.
    ///
    /// # Errors
    /// Code 1, naming the command and both versions.
    pub fn require(self, version: Version) -> Result<(), CniError> {
        let since = match self {
            Self::Check => Version::V0_4_0,
            Self::Gc | Self::Status => Version::V1_1_0,
            Self::Add | Self::Del | Self::Version => return Ok(()),
        };
        if version >= since {
            return Ok(());
        }
        let msg = format!("{self} came with cniVersion {version}, and exists since {since}");
        Err(CniError::new(ErrorCode::INCOMPATIBLE_VERSION, msg))
    }
}

fn invalid(msg: impl Into<String>) -> CniError {
    CniError::new(ErrorCode::INVALID_ENVIRONMENT, msg)
}

impl fmt::Display for Command {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        })
    }
}

impl FromStr for Command {
    type Err = CniError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "ADD" => Ok(Self::Add),
            "DEL" => Ok(Self::Del),
            "CHECK" => Ok(Self::Check),
            "GC" => Ok(Self::Gc),
            "STATUS" => Ok(Self::Status),
            "VERSION" => Ok(Self::Version),
            _ => Err(invalid(format!(
                "CNI_COMMAND is \"{text}\"; it must be one of ADD, DEL, CHECK, GC, STATUS, VERSION"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: [(&str, &str); 6] = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/run/netns/x"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", "K8S_POD_NAME=web"),
        ("CNI_PATH", "/opt/cni/bin:/usr/lib/cni"),
    ];

    fn with(command: &str, changes: &[(&str, &str)]) -> Result<Environment, CniError> {
        let mut variables: HashMap<&str, &str> = FULL.into();
        variables.insert("CNI_COMMAND", command);
        variables.extend(changes.iter().copied());
        Environment::parse(variables)
    }

    #[test]
    fn a_full_environment_is_read() {
        let environment = with("ADD", &[]).unwrap();
        assert_eq!(environment.command, Command::Add);
        assert_eq!(environment.container_id, "c1");
        assert_eq!(environment.ifname, "eth0");
        assert_eq!(environment.netns, Some("/run/netns/x".into()));
        assert_eq!(environment.args.pod_name(), Some("web"));
        assert_eq!(environment.path, [PathBuf::from("/opt/cni/bin"), PathBuf::from("/usr/lib/cni")]);
    }

    #[test]
    fn each_command_requires_what_the_specification_says() {
        let required = [
            ("ADD", &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"][..]),
            ("CHECK", &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]),
            ("DEL", &["CNI_CONTAINERID", "CNI_IFNAME"]),
            ("GC", &["CNI_PATH"]),
            ("STATUS", &[]),
            ("VERSION", &[]),
        ];
        for (command, names) in required {
            for (name, _) in &FULL[1..] {
                let outcome = with(command, &[(name, "")]);
                assert_eq!(outcome.is_err(), names.contains(name), "{command} without {name}");
                if let Err(error) = outcome {
                    assert_eq!(error.code, ErrorCode::INVALID_ENVIRONMENT);
                    assert!(error.msg.contains(name) && error.msg.contains(command), "{error}");
                }
            }
        }
    }

    #[test]
    fn what_is_invalid_is_named_with_its_value() {
        for (name, value) in [
            ("CNI_CONTAINERID", "../etc"),
            ("CNI_IFNAME", "a/b"),
            ("CNI_ARGS", "nonsense"),
            ("CNI_COMMAND", "add"),
        ] {
            let error = with("ADD", &[(name, value)]).unwrap_err();
            assert_eq!(error.code, ErrorCode::INVALID_ENVIRONMENT);
            assert!(error.msg.contains(name) && error.msg.contains(value), "{error}");
        }
    }

    #[test]
    fn nonsense_in_args_does_not_stop_a_del() {
        assert_eq!(with("DEL", &[("CNI_ARGS", "nonsense"), ("CNI_NETNS", "")]).unwrap().netns, None);
    }

    #[test]
    fn an_empty_environment_says_what_is_missing() {
        let none: [(&str, &str); 0] = [];
        assert!(Environment::parse(none).unwrap_err().msg.contains("CNI_COMMAND is not set"));
    }

    #[test]
    fn a_command_that_came_before_its_version_is_refused_by_name() {
        for (command, version, accepted) in [
            (Command::Add, Version::V0_3_0, true),
            (Command::Check, Version::V0_3_1, false),
            (Command::Check, Version::V0_4_0, true),
            (Command::Gc, Version::V1_0_0, false),
            (Command::Status, Version::V1_0_0, false),
            (Command::Status, Version::V1_1_0, true),
        ] {
            let required = command.require(version);
            assert_eq!(required.is_ok(), accepted, "{command} {version}");
            if let Err(error) = required {
                assert_eq!(error.code, ErrorCode::INCOMPATIBLE_VERSION);
                assert!(
                    error.msg.contains(&command.to_string()) && error.msg.contains(version.as_str()),
                    "{error}"
                );
            }
        }
    }
}
