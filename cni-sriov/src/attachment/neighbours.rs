//! What the device's link says of addresses: which ones it has, and which ones others have.

use std::net::IpAddr;

use ipnet::IpNet;
use zerobridge_kernel::{Holder, IfIndex, Netns, ProbeError, ProbePace, answering_gateways, foreign_holders};

use super::access::VfAccess;
use super::error::AttachmentError;
use super::state::Place;

impl VfAccess {
    /// The addresses that the netdev has in the pod.
    ///
    /// # Errors
    /// [`AttachmentError::LinkLost`] while it is not there, and what the kernel refuses.
    pub fn addresses(&mut self) -> Result<Vec<IpNet>, AttachmentError> {
        let device = self.device;
        let (rtnl, index) = self.side()?;
        rtnl.addresses(index).map_err(AttachmentError::rtnl(device))
    }

    /// Which of `addresses` foreign hosts have. The netdev must be in the pod and up, and have none of them.
    ///
    /// # Errors
    /// [`AttachmentError::LinkLost`] while it is not there, and what the kernel refuses.
    pub fn foreign_holders(
        &mut self,
        addresses: &[IpAddr],
        pace: &ProbePace,
    ) -> Result<Vec<Holder>, AttachmentError> {
        // The groups of an IPv6 address can be joined only where there is IPv6.
        if let Some(address) = addresses.iter().find(|address| address.is_ipv6()) {
            self.allow_ipv6((*address).into())?;
        }
        self.ask(|netns, index| foreign_holders(netns, index, addresses, pace))
    }

    /// Which gateways answer, of pairs of an address of the netdev and the gateway that it is to ask for.
    ///
    /// # Errors
    /// As [`foreign_holders`](Self::foreign_holders).
    pub fn answering_gateways(
        &mut self,
        pairs: &[(IpAddr, IpAddr)],
        pace: &ProbePace,
    ) -> Result<Vec<Holder>, AttachmentError> {
        self.ask(|netns, index| answering_gateways(netns, index, pairs, pace))
    }

    fn ask<T>(
        &self,
        question: impl FnOnce(&Netns, IfIndex) -> Result<T, ProbeError>,
    ) -> Result<T, AttachmentError> {
        let device = self.device;
        let (Some((Place::Sandbox, index)), Some(sandbox)) = (self.link, &self.sandbox) else {
            return Err(AttachmentError::LinkLost { device });
        };
        question(&sandbox.netns, index).map_err(|source| AttachmentError::Probe { device, source })
    }
}
