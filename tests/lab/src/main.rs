//! The lab's command line: prepare it, look into it, or have it tell the story of a pod's first interface.
#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use zerobridge_lab::{
    Cache, Lab, LabError, Prepared, Progress, attachment_figures, compile_services, figures, prepare, report,
    service_figures, services_in_pods, tell,
};
use zerobridge_proto::chain;

/// A VM with real SR-IOV network cards, a real containerd and a real kubelet.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Install, fetch and build everything that a VM needs, and keep it in the cache.
    Prepare,
    /// Print the folder of the CNI reference plugins, for benches on the host.
    Reference,
    /// Show a pod's first interface from the card to the ping, each step by live commands; takes a minute or two.
    Demo,
    /// Measure the daemon on a node with eight VFs, at rest and when a VF changes; takes two to three minutes.
    Figures,
    /// Measure ADD and DEL against the CNI reference plugins and against the least possible; takes ten minutes.
    Attachments {
        /// The program that makes the requests to the kernel and nothing else (`kernel/examples/floor.rs`), static.
        #[arg(long)]
        floor: String,
        /// How often each attaches the VF and gives it back.
        #[arg(long, default_value_t = 100)]
        cycles: u32,
    },
    /// Check and measure the prototypes of Services; takes half an hour, and installs clang.
    Services {
        /// The program of `prototypes/services`.
        #[arg(long)]
        program: PathBuf,
        /// Leave the measurements out, and only have a container of a real node reach a Service; takes two minutes.
        #[arg(long)]
        pods_only: bool,
    },
    /// Boot a VM with eight VFs and run shell scripts in it, one after the other.
    Run {
        /// Start containerd, the kubelet and the device plugin first.
        #[arg(long)]
        node: bool,
        /// A script for `sh -ec` in the guest.
        #[arg(required = true)]
        scripts: Vec<String>,
    },
}

fn main() -> ExitCode {
    match act(&Arguments::parse().action) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without standard error there is nobody to tell.
            let _ = writeln!(io::stderr(), "lab: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn act(action: &Action) -> Result<(), Box<dyn Error>> {
    // What is printed is for a script.
    let is_for_people = !matches!(action, Action::Reference);
    let progress = if is_for_people { Progress::to(io::stdout()) } else { Progress::to(io::sink()) };
    let prepared = ready(&progress)?;
    match action {
        Action::Prepare => Ok(()),
        Action::Reference => Ok(writeln!(io::stdout(), "{}", prepared.cni_plugins.display())?),
        Action::Demo => {
            let mut lab = boot(&prepared, &progress)?;
            let mut out = io::stdout();
            let bold = out.is_terminal();
            match tell(&mut lab, &progress, &mut out, bold) {
                Ok(true) => Ok(()),
                Ok(false) => Err("the story did not go as it should".into()),
                Err(error) => {
                    progress.say(&report(&mut lab.vm));
                    Err(error.into())
                }
            }
        }
        Action::Figures => {
            let mut lab = boot(&prepared, &progress)?;
            let outcome = figures(&mut lab, &mut io::stdout());
            if outcome.is_err() {
                progress.say(&report(&mut lab.vm));
            }
            Ok(outcome?)
        }
        Action::Attachments { floor, cycles } => {
            let mut lab = boot(&prepared, &progress)?;
            let outcome = attachment_figures(&mut lab, floor, *cycles, &mut io::stdout());
            if outcome.is_err() {
                progress.say(&report(&mut lab.vm));
            }
            Ok(outcome?)
        }
        Action::Services { program, pods_only } => {
            let object =
                progress.step("BPF programs", || compile_services(program), |_| "compiled".into())?;
            if !pods_only {
                let boot = || Lab::boot_counting(&prepared);
                let mut lab = progress.step("boot, time by instructions", boot, |_| "up".into())?;
                let outcome = service_figures(&mut lab, program, &object, &mut io::stdout());
                if outcome.is_err() {
                    progress.say(&report(&mut lab.vm));
                }
                outcome?;
            }
            let mut lab = boot(&prepared, &progress)?;
            let outcome = services_in_pods(&mut lab, program, &object, &mut io::stdout());
            if outcome.is_err() {
                progress.say(&report(&mut lab.vm));
            }
            Ok(outcome?)
        }
        Action::Run { node, scripts } => {
            let mut lab = boot(&prepared, &progress)?;
            let outcome = run(&mut lab, *node, scripts, &progress);
            if outcome.is_err() {
                progress.say(&report(&mut lab.vm));
            }
            outcome
        }
    }
}

fn ready(progress: &Progress) -> Result<Prepared, Box<dyn Error>> {
    let cache = Cache::from_environment()?;
    progress.say(&format!("the lab, kept in {}", cache.root().display()));
    Ok(prepare(&cache, progress)?)
}

fn boot(prepared: &Prepared, progress: &Progress) -> Result<Lab, LabError> {
    progress.step("boot, two cards, eight VFs", || Lab::boot(prepared), |_| "up".into())
}

fn run(lab: &mut Lab, node: bool, scripts: &[String], progress: &Progress) -> Result<(), Box<dyn Error>> {
    if node {
        progress.step("containerd, kubelet, device plugin", || lab.node().map(|_| ()), |()| "up".into())?;
    }
    for script in scripts {
        progress.say(&format!("$ {script}"));
        progress.say(lab.vm.guest.shell(script)?.trim_end());
    }
    Ok(())
}
