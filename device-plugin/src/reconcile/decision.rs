//! What to do about one record: pure judgement over what the kernel, the kubelet and the ledger say.

use std::fmt;
use std::time::Duration;

use zerobridge_kernel::Machine;
use zerobridge_ledger::{Attachment, UnixSeconds};

use super::report::Report;
use super::sandbox::Fate;
use crate::pod_resources::Held;

/// What is known at one moment, beside the records.
#[derive(Clone, Copy, Debug)]
pub(super) struct Situation<'a> {
    /// The present boot.
    pub(super) boot_id: &'a str,
    /// What pods hold, if the kubelet says.
    pub(super) held: Option<&'a Held>,
    /// The devices.
    pub(super) machine: &'a Machine,
    /// The time.
    pub(super) now: UnixSeconds,
    /// How old a promise must be before anything is concluded from it: a call that is under way needs its time.
    pub(super) grace: Duration,
}

/// What to do about one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: it is in use, or too young to tell.
    Keep,
    /// End the attachment.
    Repair(Cause),
    /// Leave it, and say so.
    Report(Report),
}

/// Why an attachment is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// It was made before the node booted.
    EarlierBoot,
    /// Its namespace is gone, and no pod holds the VF.
    Abandoned,
}

impl Situation<'_> {
    /// What to do about `record`, given what became of its namespace.
    pub(super) fn decide(&self, record: &Attachment, namespace: &Fate) -> Decision {
        // No owner outlives its boot, so nobody has to be asked.
        if record.boot_id != self.boot_id {
            return Decision::Repair(Cause::EarlierBoot);
        }
        let (device, owner) = (record.device, record.owner.clone());
        match namespace {
            Fate::Lives if self.machine.functions.contains_key(&device) => return Decision::Keep,
            Fate::Lives => return Decision::Report(Report::DeviceGone { device, owner }),
            Fate::Unknown { reason } => {
                return Decision::Report(Report::NamespaceUnknown { device, owner, reason: reason.clone() });
            }
            Fate::Gone if !self.is_settled(record.created_at) => return Decision::Keep,
            Fate::Gone => {}
        }
        let Some(held) = self.held else { return Decision::Report(Report::HoldersUnknown { device, owner }) };
        let mut pods: Vec<String> = held
            .holders_of(device)
            .iter()
            .map(|holder| format!("pod {}/{}", holder.namespace, holder.pod))
            .collect();
        pods.sort();
        pods.dedup();
        if pods.is_empty() {
            return Decision::Repair(Cause::Abandoned);
        }
        Decision::Report(Report::HeldWithoutNamespace { device, owner, pods })
    }

    /// Whether a promise of this time is old enough. One from the future is not: the clock was set.
    pub(super) fn is_settled(&self, since: UnixSeconds) -> bool {
        let age = u64::try_from(self.now.0.saturating_sub(since.0));
        age.is_ok_and(|age| age >= self.grace.as_secs())
    }
}

impl Cause {
    /// Its name for a metric.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::EarlierBoot => "earlierBoot",
            Self::Abandoned => "abandoned",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::EarlierBoot => "it was attached before the node booted",
            Self::Abandoned => "its namespace is gone and no pod holds it",
        })
    }
}

#[cfg(test)]
pub(super) mod fixture {
    //! A record to test with.

    use zerobridge_ledger::{Owner, Sandbox};
    use zerobridge_proto::podresources::{ContainerDevices, ContainerResources, PodResources};

    use super::*;

    pub(in super::super) fn owner(container_id: &str) -> Owner {
        Owner { container_id: container_id.to_owned(), ifname: "eth0".to_owned() }
    }

    /// The first VF of the first port, attached at 10 to `eth0` of container `c1`, in the boot `this`.
    pub(in super::super) fn record() -> Attachment {
        Attachment {
            device: "0000:01:10.0".parse().unwrap(),
            owner: owner("c1"),
            network: "blue".to_owned(),
            sandbox: Sandbox { path: "/run/netns/absent".into(), dev: 4, ino: 5 },
            pod: None,
            original: ORIGINAL.to_owned(),
            wanted: ORIGINAL.to_owned(),
            boot_id: "this".to_owned(),
            created_at: UnixSeconds(10),
        }
    }

    /// A VF as the ledger keeps it.
    const ORIGINAL: &str = r#"{
        "admin": {"mac": "02:00:00:00:00:01", "vlan": {"id": 0, "qos": 0, "protocol": "802.1q"}, "spoof_check": true,
                  "trust": false, "link_state": "auto", "min_tx_rate": 0, "max_tx_rate": 0},
        "link": {"place": "host", "name": "enp1s0f0v0", "alt_names": [], "mac": "02:00:00:00:00:01", "mtu": 1500,
                 "up": false},
        "addresses": [], "routes": []
    }"#;

    /// Pod `default/web` holds these devices.
    pub(in super::super) fn held(ids: &[&str]) -> Held {
        let devices = ContainerDevices {
            resource_name: "x/vf".to_owned(),
            device_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            topology: None,
        };
        let container = ContainerResources { devices: vec![devices], ..ContainerResources::default() };
        Held::new(&[PodResources {
            name: "web".to_owned(),
            namespace: "default".to_owned(),
            containers: vec![container.clone(), container],
        }])
    }
}

#[cfg(test)]
mod tests {
    use zerobridge_kernel::testing::SysfsTree;
    use zerobridge_kernel::{Scanner, Sysfs};

    use super::fixture::{held, owner, record};
    use super::*;

    fn machine(vfs: u8) -> Machine {
        let folder = tempfile::tempdir().unwrap();
        let tree = SysfsTree::new(folder.path());
        tree.add_igb(0, vfs);
        Scanner::new(Sysfs::new(folder.path())).scan().unwrap()
    }

    #[test]
    fn only_what_surely_nobody_owns_is_repaired() {
        let (device, owner) = (record().device, owner("c1"));
        let (with, without) = (machine(1), machine(0));
        let (ours, others) = (held(&["0000:01:10.0"]), held(&["0000:01:10.2"]));
        let unknown = Fate::Unknown { reason: "no mount".to_owned() };
        let this = record();
        let earlier = Attachment { boot_id: "another".to_owned(), ..record() };
        let young = Attachment { created_at: UnixSeconds(80), ..record() };
        let future = Attachment { created_at: UnixSeconds(1000), ..record() };

        let abandoned = Decision::Repair(Cause::Abandoned);
        let forgotten = Decision::Repair(Cause::EarlierBoot);
        let device_gone = Decision::Report(Report::DeviceGone { device, owner: owner.clone() });
        let no_word = Decision::Report(Report::HoldersUnknown { device, owner: owner.clone() });
        let no_sight = Decision::Report(Report::NamespaceUnknown {
            device,
            owner: owner.clone(),
            reason: "no mount".to_owned(),
        });
        let pods = vec!["pod default/web".to_owned()];
        let still_held = Decision::Report(Report::HeldWithoutNamespace { device, owner, pods });

        for (what, record, namespace, held, machine, expected) in [
            ("a pod at work", &this, &Fate::Lives, Some(&ours), &with, Decision::Keep),
            (
                "a pod that the kubelet does not know",
                &this,
                &Fate::Lives,
                Some(&others),
                &with,
                Decision::Keep,
            ),
            ("a pod at work, no word", &this, &Fate::Lives, None, &with, Decision::Keep),
            ("a pod at work without its VF", &this, &Fate::Lives, Some(&ours), &without, device_gone),
            ("abandoned", &this, &Fate::Gone, Some(&others), &with, abandoned.clone()),
            ("abandoned, and the VF is gone", &this, &Fate::Gone, Some(&others), &without, abandoned),
            ("a pod between two sandboxes", &this, &Fate::Gone, Some(&ours), &with, still_held),
            ("abandoned as it seems, no word", &this, &Fate::Gone, None, &with, no_word),
            ("an ADD under way", &young, &Fate::Gone, Some(&others), &with, Decision::Keep),
            ("the clock was set back", &future, &Fate::Gone, Some(&others), &with, Decision::Keep),
            ("nobody can look", &this, &unknown, Some(&others), &with, no_sight),
            ("before the boot", &earlier, &Fate::Gone, Some(&others), &with, forgotten.clone()),
            ("before the boot, held again", &earlier, &Fate::Gone, Some(&ours), &with, forgotten.clone()),
            ("before the boot, no word", &earlier, &Fate::Gone, None, &with, forgotten.clone()),
            ("before the boot, a path used again", &earlier, &Fate::Lives, None, &with, forgotten),
        ] {
            let grace = Duration::from_secs(30);
            let situation = Situation { boot_id: "this", held, machine, now: UnixSeconds(100), grace };
            assert_eq!(situation.decide(record, namespace), expected, "{what}");
        }
    }
}
