//! An Intel ACC100, an accelerator for radio networks: SR-IOV without any network.

use super::{FakeFunction, SysfsTree, at};

impl FakeFunction {
    /// An ACC100 on NUMA node 1, driver `vfio-pci`.
    #[must_use]
    pub fn acc100_pf() -> Self {
        Self {
            address: at("0000:8a:00.0"),
            vendor: 0x8086,
            device: 0x0d5c,
            class: 0x12_0001,
            driver: Some("vfio-pci".to_owned()),
            numa_node: 1,
            iommu_group: Some(60),
            acpi_index: None,
            upstream: vec![at("0000:89:02.0")],
            netdevs: Vec::new(),
        }
    }

    /// VF `index` (0 to 7) of it, driver `vfio-pci`.
    #[must_use]
    pub fn acc100_vf(index: u8) -> Self {
        Self {
            address: at(&format!("0000:8b:00.{index}")),
            device: 0x0d5d,
            iommu_group: Some(61 + u32::from(index)),
            ..Self::acc100_pf()
        }
    }
}

impl SysfsTree {
    /// Adds an ACC100 with `vfs` of its VFs, up to 8, whose VFIO devices are `vfio<index>`.
    pub fn add_acc100(&self, vfs: u8) {
        let pf = FakeFunction::acc100_pf();
        self.add(&pf);
        self.enable_sriov(pf.address, 16);
        for index in 0..vfs {
            let vf = FakeFunction::acc100_vf(index);
            self.add(&vf);
            self.link_vf(pf.address, u16::from(index), vf.address);
            self.show_vfio(vf.address, u32::from(index));
        }
    }
}
