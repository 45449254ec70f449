//! A machine with many cards, for measurements.

use zerobridge_proto::PciAddress;

use super::{FakeFunction, SysfsTree};

impl SysfsTree {
    /// Adds `cards` 82576-like PFs (1 to 31) with `vfs` VFs each (1 to 127), all of them with a netdev: the PFs are
    /// `enp16s0`, `enp17s0` and so on, `0000:10:00.0` and so on, and the VFs of the first begin at `0000:10:10.0`. Returns
    /// the last VF.
    pub fn add_large_machine(&self, cards: u8, vfs: u8) -> PciAddress {
        for card in 0..cards {
            let pf = FakeFunction { netdevs: vec![format!("enp{}s0", 0x10 + card)], ..function(card, 0) };
            self.add(&pf);
            self.enable_sriov(pf.address, 128);
            for index in 0..vfs {
                self.add_large_machine_vf(card, index);
            }
        }
        function(cards - 1, 0x7f + vfs).address
    }

    /// Adds one VF to a card that [`SysfsTree::add_large_machine`] made.
    pub fn add_large_machine_vf(&self, card: u8, index: u8) {
        let vf = FakeFunction {
            device: 0x10ca,
            driver: Some("igbvf".to_owned()),
            netdevs: vec![format!("enp{}s0v{index}", 0x10 + card)],
            ..function(card, 0x80 + index)
        };
        self.add(&vf);
        self.link_vf(function(card, 0).address, u16::from(index), vf.address);
    }
}

/// The function with a routing ID of its own on a card's bus. Every second card is at NUMA node 1.
fn function(card: u8, routing: u8) -> FakeFunction {
    let bus = 0x10 + card;
    FakeFunction {
        address: format!("0000:{bus:02x}:{:02x}.{}", routing >> 3, routing & 7).parse().unwrap(),
        numa_node: i32::from(card % 2),
        iommu_group: Some(u32::from(card) * 256 + u32::from(routing)),
        upstream: vec![format!("0000:00:{card:02x}.0").parse().unwrap()],
        ..FakeFunction::igb_pf(0)
    }
}
