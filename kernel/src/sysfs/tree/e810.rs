//! An Intel E810 network card on NUMA node 0, on-board. Its PFs have RDMA, its VFs have none.

use super::{FakeFunction, FakeRdma, SysfsTree, at};

impl FakeFunction {
    /// Port `port` (0 or 1) of an E810: `eno<port + 1>np<port>`, driver `ice`, ACPI index `port + 1`.
    #[must_use]
    pub fn e810_pf(port: u8) -> Self {
        Self {
            address: at(&format!("0000:17:00.{port}")),
            vendor: 0x8086,
            device: 0x1592,
            class: 0x02_0000,
            driver: Some("ice".to_owned()),
            numa_node: 0,
            iommu_group: Some(20 + u32::from(port)),
            acpi_index: Some(u32::from(port) + 1),
            upstream: vec![at("0000:16:02.0")],
            netdevs: vec![format!("eno{}np{port}", port + 1)],
        }
    }

    /// VF `index` (0 to 7) of that port: `eno<port + 1>v<index>`, driver `iavf`.
    #[must_use]
    pub fn e810_vf(port: u8, index: u8) -> Self {
        Self {
            address: at(&format!("0000:17:{:02x}.{index}", 1 + port)),
            device: 0x1889,
            driver: Some("iavf".to_owned()),
            iommu_group: Some(300 + 8 * u32::from(port) + u32::from(index)),
            acpi_index: None,
            netdevs: vec![format!("eno{}v{index}", port + 1)],
            ..Self::e810_pf(port)
        }
    }
}

impl SysfsTree {
    /// Adds port `port` of an E810 with `vfs` of its VFs, up to 8, and the RDMA device `irdma<port>`, whose nodes have
    /// the number `30 + port`.
    pub fn add_e810(&self, port: u8, vfs: u8) {
        let pf = FakeFunction::e810_pf(port);
        self.add(&pf);
        self.enable_sriov(pf.address, 128);
        let number = 30 + u32::from(port);
        self.show_rdma(pf.address, &FakeRdma { name: format!("irdma{port}"), number, infiniband: false });
        for index in 0..vfs {
            let vf = FakeFunction::e810_vf(port, index);
            self.add(&vf);
            self.link_vf(pf.address, u16::from(index), vf.address);
        }
    }
}
