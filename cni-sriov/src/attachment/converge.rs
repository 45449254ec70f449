//! Making it so: one operation, and as many as it takes.

use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tracing::{debug, warn};
use zerobridge_kernel::{LinkChange, VfAdminChange, enable_ipv6};
use zerobridge_proto::Mac;

use super::access::{PfPort, VfAccess};
use super::diff::{Operation, diff};
use super::error::{AttachmentError, SettingRefusal};
use super::setting;
use super::state::{Place, VfState};

/// How often is looked again after something was done.
const ROUNDS: u32 = 5;

/// How often when a driver says that it is busy, or an address is on its way: with the pauses between, some 2.5 s. A VF
/// that i40e or ice resets is back within one.
const PATIENT_ROUNDS: u32 = 9;

/// The first pause between two rounds; it doubles.
const PAUSE: Duration = Duration::from_millis(10);

/// How long a VF's driver may take to come back with the address that its PF's imposed. Longer is no failure yet: then the
/// address is set.
const MAC_PATIENCE: Duration = Duration::from_secs(2);

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
        let mut refusal: Option<AttachmentError> = None;
        let mut pause = PAUSE;
        let (mut round, mut rounds) = (0, ROUNDS);
        while !missing.is_empty() && round < rounds {
            if round > 0 {
                thread::sleep(pause);
                pause *= 2;
            }
            for operation in &missing {
                debug!(device = %self.device, ?operation, round, "apply");
                match self.apply(operation, on_refusal) {
                    Ok(()) => {}
                    // What follows was put behind this one for a reason, so all of it waits.
                    Err(error) if error.is_transient() => {
                        (refusal, rounds) = (Some(error), PATIENT_ROUNDS);
                        break;
                    }
                    Err(error) if on_refusal == OnRefusal::Stop => return Err(error),
                    Err(error) => refusal = refusal.or(Some(error)),
                }
            }
            missing = diff(&self.look()?, wanted);
            if missing.iter().all(concerns_address) {
                rounds = PATIENT_ROUNDS;
            }
            round += 1;
        }
        if missing.is_empty() {
            return Ok(());
        }
        let source = refusal.map(Box::new);
        Err(AttachmentError::NotConverged { device: self.device, rounds: round, missing, source })
    }

    /// Brings the device back to what it was, as far as that can be done; see [`VfState::within_reach_of`].
    ///
    /// # Errors
    /// As [`converge`](Self::converge).
    pub fn restore(&mut self, original: &VfState) -> Result<(), AttachmentError> {
        let mut observed = self.look()?;
        // Only whoever sets a GUID takes an InfiniBand VF from its driver for a moment, and may die in it.
        let has_guids = original.admin.is_some_and(|admin| admin.guids.is_some());
        let may_be_bound_anew = has_guids && original.link.is_some();
        if let (true, None, Some(driver)) = (may_be_bound_anew, &observed.driver, &original.driver) {
            self.bind(driver)?;
            observed = self.look()?;
        }
        let is_expected = original.rdma.is_some() && observed.link.is_some();
        if is_expected && observed.rdma.is_none() && self.rdma_mode().is_some() {
            match self.await_rdma() {
                Ok(()) => observed = self.look()?,
                Err(error) => warn!(%error, "the RDMA device was taken away; restore the rest"),
            }
        }
        let reachable = original.within_reach_of(&observed);
        if reachable != *original {
            let (was, is) = (&original.driver, &observed.driver);
            warn!(device = %self.device, ?was, ?is, "the driver was changed; restore what is left");
        }
        self.converge_from(&observed, &reachable, OnRefusal::GoOn)
    }

    /// Performs one operation on the netdev as it was last observed.
    fn apply(&mut self, operation: &Operation, on_refusal: OnRefusal) -> Result<(), AttachmentError> {
        let device = self.device;
        let rtnl_error = AttachmentError::rtnl(device);
        let sysfs_error = AttachmentError::sysfs(device);
        match operation {
            Operation::ChangeAdmin(change) => self.change_admin(change, on_refusal),
            Operation::AllowVlans(trunk) => {
                self.sysfs.allow_vlans(self.port()?.vf, trunk).map_err(sysfs_error)
            }
            Operation::ForbidVlans(trunk) => {
                self.sysfs.forbid_vlans(self.port()?.vf, trunk).map_err(sysfs_error)
            }
            Operation::AwaitMac(mac) => self.await_mac(*mac),
            Operation::Rebind { .. } => Err(AttachmentError::DriverChanged { device }),
            Operation::SetAlias(alias) => {
                self.change(&LinkChange { alias: Some(alias), ..LinkChange::default() })
            }
            Operation::SetAllMulticast(on) => {
                self.change(&LinkChange { all_multicast: Some(*on), ..LinkChange::default() })
            }
            Operation::SetPromiscuous(on) => {
                self.change(&LinkChange { promiscuous: Some(*on), ..LinkChange::default() })
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
            Operation::MoveRdma(to) => self.move_rdma(*to),
            Operation::RenameRdma(name) => self.rename_rdma(name),
            Operation::AddSoftRdma => self.add_soft_rdma(),
            Operation::RemoveSoftRdma => self.remove_soft_rdma(),
            Operation::AwaitRdma => self.await_rdma(),
            Operation::BindAnew => self.bind_anew(),
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

    fn port(&self) -> Result<PfPort, AttachmentError> {
        self.port.ok_or(AttachmentError::NotAVf { device: self.device })
    }

    /// Asks for everything in one request. When that is refused, it is asked for one by one: so the refused setting is
    /// known by name, and those behind it are not lost where the rest is to go on.
    fn change_admin(&mut self, change: &VfAdminChange, on_refusal: OnRefusal) -> Result<(), AttachmentError> {
        let device = self.device;
        let PfPort { vf, link } = self.port()?;
        let Err(refused) = self.host.change_vf_admin(link, vf.index, change) else { return Ok(()) };
        if refused.errno().is_none() {
            return Err(AttachmentError::Rtnl { device, source: refused });
        }
        let mut first = None;
        for setting in setting::each(change) {
            let Err(source) = self.host.change_vf_admin(link, vf.index, &setting.change) else { continue };
            let driver = self.sysfs.driver_of(vf.pf).ok().flatten();
            let driver = driver.unwrap_or_else(|| "(none)".to_owned());
            let (key, value) = (setting.key, setting.value);
            let refusal = SettingRefusal { device, pf: vf.pf, driver, key, value, source };
            let error = AttachmentError::SettingRefused(Box::new(refusal));
            if on_refusal == OnRefusal::Stop {
                return Err(error);
            }
            first = first.or(Some(error));
        }
        // Each alone was accepted: then all of them are there.
        first.map_or(Ok(()), Err)
    }

    fn await_mac(&mut self, mac: Mac) -> Result<(), AttachmentError> {
        let device = self.device;
        let deadline = Instant::now() + MAC_PATIENCE;
        loop {
            let (rtnl, index) = self.side()?;
            let link = rtnl.link_by_index(index).map_err(AttachmentError::rtnl(device))?;
            let arrived = link.ok_or(AttachmentError::LinkLost { device })?.mac == Some(mac);
            if arrived || Instant::now() >= deadline {
                return Ok(());
            }
            thread::sleep(PAUSE);
        }
    }

    /// Netdev and RDMA device are made anew by it, under other names and numbers.
    fn bind_anew(&mut self) -> Result<(), AttachmentError> {
        let device = self.device;
        let sysfs_error = AttachmentError::sysfs(device);
        let driver = self.sysfs.driver_of(device).map_err(sysfs_error)?;
        let Some(driver) = driver else { return Err(AttachmentError::DriverChanged { device }) };
        self.sysfs.unbind(device, &driver).map_err(sysfs_error)?;
        self.bind(&driver)
    }

    fn bind(&mut self, driver: &str) -> Result<(), AttachmentError> {
        self.sysfs.bind(self.device, driver).map_err(AttachmentError::sysfs(self.device))?;
        self.await_netdev()?;
        if self.rdma_mode().is_some() { self.await_rdma() } else { Ok(()) }
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
        if to == Place::Host { self.find_port(self.port.map(|port| port.vf)) } else { Ok(()) }
    }

    /// Some runtimes start a namespace with IPv6 off, where an IPv6 address is refused.
    pub(super) fn allow_ipv6(&mut self, address: IpNet) -> Result<(), AttachmentError> {
        let device = self.device;
        let Some((Place::Sandbox, index)) = self.link else { return Ok(()) };
        let Some(sandbox) = self.sandbox.as_mut().filter(|_| address.addr().is_ipv6()) else { return Ok(()) };
        let link = sandbox.rtnl.link_by_index(index);
        let link = link.map_err(AttachmentError::rtnl(device))?;
        let link = link.ok_or(AttachmentError::LinkLost { device })?;
        enable_ipv6(&sandbox.netns, &link.name).map_err(|source| AttachmentError::Netns { device, source })
    }
}

/// Whether an operation is about a VF's address, which some drivers take over in their own time.
fn concerns_address(operation: &Operation) -> bool {
    match operation {
        Operation::SetMac(_) | Operation::AwaitMac(_) => true,
        Operation::ChangeAdmin(change) => VfAdminChange { mac: None, ..*change } == VfAdminChange::default(),
        _ => false,
    }
}
