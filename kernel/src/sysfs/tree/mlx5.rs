//! A Mellanox ConnectX-6 card with two ports, behind a PCIe switch on NUMA node 1.

use zerobridge_proto::PciAddress;

use super::{FakeFunction, FakeRdma, SysfsTree, at};

/// How many VFs a port is configured to have in its firmware.
const VFS: u8 = 8;

impl FakeFunction {
    /// Port `port` (0 or 1) of a ConnectX-6: `ens1f<port>np<port>`, driver `mlx5_core`.
    #[must_use]
    pub fn mlx5_pf(port: u8) -> Self {
        Self {
            address: at(&format!("0000:3d:00.{port}")),
            vendor: 0x15b3,
            device: 0x101b,
            class: 0x02_0000,
            driver: Some("mlx5_core".to_owned()),
            numa_node: 1,
            iommu_group: Some(40 + u32::from(port)),
            acpi_index: None,
            upstream: ["0000:3a:00.0", "0000:3b:00.0", "0000:3c:08.0"].map(at).to_vec(),
            netdevs: vec![format!("ens1f{port}np{port}")],
        }
    }

    /// VF `index` (0 to 7) of that port: `ens1f<port>v<index>`. Its address is behind those of the ports.
    #[must_use]
    pub fn mlx5_vf(port: u8, index: u8) -> Self {
        let routing = 2 + VFS * port + index;
        Self {
            address: at(&format!("0000:3d:{:02x}.{}", routing >> 3, routing & 7)),
            device: 0x101e,
            iommu_group: Some(200 + u32::from(routing)),
            netdevs: vec![format!("ens1f{port}v{index}")],
            ..Self::mlx5_pf(port)
        }
    }
}

impl FakeRdma {
    /// The RDMA device of a ConnectX-6 port: `mlx5_<port>`, one port, its nodes with the same number.
    #[must_use]
    pub fn mlx5_pf(port: u8) -> Self {
        Self::numbered("mlx5_", u32::from(port))
    }

    /// The RDMA device of one of its VFs: `mlx5_<N>`, where N is 2 + 8 · port + index.
    #[must_use]
    pub fn mlx5_vf(port: u8, index: u8) -> Self {
        Self::numbered("mlx5_", u32::from(2 + VFS * port + index))
    }
}

impl SysfsTree {
    /// Adds port `port` of a ConnectX-6 with `vfs` of its 8 VFs, with Ethernet.
    pub fn add_mlx5(&self, port: u8, vfs: u8) {
        self.add_mlx5_port(port, vfs, false);
    }

    /// Adds port `port` of a ConnectX-6 with `vfs` of its 8 VFs, with InfiniBand: the netdevs are `ibs1f<port>` and
    /// `ibs1f<port>v<index>`.
    pub fn add_mlx5_infiniband(&self, port: u8, vfs: u8) {
        self.add_mlx5_port(port, vfs, true);
    }

    /// Adds a scalable function to a port that was added: auxiliary device `mlx5_core.sf.<id>`, netdev
    /// `ens1f<port>s<number>`, RDMA device `mlx5_<100 + id>`. Returns its name.
    pub fn add_mlx5_sf(&self, port: u8, id: u32, number: u32) -> String {
        let name = format!("mlx5_core.sf.{id}");
        self.add_auxiliary(FakeFunction::mlx5_pf(port).address, &name, Some("mlx5_core.sf"));
        self.write(&name, "sfnum", &format!("{number}\n"));
        self.show_netdev(&name, &format!("ens1f{port}s{number}"));
        self.show_rdma(&name, &FakeRdma::numbered("mlx5_", 100 + id));
        name
    }

    /// Adds an auxiliary device to a function.
    pub fn add_auxiliary(&self, parent: PciAddress, name: &str, driver: Option<&str>) {
        self.add_on_bus("auxiliary", parent, name);
        self.bind(name, driver);
    }

    /// Puts a port into switchdev mode, with one representor `ens1f<port>npf<port>vf<index>` per VF.
    pub fn switchdev_mlx5(&self, port: u8, vfs: u8) {
        let pf = FakeFunction::mlx5_pf(port).address;
        self.write(pf, &format!("net/ens1f{port}np{port}/phys_port_name"), &format!("p{port}\n"));
        for index in 0..vfs {
            let netdev = format!("ens1f{port}npf{port}vf{index}");
            self.show_netdev(pf, &netdev);
            self.write(pf, &format!("net/{netdev}/phys_port_name"), &format!("pf{port}vf{index}\n"));
        }
    }

    fn add_mlx5_port(&self, port: u8, vfs: u8, infiniband: bool) {
        let pf = FakeFunction::mlx5_pf(port);
        self.add_mlx5_function(pf.clone(), FakeRdma::mlx5_pf(port), infiniband);
        self.add_auxiliary(pf.address, &format!("mlx5_core.eth.{port}"), Some("mlx5_core.eth"));
        self.enable_sriov(pf.address, u16::from(VFS));
        for index in 0..vfs {
            let vf = FakeFunction::mlx5_vf(port, index);
            let address = vf.address;
            self.add_mlx5_function(vf, FakeRdma::mlx5_vf(port, index), infiniband);
            self.link_vf(pf.address, u16::from(index), address);
        }
    }

    fn add_mlx5_function(&self, function: FakeFunction, rdma: FakeRdma, infiniband: bool) {
        if !infiniband {
            self.add(&function);
            return self.show_rdma(function.address, &rdma);
        }
        let netdevs: Vec<String> = function.netdevs.iter().map(|name| infiniband_name(name)).collect();
        self.add(&FakeFunction { class: 0x02_0700, netdevs: netdevs.clone(), ..function });
        for netdev in netdevs {
            self.write(function.address, &format!("net/{netdev}/type"), "32\n");
        }
        self.show_rdma(function.address, &FakeRdma { infiniband: true, ..rdma });
    }
}

/// `ens1f0np0` is `ibs1f0` with InfiniBand, and `ens1f0v3` is `ibs1f0v3`.
fn infiniband_name(ethernet: &str) -> String {
    let name = ethernet.replacen("en", "ib", 1);
    name.split("np").next().unwrap_or_default().to_owned()
}
