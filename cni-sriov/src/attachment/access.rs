//! Reaching one device: where it hangs, and a socket for each side that can see it.

use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use zerobridge_kernel::{
    AnnounceError, IfIndex, Link, Netns, NetnsError, RtnlError, RtnlSocket, Sysfs, SysfsError, VfAdmin,
    VfPosition, VlanTrunk, announce,
};
use zerobridge_proto::PciAddress;

use super::error::AttachmentError;
use super::rdma_access::RdmaAccess;
use super::state::{LinkState, Place, RdmaKind, VfState};

/// How long the kernel may take to return a netdev or an RDMA device from a namespace that died: it does so from a work queue,
/// some 60 ms after the last process has left, later on a busy machine.
pub(super) const RETURN_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a netdev that is nowhere is looked for again.
const RETURN_INTERVAL: Duration = Duration::from_millis(5);

/// One device within reach: everything to observe and change it.
#[derive(Debug)]
pub struct VfAccess {
    pub(super) device: PciAddress,
    /// Where it is administered; `None` for a device that is no VF.
    pub(super) port: Option<PfPort>,
    pub(super) host_netns: Netns,
    pub(super) host: RtnlSocket,
    pub(super) sandbox: Option<SandboxAccess>,
    /// Where the netdev was when it was last looked at or moved.
    pub(super) link: Option<(Place, IfIndex)>,
    pub(super) sysfs: Sysfs,
    /// `None` on a machine without the RDMA subsystem.
    pub(super) rdma: Option<RdmaAccess>,
}

/// A netdev, and the side that has it.
type Located = (Place, Link);

/// The PF's side of a VF.
#[derive(Clone, Copy, Debug)]
pub(super) struct PfPort {
    /// Which VF of which PF.
    pub(super) vf: VfPosition,
    /// The PF's link.
    pub(super) link: IfIndex,
}

/// The pod's side.
#[derive(Debug)]
pub(super) struct SandboxAccess {
    pub(super) netns: Netns,
    pub(super) rtnl: RtnlSocket,
}

impl VfAccess {
    /// Finds `device`, the PF of a VF, and opens the sockets. `sandbox` is the pod's network namespace while it lives.
    ///
    /// # Errors
    /// [`AttachmentError::NotANic`], [`AttachmentError::PfWithoutLink`], and what the kernel refuses.
    pub fn open(sysfs: &Sysfs, device: PciAddress, sandbox: Option<Netns>) -> Result<Self, AttachmentError> {
        let sysfs_error = AttachmentError::sysfs(device);
        let position = sysfs.vf_position(device).map_err(sysfs_error)?;
        if position.is_none() && !sysfs.is_network_controller(device).map_err(sysfs_error)? {
            return Err(AttachmentError::NotANic { device });
        }
        let rtnl_error = AttachmentError::rtnl(device);
        let netns_error = |source: NetnsError| AttachmentError::Netns { device, source };
        let open_sandbox = |netns: Netns| -> Result<_, RtnlError> {
            let rtnl = RtnlSocket::open_in(&netns)?;
            Ok(SandboxAccess { netns, rtnl })
        };
        let mut access = Self {
            device,
            port: None,
            host_netns: Netns::current().map_err(netns_error)?,
            host: RtnlSocket::open().map_err(rtnl_error)?,
            sandbox: sandbox.map(open_sandbox).transpose().map_err(rtnl_error)?,
            link: None,
            sysfs: sysfs.clone(),
            rdma: RdmaAccess::open(sysfs).map_err(AttachmentError::rdma(device))?,
        };
        access.find_port(position)?;
        Ok(access)
    }

    /// Which device this is.
    #[must_use]
    pub fn device(&self) -> PciAddress {
        self.device
    }

    /// Finds the link through which the VF is administered. A VF of a function with two ports tells which only while its
    /// netdev is on the host, so this is asked again when it has come home.
    pub(super) fn find_port(&mut self, position: Option<VfPosition>) -> Result<(), AttachmentError> {
        let device = self.device;
        let Some(vf) = position else { return Ok(()) };
        let no_pf_link = || AttachmentError::PfWithoutLink { device, pf: vf.pf };
        let netdev = self.sysfs.pf_netdev_of(device, vf.pf).map_err(|error| match error {
            SysfsError::NoPfNetdev { .. } => no_pf_link(),
            source => AttachmentError::Sysfs { device, source },
        })?;
        let link = self.host.link_by_name(&netdev).map_err(AttachmentError::rtnl(device))?;
        self.port = Some(PfPort { vf, link: link.ok_or_else(no_pf_link)?.index });
        Ok(())
    }

    /// What the kernel says of the device now.
    ///
    /// A netdev that is neither on the host nor in the pod is waited for when the pod's namespace is gone, because the
    /// kernel is then about to return it.
    ///
    /// # Errors
    /// [`AttachmentError::NoNetdev`] without any driver, [`AttachmentError::LinkLost`], and what the kernel refuses.
    pub fn observe(&mut self) -> Result<VfState, AttachmentError> {
        let state = self.look()?;
        if state.link.is_none() && state.driver.is_none() {
            return Err(AttachmentError::NoNetdev { device: self.device, driver: "no driver".to_owned() });
        }
        Ok(state)
    }

    /// As [`observe`](Self::observe), for a device that is about to become a pod's: a whole function that the host still
    /// uses is refused.
    ///
    /// # Errors
    /// As [`observe`](Self::observe), and [`AttachmentError::PfHasVfs`], [`AttachmentError::SeveralNetdevs`],
    /// [`AttachmentError::HostAddress`].
    pub fn observe_unattached(&mut self) -> Result<VfState, AttachmentError> {
        let device = self.device;
        if self.port.is_none() {
            let sysfs_error = AttachmentError::sysfs(device);
            let vfs = self.sysfs.vfs(device).map_err(sysfs_error)?.len();
            if vfs > 0 {
                return Err(AttachmentError::PfHasVfs { device, vfs });
            }
            let names = self.sysfs.netdevs_of(device).map_err(sysfs_error)?;
            if names.len() > 1 {
                return Err(AttachmentError::SeveralNetdevs { device, names });
            }
        }
        let mut state = self.observe()?;
        // What an ADD left that died before it had a record, or a namespace that is going away.
        if state.rdma.as_ref().is_some_and(|rdma| rdma.kind == RdmaKind::Soft) {
            self.remove_soft_rdma()?;
            state.rdma = None;
        }
        if let (None, Some((Place::Host, index)), Some(link)) = (&self.port, self.link, &state.link) {
            let addresses = self.host.addresses(index).map_err(AttachmentError::rtnl(device))?;
            if let Some(&address) = addresses.first() {
                return Err(AttachmentError::HostAddress { device, link: link.name.clone(), address });
            }
        }
        Ok(state)
    }

    /// As [`observe`](Self::observe), with a device without a driver being one without a netdev.
    pub(super) fn look(&mut self) -> Result<VfState, AttachmentError> {
        let device = self.device;
        let rtnl_error = AttachmentError::rtnl(device);
        let (driver, found) = self.locate_or_wait()?;
        self.link = found.as_ref().map(|(place, link)| (*place, link.index));
        let (admin, vlan_trunk) = self.imposed()?;
        let rdma = self.look_for_rdma(found.as_ref())?;
        let mut state = VfState {
            driver,
            admin,
            vlan_trunk,
            link: None,
            rdma,
            addresses: Vec::new(),
            routes: Vec::new(),
        };
        let Some((place, link)) = found else { return Ok(state) };
        if let (Place::Sandbox, Some(sandbox)) = (place, &mut self.sandbox) {
            state.addresses = sandbox.rtnl.addresses(link.index).map_err(rtnl_error)?;
            state.routes = sandbox.rtnl.routes(link.index).map_err(rtnl_error)?;
        }
        state.link = Some(LinkState {
            place,
            name: link.name,
            alt_names: link.alt_names.into_iter().collect(),
            alias: Some(link.alias),
            mac: link.mac.unwrap_or_default(),
            mtu: link.mtu,
            all_multicast: link.all_multicast,
            promiscuous: link.promiscuous,
            up: link.up,
        });
        Ok(state)
    }

    /// What the PF imposes on a VF; nothing on another device.
    fn imposed(&mut self) -> Result<(Option<VfAdmin>, Option<VlanTrunk>), AttachmentError> {
        let device = self.device;
        let Some(PfPort { vf, link }) = self.port else { return Ok((None, None)) };
        let admin = self.host.vf_admin(link, vf.index).map_err(AttachmentError::rtnl(device))?;
        let admin = admin.ok_or(AttachmentError::PfWithoutLink { device, pf: vf.pf })?;
        let trunk = self.sysfs.vlan_trunk(vf).map_err(AttachmentError::sysfs(device))?;
        Ok((Some(admin), trunk))
    }

    /// The device's driver, and its netdev unless the driver has none.
    fn locate_or_wait(&mut self) -> Result<(Option<String>, Option<Located>), AttachmentError> {
        let deadline = Instant::now() + RETURN_TIMEOUT;
        loop {
            let found = self.locate()?;
            let driver = self.sysfs.driver_of(self.device);
            let driver = driver.map_err(AttachmentError::sysfs(self.device))?;
            let of_network = driver.as_deref().is_some_and(|name| !is_userspace_driver(name));
            if found.is_some() || !of_network {
                return Ok((driver, found));
            }
            if self.sandbox.is_some() || Instant::now() >= deadline {
                return Err(AttachmentError::LinkLost { device: self.device });
            }
            thread::sleep(RETURN_INTERVAL);
        }
    }

    /// The netdev and the side that has it. On the host sysfs knows its name, whatever that has become; in the pod
    /// the kernel names the bus device behind each link.
    pub(super) fn locate(&mut self) -> Result<Option<Located>, AttachmentError> {
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

    /// Whether the pod's namespace has a link of this name that is not the device's.
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

    /// Waits until the netdev has a carrier, and returns it. `None` when it has none by `deadline`.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn wait_for_carrier(&mut self, deadline: Instant) -> Result<Option<Link>, AttachmentError> {
        let device = self.device;
        let mut pause = Duration::from_millis(1);
        loop {
            let (rtnl, index) = self.side()?;
            let link = rtnl.link_by_index(index).map_err(AttachmentError::rtnl(device))?;
            let link = link.ok_or(AttachmentError::LinkLost { device })?;
            if link.carrier {
                return Ok(Some(link));
            }
            if Instant::now() + pause > deadline {
                return Ok(None);
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// Tells the neighbours of `link`, the device's in the pod, that the addresses are there now.
    ///
    /// # Errors
    /// [`AnnounceError`].
    pub fn announce(&mut self, link: &Link, addresses: &[IpNet]) -> Result<(), AnnounceError> {
        match &mut self.sandbox {
            Some(SandboxAccess { netns, rtnl }) => announce(netns, rtnl, link, addresses),
            None => Ok(()),
        }
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
    matches!(name, "uio_pci_generic" | "igb_uio") || name.replace('_', "-").ends_with("vfio-pci")
}

#[cfg(test)]
mod tests {
    use zerobridge_kernel::testing::{FakeFunction, SysfsTree, TestNetns};

    use super::*;

    /// A tree with two PFs of an igb without VFs, on a host that has their netdevs.
    fn world() -> (tempfile::TempDir, SysfsTree, TestNetns) {
        let folder = tempfile::tempdir().unwrap();
        let tree = SysfsTree::new(folder.path());
        tree.add_igb(0, 0);
        let host = TestNetns::new();
        host.ip("link add enp1s0f0 type veth peer name cable");
        (folder, tree, host)
    }

    fn observed(tree: &SysfsTree, host: &TestNetns, device: PciAddress) -> Result<VfState, AttachmentError> {
        let sysfs = Sysfs::new(tree.root());
        host.netns().enter(|| VfAccess::open(&sysfs, device, None)?.observe_unattached()).unwrap()
    }

    #[test]
    fn a_whole_function_has_no_admin_state_and_a_netdev() {
        let (_folder, tree, host) = world();
        let state = observed(&tree, &host, FakeFunction::igb_pf(0).address).unwrap();
        assert_eq!((state.admin, state.driver.as_deref()), (None, Some("igb")));
        assert_eq!(
            state.link.map(|link| (link.place, link.name)),
            Some((Place::Host, "enp1s0f0".to_owned()))
        );
    }

    #[test]
    fn a_whole_function_that_is_in_use_is_refused_with_the_reason() {
        let pf = FakeFunction::igb_pf(0).address;
        let refusal = |prepare: &dyn Fn(&SysfsTree, &TestNetns)| {
            let (_folder, tree, host) = world();
            prepare(&tree, &host);
            observed(&tree, &host, pf).unwrap_err().to_string()
        };
        let with_vfs = refusal(&|tree, _| {
            tree.add_igb_vf(0, 0);
        });
        assert!(with_vfs.contains("has 1 VFs"), "{with_vfs}");
        let with_address = refusal(&|_, host| drop(host.ip("address add 192.0.2.7/24 dev enp1s0f0")));
        assert!(with_address.contains("enp1s0f0") && with_address.contains("192.0.2.7"), "{with_address}");
        let two_ports = refusal(&|tree, _| tree.show_netdev(pf, "enp1s0f0d1"));
        assert!(two_ports.contains("enp1s0f0, enp1s0f0d1"), "{two_ports}");
    }

    #[test]
    fn a_function_of_a_userspace_driver_has_no_netdev_and_one_without_a_driver_is_refused() {
        let (_folder, tree, host) = world();
        let pf = FakeFunction::igb_pf(0).address;
        tree.hide_netdev(pf, "enp1s0f0");
        for driver in ["vfio-pci", "uio_pci_generic", "igb_uio", "mlx5-vfio-pci"] {
            tree.bind(pf, Some(driver));
            assert_eq!(observed(&tree, &host, pf).unwrap().link, None, "{driver}");
        }
        tree.bind(pf, None);
        let error = observed(&tree, &host, pf).unwrap_err();
        assert!(matches!(error, AttachmentError::NoNetdev { .. }), "{error}");
        let bridge = "0000:00:01.0".parse().unwrap();
        let error = observed(&tree, &host, bridge).unwrap_err();
        assert!(matches!(error, AttachmentError::NotANic { .. }), "{error}");
    }
}
