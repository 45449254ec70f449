//! The least that attaching a VF can cost: the requests to the kernel and nothing else. No configuration, no record, no
//! second look. What `make bench-lab` compares the CNI plugin with.
//!
//! `floor add|del PF INDEX VF NETNS IFNAME ADDRESS`, where `PF` and `VF` are the names of links of the host and `INDEX` is
//! the VF's number; `del` gives the VF back without VLAN and with spoof check, as the driver of the lab creates it.
#![forbid(unsafe_code)]

use std::error::Error;
use std::path::Path;

use zerobridge_kernel::{IfIndex, LinkChange, Netns, RtnlSocket, VfAdminChange, VlanProtocol, VlanTag};

const USAGE: &str = "usage: floor add|del PF INDEX VF NETNS IFNAME ADDRESS";
const VLAN: u16 = 100;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [command, pf, index, vf, netns, ifname, address] = arguments.as_slice() else {
        return Err(USAGE.into());
    };
    let home = Netns::current()?;
    let pod = Netns::open(Path::new(netns))?;
    let mut host = RtnlSocket::open()?;
    let mut sandbox = RtnlSocket::open_in(&pod)?;
    let pf = index_of(&mut host, pf)?;
    let admin = |id| VfAdminChange {
        vlan: Some(VlanTag { id, qos: 0, protocol: VlanProtocol::Dot1Q }),
        spoof_check: Some(true),
        ..VfAdminChange::default()
    };
    match command.as_str() {
        "add" => {
            host.change_vf_admin(pf, index.parse()?, &admin(VLAN))?;
            let link = index_of(&mut host, vf)?;
            let into = LinkChange { netns: Some(&pod), name: Some(ifname), ..LinkChange::default() };
            host.change_link(link, &into)?;
            let link = index_of(&mut sandbox, ifname)?;
            sandbox.add_address(link, address.parse()?)?;
            sandbox.change_link(link, &LinkChange { up: Some(true), ..LinkChange::default() })?;
        }
        "del" => {
            let link = index_of(&mut sandbox, ifname)?;
            let back =
                LinkChange { netns: Some(&home), name: Some(vf), up: Some(false), ..LinkChange::default() };
            sandbox.change_link(link, &back)?;
            host.change_vf_admin(pf, index.parse()?, &admin(0))?;
        }
        _ => return Err(USAGE.into()),
    }
    Ok(())
}

fn index_of(socket: &mut RtnlSocket, name: &str) -> Result<IfIndex, Box<dyn Error>> {
    Ok(socket.link_by_name(name)?.ok_or_else(|| format!("no interface {name}"))?.index)
}
