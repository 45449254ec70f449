//! An Intel 82576 network card with two ports, as QEMU emulates it.

use super::{FakeFunction, SysfsTree, at};
use zerobridge_proto::PciAddress;

impl FakeFunction {
    /// Port `port` (0 or 1) of an 82576: `enp1s0f<port>`, driver `igb`, NUMA node 0.
    #[must_use]
    pub fn igb_pf(port: u8) -> Self {
        Self {
            address: at(&format!("0000:01:00.{port}")),
            vendor: 0x8086,
            device: 0x10c9,
            class: 0x02_0000,
            driver: Some("igb".to_owned()),
            numa_node: 0,
            iommu_group: Some(1),
            acpi_index: None,
            upstream: vec![at("0000:00:01.0")],
            netdevs: vec![format!("enp1s0f{port}")],
        }
    }

    /// VF `index` (0 to 6) of that port, driver `igbvf`, NUMA node 0. The addresses are those of the hardware: first VF
    /// offset 0x80, VF stride 2.
    #[must_use]
    pub fn igb_vf(port: u8, index: u8) -> Self {
        let routing = 0x80 + 2 * u16::from(index) + u16::from(port);
        let (slot, function) = (routing >> 3, routing & 7);
        Self {
            address: at(&format!("0000:01:{slot:02x}.{function}")),
            device: 0x10ca,
            driver: Some("igbvf".to_owned()),
            iommu_group: Some(100 + u32::from(index) + 10 * u32::from(port)),
            netdevs: vec![format!("enp1s0f{port}v{index}")],
            ..Self::igb_pf(port)
        }
    }
}

impl SysfsTree {
    /// Adds port `port` of an 82576 with `vfs` of its 7 VFs.
    pub fn add_igb(&self, port: u8, vfs: u8) {
        let pf = FakeFunction::igb_pf(port);
        self.add(&pf);
        self.enable_sriov(pf.address, 7);
        for index in 0..vfs {
            self.add_igb_vf(port, index);
        }
    }

    /// Adds one VF to an 82576 port that [`SysfsTree::add_igb`] made. Returns its address.
    pub fn add_igb_vf(&self, port: u8, index: u8) -> PciAddress {
        let vf = FakeFunction::igb_vf(port, index);
        self.add(&vf);
        self.link_vf(FakeFunction::igb_pf(port).address, u16::from(index), vf.address);
        vf.address
    }
}
