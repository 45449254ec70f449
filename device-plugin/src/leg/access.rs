//! Reaching one leg: what the kernel says of it, and doing what is missing.

use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use thiserror::Error;
use tracing::info;
use zerobridge_kernel::{IfIndex, Link, LinkChange, RtnlError, RtnlSocket, VlanLink, VlanProtocol};

use super::diff::{Operation, diff};
use super::place::{is_unfinished, leg_in_note, note, unfinished_name};
use super::state::{LegState, LinkState, Maker, Wish};

/// How often is looked again after something was done: once for an interface that is made, once for what somebody did
/// meanwhile, and once to see that nothing is missing.
const ROUNDS: u32 = 4;

/// How often a carrier is looked for while it is waited for.
const CARRIER_INTERVAL: Duration = Duration::from_millis(20);

/// Which interface a leg has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Interface {
    /// The link of this name.
    Named(String),
    /// The PF's interface for a VLAN, whatever it is called.
    Vlan(u16),
}

/// A leg within reach.
#[derive(Debug)]
pub(crate) struct LegAccess<'a> {
    pub(crate) rtnl: &'a mut RtnlSocket,
    /// The name of the PF's interface.
    pub(crate) port: &'a str,
    /// The leg's.
    pub(crate) interface: Interface,
}

/// Why a leg could not be looked at, or brought to what is wanted.
#[derive(Debug, Error)]
pub(crate) enum AccessError {
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] RtnlError),
    /// An interface that was there a moment ago.
    #[error("interface {name} is gone")]
    Gone {
        /// Its name.
        name: String,
    },
    /// Something else undoes what is done.
    #[error("something undoes what is set: {} {} still missing", missing.join(", "), if missing.len() == 1 { "is" } else { "are" })]
    NotConverged {
        /// What is missing still.
        missing: Vec<String>,
    },
}

impl LegAccess<'_> {
    /// What the kernel says.
    pub(crate) fn observe(&mut self) -> Result<LegState, AccessError> {
        let port = self.port()?;
        let link = self.link(&port)?;
        let addresses = match &link {
            Some((link, _)) => self.rtnl.addresses(link.index)?,
            None => Vec::new(),
        };
        let link = link.map(|(Link { name, mtu, up, carrier, .. }, maker)| LinkState {
            name,
            mtu,
            up,
            carrier,
            maker,
        });
        Ok(LegState { port_up: port.up, link, addresses })
    }

    fn port(&mut self) -> Result<Link, AccessError> {
        let gone = || AccessError::Gone { name: self.port.to_owned() };
        self.rtnl.link_by_name(self.port)?.ok_or_else(gone)
    }

    /// The leg's interface, if there is one, and who made it.
    fn link(&mut self, port: &Link) -> Result<Option<(Link, Maker)>, AccessError> {
        match &self.interface {
            Interface::Named(name) => {
                let link = self.rtnl.link_by_name(name)?;
                Ok(Some((link.ok_or_else(|| AccessError::Gone { name: name.clone() })?, Maker::Other)))
            }
            Interface::Vlan(id) => {
                let of_vlan = |vlan: &VlanLink| is_for(vlan, port.index, *id);
                let found = self.rtnl.vlan_links()?.into_iter().find(of_vlan);
                Ok(found.map(|vlan| {
                    let maker = maker_of(&vlan.link);
                    (vlan.link, maker)
                }))
            }
        }
    }

    /// The leg's interface as it is now.
    pub(crate) fn present(&mut self) -> Result<Link, AccessError> {
        let port = self.port()?;
        let gone = AccessError::Gone { name: format!("for the leg on {}", self.port) };
        self.link(&port)?.map(|(link, _)| link).ok_or(gone)
    }

    /// Brings the leg to what is wanted, and looks again until nothing is missing. Returns what it is then, and the addresses
    /// that were given to it.
    pub(crate) fn converge(&mut self, wish: &Wish) -> Result<(LegState, Vec<IpNet>), AccessError> {
        let mut added = Vec::new();
        for _ in 0..ROUNDS {
            let observed = self.observe()?;
            let missing = diff(&observed, wish);
            if missing.is_empty() {
                return Ok((observed, added));
            }
            for operation in missing {
                let done = self.apply(&operation, wish);
                if let (Operation::Make, Err(AccessError::Kernel(error))) = (&operation, &done)
                    && error.is_present()
                {
                    // Somebody else was faster, and what he made is found by the next look.
                    continue;
                }
                done?;
                info!(leg = wish.leg, port = self.port, "{operation}");
                if let Operation::AddAddress(address) = operation {
                    added.push(address);
                }
            }
        }
        let missing = diff(&self.observe()?, wish);
        Err(AccessError::NotConverged { missing: missing.iter().map(ToString::to_string).collect() })
    }

    fn apply(&mut self, operation: &Operation, wish: &Wish) -> Result<(), AccessError> {
        let port = self.port()?;
        match (operation, &self.interface) {
            (Operation::RaisePort, _) => {
                return Ok(self.rtnl.change_link(port.index, &up())?);
            }
            (Operation::Make, Interface::Vlan(id)) => {
                let name = unfinished_name(port.index, *id);
                return Ok(self.rtnl.add_vlan_link(port.index, *id, &name)?);
            }
            _ => {}
        }
        let index = self.present()?.index;
        let note = note(&wish.leg);
        match operation {
            // Both in one request, so that whoever dies leaves one of the two marks.
            Operation::Finish { name } => {
                let change = LinkChange { name: Some(name), alias: Some(&note), ..LinkChange::default() };
                self.rtnl.change_link(index, &change)?;
            }
            Operation::Note => {
                self.rtnl.change_link(index, &LinkChange { alias: Some(&note), ..LinkChange::default() })?;
            }
            Operation::SetMtu(mtu) => {
                self.rtnl.change_link(index, &LinkChange { mtu: Some(*mtu), ..LinkChange::default() })?;
            }
            Operation::Raise => self.rtnl.change_link(index, &up())?,
            Operation::DeleteAddress(address) => self.rtnl.delete_address(index, *address)?,
            Operation::AddAddress(address) => self.rtnl.add_address(index, *address)?,
            Operation::RaisePort | Operation::Make => {}
        }
        Ok(())
    }

    /// Waits until the interface has a carrier. `None` when it has none by `deadline`.
    pub(crate) fn wait_for_carrier(&mut self, deadline: Instant) -> Result<Option<Link>, AccessError> {
        loop {
            let link = self.present()?;
            if link.carrier {
                return Ok(Some(link));
            }
            if Instant::now() + CARRIER_INTERVAL > deadline {
                return Ok(None);
            }
            thread::sleep(CARRIER_INTERVAL);
        }
    }
}

/// Whether a VLAN interface is that of a port for a VLAN. One of 802.1ad is for another wire.
pub(crate) fn is_for(vlan: &VlanLink, port: IfIndex, id: u16) -> bool {
    vlan.lower == port && vlan.id == id && vlan.protocol == VlanProtocol::Dot1Q
}

/// Who made a VLAN interface.
pub(crate) fn maker_of(link: &Link) -> Maker {
    match leg_in_note(&link.alias) {
        Some(leg) => Maker::Own { leg: leg.to_owned() },
        None if is_unfinished(&link.name) => Maker::Unfinished,
        None => Maker::Other,
    }
}

fn up() -> LinkChange<'static> {
    LinkChange { up: Some(true), ..LinkChange::default() }
}
