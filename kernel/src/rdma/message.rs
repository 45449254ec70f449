//! A message of the RDMA subsystem's netlink protocol: a kind that names client and command, then attributes.
//!
//! Layout and numbers: the kernel's `rdma/rdma_netlink.h`.

use netlink_packet_core::{
    DecodeError, DefaultNla, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable,
};

use crate::netlink::attributes::{Attributes, encoded};

/// `RDMA_NL_NLDEV`: the client of the protocol that speaks of devices.
const DEVICES: u16 = 5;

/// `RDMA_NL_GET_TYPE`: the client stands above the command.
const CLIENT_SHIFT: u32 = 10;

/// `enum rdma_nldev_command`.
pub(super) mod command {
    pub(in crate::rdma) const GET: u16 = 1;
    pub(in crate::rdma) const SET: u16 = 2;
    pub(in crate::rdma) const NEW_LINK: u16 = 3;
    pub(in crate::rdma) const DEL_LINK: u16 = 4;
    pub(in crate::rdma) const PORT_GET: u16 = 5;
    pub(in crate::rdma) const SYS_GET: u16 = 6;
    pub(in crate::rdma) const RES_GET: u16 = 9;
    pub(in crate::rdma) const GET_CHARDEV: u16 = 15;
}

/// `enum rdma_nldev_attr`.
pub(super) mod attribute {
    pub(in crate::rdma) const DEV_INDEX: u16 = 1;
    pub(in crate::rdma) const DEV_NAME: u16 = 2;
    pub(in crate::rdma) const PORT_INDEX: u16 = 3;
    pub(in crate::rdma) const NODE_GUID: u16 = 6;
    pub(in crate::rdma) const PORT_STATE: u16 = 12;
    pub(in crate::rdma) const RES_SUMMARY: u16 = 15;
    pub(in crate::rdma) const RES_SUMMARY_ENTRY: u16 = 16;
    pub(in crate::rdma) const RES_SUMMARY_ENTRY_NAME: u16 = 17;
    pub(in crate::rdma) const RES_SUMMARY_ENTRY_CURR: u16 = 18;
    pub(in crate::rdma) const NDEV_INDEX: u16 = 50;
    pub(in crate::rdma) const NDEV_NAME: u16 = 51;
    pub(in crate::rdma) const LINK_TYPE: u16 = 65;
    pub(in crate::rdma) const NETNS_MODE: u16 = 66;
    pub(in crate::rdma) const DEV_PROTOCOL: u16 = 67;
    pub(in crate::rdma) const NET_NS_FD: u16 = 68;
    pub(in crate::rdma) const CHARDEV_TYPE: u16 = 69;
    pub(in crate::rdma) const CHARDEV_NAME: u16 = 70;
    pub(in crate::rdma) const CHARDEV: u16 = 72;
}

/// A request to the kernel, or a part of its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RdmaMessage {
    kind: u16,
    attributes: Vec<u8>,
}

impl RdmaMessage {
    pub(super) fn request(command: u16, attributes: &[DefaultNla]) -> Self {
        Self { kind: (DEVICES << CLIENT_SHIFT) | command, attributes: encoded(attributes) }
    }

    pub(super) fn attributes(&self) -> Attributes<'_> {
        Attributes::of(&self.attributes)
    }
}

/// A text attribute, with the zero byte that ends it.
pub(super) fn text(kind: u16, value: &str) -> DefaultNla {
    DefaultNla::new(kind, [value.as_bytes(), b"\0"].concat())
}

/// A number attribute.
pub(super) fn number(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_ne_bytes().to_vec())
}

impl NetlinkSerializable for RdmaMessage {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.attributes.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer[..self.attributes.len()].copy_from_slice(&self.attributes);
    }
}

impl NetlinkDeserializable for RdmaMessage {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self { kind: header.message_type, attributes: payload.to_vec() })
    }
}
