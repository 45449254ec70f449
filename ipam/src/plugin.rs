//! The CNI IPAM plugin: a call's environment and standard input in, an answer on standard output.
//!
//! ADD and DEL are one transaction each. DEL needs the network's name and the ledger's directory and nothing else, so a
//! pool that has been changed since, or is broken, keeps no address.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::SystemTime;

use serde_json::Value;
use tracing::{debug, error};
use zerobridge_ledger::{Ledger, LedgerError, Owner, UnixSeconds};
use zerobridge_proto::cni::{CniError, Command, Environment, ErrorCode, NetworkConfig, version_answer};

use crate::{
    DEFAULT_STATE_DIR, IpamError, LeaseRequest, PoolConfig, check, lease, pod_of, release, require_room,
    state_dir,
};

/// What a call needs to know of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The time.
    pub now: UnixSeconds,
    /// The boot.
    pub boot_id: String,
}

impl Host {
    /// This machine, now.
    ///
    /// # Errors
    /// `/proc/sys/kernel/random/boot_id` cannot be read.
    pub fn observe() -> io::Result<Self> {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        Ok(Self { now: SystemTime::now().into(), boot_id: boot_id.trim().to_owned() })
    }
}

/// Answers one call and returns the exit code: 0 after success, 1 after an error, which is on `stdout` then, as the
/// specification wants it.
pub fn run<K, V>(
    variables: impl IntoIterator<Item = (K, V)>,
    mut stdin: impl Read,
    stdout: &mut impl Write,
    observe: impl FnOnce() -> io::Result<Host>,
) -> u8
where
    K: AsRef<OsStr>,
    V: Into<OsString>,
{
    // First, whatever the variables say: it holds the version in which an error is to be written.
    let mut input = Vec::new();
    let read = stdin.read_to_end(&mut input).map_err(|source| {
        CniError::new(ErrorCode::IO, "the network configuration could not be read from stdin")
            .with_details(source.to_string())
    });
    let answer = read
        .and_then(|_| Environment::parse(variables))
        .and_then(|environment| answer(&environment, &input, observe));
    let (text, code) = match answer {
        Ok(None) => return 0,
        Ok(Some(answer)) => (answer, 0),
        Err(failure) => {
            error!(%failure, "failed");
            (failure.encode(NetworkConfig::answer_version(&input)), 1)
        }
    };
    match writeln!(stdout, "{text}") {
        Ok(()) => code,
        Err(source) => {
            error!(%source, "the answer could not be written to stdout");
            1
        }
    }
}

fn answer(
    environment: &Environment,
    stdin: &[u8],
    observe: impl FnOnce() -> io::Result<Host>,
) -> Result<Option<Value>, CniError> {
    if environment.command == Command::Version {
        return Ok(Some(version_answer(stdin)));
    }
    let config = NetworkConfig::decode(stdin)?;
    let (command, version) = (environment.command, config.version);
    command.require(version)?;
    let call = Call {
        environment,
        config: &config,
        owner: Owner { container_id: environment.container_id.clone(), ifname: environment.ifname.clone() },
        host: observe().map_err(|source| {
            CniError::new(ErrorCode::IO, "the boot's id cannot be read").with_details(source.to_string())
        })?,
    };
    match command {
        Command::Add => return call.add().map(|result| Some(result.encode(version))),
        Command::Del => call.del()?,
        Command::Check => call.check()?,
        Command::Gc => call.gc()?,
        Command::Status => call.status()?,
        Command::Version => {}
    }
    Ok(None)
}

struct Call<'a> {
    environment: &'a Environment,
    config: &'a NetworkConfig,
    owner: Owner,
    host: Host,
}

impl Call<'_> {
    fn pool(&self) -> Result<PoolConfig, CniError> {
        let Some(ipam) = &self.config.ipam else {
            let msg = format!("network {} has no key \"ipam\"", self.config.name);
            return Err(CniError::new(ErrorCode::INVALID_CONFIG, msg));
        };
        let pool = PoolConfig::parse(ipam, self.config.runtime.ip_ranges.as_ref())?;
        pool.require_no_probe()?;
        Ok(pool)
    }

    fn add(&self) -> Result<zerobridge_proto::cni::AddResult, CniError> {
        let pool = self.pool()?;
        let request = LeaseRequest {
            owner: self.owner.clone(),
            pod: pod_of(&self.environment.args),
            device: self.device(),
            // Whether what stands there can be used is for the plugin to say that makes the interface.
            mac: self.config.requested_mac(&self.environment.args).ok().flatten(),
            vlan: self.vlan(),
            rdma: None,
            requested: self.config.requested_ips(&self.environment.args)?,
            now: self.host.now,
            boot_id: self.host.boot_id.clone(),
        };
        let dns = pool.name_resolution()?;
        let mut ledger = open(&pool.state_dir)?;
        let mut transaction = ledger.begin().map_err(IpamError::from)?;
        let mut leased = lease(&mut transaction, &self.config.name, &pool, &request)?;
        transaction.commit().map_err(IpamError::from)?;
        leased.dns = dns;
        Ok(leased.into_result())
    }

    fn del(&self) -> Result<(), CniError> {
        let Some(mut ledger) = self.existing_ledger()? else {
            return Ok(());
        };
        let mut transaction = ledger.begin().map_err(IpamError::from)?;
        release(&mut transaction, &self.owner, &self.config.name, self.host.now)?;
        Ok(transaction.commit().map_err(IpamError::from)?)
    }

    fn check(&self) -> Result<(), CniError> {
        let pool = self.pool()?;
        let ledger = open(&pool.state_dir)?;
        Ok(check(&ledger, &self.config.name, &pool, &self.owner)?)
    }

    fn gc(&self) -> Result<(), CniError> {
        let Some(valid) = &self.config.valid_attachments else {
            let msg = "GC came without \"cni.dev/valid-attachments\"; nothing was released";
            return Err(CniError::new(ErrorCode::INVALID_CONFIG, msg));
        };
        let Some(mut ledger) = self.existing_ledger()? else {
            return Ok(());
        };
        let network = &self.config.name;
        let is_valid = |owner: &Owner| {
            valid.iter().any(|valid| valid.container_id == owner.container_id && valid.ifname == owner.ifname)
        };
        let mut transaction = ledger.begin().map_err(IpamError::from)?;
        for lease in transaction.leases_in(network).map_err(IpamError::from)? {
            // No runtime knows the node's legs.
            if !is_valid(&lease.owner) && !lease.owner.is_leg() {
                release(&mut transaction, &lease.owner, network, self.host.now)?;
            }
        }
        Ok(transaction.commit().map_err(IpamError::from)?)
    }

    fn status(&self) -> Result<(), CniError> {
        let pool = self.pool()?;
        let room = open(&pool.state_dir).and_then(|ledger| {
            require_room(&ledger, &self.config.name, &pool, &self.host.boot_id).map_err(CniError::from)
        });
        room.map_err(|error| CniError { code: ErrorCode::NOT_AVAILABLE, ..error })
    }

    /// The device that carries the address, when the runtime or Multus says so and it is a PCI function.
    fn device(&self) -> Option<zerobridge_proto::PciAddress> {
        let own = self.config.own.get("deviceID").and_then(Value::as_str);
        self.config.runtime.device_id.as_deref().or(own)?.parse().ok()
    }

    /// The VLAN, under the key of most plugins or that of `vlan`.
    fn vlan(&self) -> Option<u16> {
        let number = |key| self.config.own.get(key).and_then(Value::as_u64);
        let vlan = number("vlan").or_else(|| number("vlanId"))?;
        u16::try_from(vlan).ok().filter(|vlan| (1..=4094).contains(vlan))
    }

    /// The ledger, where there is one: without it there is nothing to release, and none is made for that.
    fn existing_ledger(&self) -> Result<Option<Ledger>, CniError> {
        let directory = match &self.config.ipam {
            Some(ipam) => state_dir(ipam)?,
            None => DEFAULT_STATE_DIR.into(),
        };
        if !directory.join("ledger.db").exists() {
            debug!(directory = %directory.display(), "there is no ledger, so there are no leases");
            return Ok(None);
        }
        open(&directory).map(Some)
    }
}

fn open(directory: &Path) -> Result<Ledger, CniError> {
    Ledger::open(directory).map_err(|error: LedgerError| IpamError::from(error).into())
}
