//! RDMA devices: their ports, and their character devices.

use std::fmt::Display;
use std::fs;

use super::SysfsTree;

/// An RDMA device of one port to be shown in a [`SysfsTree`].
#[derive(Clone, Debug)]
pub struct FakeRdma {
    /// Its name.
    pub name: String,
    /// The number of its `uverbs` and `umad` nodes.
    pub number: u32,
    /// Whether its port speaks InfiniBand: then it has partition keys and an `issm` node.
    pub infiniband: bool,
}

impl FakeRdma {
    /// A RoCE device `<prefix><number>`.
    pub(super) fn numbered(prefix: &str, number: u32) -> Self {
        Self { name: format!("{prefix}{number}"), number, infiniband: false }
    }
}

impl SysfsTree {
    /// Shows an RDMA device on its device, with its nodes and an active port.
    pub fn show_rdma(&self, owner: impl Display, rdma: &FakeRdma) {
        self.show_rdma_at(&self.place(owner), rdma);
    }

    /// Shows an RDMA device that software makes of a netdev, as `rdma link add … type rxe netdev …` does. It is a part of
    /// no hardware.
    pub fn show_soft_rdma(&self, netdev: &str, rdma: &FakeRdma) {
        self.show_rdma_at("devices/virtual", rdma);
        let parent = self.root.join("class/infiniband").join(&rdma.name).join("parent");
        fs::write(parent, format!("{netdev}\n")).unwrap();
    }

    /// Hides an RDMA device with its nodes, as when it was moved into a pod.
    pub fn hide_rdma(&self, name: &str) {
        let nodes = ["infiniband_verbs", "infiniband_mad"].map(|class| format!("class/{class}"));
        for class in nodes {
            for node in self.names(&class) {
                let link = format!("{class}/{node}");
                let of = fs::read_to_string(self.root.join(&link).join("ibdev")).unwrap();
                if of.trim_end() == name {
                    self.retire_with_target(&link);
                }
            }
        }
        self.retire_with_target(&format!("class/infiniband/{name}"));
    }

    /// Sets the state of an RDMA device's port, such as `4: ACTIVE` or `1: DOWN`.
    pub fn port_state(&self, rdma: &str, state: &str) {
        self.write_port(rdma, "state", state);
    }

    /// Sets the default partition key of an RDMA device's port.
    pub fn default_pkey(&self, rdma: &str, pkey: u16) {
        self.write_port(rdma, "pkeys/0", &format!("0x{pkey:04x}"));
    }

    /// Shows a GID of an RDMA device's port, written as the kernel does, with its type.
    pub fn gid(&self, rdma: &str, index: u16, gid: &str, kind: &str) {
        let port = self.root.join(format!("class/infiniband/{rdma}/ports/1"));
        for folder in ["gids", "gid_attrs/types"] {
            fs::create_dir_all(port.join(folder)).unwrap();
        }
        self.write_port(rdma, &format!("gids/{index}"), gid);
        self.write_port(rdma, &format!("gid_attrs/types/{index}"), kind);
    }

    fn show_rdma_at(&self, place: &str, rdma: &FakeRdma) {
        let FakeRdma { name, number, infiniband } = rdma;
        self.link(&format!("class/infiniband/{name}"), &format!("{place}/infiniband/{name}"));
        let port = self.root.join(format!("class/infiniband/{name}/ports/1"));
        fs::create_dir_all(port.join("pkeys")).unwrap();
        fs::write(port.join("link_layer"), if *infiniband { "InfiniBand\n" } else { "Ethernet\n" }).unwrap();
        self.port_state(name, "4: ACTIVE");
        self.default_pkey(name, 0xffff);
        self.show_node(place, "infiniband_verbs", &format!("uverbs{number}"), name);
        self.show_node(place, "infiniband_mad", &format!("umad{number}"), name);
        if *infiniband {
            self.show_node(place, "infiniband_mad", &format!("issm{number}"), name);
        }
    }

    fn show_node(&self, place: &str, class: &str, node: &str, rdma: &str) {
        let folder = format!("{place}/{class}/{node}");
        self.link(&format!("class/{class}/{node}"), &folder);
        fs::write(self.root.join(folder).join("ibdev"), format!("{rdma}\n")).unwrap();
    }

    fn write_port(&self, rdma: &str, attribute: &str, text: &str) {
        let file = self.root.join(format!("class/infiniband/{rdma}/ports/1/{attribute}"));
        fs::write(file, format!("{text}\n")).unwrap();
    }

    fn retire_with_target(&self, link: &str) {
        let target = fs::read_link(self.root.join(link)).unwrap();
        let target = target.to_str().unwrap().trim_start_matches("../").to_owned();
        self.retire(link);
        self.retire(&target);
    }
}
