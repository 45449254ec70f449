//! Which addresses that were found must be in the new ledger. Pure.
//!
//! An address belongs to the network and the owner that an attachment tells of its namespace, else those that the runtime
//! remembers. A device's address of which nobody tells the network is recorded in each network that is known: one address
//! too many in a pool is a small loss, and the same address twice a large one. Addresses of other interfaces that nobody
//! tells anything of are other plugins'.

use std::collections::BTreeSet;
use std::net::IpAddr;

use zerobridge_ledger::{Attachment, Lease, Owner, Pod, UnixSeconds};

use super::cached::Cached;
use super::living::Living;

/// What is known before.
#[derive(Debug)]
pub(crate) struct Known<'a> {
    pub(crate) attachments: &'a [Attachment],
    pub(crate) leases: &'a [Lease],
    pub(crate) cached: &'a [Cached],
    /// Networks that the operator named.
    pub(crate) networks: &'a [String],
    pub(crate) boot_id: &'a str,
    pub(crate) now: UnixSeconds,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Leases that the ledger lacks. Their addresses may rest in it, or be set aside.
    pub(crate) missing: Vec<Lease>,
    /// Addresses that the ledger has, for another owner than the one that uses them.
    pub(crate) of_others: Vec<(Lease, Owner)>,
    /// Addresses of which nobody knows in which network they are; where they stand.
    pub(crate) unplaced: Vec<(IpAddr, String)>,
    /// Devices in namespaces that have no attachment: nobody will restore what their PF imposes.
    pub(crate) unattached: Vec<String>,
}

/// Compares what was found with what is known.
pub(crate) fn plan(living: &[Living], known: &Known<'_>) -> Plan {
    let mut plan = Plan::default();
    let networks: BTreeSet<&str> = known
        .attachments
        .iter()
        .map(|attachment| attachment.network.as_str())
        .chain(known.leases.iter().map(|lease| lease.network.as_str()))
        .chain(known.cached.iter().map(|cached| cached.network.as_str()))
        .chain(known.networks.iter().map(String::as_str))
        .collect();
    for interface in living {
        let place = format!("{} in {}", interface.ifname, interface.path.display());
        let attachment = known.attachments.iter().find(|attachment| is_of(attachment, interface));
        if let Some(device) = interface.device.filter(|_| attachment.is_none()) {
            plan.unattached.push(format!("{device}, {place}"));
        }
        for address in interface.addresses.iter().map(ipnet::IpNet::addr) {
            let told = attachment
                .map(|it| (it.network.as_str(), it.owner.clone(), it.pod.clone()))
                .or_else(|| remembered(known.cached, interface, address));
            match told {
                Some((network, owner, pod)) => plan.record(known, interface, network, address, owner, pod),
                None if interface.device.is_none() => {}
                None if networks.is_empty() => plan.unplaced.push((address, place.clone())),
                None => {
                    let container_id = format!("unknown-{}", interface.netns.inode);
                    for network in &networks {
                        let owner =
                            Owner { container_id: container_id.clone(), ifname: interface.ifname.clone() };
                        plan.record(known, interface, network, address, owner, None);
                    }
                }
            }
        }
    }
    plan
}

impl Plan {
    fn record(
        &mut self,
        known: &Known<'_>,
        interface: &Living,
        network: &str,
        address: IpAddr,
        owner: Owner,
        pod: Option<Pod>,
    ) {
        let is_this = |lease: &&Lease| lease.network == network && lease.address == address;
        match known.leases.iter().chain(&self.missing).find(is_this) {
            // Whoever has it, it is not given out again. A guess is no reason to doubt the ledger.
            Some(lease) if lease.owner == owner || owner.container_id.starts_with("unknown-") => {}
            Some(lease) => self.of_others.push((lease.clone(), owner)),
            None => self.missing.push(Lease {
                network: network.to_owned(),
                address,
                owner,
                pod,
                device: interface.device,
                mac: interface.mac,
                vlan: None,
                rdma: None,
                boot_id: known.boot_id.to_owned(),
                created_at: known.now,
            }),
        }
    }
}

fn is_of(attachment: &Attachment, interface: &Living) -> bool {
    let (sandbox, netns) = (&attachment.sandbox, interface.netns);
    (sandbox.dev, sandbox.ino) == (netns.device, netns.inode)
        && (interface.device == Some(attachment.device) || attachment.owner.ifname == interface.ifname)
}

/// What the runtime remembers of an address. Old results stay when a DEL was lost, so the Ethernet address must fit, too,
/// where the result has one.
fn remembered<'a>(
    cached: &'a [Cached],
    interface: &Living,
    address: IpAddr,
) -> Option<(&'a str, Owner, Option<Pod>)> {
    let fits = |cached: &&Cached| {
        let same_mac = interface.mac.is_none_or(|mac| cached.macs.is_empty() || cached.macs.contains(&mac));
        cached.addresses.contains(&address) && cached.owner.ifname == interface.ifname && same_mac
    };
    let found = cached.iter().find(fits)?;
    Some((&found.network, found.owner.clone(), found.pod.clone()))
}

#[cfg(test)]
mod tests {
    use zerobridge_kernel::NetnsId;
    use zerobridge_ledger::Sandbox;

    use super::*;

    fn owner(container_id: &str) -> Owner {
        Owner { container_id: container_id.to_owned(), ifname: "eth0".to_owned() }
    }

    fn living(inode: u64, device: Option<&str>, addresses: &[&str]) -> Living {
        Living {
            netns: NetnsId { device: 4, inode },
            path: format!("/run/netns/n{inode}").into(),
            ifname: "eth0".to_owned(),
            mac: Some("02:00:00:00:00:01".parse().unwrap()),
            device: device.map(|device| device.parse().unwrap()),
            addresses: addresses.iter().map(|net| net.parse().unwrap()).collect(),
        }
    }

    fn attachment(inode: u64, device: &str, container_id: &str) -> Attachment {
        Attachment {
            device: device.parse().unwrap(),
            owner: owner(container_id),
            network: "blue".to_owned(),
            sandbox: Sandbox { path: "/run/netns/x".into(), dev: 4, ino: inode },
            pod: None,
            original: "{}".to_owned(),
            wanted: "{}".to_owned(),
            boot_id: "this".to_owned(),
            created_at: UnixSeconds(1),
        }
    }

    fn lease(network: &str, address: &str, container_id: &str) -> Lease {
        Lease {
            network: network.to_owned(),
            address: address.parse().unwrap(),
            owner: owner(container_id),
            pod: None,
            device: None,
            mac: None,
            vlan: None,
            rdma: None,
            boot_id: "this".to_owned(),
            created_at: UnixSeconds(1),
        }
    }

    fn cached(network: &str, container_id: &str, address: &str, mac: Option<&str>) -> Cached {
        Cached {
            network: network.to_owned(),
            owner: owner(container_id),
            pod: None,
            addresses: vec![address.parse().unwrap()],
            macs: mac.map(|mac| mac.parse().unwrap()).into_iter().collect(),
        }
    }

    fn known<'a>(attachments: &'a [Attachment], leases: &'a [Lease], cached: &'a [Cached]) -> Known<'a> {
        Known { attachments, leases, cached, networks: &[], boot_id: "this", now: UnixSeconds(9) }
    }

    /// Network, address and container of what is missing.
    fn missing(plan: &Plan) -> Vec<String> {
        let shown =
            |lease: &Lease| format!("{} {} {}", lease.network, lease.address, lease.owner.container_id);
        plan.missing.iter().map(shown).collect()
    }

    const VF: &str = "0000:01:10.0";

    #[test]
    fn an_address_that_an_attachment_tells_of_is_its_owners() {
        let attachments = [attachment(5, VF, "c1")];
        let leases = [lease("blue", "10.0.0.5", "c1")];
        let found = [living(5, Some(VF), &["10.0.0.5/24", "fd00::5/64"])];
        let plan = plan(&found, &known(&attachments, &leases, &[]));
        assert_eq!(missing(&plan), ["blue fd00::5 c1"]);
        assert_eq!((plan.missing[0].device, plan.missing[0].mac), (found[0].device, found[0].mac));
        assert_eq!((plan.unattached.len(), plan.unplaced.len()), (0, 0));
    }

    #[test]
    fn without_an_attachment_the_runtime_is_believed_where_the_ethernet_address_fits() {
        let cached = [
            cached("blue", "stale", "10.0.0.5", Some("02:00:00:00:00:99")),
            cached("green", "c1", "10.0.0.5", Some("02:00:00:00:00:01")),
            cached("green", "c2", "10.0.0.6", None),
        ];
        let found = [living(5, Some(VF), &["10.0.0.5/24"]), living(6, None, &["10.0.0.6/24"])];
        let plan = plan(&found, &known(&[], &[], &cached));
        assert_eq!(missing(&plan), ["green 10.0.0.5 c1", "green 10.0.0.6 c2"]);
        assert_eq!(plan.unattached, ["0000:01:10.0, eth0 in /run/netns/n5"]);
    }

    #[test]
    fn a_device_of_which_nobody_knows_the_network_keeps_its_address_from_all() {
        let leases = [lease("blue", "10.0.0.9", "c9"), lease("blue", "10.0.0.6", "c6")];
        let found =
            [living(5, Some(VF), &["10.0.0.5/24", "10.0.0.6/24"]), living(6, None, &["10.244.0.7/24"])];
        let named = ["green".to_owned()];
        let known = Known { networks: &named, ..known(&[], &leases, &[]) };
        let expected = ["blue 10.0.0.5 unknown-5", "green 10.0.0.5 unknown-5", "green 10.0.0.6 unknown-5"];
        assert_eq!(missing(&plan(&found, &known)), expected);
    }

    #[test]
    fn without_any_network_it_cannot_be_placed() {
        let found = [living(5, Some(VF), &["10.0.0.5/24"])];
        let plan = plan(&found, &known(&[], &[], &[]));
        assert_eq!(plan.missing, []);
        assert_eq!(plan.unplaced, [("10.0.0.5".parse().unwrap(), "eth0 in /run/netns/n5".to_owned())]);
    }

    #[test]
    fn one_that_the_ledger_has_for_another_is_told_and_left() {
        let cached = [cached("blue", "new", "10.0.0.5", None)];
        let leases = [lease("blue", "10.0.0.5", "old")];
        let found = [living(5, None, &["10.0.0.5/24"])];
        let plan = plan(&found, &known(&[], &leases, &cached));
        assert_eq!((missing(&plan).len(), plan.of_others.len()), (0, 1));
    }
}
