//! Services for pods whose only interface is a VF: the prototypes of `prototypes/services`, run side by side.
//!
//! Four pods on one card, one for each way, and their backends on the other, as if on another node; all tables are installed
//! at once and the pods are measured in turns, so that what the machine does meanwhile strikes all alike. Checks fail; times
//! are printed and never judged.

mod pods;
mod scripts;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use crate::lab::{Lab, LabError};
use crate::machine::{Guest, GuestError, State, program};
use crate::prepare::{PrepareError, services_object};
use scripts::{AS_IS, CHARGE, ENTER, HOOK_TIMES, KEPT, REMOVE, SET_UP, TAMPER};

pub use pods::services_in_pods;

/// How many Services of three backends there are, each in its turn.
const SIZES: [u32; 3] = [10_000, 1_000, 10];
/// Everything is measured so often, with the other pods in between.
const ROUNDS: u32 = 4;
const LIMIT: Duration = Duration::from_secs(300);
const SAMPLES: &str = "/run/services/samples";
const PINS: &str = "/run/services/bpf";
const CGROUP: &str = "/sys/fs/cgroup/pods";

/// The pods: namespace, what translates for it, the source address that a backend sees.
const PODS: [(&str, u8, Option<&str>, &str); 4] = [
    ("bare", 11, None, ""),
    ("bpf", 12, Some("bpf"), "10.9.0.12"),
    ("nft", 13, Some("nft"), "10.9.0.13"),
    ("leg", 14, Some("leg"), "10.9.0.254"),
];

/// Why the prototypes have no figures.
#[derive(Debug, Error)]
pub enum ServicesError {
    /// The lab did not come up.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A command or a check failed.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// The programs could not be compiled.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// Nobody listens.
    #[error("print the figures")]
    Print(#[from] io::Error),
}

struct Run<'a> {
    guest: &'a mut Guest,
    services: String,
    object: String,
    out: &'a mut dyn Write,
}

/// Compiles the programs of `prototypes/services` and returns the file; needs clang, which it installs.
///
/// # Errors
/// When packages cannot be installed, or the programs do not compile.
pub fn compile_services(services: &Path) -> Result<PathBuf, PrepareError> {
    services_object(&services.with_file_name("services.bpf.o"))
}

/// Checks and measures every way with each number of Services. `services` is the prototype's program, `object` what
/// [`compile_services`] made.
///
/// # Errors
/// When the lab fails, or a check does.
pub fn service_figures(
    lab: &mut Lab,
    services: &Path,
    object: &Path,
    out: &mut dyn Write,
) -> Result<(), ServicesError> {
    let [services, object] = [services, object].map(|path| path.display().to_string());
    let guest = &mut lab.vm.guest;
    let mut run = Run { guest, services, object, out };
    run.guest.run_within(&["sh", "-ec", SET_UP], LIMIT)?;
    let uname = run.guest.run(&["uname", "-r"])?;
    write!(run.out, "kernel {uname}")?;
    let server = run.serve()?;
    for size in SIZES {
        run.with(size)?;
    }
    run.guest.kill(server)?;
    Ok(())
}

impl Run<'_> {
    fn serve(&mut self) -> Result<u32, GuestError> {
        let argv = ["ip", "netns", "exec", "server", &self.services, "serve"];
        let server = self.guest.start(program(&argv), "services-server")?;
        self.guest.wait_for("a listening backend", LIMIT, |guest| {
            if let State::Ended(code) = guest.state(server)? {
                return Err(GuestError::Refused { message: format!("the backend ended with {code}") });
            }
            let sockets = guest.run(&["ip", "netns", "exec", "server", "ss", "-Hltn", "sport = :8000"])?;
            Ok(if sockets.is_empty() { Err("it does not listen".into()) } else { Ok(server) })
        })
    }

    fn shell(&mut self, script: &str, arguments: &[&str]) -> Result<(), ServicesError> {
        let said = self.guest.run_within(&[&["sh", "-ec", script, "services"], arguments].concat(), LIMIT)?;
        Ok(write!(self.out, "{said}")?)
    }

    fn in_pod(&mut self, pod: &str, arguments: &[&str]) -> Result<(), ServicesError> {
        let services = self.services.clone();
        self.shell(ENTER, &[&[pod, &services], arguments].concat())
    }

    fn charge(&mut self, name: &str, argv: &[&str], size: u32) -> Result<(), ServicesError> {
        writeln!(self.out, "\n{name}: install and change")?;
        self.shell(CHARGE, &[&[format!("{name}-{size}").as_str()], argv].concat())
    }

    fn with(&mut self, size: u32) -> Result<(), ServicesError> {
        let count = size.to_string();
        writeln!(self.out, "\n{size} Services of 3 backends, and the special ones\n")?;
        let (services, object) = (self.services.clone(), self.object.clone());
        let bpf = ["bpf", "--object", &object, "--cgroup", CGROUP, "--pins", PINS, "--services", &count];
        self.charge("bpf", &[&[services.as_str()], &bpf[..]].concat(), size)?;
        let in_pod =
            ["ip", "netns", "exec", "nft", &services, "nft", "--hook", "output", "--services", &count];
        self.charge("nft", &in_pod, size)?;
        self.charge("leg", &[&services, "nft", "--hook", "gateway", "--services", &count], size)?;
        for (pod, host, way, seen) in PODS {
            if let Some(way) = way {
                writeln!(self.out, "\n{way}")?;
                let own = format!("10.9.0.{host}");
                let check = ["check", "--way", way, "--own", &own, "--seen", seen, "--pins", PINS];
                self.in_pod(pod, &check)?;
            }
        }
        for _ in 0..ROUNDS {
            for (pod, _, way, _) in PODS {
                let measure = ["measure", "--way", pod, "--services", &count, "--samples", SAMPLES];
                let direct_only: &[&str] = if way.is_none() { &["--direct-only"] } else { &[] };
                let established: &[&str] = if size == SIZES[0] { &["--established"] } else { &[] };
                self.in_pod(pod, &[&measure, direct_only, established].concat())?;
            }
        }
        writeln!(self.out)?;
        self.shell("exec \"$@\"", &[&services, "summary", SAMPLES])?;
        writeln!(self.out)?;
        self.shell(KEPT, &[])?;
        self.hook_times(&count)?;
        if size == SIZES[2] {
            self.shell(TAMPER, &[])?;
            self.shell(AS_IS, &[&services])?;
        }
        self.shell(REMOVE, &[])
    }

    /// Counting takes time itself, so it is not on while times are taken.
    fn hook_times(&mut self, count: &str) -> Result<(), ServicesError> {
        self.shell("echo 1 > /proc/sys/kernel/bpf_stats_enabled", &[])?;
        self.in_pod(
            "bpf",
            &["measure", "--way", "counted", "--services", count, "--samples", "/run/services"],
        )?;
        self.shell("echo 0 > /proc/sys/kernel/bpf_stats_enabled", &[])?;
        self.shell(HOOK_TIMES, &[])
    }
}
