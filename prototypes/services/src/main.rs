//! Prototype: Services for pods whose only interface is a VF, two ways, and what each costs.
//!
//! Runs in the lab's VM, where `lab services` calls it with one namespace for each way; `docs/services.md` says what came of
//! it. Refuses to know Kubernetes: the Services are made up by [`table`].
#![forbid(unsafe_code)]

mod bpf;
mod check;
mod measure;
mod nft;
mod process;
mod serve;
mod summary;
mod table;

use std::error::Error;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use zerobridge_proto::chain;

/// Services for pods whose only interface is a VF: translation when a socket connects, or by nftables in the pod.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Answer on TCP port 8000 of all addresses and on UDP port 8000 of the name Service's backends.
    Serve,
    /// Load and attach the programs to a control group, fill the tables and pin all; then change one endpoint many times.
    Bpf {
        /// The compiled `services.bpf.c`.
        #[arg(long)]
        object: PathBuf,
        /// The control group whose sockets are translated.
        #[arg(long)]
        cgroup: PathBuf,
        /// A folder of a bpf file system.
        #[arg(long)]
        pins: PathBuf,
        /// How many Services of three backends there are beside the special ones.
        #[arg(long)]
        services: u32,
    },
    /// Write the tables as nftables into this network namespace; then change one endpoint many times.
    Nft {
        /// Where packets are looked at.
        #[arg(long)]
        hook: nft::Hook,
        /// How many Services of three backends there are beside the special ones.
        #[arg(long)]
        services: u32,
    },
    /// Time connections, requests, streams and queries to backends and to Services in turns.
    Measure {
        /// Which way this namespace goes.
        #[arg(long)]
        way: String,
        /// How many Services of three backends there are.
        #[arg(long)]
        services: u32,
        /// Where one file a measurement gets the times.
        #[arg(long)]
        samples: PathBuf,
        /// Measure the direct path alone, where no way leads to a Service.
        #[arg(long)]
        direct_only: bool,
        /// Time what goes on in a connection too, which no table's size matters to.
        #[arg(long)]
        established: bool,
        /// How often each is timed.
        #[arg(long, default_value_t = 50)]
        operations: u32,
    },
    /// Check what a client of the Services sees, and fail if it is not what it should be.
    Check {
        /// What translates here.
        #[arg(long)]
        way: Way,
        /// The address of this namespace.
        #[arg(long)]
        own: Ipv4Addr,
        /// The source address that a backend must see.
        #[arg(long)]
        seen: Ipv4Addr,
        /// The folder with the pinned tables, for the way `bpf`.
        #[arg(long)]
        pins: PathBuf,
    },
    /// Print the times of all files below a folder, against those of the direct path without any table.
    Summary {
        /// The folder of [`Action::Measure`].
        samples: PathBuf,
    },
}

/// What translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Way {
    /// Programs of a control group, when a socket names an address.
    Bpf,
    /// nftables in the client's network namespace.
    Nft,
    /// nftables in the node's, which is the client's gateway to Services.
    Leg,
}

/// What every part returns: its own error, or one of a part below it.
type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match act(Arguments::parse().action) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without standard error there is nobody to tell.
            let _ = writeln!(io::stderr(), "services: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn act(action: Action) -> Outcome<()> {
    match action {
        Action::Serve => Ok(serve::run()?),
        Action::Bpf { object, cgroup, pins, services } => bpf::run(&object, &cgroup, &pins, services),
        Action::Nft { hook, services } => nft::run(hook, services),
        Action::Measure { way, services, samples, direct_only, established, operations } => {
            let to = measure::Files { folder: samples, way };
            let wanted = measure::Wanted { services, with_services: !direct_only, established, operations };
            Ok(measure::run(&to, &wanted)?)
        }
        Action::Check { way, own, seen, pins } => check::run(way, own, seen, &pins),
        Action::Summary { samples } => Ok(summary::print(&samples, &mut io::stdout())?),
    }
}

/// Prints one figure.
fn figure(name: &str, value: &str) {
    // Without standard output there is nobody to tell.
    let _ = writeln!(io::stdout(), "  {name:58} {value}");
}
