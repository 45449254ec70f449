//! One pass over all legs: takes away what none of them wants, brings each to what is wanted, and says how they stand.
//!
//! Blocking, because it waits for the kernel. Every pass is complete by itself: what fails is tried again by the next, and a
//! leg that fails keeps none of the others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use ipnet::IpNet;
use thiserror::Error;
use tracing::{debug, info, warn};
use zerobridge_cni_sriov::{Keep, KeepError, RepairError, Repairer};
use zerobridge_ipam::Foreign;
use zerobridge_kernel::{
    Holder, Machine, Netns, NetnsError, ProbeError, ProbePace, RtnlError, RtnlSocket, announce,
    foreign_holders,
};
use zerobridge_ledger::{Ledger, LedgerError, Owner, UnixSeconds};
use zerobridge_proto::{PciAddress, chain};

use super::access::{AccessError, Interface, LegAccess, is_for};
use super::place::{Place, PlaceError, vlan_name};
use super::promise::{Carrier, Promise, PromiseError, give_up, probe, promise, release};
use super::stale::{Leftover, Placed, is_stray, leftovers};
use super::state::Wish;
use super::status::{LegStatus, LegsError, find_places, look_at_legs};
use crate::config::{LegConfig, LegKind};
use crate::device::{DeviceId, Hardware};
use crate::pod_resources::Held;

/// How long a carrier is waited for before the link is asked who has an address, and before an address is announced. A leg
/// whose wire is dead gets its address all the same, as a pod does.
const CARRIER_PATIENCE: Duration = Duration::from_secs(2);

/// Keeps legs. The calling thread must be in the network namespace of the host.
#[derive(Debug)]
pub(crate) struct Keeper {
    state_dir: PathBuf,
    repairer: Repairer,
    told: BTreeMap<String, LegStatus>,
}

/// What is so at the time of a pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment<'a> {
    /// The devices.
    pub(crate) machine: &'a Machine,
    /// What pods hold; `None` while the kubelet does not say.
    pub(crate) held: Option<&'a Held>,
    /// The devices that pools offer.
    pub(crate) offered: &'a BTreeSet<Hardware>,
    /// The time.
    pub(crate) now: UnixSeconds,
}

/// What keeps a leg from being what is wanted.
#[derive(Debug, Error)]
enum LegProblem {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error(transparent)]
    Kernel(#[from] RtnlError),
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(transparent)]
    Probe(#[from] ProbeError),
    #[error(transparent)]
    Promise(#[from] PromiseError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Keep(#[from] KeepError),
    #[error("what is left of VF {device} cannot be restored")]
    Restore { device: PciAddress, source: RepairError },
    #[error("VF {device} is in a pod; the leg gets it when no pod holds it, or name another")]
    Held { device: PciAddress },
    #[error("whether a pod holds VF {device} is not known, since the kubelet does not say")]
    HoldersUnknown { device: PciAddress },
    #[error("VF {device} is still offered to pods; the leg gets it when it is withheld")]
    Offered { device: PciAddress },
    #[error("what it was before cannot be taken away")]
    Leftover(#[source] Box<LegProblem>),
}

/// Takes away every leg that the node has: addresses, interfaces that were made, VFs that were kept, leases. Returns those of
/// which something is left, with the reason. For when no daemon will keep them any more.
///
/// # Errors
/// Nothing could be looked at; nothing was changed then.
pub fn end_legs(
    state_dir: &Path,
    repairer: Repairer,
    machine: &Machine,
    held: Option<&Held>,
    now: SystemTime,
) -> Result<Vec<LegStatus>, LegsError> {
    let offered = BTreeSet::new();
    let moment = Moment { machine, held, offered: &offered, now: now.into() };
    Keeper::new(state_dir.to_owned(), repairer).pass(&[], &moment)
}

impl Keeper {
    /// A keeper of legs whose leases are in the ledger in `state_dir`.
    pub(crate) fn new(state_dir: PathBuf, repairer: Repairer) -> Self {
        Self { state_dir, repairer, told: BTreeMap::new() }
    }

    /// Makes one pass. Returns how the legs stand, those of which only something is left included.
    ///
    /// # Errors
    /// Nothing could be looked at; nothing was changed then.
    pub(crate) fn pass(
        &mut self,
        legs: &[LegConfig],
        moment: &Moment<'_>,
    ) -> Result<Vec<LegStatus>, LegsError> {
        // A node without legs needs no ledger.
        if legs.is_empty() && !Ledger::exists(&self.state_dir) {
            return Ok(Vec::new());
        }
        let mut ledger = Ledger::open(&self.state_dir)?;
        let mut rtnl = RtnlSocket::open()?;
        let places = find_places(legs, moment.machine, &mut rtnl)?;
        let placed: Vec<Placed<'_>> = legs.iter().zip(&places).collect();

        let mut problems: BTreeMap<String, LegProblem> = BTreeMap::new();
        for left in leftovers(&placed, &ledger.leases_of_legs()?, &ledger.attachments_of_legs()?) {
            if let Err(problem) = self.dismantle(&left, moment, &mut ledger, &mut rtnl) {
                problems.insert(left.owner.ifname, LegProblem::Leftover(Box::new(problem)));
            }
        }
        delete_strays(&placed, &mut rtnl)?;
        for (leg, place) in &placed {
            if problems.contains_key(&leg.name) {
                continue;
            }
            let outcome = match place {
                Ok(place) => self.stand(leg, place, moment, &mut ledger, &mut rtnl),
                Err(error) => Err(error.clone().into()),
            };
            if let Err(problem) = outcome {
                problems.insert(leg.name.clone(), problem);
            }
        }
        drop(ledger);
        let mut statuses = look_at_legs(legs, moment.machine, &self.state_dir)?;
        for status in &mut statuses {
            status.problem =
                problems.get(&status.name).map(|problem| chain(problem)).or(status.problem.take());
        }
        self.tell(&statuses);
        Ok(statuses)
    }

    /// Brings one leg to what is wanted.
    fn stand(
        &self,
        leg: &LegConfig,
        place: &Place,
        moment: &Moment<'_>,
        ledger: &mut Ledger,
        rtnl: &mut RtnlSocket,
    ) -> Result<(), LegProblem> {
        let (interface, made) = match leg.kind {
            LegKind::Pf => (Interface::Named(place.port.clone()), None),
            LegKind::Vlan { vlan } => (Interface::Vlan(vlan), Some(vlan_name(&place.port, vlan))),
            LegKind::Vf { vlan, .. } => {
                (Interface::Named(self.keep_vf(leg, place.device, vlan, moment, ledger)?), None)
            }
        };
        let mtu = leg.mtu.filter(|_| made.is_some());
        let mut access = LegAccess { rtnl, port: &place.port, interface };
        let mut wish =
            Wish { leg: leg.name.clone(), made, mtu, addresses: Vec::new(), superseded: Vec::new() };
        // Up first: only then can the link be asked whether an address is somebody's.
        let (state, _) = access.converge(&wish)?;
        let carrier = Carrier {
            device: place.device,
            mac: access.present()?.mac,
            boot_id: self.repairer.boot_id.clone(),
            now: moment.now,
        };
        let Promise { addresses, superseded } = settle(leg, &carrier, &state.addresses, ledger, &mut access)?;
        wish.addresses = addresses;
        wish.superseded = superseded.iter().map(|lease| lease.address).collect();
        let (_, added) = access.converge(&wish)?;
        release(ledger, &superseded, moment.now)?;
        if !added.is_empty() {
            tell_neighbours(leg, &mut access, &added);
        }
        Ok(())
    }

    /// Makes a VF the node's own, unless somebody else may have it. Returns its interface.
    fn keep_vf(
        &self,
        leg: &LegConfig,
        device: PciAddress,
        vlan: Option<u16>,
        moment: &Moment<'_>,
        ledger: &mut Ledger,
    ) -> Result<String, LegProblem> {
        let owner = Owner::leg(&leg.name);
        let recorded = ledger.attachment_of_device(device)?;
        if recorded.is_none_or(|record| record.owner != owner) {
            let hardware = Hardware::Function(device);
            let Some(held) = moment.held else { return Err(LegProblem::HoldersUnknown { device }) };
            let is_this = |id: &str| id.parse::<DeviceId>().is_ok_and(|id| id.hardware == hardware);
            if held.devices().any(|(_, id)| is_this(id)) {
                return Err(LegProblem::Held { device });
            }
            if moment.offered.contains(&hardware) {
                return Err(LegProblem::Offered { device });
            }
        }
        let keep = Keep { device, owner, network: &leg.network, vlan, mtu: leg.mtu };
        Ok(self.repairer.keep(ledger, &keep, moment.now)?)
    }

    /// Takes away what a leg was: its addresses, what its PF imposes on its VF, and its leases. Its interface is deleted as a
    /// stray.
    fn dismantle(
        &self,
        left: &Leftover,
        moment: &Moment<'_>,
        ledger: &mut Ledger,
        rtnl: &mut RtnlSocket,
    ) -> Result<(), LegProblem> {
        for lease in &left.leases {
            let Some(device) = lease.device else { continue };
            let Some(function) = moment.machine.functions.get(&device) else { continue };
            // A VF's VLAN is its PF's doing, and a PF's has an interface of its own.
            let vlan = lease.vlan.filter(|_| left.record.is_none());
            for netdev in &function.netdevs {
                take_away(&netdev.name, vlan, lease.address, rtnl)?;
            }
        }
        if let Some(record) = &left.record {
            let device = record.device;
            self.repairer
                .repair(ledger, record, moment.now)
                .map_err(|source| LegProblem::Restore { device, source })?;
        }
        release(ledger, &left.leases, moment.now)?;
        info!(leg = left.owner.ifname, addresses = left.leases.len(), "took away what the leg was");
        Ok(())
    }

    /// A line for each leg that stands otherwise than before.
    fn tell(&mut self, statuses: &[LegStatus]) {
        let present: BTreeMap<String, LegStatus> =
            statuses.iter().map(|status| (status.name.clone(), status.clone())).collect();
        for (leg, status) in &present {
            if self.told.get(leg) == Some(status) {
                continue;
            }
            let (state, interface, addresses) = (status.state.name(), &status.interface, &status.addresses);
            match &status.problem {
                None => info!(leg, state, interface, ?addresses, network = status.network, "the leg stands"),
                Some(problem) => {
                    warn!(leg, state, problem, "the leg is not as configured; it is tried again");
                }
            }
        }
        for leg in self.told.keys().filter(|leg| !present.contains_key(*leg)) {
            info!(leg, "the leg is gone");
        }
        self.told = present;
    }
}

/// Leases addresses that nobody else on the link has, as far as anybody can be asked.
fn settle(
    leg: &LegConfig,
    carrier: &Carrier,
    present: &[IpNet],
    ledger: &mut Ledger,
    access: &mut LegAccess<'_>,
) -> Result<Promise, LegProblem> {
    let mut promised = promise(ledger, leg, carrier, present)?;
    let Some(probe) = probe(leg)? else { return Ok(promised) };
    let pace = ProbePace { count: probe.probes, interval: probe.interval, wait: probe.wait };
    let mut clear: Vec<IpAddr> = present.iter().map(IpNet::addr).collect();
    for _ in 0..probe.tries {
        let mut unproven: Vec<IpAddr> = promised.addresses.iter().map(IpNet::addr).collect();
        unproven.retain(|address| !clear.contains(address));
        if unproven.is_empty() {
            return Ok(promised);
        }
        let Some(link) = access.wait_for_carrier(Instant::now() + CARRIER_PATIENCE)? else {
            debug!(leg = leg.name, "no carrier; nobody can be asked whether the addresses are another's");
            return Ok(promised);
        };
        let holders = foreign_holders(&Netns::current()?, link.index, &unproven, &pace)?;
        let foreign = holders.into_iter().map(|Holder { address, mac }| Foreign { address, mac });
        let foreign: Vec<Foreign> = foreign.collect();
        if foreign.is_empty() {
            return Ok(promised);
        }
        clear.extend(
            unproven.iter().filter(|address| !foreign.iter().any(|found| found.address == **address)),
        );
        give_up(ledger, leg, &foreign, carrier.now)?;
        promised = promise(ledger, leg, carrier, present)?;
    }
    Ok(promised)
}

/// Failing to tell them fails nothing: their caches age.
fn tell_neighbours(leg: &LegConfig, access: &mut LegAccess<'_>, addresses: &[IpNet]) {
    let told = access.wait_for_carrier(Instant::now() + CARRIER_PATIENCE).map_err(LegProblem::from);
    let told = told.and_then(|link| match link {
        Some(link) => Ok(Some((link, Netns::current()?))),
        None => Ok(None),
    });
    match told {
        Ok(Some((link, netns))) => {
            if let Err(error) = announce(&netns, access.rtnl, &link, addresses) {
                warn!(leg = leg.name, error = chain(&error), "the addresses are not announced");
            }
        }
        Ok(None) => debug!(leg = leg.name, "no carrier yet; the addresses are not announced"),
        Err(error) => warn!(leg = leg.name, error = chain(&error), "the addresses are not announced"),
    }
}

/// Takes an address from an interface, or from its interface for a VLAN, whatever prefix it has there.
fn take_away(
    netdev: &str,
    vlan: Option<u16>,
    address: IpAddr,
    rtnl: &mut RtnlSocket,
) -> Result<(), RtnlError> {
    let Some(mut link) = rtnl.link_by_name(netdev)? else { return Ok(()) };
    if let Some(id) = vlan {
        let port = link.index;
        match rtnl.vlan_links()?.into_iter().find(|vlan| is_for(vlan, port, id)) {
            Some(vlan) => link = vlan.link,
            None => return Ok(()),
        }
    }
    for present in rtnl.addresses(link.index)?.into_iter().filter(|net| net.addr() == address) {
        rtnl.delete_address(link.index, present)?;
        info!(interface = link.name, address = %present, "took the address of a former leg away");
    }
    Ok(())
}

/// Deletes VLAN interfaces that were made here and that no leg wants.
fn delete_strays(legs: &[Placed<'_>], rtnl: &mut RtnlSocket) -> Result<(), RtnlError> {
    let vlans = rtnl.vlan_links()?;
    let mut outcome = Ok(());
    for vlan in vlans {
        let port = rtnl.link_by_index(vlan.lower)?;
        if !is_stray(legs, &vlan, port.as_ref().map(|port| port.name.as_str())) {
            continue;
        }
        match rtnl.delete_link(vlan.link.index) {
            Ok(()) => {
                info!(interface = vlan.link.name, vlan = vlan.id, "deleted the interface of a former leg");
            }
            Err(error) => outcome = Err(error),
        }
    }
    outcome
}

#[cfg(test)]
mod tests;
