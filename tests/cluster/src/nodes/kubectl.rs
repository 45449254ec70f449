//! kubectl, as an administrator of the cluster runs it.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::error::ClusterError;

/// The program and how it reaches the cluster.
#[derive(Clone, Debug)]
pub(super) struct Kubectl {
    pub(super) program: PathBuf,
    pub(super) kubeconfig: PathBuf,
    /// A folder that is its home, so that nobody's settings count.
    pub(super) home: PathBuf,
}

impl Kubectl {
    /// Runs it and returns its standard output.
    pub(super) fn run(&self, arguments: &[&str], input: &str) -> Result<String, ClusterError> {
        let command = format!("kubectl {}", arguments.join(" "));
        let fail = |source| ClusterError::Run { command: command.clone(), source };
        let mut child = Command::new(&self.program)
            .env_clear()
            .env("HOME", &self.home)
            .env("KUBECONFIG", &self.kubeconfig)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(fail)?;
        let pipe = child.stdin.take();
        let output = std::thread::scope(|scope| {
            if let Some(mut pipe) = pipe {
                // One that stops reading says why.
                scope.spawn(move || pipe.write_all(input.as_bytes()));
            }
            child.wait_with_output()
        });
        let output = output.map_err(fail)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        let said = format!("{text}{}", String::from_utf8_lossy(&output.stderr));
        Err(ClusterError::Failed { command, said: said.trim_end().to_owned() })
    }
}
