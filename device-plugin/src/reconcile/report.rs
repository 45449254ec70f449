//! What the daemon found and will not touch. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use zerobridge_kernel::{FunctionRole, Machine};
use zerobridge_ledger::{Attachment, Lease, Owner, UnixSeconds};
use zerobridge_proto::PciAddress;

/// Something that a person should know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Report {
    /// An attachment whose namespace is gone, while the kubelet still counts the VF as a pod's.
    HeldWithoutNamespace {
        /// The VF.
        device: PciAddress,
        /// Who had it.
        owner: Owner,
        /// The pods that hold it, each with its namespace.
        pods: Vec<String>,
    },
    /// An attachment whose namespace is gone, while the kubelet does not say what pods hold.
    HoldersUnknown {
        /// The VF.
        device: PciAddress,
        /// Who had it.
        owner: Owner,
    },
    /// An attachment of whose namespace nobody can say whether it still exists.
    NamespaceUnknown {
        /// The VF.
        device: PciAddress,
        /// Who has it.
        owner: Owner,
        /// Why nobody can say.
        reason: String,
    },
    /// A living container whose VF is no longer in the machine.
    DeviceGone {
        /// The VF.
        device: PciAddress,
        /// Who has it.
        owner: Owner,
    },
    /// An address that was leased together with a VF, without an attachment.
    LeaseAlone {
        /// The network.
        network: String,
        /// The address.
        address: IpAddr,
        /// Who had it.
        owner: Owner,
    },
    /// A VF on the host under the name that it had in a pod, of which there is no record.
    UnderPodName {
        /// The VF.
        device: PciAddress,
        /// Its netdev.
        netdev: String,
    },
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HeldWithoutNamespace { device, owner, pods } => {
                let pods = pods.join(" and ");
                write!(out, "the namespace of {owner} is gone, but VF {device} is still held by {pods}")
            }
            Self::HoldersUnknown { device, owner } => write!(
                out,
                "the namespace of {owner} is gone; VF {device} is given back when the kubelet says that no pod holds it"
            ),
            Self::NamespaceUnknown { device, owner, reason } => {
                write!(out, "nobody can say whether {owner}, which has VF {device}, still lives: {reason}")
            }
            Self::DeviceGone { device, owner } => {
                write!(out, "VF {device} of {owner}, which still lives, is no longer in the machine")
            }
            Self::LeaseAlone { network, address, owner } => {
                write!(out, "{owner} has no VF any more, and still address {address} of network {network}")
            }
            Self::UnderPodName { device, netdev } => {
                write!(out, "VF {device} is on the host as {netdev}, a name of pods, and has no record")
            }
        }
    }
}

impl Report {
    /// The VF that it is about.
    #[must_use]
    pub fn device(&self) -> Option<PciAddress> {
        match self {
            Self::HeldWithoutNamespace { device, .. }
            | Self::HoldersUnknown { device, .. }
            | Self::NamespaceUnknown { device, .. }
            | Self::DeviceGone { device, .. }
            | Self::UnderPodName { device, .. } => Some(*device),
            Self::LeaseAlone { .. } => None,
        }
    }
}

/// Leases that came with a VF and outlived its attachment: the two are written together and removed together. Leases
/// without a VF belong to other CNI plugins, and only these know whose they are.
pub(super) fn leases_alone<'a>(
    leases: &'a [Lease],
    attachments: &'a [Attachment],
    is_settled: impl Fn(UnixSeconds) -> bool + 'a,
) -> impl Iterator<Item = Report> + 'a {
    let owners: BTreeSet<&Owner> = attachments.iter().map(|record| &record.owner).collect();
    let alone = leases.iter().filter(move |lease| {
        lease.device.is_some() && is_settled(lease.created_at) && !owners.contains(&lease.owner)
    });
    alone.map(|lease| Report::LeaseAlone {
        network: lease.network.clone(),
        address: lease.address,
        owner: lease.owner.clone(),
    })
}

/// VFs without a record whose netdev has a name that it got in a pod: when a namespace dies, the kernel returns a netdev
/// under the name that it has there.
pub(super) fn under_pod_names<'a>(
    machine: &'a Machine,
    attachments: &'a [Attachment],
) -> impl Iterator<Item = Report> + 'a {
    let recorded: BTreeSet<PciAddress> = attachments.iter().map(|record| record.device).collect();
    let strays = machine.functions.values().filter(move |function| !recorded.contains(&function.address));
    strays.flat_map(|function| {
        let uplinks = match &function.role {
            FunctionRole::Virtual(position) => uplinks(machine, position.pf),
            _ => None,
        };
        let netdevs = function.netdevs.iter().map(|netdev| netdev.name.clone());
        let suspicious =
            netdevs.filter(move |name| uplinks.is_some_and(|uplinks| is_pod_name(name, uplinks)));
        suspicious.map(|netdev| Report::UnderPodName { device: function.address, netdev })
    })
}

fn uplinks(machine: &Machine, pf: PciAddress) -> Option<&[String]> {
    match &machine.functions.get(&pf)?.role {
        FunctionRole::Physical { uplinks, .. } => Some(uplinks),
        _ => None,
    }
}

/// Whether a netdev's name comes from a pod. `net<N>` is what Multus calls them, `dev<N>` what the kernel makes of a name
/// that is taken on the host (`default_device_exit_net` in net/core/dev.c). `eth<N>` is every pod's first interface, and
/// that of a host whose PFs are called so.
fn is_pod_name(name: &str, uplinks: &[String]) -> bool {
    numbered(name, "net")
        || numbered(name, "dev")
        || (numbered(name, "eth") && !uplinks.iter().any(|uplink| numbered(uplink, "eth")))
}

fn numbered(name: &str, prefix: &str) -> bool {
    let digits = name.strip_prefix(prefix).unwrap_or_default();
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use zerobridge_kernel::testing::SysfsTree;
    use zerobridge_kernel::{Scanner, Sysfs};

    use super::super::decision::fixture::{owner, record};
    use super::*;

    #[test]
    fn a_lease_is_alone_when_it_came_with_a_vf_that_its_owner_no_longer_has() {
        let record = record();
        let lease = Lease {
            network: "blue".to_owned(),
            address: "10.0.0.5".parse().unwrap(),
            owner: record.owner.clone(),
            pod: None,
            device: Some(record.device),
            mac: None,
            vlan: None,
            rdma: None,
            boot_id: record.boot_id.clone(),
            created_at: UnixSeconds(10),
        };
        let cases = [
            ("its owner has a VF", lease.clone(), false),
            ("its owner has none", Lease { owner: owner("c2"), ..lease.clone() }, true),
            ("another plugin's", Lease { owner: owner("c2"), device: None, ..lease.clone() }, false),
            ("just made", Lease { owner: owner("c2"), created_at: UnixSeconds(99), ..lease }, false),
        ];
        for (what, lease, is_alone) in cases {
            let (leases, attachments) = ([lease], [record.clone()]);
            let reports = leases_alone(&leases, &attachments, |since| since < UnixSeconds(90));
            let [lease] = &leases;
            let expected = is_alone.then(|| Report::LeaseAlone {
                network: "blue".to_owned(),
                address: lease.address,
                owner: lease.owner.clone(),
            });
            assert_eq!(reports.collect::<Vec<_>>(), Vec::from_iter(expected), "{what}");
        }
    }

    #[test]
    fn a_vf_under_a_pods_name_is_seen_unless_a_record_knows_it() {
        let record = record();
        for (name, pf_name, is_seen) in [
            ("net1", "enp1s0f0", true),
            ("dev17", "enp1s0f0", true),
            ("eth0", "enp1s0f0", true),
            ("eth0", "eth4", false),
            ("net1", "eth4", true),
            ("enp1s0f0v0", "enp1s0f0", false),
            ("net", "enp1s0f0", false),
            ("network0", "enp1s0f0", false),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let tree = SysfsTree::new(folder.path());
            tree.add_igb(0, 1);
            for (address, old, new) in
                [("0000:01:10.0", "enp1s0f0v0", name), ("0000:01:00.0", "enp1s0f0", pf_name)]
            {
                let address: PciAddress = address.parse().unwrap();
                tree.hide_netdev(address, old);
                tree.show_netdev(address, new);
            }
            let machine = Scanner::new(Sysfs::new(folder.path())).scan().unwrap();
            let expected =
                is_seen.then(|| Report::UnderPodName { device: record.device, netdev: name.to_owned() });
            assert_eq!(
                under_pod_names(&machine, &[]).collect::<Vec<_>>(),
                Vec::from_iter(expected),
                "{name} beside {pf_name}"
            );
            assert_eq!(
                under_pod_names(&machine, std::slice::from_ref(&record)).count(),
                0,
                "{name} with a record"
            );
        }
    }
}
