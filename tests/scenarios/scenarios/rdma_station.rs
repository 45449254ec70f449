//! A VF in a namespace of its own with a software RDMA device on it, made by hand as a CNI plugin would have to.

use std::error::Error;

use zerobridge_lab::{Guest, VerbsEnd};

use crate::group::Outcome;
use crate::lab::Station;

/// Given back by [`RdmaStation::remove`].
pub(crate) struct RdmaStation {
    station: Station,
    pub(crate) device: String,
    /// What programs use.
    pub(crate) end: VerbsEnd,
}

impl RdmaStation {
    /// VF `index` of the first card, with the address 10.9.0.`host`. In exclusive mode its device is where the kernel
    /// leaves it, in the node's RDMA namespace.
    pub(crate) fn add(
        guest: &mut Guest,
        namespace: &'static str,
        index: u32,
        vlan: u16,
        host: u8,
    ) -> Result<Self, Box<dyn Error>> {
        let station = Station::add(guest, namespace, 1, index, vlan, host)?;
        let device = format!("rxe{host}");
        guest.add_rxe(namespace, &device, &netdev(index))?;
        let end = VerbsEnd::in_namespace(namespace, &device, &format!("10.9.0.{host}"));
        Ok(Self { station, device, end })
    }

    /// The kernel ends the device when the VF leaves it.
    pub(crate) fn remove(self, guest: &mut Guest) -> Outcome {
        self.station.remove(guest)?;
        guest.wait_rdma_gone(&self.device, &[zerobridge_lab::HOST])?;
        Ok(())
    }
}

/// What a VF of the first card is called, in a station too.
pub(crate) fn netdev(index: u32) -> String {
    format!("enp1s0v{index}")
}
