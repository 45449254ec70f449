//! Leasing and releasing, inside a transaction of the caller.

use std::net::IpAddr;

use ipnet::IpNet;
use tracing::{info, warn};
use zerobridge_ledger::{Lease, Owner, Pod, Records, SetAside, Transaction, UnixSeconds};
use zerobridge_proto::cni::{AddResult, Args, Dns, Ip, Route};
use zerobridge_proto::{Mac, PciAddress};

use crate::IpamError;
use crate::cluster::own_address;
use crate::earlier::Earlier;
use crate::picker::{first_free, rotation};
use crate::pool::PoolConfig;
use crate::range_set::RangeSet;

/// How many rests may end in one lease. A burst of releases is then paid for by the leases that follow, not by the next
/// one alone; more than one, so that they end faster than addresses are leased.
const RESTS_ENDED_AT_ONCE: u32 = 32;

/// Who wants an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRequest {
    /// The owner that it is for.
    pub owner: Owner,
    /// The pod that the owner is a sandbox of, where the runtime named one: what it had before is what it gets again.
    pub pod: Option<Pod>,
    /// The device that will carry it, where one is known. This and the next three are for audits, as in [`Lease`].
    pub device: Option<PciAddress>,
    /// The Ethernet address of the interface.
    pub mac: Option<Mac>,
    /// The VLAN of its frames.
    pub vlan: Option<u16>,
    /// The RDMA device beside it.
    pub rdma: Option<String>,
    /// The addresses asked for: at most one from a set, any free one from the others.
    pub requested: Vec<IpAddr>,
    /// The time.
    pub now: UnixSeconds,
    /// The boot (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
}

/// The pod that a call is for, when the runtime names one.
#[must_use]
pub fn pod_of(args: &Args) -> Option<Pod> {
    Some(Pod {
        namespace: args.pod_namespace()?.to_owned(),
        name: args.pod_name()?.to_owned(),
        uid: args.pod_uid().map(str::to_owned),
    })
}

/// What a container gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leased {
    /// One address from each set, with its subnet's prefix length and gateway, and without an interface.
    pub ips: Vec<Ip>,
    /// The pool's routes.
    pub routes: Vec<Route>,
    /// The pool's own name resolution; see [`PoolConfig::name_resolution`].
    pub dns: Dns,
}

impl Leased {
    /// As the result of an IPAM plugin: without interfaces.
    #[must_use]
    pub fn into_result(self) -> AddResult {
        AddResult { interfaces: Vec::new(), ips: self.ips, routes: self.routes, dns: self.dns }
    }
}

/// A host that is none of this node's containers and has an address of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// The address.
    pub address: IpAddr,
    /// The host's Ethernet address.
    pub mac: Mac,
}

/// What is to be done for one set.
pub(crate) enum Choice {
    /// The owner has it already.
    Held(IpAddr),
    /// It is free.
    Free(IpAddr),
    /// It is in the ledger, and nobody uses it.
    Unused(IpAddr),
    /// A foreign host was seen with it.
    SetAside(IpAddr),
    /// The pod had it before. It may be in the ledger, and it is not the next in turn.
    Again(IpAddr),
}

/// Leases one address from each set of `pool`, all or none, and returns the same ones when called again for the same
/// owner and network, though the pool be full meanwhile.
///
/// A pod that an IPClaim names gets the address of that claim and no other. What is asked for is given when it is not leased
/// to another; else what the pod had last, if nobody uses it; else the next
/// free address behind the one leased last. When none is free, the address that has rested longest is used, then one that
/// was leased before the last reboot, since no container outlives that, then the one that a foreign host was seen with
/// longest ago, unless that was at this moment. Then what an earlier sandbox of the same pod still has (see [`Earlier`]).
///
/// # Errors
/// See [`IpamError`]; nothing is leased then.
pub fn lease(
    transaction: &mut Transaction<'_>,
    network: &str,
    pool: &PoolConfig,
    request: &LeaseRequest,
) -> Result<Leased, IpamError> {
    pool.bind(transaction, network)?;
    let pool = &*pool.in_force(transaction, network)?;
    // Before rests end, so that an address whose rest is over is still known as this pod's.
    let earlier = match &request.pod {
        Some(pod) => Earlier::of(transaction, network, pod, &request.owner, &request.boot_id)?,
        None => Earlier::default(),
    };
    let until = UnixSeconds(request.now.0.saturating_sub(pool.rest_seconds.into()));
    transaction.end_rest(network, until, request.now, RESTS_ENDED_AT_ONCE)?;
    if let Some(probe) = &pool.conflict_probe {
        let until = UnixSeconds(request.now.0.saturating_sub(probe.set_aside_seconds.into()));
        transaction.end_set_aside(network, until, request.now, RESTS_ENDED_AT_ONCE)?;
    }

    let held = held_addresses(transaction, network, &request.owner)?;
    let held: Vec<Option<IpAddr>> =
        pool.sets.iter().map(|set| held.iter().copied().find(|held| set.range_of(*held).is_some())).collect();
    let own = own_by_set(transaction, pool, request.pod.as_ref(), &held)?;
    let asked_of_all = request.requested.iter().copied().filter(|asked| !own.contains(&Some(*asked)));
    let requested = requested_by_set(network, pool, asked_of_all)?;
    let mut choices = Vec::with_capacity(pool.sets.len());
    for ((((slot, set), asked), own), held) in (0..).zip(&pool.sets).zip(requested).zip(own).zip(held) {
        let choice = match (held, own, asked) {
            (Some(held), _, Some(asked)) if held != asked => {
                let (network, owner) = (network.to_owned(), request.owner.clone());
                return Err(IpamError::OtherHeld { network, asked, held, owner });
            }
            (Some(held), ..) => Choice::Held(held),
            (None, Some(own), Some(asked)) => return Err(IpamError::OtherClaimed { asked, own }),
            (None, Some(wanted), None) | (None, None, Some(wanted)) => {
                take(transaction, network, wanted, &request.boot_id).or_else(|error| {
                    earlier.take_over(error, network, request, |address| address == wanted)
                })?
            }
            (None, None, None) => match earlier.unused(|address| set.gives_out(address)) {
                Some(address) => Choice::Again(address),
                None => pick(transaction, network, slot, set, &request.boot_id, Some(request.now)).or_else(
                    |error| earlier.take_over(error, network, request, |address| set.gives_out(address)),
                )?,
            },
        };
        let is_in_turn = matches!(choice, Choice::Free(_) | Choice::Unused(_) | Choice::SetAside(_));
        let is_next = is_in_turn && own.is_none() && request.requested.is_empty();
        choices.push((slot, set, choice, is_next));
    }

    let mut ips = Vec::with_capacity(choices.len());
    for (slot, set, choice, is_next) in choices {
        let address = record(transaction, network, &choice, request)?;
        if is_next {
            transaction.set_cursor(network, slot, address)?;
        }
        ips.push(set.as_ip(address));
    }
    Ok(Leased { ips, routes: pool.routes.clone(), dns: pool.dns.clone() })
}

/// Ends the owner's leases in `network`; the addresses rest from `now` on. Returns them. An owner without any is no
/// error, and no pool is needed: what was leased is in the ledger.
///
/// # Errors
/// The ledger's.
pub fn release(
    transaction: &mut Transaction<'_>,
    owner: &Owner,
    network: &str,
    now: UnixSeconds,
) -> Result<Vec<IpAddr>, IpamError> {
    let released = transaction.release_leases(owner, Some(network), now)?;
    for lease in &released {
        info!(network, address = %lease.address, container = owner.container_id, ifname = owner.ifname, "released");
    }
    Ok(released.into_iter().map(|lease| lease.address).collect())
}

/// Takes addresses that foreign hosts were found to have from their owner and keeps them back, from `now` on. Another
/// [`lease`] then gives the owner others in their place.
///
/// # Errors
/// The ledger's.
pub fn set_aside(
    transaction: &mut Transaction<'_>,
    owner: &Owner,
    network: &str,
    found: &[Foreign],
    now: UnixSeconds,
) -> Result<(), IpamError> {
    for Foreign { address, mac } in found {
        transaction.insert_set_aside(&SetAside {
            network: network.to_owned(),
            address: *address,
            mac: *mac,
            found_for: owner.clone(),
            seen_at: now,
        })?;
        warn!(network, %address, %mac, container = owner.container_id, ifname = owner.ifname,
            "a foreign host has this address on the link; it is set aside");
    }
    Ok(())
}

/// Verifies that the owner has an address of each set.
///
/// # Errors
/// [`IpamError::NotLeased`], or the ledger's.
pub fn check(records: &Records, network: &str, pool: &PoolConfig, owner: &Owner) -> Result<(), IpamError> {
    let pool = pool.in_force(records, network)?;
    let held = held_addresses(records, network, owner)?;
    let lacks = |set: &&RangeSet| !held.iter().any(|address| set.range_of(*address).is_some());
    match pool.sets.iter().find(lacks) {
        None => Ok(()),
        Some(set) => Err(IpamError::NotLeased {
            network: network.to_owned(),
            owner: owner.clone(),
            ranges: set.in_words(),
        }),
    }
}

/// Verifies that another container could get an address from each set.
///
/// # Errors
/// [`IpamError::Exhausted`], or the ledger's.
pub fn require_room(
    records: &Records,
    network: &str,
    pool: &PoolConfig,
    boot_id: &str,
) -> Result<(), IpamError> {
    let pool = pool.in_force(records, network)?;
    (0..)
        .zip(&pool.sets)
        .try_for_each(|(slot, set)| pick(records, network, slot, set, boot_id, None).map(|_| ()))
}

/// Those of `addresses` that the pool gives out at this moment, at most one from a set: what an owner that already uses them
/// may ask for.
///
/// # Errors
/// As [`check`], but for [`IpamError::NotLeased`].
pub fn given_out(
    records: &Records,
    network: &str,
    pool: &PoolConfig,
    addresses: &[IpAddr],
) -> Result<Vec<IpAddr>, IpamError> {
    let pool = pool.in_force(records, network)?;
    let of_set = |set: &RangeSet| addresses.iter().copied().find(|address| set.gives_out(*address));
    Ok(pool.sets.iter().filter_map(of_set).collect())
}

fn held_addresses(records: &Records, network: &str, owner: &Owner) -> Result<Vec<IpAddr>, IpamError> {
    let leases = records.leases_of(owner)?;
    Ok(leases.into_iter().filter(|lease| lease.network == network).map(|lease| lease.address).collect())
}

/// The address that an IPClaim reserves for the pod in each set. An owner that has an address from a set already needs
/// none.
fn own_by_set(
    records: &Records,
    pool: &PoolConfig,
    pod: Option<&Pod>,
    held: &[Option<IpAddr>],
) -> Result<Vec<Option<IpAddr>>, IpamError> {
    let own = pool.sets.iter().zip(held).map(|(set, held)| match own_address(records, set, pod) {
        Err(IpamError::ClaimElsewhere { .. }) if held.is_some() => Ok(None),
        other => other,
    });
    own.collect()
}

/// Which address was asked for from each set.
fn requested_by_set(
    network: &str,
    pool: &PoolConfig,
    requested: impl Iterator<Item = IpAddr>,
) -> Result<Vec<Option<IpAddr>>, IpamError> {
    let mut by_set = vec![None; pool.sets.len()];
    for address in requested {
        let place = pool.sets.iter().position(|set| set.gives_out(address));
        let Some((set, slot)) = place.map(|place| (&pool.sets[place], &mut by_set[place])) else {
            return Err(IpamError::NotInPool {
                network: network.to_owned(),
                address,
                ranges: pool.ranges_in_words(),
            });
        };
        match slot.replace(address) {
            Some(first) if first != address => {
                return Err(IpamError::TwoOfOneSet {
                    network: network.to_owned(),
                    first,
                    second: address,
                    ranges: set.in_words(),
                });
            }
            _ => {}
        }
    }
    Ok(by_set)
}

/// The address that was asked for, if none of the node's owners uses it. That it rests does not matter: who asks for an
/// address wants this one, usually because it was the last owner's. Nor that it is set aside: a probe says whether it is
/// still another's.
fn take(records: &Records, network: &str, asked: IpAddr, boot_id: &str) -> Result<Choice, IpamError> {
    match records.lease_at(network, asked)? {
        Some(lease) if lease.boot_id == boot_id || lease.owner.is_leg() => {
            Err(IpamError::Taken { network: network.to_owned(), address: asked, holder: lease.owner })
        }
        Some(_) => Ok(Choice::Unused(asked)),
        None if !records.chunk(network, asked)?.is_taken(asked) => Ok(Choice::Free(asked)),
        None if records.set_aside_at(network, asked)?.is_some() => Ok(Choice::SetAside(asked)),
        None => Ok(Choice::Unused(asked)),
    }
}

/// The next address of a set. One that a foreign host was seen with at `not_seen` is none.
fn pick(
    records: &Records,
    network: &str,
    slot: u16,
    set: &RangeSet,
    boot_id: &str,
    not_seen: Option<UnixSeconds>,
) -> Result<Choice, IpamError> {
    let order = rotation(&set.spans, records.cursor(network, slot)?);
    let chunk = |address| records.chunk(network, address);
    if let Some(free) = first_free(&order, chunk)? {
        return Ok(Choice::Free(free));
    }
    let resting = records.resting_in(network)?;
    let mut resting =
        resting.iter().map(|resting| resting.lease.address).filter(|address| set.gives_out(*address));
    if let Some(address) = resting.next() {
        info!(network, %address, "no address is free; using the one that has rested longest");
        return Ok(Choice::Unused(address));
    }
    for span in &set.spans {
        if let Some(lease) = records.lease_of_another_boot(network, span.first, span.last, boot_id)? {
            warn!(network, address = %lease.address, owner = %lease.owner,
                "no address is free; using one that was leased before the last reboot and never released");
            return Ok(Choice::Unused(lease.address));
        }
    }
    let mut set_aside = records.set_aside_in(network)?;
    set_aside.retain(|found| set.gives_out(found.address));
    if let Some(found) = set_aside.iter().find(|found| Some(found.seen_at) != not_seen) {
        let (address, mac) = (found.address, found.mac);
        warn!(network, %address, %mac, "no address is free; using the one that a foreign host was seen with longest ago");
        return Ok(Choice::SetAside(address));
    }
    if let Some(pool) = &set.pool {
        return Err(IpamError::BlocksExhausted {
            pool: pool.clone(),
            blocks: set.ranges().len(),
            size: set.size(),
            ledger: records.path().to_owned(),
        });
    }
    Err(IpamError::Exhausted {
        network: network.to_owned(),
        ranges: set.in_words(),
        size: set.size(),
        set_aside: set_aside.len(),
        ledger: records.path().to_owned(),
    })
}

/// Writes a choice down and returns its address.
fn record(
    transaction: &mut Transaction<'_>,
    network: &str,
    choice: &Choice,
    request: &LeaseRequest,
) -> Result<IpAddr, IpamError> {
    let address = match *choice {
        Choice::Held(address) => return Ok(address),
        Choice::Unused(address) | Choice::Again(address) => {
            transaction.free_address(network, address)?;
            address
        }
        Choice::SetAside(address) => {
            transaction.readmit(network, address)?;
            address
        }
        Choice::Free(address) => address,
    };
    transaction.insert_lease(&Lease {
        network: network.to_owned(),
        address,
        owner: request.owner.clone(),
        pod: request.pod.clone(),
        device: request.device,
        mac: request.mac,
        vlan: request.vlan,
        rdma: request.rdma.clone(),
        boot_id: request.boot_id.clone(),
        created_at: request.now,
    })?;
    let owner = &request.owner;
    info!(network, %address, container = owner.container_id, ifname = owner.ifname, "leased");
    Ok(address)
}

impl RangeSet {
    /// An address of this set as a result has it.
    fn as_ip(&self, address: IpAddr) -> Ip {
        let range = self.range_of(address);
        let net = range.and_then(|range| IpNet::new(address, range.subnet().prefix_len()).ok());
        Ip {
            address: net.unwrap_or_else(|| address.into()),
            gateway: range.and_then(|range| range.gateway()),
            interface: None,
        }
    }
}
