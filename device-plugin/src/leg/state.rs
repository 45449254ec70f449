//! One leg, described completely: what the kernel says of it, and what is wanted.

use std::net::IpAddr;

use ipnet::IpNet;

/// What the kernel says of a leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LegState {
    /// The PF's interface is administratively up.
    pub(crate) port_up: bool,
    /// The leg's interface; `None` for a VLAN interface that is not there.
    pub(crate) link: Option<LinkState>,
    /// The addresses that somebody gave it.
    pub(crate) addresses: Vec<IpNet>,
}

/// The interface of a leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LinkState {
    /// Its name.
    pub(crate) name: String,
    /// MTU in bytes.
    pub(crate) mtu: u32,
    /// Administratively up.
    pub(crate) up: bool,
    /// It has a carrier.
    pub(crate) carrier: bool,
    /// Who made it.
    pub(crate) maker: Maker,
}

/// Who made an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Maker {
    /// This program, for the leg of this name.
    Own {
        /// The leg.
        leg: String,
    },
    /// This program, which died before it wrote so.
    Unfinished,
    /// Somebody else, or it is hardware: it is used and stays when the leg goes.
    Other,
}

/// What is wanted of a leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// The leg's name.
    pub(crate) leg: String,
    /// The name of the VLAN interface that is made where there is none; `None` for a leg of another kind.
    pub(crate) made: Option<String>,
    /// MTU in bytes of an interface that is made.
    pub(crate) mtu: Option<u32>,
    /// Addresses that it has to have.
    pub(crate) addresses: Vec<IpNet>,
    /// Addresses that were its own and are no more. Others are not ours to judge.
    pub(crate) superseded: Vec<IpAddr>,
}
