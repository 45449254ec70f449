//! `zbctl ipam list`: what the ledger has promised of addresses, and what it keeps back.

use std::fmt;
use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::Value;
use thiserror::Error;
use zerobridge_blocks::Pool;
use zerobridge_kernel::{BootIdError, boot_id};
use zerobridge_ledger::{Lease, Ledger, LedgerError, Owner, Pod, Records, UnixSeconds};

use crate::cli::ListArguments;
use crate::table::{self, or_dash};
use crate::{Failure, Finding, write_json};

/// What keeps the ledger from being shown.
#[derive(Debug, Error)]
pub(crate) enum ListError {
    /// There is no ledger, and this program makes none.
    #[error("there is no ledger in {}", directory.display())]
    NoLedger { directory: PathBuf },
    /// The boot.
    #[error(transparent)]
    BootId(#[from] BootIdError),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// The answer as JSON. `docs/zbctl.md` describes it; what is there stays there.
#[derive(Debug, Serialize)]
struct Answer {
    addresses: Vec<Row>,
    blocks: Vec<BlockRow>,
    claims: Vec<ClaimRow>,
}

/// An address that is not free.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    network: String,
    address: IpAddr,
    state: State,
    /// Who has it, had it last, or was to have it.
    container: String,
    interface: String,
    pod: Option<PodRow>,
    device: Option<String>,
    /// Of the interface that carries it, or of the foreign host that does.
    mac: Option<String>,
    vlan: Option<u16>,
    rdma: Option<String>,
    /// When it came to be as it is, in seconds since 1970.
    since: i64,
    /// When it can be given out again; `null` while it is leased.
    until: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum State {
    Leased,
    /// Leased before the last reboot: nobody uses it.
    OfEarlierBoot,
    Resting,
    /// A foreign host has it.
    SetAside,
}

#[derive(Debug, Serialize)]
struct PodRow {
    namespace: String,
    name: String,
    uid: Option<String>,
}

/// A block of a cluster-wide pool.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct BlockRow {
    pool: String,
    block: String,
    network: Option<String>,
    leased: u32,
    resting: u32,
    free: u32,
    draining: bool,
    since: i64,
}

/// A pod with an address of its own.
#[derive(Debug, Serialize)]
struct ClaimRow {
    pool: String,
    namespace: String,
    pod: String,
    /// `null` while it is on no node or another one.
    address: Option<IpAddr>,
}

pub(crate) fn run(arguments: &ListArguments, out: &mut impl Write) -> Result<Finding, Failure> {
    let directory = &arguments.state_dir;
    if !Ledger::exists(directory) {
        return Err(ListError::NoLedger { directory: directory.clone() }.into());
    }
    let boot_id = boot_id(&arguments.procfs).map_err(ListError::from)?;
    let ledger = Ledger::open(directory).map_err(ListError::from)?;
    let answer = read(&ledger, arguments, &boot_id).map_err(ListError::from)?;
    if arguments.json {
        write_json(out, &answer)?;
    } else {
        show(&answer, SystemTime::now().into(), out)?;
    }
    Ok(Finding::Fine)
}

fn read(records: &Records, arguments: &ListArguments, boot_id: &str) -> Result<Answer, LedgerError> {
    let pools = records.pools()?;
    let rest = |network: &str| {
        let of_network = pools.iter().find(|pool| pool.network.as_deref() == Some(network));
        let pool = of_network.and_then(|record| parsed(&record.name, &record.spec));
        pool.map_or(arguments.rest_seconds, |pool| pool.addresses().rest_seconds())
    };
    let mut addresses: Vec<Row> = Vec::new();
    addresses.extend(records.leases()?.into_iter().map(|lease| {
        let is_used = lease.boot_id == boot_id || lease.owner.is_leg();
        let state = if is_used { State::Leased } else { State::OfEarlierBoot };
        let since = lease.created_at;
        Row::of(lease, state, since, None)
    }));
    addresses.extend(records.resting()?.into_iter().map(|resting| {
        let until = resting.released_at.0.saturating_add(rest(&resting.lease.network).into());
        Row::of(resting.lease, State::Resting, resting.released_at, Some(until))
    }));
    addresses.extend(records.set_aside()?.into_iter().map(|found| Row {
        network: found.network,
        address: found.address,
        state: State::SetAside,
        container: found.found_for.container_id,
        interface: found.found_for.ifname,
        pod: None,
        device: None,
        mac: Some(found.mac.to_string()),
        vlan: None,
        rdma: None,
        since: found.seen_at.0,
        until: Some(found.seen_at.0.saturating_add(arguments.set_aside_seconds.into())),
    }));
    addresses.retain(|row| arguments.network.as_ref().is_none_or(|network| row.network == *network));
    addresses.sort_by(|left, right| (&left.network, left.address).cmp(&(&right.network, right.address)));
    let (mut blocks, mut claims) = (Vec::new(), Vec::new());
    for record in pools {
        if arguments.network.is_some() && record.network != arguments.network {
            continue;
        }
        let pool = parsed(&record.name, &record.spec);
        for block in records.blocks_of(&record.name)? {
            let used = records.block_use(&block)?;
            let size = pool.as_ref().and_then(|pool| Some(pool.gives_out(pool.index_of(block.net)?)));
            let free =
                if block.draining { 0 } else { size.unwrap_or(0).saturating_sub(used.leased + used.resting) };
            blocks.push(BlockRow {
                pool: block.pool,
                block: block.net.to_string(),
                network: record.network.clone(),
                leased: used.leased,
                resting: used.resting,
                free,
                draining: block.draining,
                since: block.claimed_at.0,
            });
        }
        claims.extend(records.claims_of(&record.name)?.into_iter().map(|pod| ClaimRow {
            pool: pod.pool,
            namespace: pod.namespace,
            pod: pod.name,
            address: pod.address,
        }));
    }
    Ok(Answer { addresses, blocks, claims })
}

fn parsed(name: &str, spec: &str) -> Option<Pool> {
    let spec: Value = serde_json::from_str(spec).ok()?;
    Pool::parse(name, &spec).ok()
}

fn show(answer: &Answer, now: UnixSeconds, out: &mut impl Write) -> std::io::Result<()> {
    if answer.addresses.is_empty() {
        writeln!(out, "no address is leased, rests or is set aside")?;
    } else {
        let rows: Vec<_> = answer.addresses.iter().map(|row| row.cells(now)).collect();
        let heads = ["NETWORK", "ADDRESS", "STATE", "OWNER", "DEVICE", "MAC", "FOR", "UNTIL"];
        table::write(out, heads, &rows)?;
    }
    if !answer.blocks.is_empty() {
        let cells = |row: &BlockRow| {
            let number = |number: u32| number.to_string();
            let state = if row.draining { "draining" } else { "held" };
            let network = or_dash(row.network.clone().unwrap_or_default());
            let [leased, resting, free] = [row.leased, row.resting, row.free].map(number);
            [row.pool.clone(), row.block.clone(), network, state.to_owned(), leased, resting, free]
        };
        let rows: Vec<_> = answer.blocks.iter().map(cells).collect();
        writeln!(out)?;
        table::write(out, ["POOL", "BLOCK", "NETWORK", "STATE", "LEASED", "RESTING", "FREE"], &rows)?;
    }
    if !answer.claims.is_empty() {
        let cells = |row: &ClaimRow| {
            let address =
                row.address.map_or_else(|| "not on this node".to_owned(), |address| address.to_string());
            [row.pool.clone(), format!("{}/{}", row.namespace, row.pod), address]
        };
        let rows: Vec<_> = answer.claims.iter().map(cells).collect();
        writeln!(out)?;
        table::write(out, ["POOL", "CLAIMED FOR", "ADDRESS"], &rows)?;
    }
    Ok(())
}

impl Row {
    fn of(lease: Lease, state: State, since: UnixSeconds, until: Option<i64>) -> Self {
        Self {
            network: lease.network,
            address: lease.address,
            state,
            container: lease.owner.container_id,
            interface: lease.owner.ifname,
            pod: lease.pod.map(|Pod { namespace, name, uid }| PodRow { namespace, name, uid }),
            device: lease.device.map(|device| device.to_string()),
            mac: lease.mac.map(|mac| mac.to_string()),
            vlan: lease.vlan,
            rdma: lease.rdma,
            since: since.0,
            until,
        }
    }

    fn is_leg(&self) -> bool {
        self.container == Owner::leg(&self.interface).container_id
    }

    fn cells(&self, now: UnixSeconds) -> [String; 8] {
        let owner = match &self.pod {
            Some(pod) => format!("{}/{} {}", pod.namespace, pod.name, self.interface),
            None if self.is_leg() => format!("leg {}", self.interface),
            None => format!("container {} {}", self.container, self.interface),
        };
        let until = self.until.map(|until| match until.saturating_sub(now.0) {
            left @ 1.. => format!("in {}", Span(left)),
            _ => "over".to_owned(),
        });
        [
            self.network.clone(),
            self.address.to_string(),
            self.state.to_string(),
            owner,
            or_dash(self.device.clone().unwrap_or_default()),
            or_dash(self.mac.clone().unwrap_or_default()),
            Span(now.0.saturating_sub(self.since)).to_string(),
            or_dash(until.unwrap_or_default()),
        ]
    }
}

impl fmt::Display for State {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Leased => "leased",
            Self::OfEarlierBoot => "leased before the reboot",
            Self::Resting => "resting",
            Self::SetAside => "set aside",
        })
    }
}

/// A number of seconds, as roughly as a person wants it.
struct Span(i64);

impl fmt::Display for Span {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.max(0) {
            seconds @ ..120 => write!(out, "{seconds} s"),
            seconds @ ..7_200 => write!(out, "{} min", seconds / 60),
            seconds @ ..172_800 => write!(out, "{} h", seconds / 3_600),
            seconds => write!(out, "{} d", seconds / 86_400),
        }
    }
}

#[cfg(test)]
mod tests;
