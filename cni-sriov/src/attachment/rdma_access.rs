//! The RDMA device of a device within reach: which one it is and where, and how it moves.
//!
//! Hardware is known by its PCI address, as everything is: each namespace's own sysfs shows the RDMA devices that the
//! namespace has. A device of software is a part of no hardware; on the host it is known by the name that this module gives
//! it, in the pod by the netdev that it is on.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use zerobridge_kernel::{
    Link, MountedSysfs, NetlinkError, Netns, RdmaLink, RdmaNetnsMode, RdmaProtocol, RdmaSocket, Sysfs,
};
use zerobridge_proto::PciAddress;

use super::access::{RETURN_TIMEOUT, SandboxAccess, VfAccess};
use super::error::AttachmentError;
use super::rdma::soft_name;
use super::state::{Place, RdmaKind, RdmaPlace, RdmaState};

/// The kind of software device that is made; its module is loaded by the kernel when it is asked for.
const SOFT_KIND: &str = "rxe";

/// How often what is on its way is looked for again.
const RETURN_INTERVAL: Duration = Duration::from_millis(10);

/// The RDMA subsystem within reach.
#[derive(Debug)]
pub(super) struct RdmaAccess {
    mode: RdmaNetnsMode,
    host: RdmaSocket,
    sandbox: Option<SandboxRdma>,
    /// The device where it was when it was last looked at or moved.
    found: Option<Found>,
}

/// The pod's view, made when it is needed.
#[derive(Debug)]
struct SandboxRdma {
    socket: RdmaSocket,
    sysfs: MountedSysfs,
}

/// An RDMA device, and whose view shows it.
#[derive(Clone, Debug)]
struct Found {
    place: Place,
    device: RdmaLink,
    is_soft: bool,
}

/// An RDMA device that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyRdma {
    /// Its name in the pod.
    pub name: String,
    /// Under which index of its first port's table it answers for each address; none without addresses, and for
    /// InfiniBand.
    pub gid_indexes: Vec<(IpAddr, u16)>,
}

impl RdmaAccess {
    /// `None` on a machine without the RDMA subsystem.
    pub(super) fn open(sysfs: &Sysfs) -> Result<Option<Self>, NetlinkError> {
        let Some(mut host) = RdmaSocket::open(sysfs)? else { return Ok(None) };
        let mode = host.netns_mode()?;
        Ok(Some(Self { mode, host, sandbox: None, found: None }))
    }

    /// The device as one of the two namespaces shows it.
    fn find(
        &mut self,
        view: &View<'_>,
        netdev: Option<&(Place, Link)>,
    ) -> Result<Option<Found>, AttachmentError> {
        let View { device, sysfs, .. } = *view;
        let rdma_error = AttachmentError::rdma(device);
        let found = |place, is_soft| move |device| Found { place, device, is_soft };
        // There may be two, of which nobody can say which one is meant; the first is as good as any.
        let names = sysfs.rdma_devices_of(device).map_err(AttachmentError::sysfs(device))?;
        if let Some(name) = names.first() {
            let on_host = self.host.shown_device(name).map_err(rdma_error)?;
            return Ok(on_host.map(found(Place::Host, false)));
        }
        let soft = self.host.device_by_name(&soft_name(device)).map_err(rdma_error)?;
        if soft.is_some() || self.mode == RdmaNetnsMode::Shared || view.sandbox.is_none() {
            return Ok(soft.map(found(Place::Host, true)));
        }
        let inside = self.inside(view)?;
        let names = inside.sysfs.rdma_devices_of(device).map_err(AttachmentError::sysfs(device))?;
        let (name, is_soft) = match (names.into_iter().next(), netdev) {
            (Some(name), _) => (Some(name), false),
            (None, Some((Place::Sandbox, netdev))) => {
                let names = inside.sysfs.software_rdma_on(&netdev.name);
                (names.map_err(AttachmentError::sysfs(device))?.into_iter().next(), true)
            }
            (None, _) => (None, false),
        };
        let Some(name) = name else { return Ok(None) };
        let in_sandbox = inside.socket.shown_device(&name).map_err(rdma_error)?;
        Ok(in_sandbox.map(found(Place::Sandbox, is_soft)))
    }

    fn inside(&mut self, view: &View<'_>) -> Result<&mut SandboxRdma, AttachmentError> {
        let device = view.device;
        let lost = AttachmentError::RdmaLost { device };
        let Some(SandboxAccess { netns, .. }) = view.sandbox else { return Err(lost) };
        if self.sandbox.is_none() {
            let socket = RdmaSocket::open_in(netns).map_err(AttachmentError::rdma(device))?;
            let sysfs = MountedSysfs::of(netns);
            let sysfs = sysfs.map_err(|source| AttachmentError::SandboxSysfs { device, source })?;
            self.sandbox = socket.map(|socket| SandboxRdma { socket, sysfs });
        }
        self.sandbox.as_mut().ok_or(lost)
    }

    fn socket(&mut self, place: Place, view: &View<'_>) -> Result<&mut RdmaSocket, AttachmentError> {
        match place {
            Place::Host => Ok(&mut self.host),
            Place::Sandbox => Ok(&mut self.inside(view)?.socket),
        }
    }

    /// What `found` is to the pod and to a record.
    fn state(&self, found: &Found) -> RdmaState {
        let kind = match found.device.protocol {
            _ if found.is_soft => RdmaKind::Soft,
            RdmaProtocol::InfiniBand => RdmaKind::Infiniband,
            RdmaProtocol::Roce | RdmaProtocol::Iwarp | RdmaProtocol::Other => RdmaKind::Ethernet,
        };
        let place = match (self.mode, found.place) {
            (RdmaNetnsMode::Shared, _) => RdmaPlace::Everywhere,
            (RdmaNetnsMode::Exclusive, Place::Host) => RdmaPlace::Host,
            (RdmaNetnsMode::Exclusive, Place::Sandbox) => RdmaPlace::Sandbox,
        };
        RdmaState { kind, place, name: found.device.name.clone() }
    }
}

/// What is looked at.
#[derive(Clone, Copy, Debug)]
struct View<'a> {
    device: PciAddress,
    sysfs: &'a Sysfs,
    host_netns: &'a Netns,
    sandbox: Option<&'a SandboxAccess>,
}

impl VfAccess {
    /// Whether the namespaces of this machine share RDMA devices; `None` without the RDMA subsystem.
    #[must_use]
    pub fn rdma_mode(&self) -> Option<RdmaNetnsMode> {
        self.rdma.as_ref().map(|rdma| rdma.mode)
    }

    /// The RDMA device as it is now, `netdev` being that of the device.
    pub(super) fn look_for_rdma(
        &mut self,
        netdev: Option<&(Place, Link)>,
    ) -> Result<Option<RdmaState>, AttachmentError> {
        let Some((rdma, view)) = self.rdma_view() else { return Ok(None) };
        rdma.found = rdma.find(&view, netdev)?;
        Ok(rdma.found.as_ref().map(|found| rdma.state(found)))
    }

    /// Moves the device. One of InfiniBand takes its netdev away and gets another one on the host, which is waited for.
    pub(super) fn move_rdma(&mut self, to: Place) -> Result<(), AttachmentError> {
        let device = self.device;
        let lost = || AttachmentError::RdmaLost { device };
        let (rdma, view) = self.rdma_view().ok_or_else(lost)?;
        let found = rdma.found.clone().ok_or_else(lost)?;
        if found.place == to {
            return Ok(());
        }
        let target = match to {
            Place::Host => view.host_netns,
            Place::Sandbox => &view.sandbox.ok_or_else(lost)?.netns,
        };
        let rdma_error = AttachmentError::rdma(device);
        rdma.socket(found.place, &view)?.move_to(&found.device, target).map_err(rdma_error)?;
        let moved = rdma.socket(to, &view)?.device(found.device.index).map_err(rdma_error)?;
        let moved = moved.ok_or_else(lost)?;
        let is_infiniband = moved.protocol == RdmaProtocol::InfiniBand;
        rdma.found = Some(Found { place: to, device: moved, ..found });
        if is_infiniband { self.await_netdev() } else { Ok(()) }
    }

    pub(super) fn rename_rdma(&mut self, name: &str) -> Result<(), AttachmentError> {
        let device = self.device;
        let lost = || AttachmentError::RdmaLost { device };
        let (rdma, view) = self.rdma_view().ok_or_else(lost)?;
        let mut found = rdma.found.clone().ok_or_else(lost)?;
        if found.device.name != name {
            let renamed = rdma.socket(found.place, &view)?.rename(&found.device, name);
            renamed.map_err(AttachmentError::rdma(device))?;
            name.clone_into(&mut found.device.name);
            rdma.found = Some(found);
        }
        Ok(())
    }

    /// Makes a software device on the netdev, which may appear in the host's view only.
    pub(super) fn add_soft_rdma(&mut self) -> Result<(), AttachmentError> {
        let device = self.device;
        let lost = || AttachmentError::RdmaLost { device };
        let (rtnl, index) = self.side()?;
        let netdev = rtnl.link_by_index(index).map_err(AttachmentError::rtnl(device))?;
        let netdev = netdev.ok_or(AttachmentError::LinkLost { device })?;
        let place = self.link.map_or(Place::Host, |(place, _)| place);
        let (rdma, view) = self.rdma_view().ok_or_else(lost)?;
        let made = rdma.socket(place, &view)?.add_link(&soft_name(device), SOFT_KIND, &netdev.name);
        made.map_err(|source| AttachmentError::NoSoftRdma { device, netdev: netdev.name.clone(), source })?;
        rdma.found = rdma.find(&view, Some(&(place, netdev)))?;
        if rdma.found.is_some() { Ok(()) } else { Err(lost()) }
    }

    pub(super) fn remove_soft_rdma(&mut self) -> Result<(), AttachmentError> {
        let device = self.device;
        let Some((rdma, view)) = self.rdma_view() else { return Ok(()) };
        let Some(found) = rdma.found.take().filter(|found| found.is_soft) else { return Ok(()) };
        let removed = rdma.socket(found.place, &view)?.delete_link(&found.device);
        removed.map_err(AttachmentError::rdma(device))
    }

    /// Waits until the device is there, as long as the kernel may take to return it.
    pub(super) fn await_rdma(&mut self) -> Result<(), AttachmentError> {
        self.until_returned(AttachmentError::RdmaLost { device: self.device }, |access| {
            let Some((rdma, view)) = access.rdma_view() else { return Ok(true) };
            rdma.found = rdma.find(&view, None)?;
            Ok(rdma.found.is_some())
        })
    }

    /// Waits until the first port of the RDMA device is active and, unless it is of InfiniBand, answers for each of
    /// `addresses`. `None` without an RDMA device, or with one that is not the pod's.
    ///
    /// # Errors
    /// [`AttachmentError::RdmaNotReady`] when it is not by `deadline`, and what the kernel refuses.
    pub fn wait_for_rdma(
        &mut self,
        wanted: &RdmaState,
        addresses: &[IpAddr],
        deadline: Instant,
    ) -> Result<ReadyRdma, AttachmentError> {
        let device = self.device;
        let lost = || AttachmentError::RdmaLost { device };
        let addresses = if wanted.kind == RdmaKind::Infiniband { &[] } else { addresses };
        let (rdma, view) = self.rdma_view().ok_or_else(lost)?;
        let found = rdma.found.clone().ok_or_else(lost)?;
        loop {
            let ports = rdma.socket(found.place, &view)?.ports(found.device.index);
            let ports = ports.map_err(AttachmentError::rdma(device))?;
            let port = ports.into_iter().min_by_key(|port| port.number);
            let number = port.as_ref().map_or(1, |port| port.number);
            let sysfs: &Sysfs = match found.place {
                Place::Host => view.sysfs,
                Place::Sandbox => &rdma.inside(&view)?.sysfs,
            };
            let mut gid_indexes = Vec::with_capacity(addresses.len());
            for address in addresses {
                let index = sysfs.gid_index(&found.device.name, number, *address);
                let index = index.map_err(AttachmentError::sysfs(device))?;
                gid_indexes.extend(index.map(|index| (*address, index)));
            }
            let active = port.is_some_and(|port| port.active);
            if active && gid_indexes.len() == addresses.len() {
                return Ok(ReadyRdma { name: found.device.name, gid_indexes });
            }
            if Instant::now() >= deadline {
                let has = |address: &&IpAddr| gid_indexes.iter().any(|(other, _)| other == *address);
                let missing = addresses.iter().filter(|address| !has(address)).copied().collect();
                return Err(AttachmentError::RdmaNotReady {
                    device,
                    rdma: found.device.name,
                    active,
                    missing,
                });
            }
            thread::sleep(RETURN_INTERVAL);
        }
    }

    /// The device nodes of the RDMA device, named below `/dev`: one for verbs, and for InfiniBand those of management
    /// datagrams and subnet managers.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn rdma_nodes(&mut self) -> Result<Vec<String>, AttachmentError> {
        let rdma_error = AttachmentError::rdma(self.device);
        let Some((rdma, view)) = self.rdma_view() else { return Ok(Vec::new()) };
        let Some(Found { place, device, .. }) = rdma.found.clone() else { return Ok(Vec::new()) };
        let socket = rdma.socket(place, &view)?;
        let mut nodes = Vec::from_iter(socket.node(device.index, None, "uverbs").map_err(rdma_error)?);
        let ports = if device.protocol == RdmaProtocol::InfiniBand { device.ports } else { 0 };
        for port in 1..=ports {
            for kind in ["umad", "issm"] {
                nodes.extend(socket.node(device.index, Some(port), kind).map_err(rdma_error)?);
            }
        }
        Ok(nodes.into_iter().map(|node| format!("infiniband/{}", node.name)).collect())
    }

    /// Waits for a netdev that is made anew on the host.
    pub(super) fn await_netdev(&mut self) -> Result<(), AttachmentError> {
        self.until_returned(AttachmentError::LinkLost { device: self.device }, |access| {
            let Some((place @ Place::Host, link)) = access.locate()? else { return Ok(false) };
            access.link = Some((place, link.index));
            Ok(true)
        })
    }

    /// Looks for what the kernel is about to return until `is_there`, or until it has taken too long, which is `lost`.
    fn until_returned(
        &mut self,
        lost: AttachmentError,
        is_there: impl Fn(&mut Self) -> Result<bool, AttachmentError>,
    ) -> Result<(), AttachmentError> {
        let deadline = Instant::now() + RETURN_TIMEOUT;
        while !is_there(self)? {
            if Instant::now() >= deadline {
                return Err(lost);
            }
            thread::sleep(RETURN_INTERVAL);
        }
        Ok(())
    }

    fn rdma_view(&mut self) -> Option<(&mut RdmaAccess, View<'_>)> {
        let Self { device, rdma, sysfs, host_netns, sandbox, .. } = self;
        let view = View { device: *device, sysfs, host_netns, sandbox: sandbox.as_ref() };
        rdma.as_mut().map(|rdma| (rdma, view))
    }
}
