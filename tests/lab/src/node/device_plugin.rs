//! The device plugin's processes on the node: configured anew, doubled for an update, measured.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::Node;
use super::metrics::Metrics;
use crate::machine::{Guest, GuestError, State, program};

/// Where the device plugin looks for its configuration.
const CONFIG_PATH: &str = "/etc/zerobridge/config.json";
/// What the device plugin is told with `--http` when a scenario reads its metrics.
pub const METRICS: &str = "127.0.0.1:9177";
const LIMIT: Duration = Duration::from_secs(60);
/// Clock ticks in a second of `/proc/PID/stat`: USER_HZ, 100 on every x86 kernel (proc(5)).
const TICKS: u64 = 100;
const SIGTERM: i32 = 15;

/// What a process has taken from the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since its start, in user mode and in the kernel, in steps of 10 ms.
    pub cpu: Duration,
    /// Resident memory in KiB, pages of its program file included.
    pub resident_kib: u64,
    /// How often one of its threads went to sleep of its own accord, which is how often something woke it.
    pub wakeups: u64,
}

impl Node {
    /// Replaces the device plugin by one with another configuration and more arguments. Pods keep their devices; a
    /// resource that is in neither configuration's pools any more has no devices.
    ///
    /// # Errors
    /// When the old one does not end, or the new one does not register every pool.
    pub fn reconfigure(
        &mut self,
        guest: &mut Guest,
        config: &Value,
        arguments: &[&str],
    ) -> Result<(), GuestError> {
        self.stop_device_plugin(guest)?;
        self.start_device_plugin(guest, config, arguments)
    }

    /// Starts a device plugin with this configuration and these arguments, where the one before has ended.
    ///
    /// # Errors
    /// When it does not register every pool.
    pub fn start_device_plugin(
        &mut self,
        guest: &mut Guest,
        config: &Value,
        arguments: &[&str],
    ) -> Result<(), GuestError> {
        configure(guest, config)?;
        self.device_plugin = self.start_beside(guest, config, arguments)?;
        Ok(())
    }

    /// Kills the device plugin with SIGKILL.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill_device_plugin(&mut self, guest: &mut Guest) -> Result<(), GuestError> {
        guest.kill(self.device_plugin)
    }

    /// Gives the running device plugin another configuration and does not wait.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn rewrite_config(&mut self, guest: &mut Guest, config: &Value) -> Result<(), GuestError> {
        configure(guest, config)
    }

    /// Starts a second device plugin while the first runs, waits until it has registered every pool, and then ends the
    /// first, as a rolling update with a surge does.
    ///
    /// # Errors
    /// When the second does not register, or the first does not end.
    pub fn update_device_plugin(
        &mut self,
        guest: &mut Guest,
        config: &Value,
        arguments: &[&str],
    ) -> Result<(), GuestError> {
        let second = self.start_beside(guest, config, arguments)?;
        self.stop_device_plugin(guest)?;
        self.device_plugin = second;
        Ok(())
    }

    /// Ends the device plugin with SIGTERM.
    ///
    /// # Errors
    /// When it does not end, or ends with a failure.
    pub fn stop_device_plugin(&mut self, guest: &mut Guest) -> Result<(), GuestError> {
        let pid = self.device_plugin;
        guest.signal(pid, SIGTERM)?;
        guest.wait_for("the end of the device plugin", LIMIT, |guest| match guest.state(pid)? {
            State::Ended(0) => Ok(Ok(())),
            State::Ended(code) => {
                Err(GuestError::Refused { message: format!("it ended with {code} after SIGTERM") })
            }
            State::Running => Ok(Err(format!("process {pid} runs"))),
        })
    }

    fn start_beside(
        &mut self,
        guest: &mut Guest,
        config: &Value,
        arguments: &[&str],
    ) -> Result<u32, GuestError> {
        let name = self.log_name("device-plugin");
        let pid = launch(guest, &self.program, arguments, &name)?;
        let pools = config["pools"].as_array().map_or(0, Vec::len);
        guest.wait_for("the device plugin's registration", LIMIT, |guest| {
            if let State::Ended(code) = guest.state(pid)? {
                return Err(GuestError::Refused { message: format!("{name} ended with {code}") });
            }
            let log = guest.read(&format!("/out/{name}.log"))?.unwrap_or_default();
            let registered = log.lines().filter(|line| line.contains(" registered ")).count();
            Ok(if registered >= pools { Ok(()) } else { Err(format!("{registered} of {pools} pools")) })
        })?;
        Ok(pid)
    }

    /// What the present device plugin, started with `--http` [`METRICS`], counts.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn metrics(&self, guest: &mut Guest) -> Result<Metrics, GuestError> {
        let url = format!("http://{METRICS}/metrics");
        Ok(Metrics::parse(&guest.run(&["busybox", "wget", "-q", "-O", "-", &url])?))
    }

    /// Everything that the device plugins have logged so far, in the order of their starts.
    ///
    /// # Errors
    /// When the VM is lost.
    pub fn device_plugin_log(&self, guest: &mut Guest) -> Result<String, GuestError> {
        guest.shell("cat $(ls -tr /out/device-plugin*.log)")
    }

    /// What the present device plugin has taken from the machine so far.
    ///
    /// # Errors
    /// When it does not run.
    pub fn usage(&self, guest: &mut Guest) -> Result<Usage, GuestError> {
        let folder = format!("/proc/{}", self.device_plugin);
        let stat = guest.read(&format!("{folder}/stat"))?.unwrap_or_default();
        let threads = guest.shell(&format!("cat {folder}/task/*/status"))?;
        parse_usage(&stat, &threads)
            .ok_or_else(|| GuestError::Refused { message: format!("{folder} says nothing: {stat}{threads}") })
    }
}

/// `stat` of the process: fields 14 and 15 (proc(5)), counted behind the name, which may hold spaces. `threads` has the
/// `status` of every thread, one behind the other; the memory is the process's in each.
fn parse_usage(stat: &str, threads: &str) -> Option<Usage> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let numbers = |name: &'static str| {
        let values = threads.lines().filter_map(move |line| line.strip_prefix(name));
        values.filter_map(|value| value.split_whitespace().next()?.parse::<u64>().ok())
    };
    Some(Usage {
        cpu: Duration::from_millis(ticks * 1000 / TICKS),
        resident_kib: numbers("VmRSS:").next()?,
        wakeups: numbers("voluntary_ctxt_switches:").sum(),
    })
}

/// Writes the configuration that the next device plugin starts with.
pub(super) fn configure(guest: &mut Guest, config: &Value) -> Result<(), GuestError> {
    guest.write(CONFIG_PATH, &config.to_string())
}

/// Starts a device plugin and does not wait.
pub(super) fn launch(
    guest: &mut Guest,
    path: &Path,
    arguments: &[&str],
    log: &str,
) -> Result<u32, GuestError> {
    let path = path.display().to_string();
    guest.start(program(&[&[path.as_str()], arguments].concat()), log)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_a_name_with_spaces_and_brackets() {
        let stat = "412 (a b) c) S 1 412 412 0 -1 4194560 900 0 3 0 7 5 0 0 20 0 4 0 1200 9 8";
        let status = "Name:\tzerobridge\nVmRSS:\t    9876 kB\nvoluntary_ctxt_switches:\t42\nnonvoluntary_ctxt_switches:\t9\n";
        let usage = parse_usage(stat, &status.repeat(2)).unwrap();
        let expected = Usage { cpu: Duration::from_millis(120), resident_kib: 9876, wakeups: 84 };
        assert_eq!(usage, expected);
        assert_eq!(parse_usage("", status), None, "the process is gone");
    }
}
