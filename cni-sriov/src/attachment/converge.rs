//! Making it so: one operation, and as many as it takes.

use std::thread;
use std::time::Duration;

use ipnet::IpNet;
use tracing::debug;
use zerobridge_kernel::{LinkChange, VfAdmin, enable_ipv6};

use super::access::VfAccess;
use super::diff::{Operation, admin_diff, diff};
use super::error::AttachmentError;
use super::state::{Place, VfState};

/// How often is looked again after something was done. Drivers that apply an address in their own time (iavf asks its PF
/// and answers before it has the reply) need a second look, hardly ever a third.
const ROUNDS: u32 = 5;

/// The first pause between two rounds; it doubles.
const PAUSE: Duration = Duration::from_millis(10);

/// What to do when the kernel refuses an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRefusal {
    /// Stop at once: the caller takes back what was done.
    Stop,
    /// Go on with the rest and try that one again: as much as possible is to be restored.
    GoOn,
}

impl VfAccess {
    /// Brings the VF from wherever it is to `wanted` and looks again until nothing is missing.
    ///
    /// # Errors
    /// The first refusal, or [`AttachmentError::NotConverged`].
    pub fn converge(&mut self, wanted: &VfState, on_refusal: OnRefusal) -> Result<(), AttachmentError> {
        let observed = self.observe()?;
        self.converge_from(&observed, wanted, on_refusal)
    }

    /// As [`converge`](Self::converge), for a caller that has just observed the VF.
    ///
    /// # Errors
    /// As [`converge`](Self::converge).
    pub fn converge_from(
        &mut self,
        observed: &VfState,
        wanted: &VfState,
        on_refusal: OnRefusal,
    ) -> Result<(), AttachmentError> {
        let mut missing = diff(observed, wanted);
        let mut refusal = None;
        let mut pause = PAUSE;
        for round in 0..ROUNDS {
            if missing.is_empty() {
                return Ok(());
            }
            if round > 0 {
                thread::sleep(pause);
                pause *= 2;
            }
            for operation in &missing {
                debug!(device = %self.device, ?operation, round, "apply");
                match self.apply(operation) {
                    Ok(()) => {}
                    Err(error) if on_refusal == OnRefusal::Stop => return Err(error),
                    Err(error) => refusal = refusal.or(Some(error)),
                }
            }
            missing = diff(&self.observe()?, wanted);
        }
        if missing.is_empty() {
            return Ok(());
        }
        let source = refusal.map(Box::new);
        Err(AttachmentError::NotConverged { device: self.device, rounds: ROUNDS, missing, source })
    }

    /// Restores what the PF imposes, for a VF whose netdev is out of reach.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn restore_admin(&mut self, wanted: &VfAdmin) -> Result<(), AttachmentError> {
        let device = self.device;
        let rtnl_error = AttachmentError::rtnl(device);
        let observed = self.host.vf_admin(self.pf, self.index).map_err(rtnl_error)?;
        let observed = observed.ok_or(AttachmentError::NotAVf { device })?;
        match admin_diff(&observed, wanted) {
            Some(change) => self.host.change_vf_admin(self.pf, self.index, &change).map_err(rtnl_error),
            None => Ok(()),
        }
    }

    /// Performs one operation on the netdev as it was last observed.
    fn apply(&mut self, operation: &Operation) -> Result<(), AttachmentError> {
        let device = self.device;
        let rtnl_error = AttachmentError::rtnl(device);
        match operation {
            Operation::ChangeAdmin(change) => {
                self.host.change_vf_admin(self.pf, self.index, change).map_err(rtnl_error)
            }
            Operation::Move { to, name, mtu } => self.relocate(*to, name, *mtu),
            Operation::SetMac(mac) => self.change(&LinkChange { mac: Some(*mac), ..LinkChange::default() }),
            Operation::Rename(name) => self.change(&LinkChange { name: Some(name), ..LinkChange::default() }),
            Operation::SetMtu(mtu) => self.change(&LinkChange { mtu: Some(*mtu), ..LinkChange::default() }),
            Operation::SetUp(up) => self.change(&LinkChange { up: Some(*up), ..LinkChange::default() }),
            Operation::AddAltName(name) => {
                let (rtnl, index) = self.side()?;
                rtnl.add_alt_name(index, name).map_err(rtnl_error)
            }
            Operation::DeleteAltName(name) => {
                let (rtnl, index) = self.side()?;
                rtnl.delete_alt_name(index, name).map_err(rtnl_error)
            }
            Operation::AddAddress(address) => {
                self.allow_ipv6(*address)?;
                let (rtnl, index) = self.side()?;
                rtnl.add_address(index, *address).map_err(rtnl_error)
            }
            Operation::AddRoute(route) => {
                let (rtnl, index) = self.side()?;
                rtnl.add_route(index, route).map_err(rtnl_error)
            }
        }
    }

    fn change(&mut self, change: &LinkChange<'_>) -> Result<(), AttachmentError> {
        let device = self.device;
        let (rtnl, index) = self.side()?;
        rtnl.change_link(index, change).map_err(AttachmentError::rtnl(device))
    }

    /// Moves the netdev and finds it again on the other side, where it may have another index.
    fn relocate(&mut self, to: Place, name: &str, mtu: Option<u32>) -> Result<(), AttachmentError> {
        let device = self.device;
        let rtnl_error = AttachmentError::rtnl(device);
        let lost = || AttachmentError::LinkLost { device };
        let (_, index) = self.link.ok_or_else(lost)?;
        let sandbox = self.sandbox.as_mut().ok_or_else(lost)?;
        let (from, into, netns) = match to {
            Place::Sandbox => (&mut self.host, &mut sandbox.rtnl, &sandbox.netns),
            Place::Host => (&mut sandbox.rtnl, &mut self.host, &self.host_netns),
        };
        let change = LinkChange { netns: Some(netns), name: Some(name), mtu, ..LinkChange::default() };
        from.change_link(index, &change).map_err(rtnl_error)?;
        let link = into.link_by_name(name).map_err(rtnl_error)?.ok_or_else(lost)?;
        self.link = Some((to, link.index));
        Ok(())
    }

    /// Some runtimes start a namespace with IPv6 off, where an IPv6 address is refused.
    fn allow_ipv6(&mut self, address: IpNet) -> Result<(), AttachmentError> {
        let device = self.device;
        let Some((Place::Sandbox, index)) = self.link else { return Ok(()) };
        let Some(sandbox) = self.sandbox.as_mut().filter(|_| address.addr().is_ipv6()) else { return Ok(()) };
        let link = sandbox.rtnl.link_by_index(index);
        let link = link.map_err(AttachmentError::rtnl(device))?;
        let link = link.ok_or(AttachmentError::LinkLost { device })?;
        enable_ipv6(&sandbox.netns, &link.name).map_err(|source| AttachmentError::Netns { device, source })
    }
}
