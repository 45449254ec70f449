//! A Broadcom BCM57508 network card on NUMA node 1. Its PFs and its VFs have RDMA, by a driver beside that of the netdev.

use super::{FakeFunction, FakeRdma, SysfsTree, at};

impl FakeFunction {
    /// Port `port` (0 or 1) of a BCM57508: `ens3f<port>np<port>`, driver `bnxt_en`.
    #[must_use]
    pub fn bnxt_pf(port: u8) -> Self {
        Self {
            address: at(&format!("0000:5e:00.{port}")),
            vendor: 0x14e4,
            device: 0x1750,
            class: 0x02_0000,
            driver: Some("bnxt_en".to_owned()),
            numa_node: 1,
            iommu_group: Some(60 + u32::from(port)),
            acpi_index: None,
            upstream: vec![at("0000:5d:00.0")],
            netdevs: vec![format!("ens3f{port}np{port}")],
        }
    }

    /// VF `index` (0 to 7) of that port: `ens3f<port>v<index>`.
    #[must_use]
    pub fn bnxt_vf(port: u8, index: u8) -> Self {
        Self {
            address: at(&format!("0000:5e:{:02x}.{index}", 2 + port)),
            device: 0x1806,
            iommu_group: Some(400 + 8 * u32::from(port) + u32::from(index)),
            netdevs: vec![format!("ens3f{port}v{index}")],
            ..Self::bnxt_pf(port)
        }
    }
}

impl SysfsTree {
    /// Adds port `port` of a BCM57508 with `vfs` of its VFs, up to 8. The RDMA device of the port is `bnxt_re<port>` and
    /// that of a VF `bnxt_re<N>`, where N is 2 + 8 · port + index; their nodes have the number 50 + N.
    pub fn add_bnxt(&self, port: u8, vfs: u8) {
        let pf = FakeFunction::bnxt_pf(port);
        self.add_bnxt_function(&pf, u32::from(port));
        self.enable_sriov(pf.address, 128);
        for index in 0..vfs {
            let vf = FakeFunction::bnxt_vf(port, index);
            self.add_bnxt_function(&vf, 2 + 8 * u32::from(port) + u32::from(index));
            self.link_vf(pf.address, u16::from(index), vf.address);
        }
    }

    fn add_bnxt_function(&self, function: &FakeFunction, number: u32) {
        self.add(function);
        let rdma = FakeRdma { name: format!("bnxt_re{number}"), number: 50 + number, infiniband: false };
        self.show_rdma(function.address, &rdma);
    }
}
