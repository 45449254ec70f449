//! Reaching one VF: where it hangs, and a socket for each side that can see it.

use std::thread;
use std::time::{Duration, Instant};

use zerobridge_kernel::{IfIndex, Link, Netns, NetnsError, RtnlError, RtnlSocket, Sysfs, SysfsError};
use zerobridge_proto::PciAddress;

use super::error::AttachmentError;
use super::state::{LinkState, Place, VfState};

/// How long the kernel may take to return a netdev from a namespace that died: it does so from a work queue, some 60 ms
/// after the last process has left, later on a busy machine.
const RETURN_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a netdev that is nowhere is looked for again.
const RETURN_INTERVAL: Duration = Duration::from_millis(5);

/// One VF within reach: everything to observe and change it.
#[derive(Debug)]
pub struct VfAccess {
    pub(super) device: PciAddress,
    pub(super) index: u16,
    pub(super) pf: IfIndex,
    pub(super) host_netns: Netns,
    pub(super) host: RtnlSocket,
    pub(super) sandbox: Option<SandboxAccess>,
    /// Where the netdev was when it was last looked at or moved.
    pub(super) link: Option<(Place, IfIndex)>,
    sysfs: Sysfs,
}

/// The pod's side.
#[derive(Debug)]
pub(super) struct SandboxAccess {
    pub(super) netns: Netns,
    pub(super) rtnl: RtnlSocket,
}

impl VfAccess {
    /// Finds VF `device`, its PF, and opens the sockets. `sandbox` is the pod's network namespace while it lives.
    ///
    /// # Errors
    /// [`AttachmentError::NotAVf`], [`AttachmentError::PfWithoutLink`], and what the kernel refuses.
    pub fn open(sysfs: &Sysfs, device: PciAddress, sandbox: Option<Netns>) -> Result<Self, AttachmentError> {
        let sysfs_error = AttachmentError::sysfs(device);
        let position = sysfs.vf_position(device).map_err(sysfs_error)?;
        let position = position.ok_or(AttachmentError::NotAVf { device })?;
        let no_pf_link = || AttachmentError::PfWithoutLink { device, pf: position.pf };
        let pf_netdev = sysfs.pf_netdev(position.pf).map_err(|error| match error {
            SysfsError::NoPfNetdev { .. } => no_pf_link(),
            source => sysfs_error(source),
        })?;
        let rtnl_error = AttachmentError::rtnl(device);
        let netns_error = |source: NetnsError| AttachmentError::Netns { device, source };
        let mut host = RtnlSocket::open().map_err(rtnl_error)?;
        let pf = host.link_by_name(&pf_netdev).map_err(rtnl_error)?.ok_or_else(no_pf_link)?.index;
        let open_sandbox = |netns: Netns| -> Result<_, RtnlError> {
            let rtnl = RtnlSocket::open_in(&netns)?;
            Ok(SandboxAccess { netns, rtnl })
        };
        Ok(Self {
            device,
            index: position.index,
            pf,
            host_netns: Netns::current().map_err(netns_error)?,
            host,
            sandbox: sandbox.map(open_sandbox).transpose().map_err(rtnl_error)?,
            link: None,
            sysfs: sysfs.clone(),
        })
    }

    /// What the kernel says of the VF now.
    ///
    /// A netdev that is neither on the host nor in the pod is waited for when the pod's namespace is gone, because the
    /// kernel is then about to return it.
    ///
    /// # Errors
    /// [`AttachmentError::NoNetdev`], [`AttachmentError::LinkLost`], and what the kernel refuses.
    pub fn observe(&mut self) -> Result<VfState, AttachmentError> {
        let device = self.device;
        let rtnl_error = AttachmentError::rtnl(device);
        let (place, link) = self.locate_or_wait()?;
        self.link = Some((place, link.index));
        let admin = self.host.vf_admin(self.pf, self.index).map_err(rtnl_error)?;
        let admin = admin.ok_or(AttachmentError::NotAVf { device })?;
        let mut state = VfState {
            admin,
            link: LinkState {
                place,
                name: link.name,
                alt_names: link.alt_names.into_iter().collect(),
                mac: link.mac.unwrap_or_default(),
                mtu: link.mtu,
                up: link.up,
            },
            addresses: Vec::new(),
            routes: Vec::new(),
        };
        if let (Place::Sandbox, Some(sandbox)) = (place, &mut self.sandbox) {
            state.addresses = sandbox.rtnl.addresses(link.index).map_err(rtnl_error)?;
            state.routes = sandbox.rtnl.routes(link.index).map_err(rtnl_error)?;
        }
        Ok(state)
    }

    fn locate_or_wait(&mut self) -> Result<(Place, Link), AttachmentError> {
        let deadline = Instant::now() + RETURN_TIMEOUT;
        loop {
            if let Some(found) = self.locate()? {
                return Ok(found);
            }
            let driver = self.sysfs.driver_of(self.device);
            let driver = driver.map_err(AttachmentError::sysfs(self.device))?;
            let may_return =
                self.sandbox.is_none() && driver.as_deref().is_some_and(|name| !is_userspace_driver(name));
            if may_return && Instant::now() < deadline {
                thread::sleep(RETURN_INTERVAL);
                continue;
            }
            return Err(match driver {
                Some(driver) if !is_userspace_driver(&driver) => {
                    AttachmentError::LinkLost { device: self.device }
                }
                driver => AttachmentError::NoNetdev {
                    device: self.device,
                    driver: driver.unwrap_or_else(|| "no driver".to_owned()),
                },
            });
        }
    }

    /// The VF's netdev and the side that has it. On the host sysfs knows its name, whatever that has become; in the pod
    /// the kernel names the bus device behind each link.
    fn locate(&mut self) -> Result<Option<(Place, Link)>, AttachmentError> {
        let device = self.device;
        let rtnl_error = AttachmentError::rtnl(device);
        let names = self.sysfs.netdevs_of(device).map_err(AttachmentError::sysfs(device))?;
        for name in names {
            if let Some(link) = self.host.link_by_name(&name).map_err(rtnl_error)? {
                return Ok(Some((Place::Host, link)));
            }
        }
        let Some(sandbox) = &mut self.sandbox else { return Ok(None) };
        let address = device.to_string();
        let links = sandbox.rtnl.links().map_err(rtnl_error)?;
        let found = links.into_iter().find(|link| link.parent.as_deref() == Some(&address));
        Ok(found.map(|link| (Place::Sandbox, link)))
    }

    /// Whether the pod's namespace has a link of this name that is not the VF.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn sandbox_has_other(&mut self, name: &str) -> Result<bool, AttachmentError> {
        let device = self.device;
        let Some(sandbox) = &mut self.sandbox else { return Ok(false) };
        let link = sandbox.rtnl.link_by_name(name);
        let link = link.map_err(AttachmentError::rtnl(device))?;
        let address = device.to_string();
        Ok(link.is_some_and(|link| link.parent.as_deref() != Some(&address)))
    }

    /// Waits until the netdev has a carrier. `false` when it has none by `deadline`.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn wait_for_carrier(&mut self, deadline: Instant) -> Result<bool, AttachmentError> {
        let device = self.device;
        let mut pause = Duration::from_millis(1);
        loop {
            let (rtnl, index) = self.side()?;
            let link = rtnl.link_by_index(index).map_err(AttachmentError::rtnl(device))?;
            if link.ok_or(AttachmentError::LinkLost { device })?.carrier {
                return Ok(true);
            }
            if Instant::now() + pause > deadline {
                return Ok(false);
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// The pod's network namespace, while it lives.
    #[must_use]
    pub fn sandbox_netns(&self) -> Option<&Netns> {
        self.sandbox.as_ref().map(|sandbox| &sandbox.netns)
    }

    /// The socket of the side that has the netdev, and its index there.
    pub(super) fn side(&mut self) -> Result<(&mut RtnlSocket, IfIndex), AttachmentError> {
        let lost = AttachmentError::LinkLost { device: self.device };
        match (self.link, &mut self.sandbox) {
            (Some((Place::Host, index)), _) => Ok((&mut self.host, index)),
            (Some((Place::Sandbox, index)), Some(sandbox)) => Ok((&mut sandbox.rtnl, index)),
            _ => Err(lost),
        }
    }
}

/// Drivers that take a function away from the network stack for a program in user space.
fn is_userspace_driver(name: &str) -> bool {
    matches!(name, "vfio-pci" | "uio_pci_generic" | "igb_uio") || name.ends_with("-vfio-pci")
}
