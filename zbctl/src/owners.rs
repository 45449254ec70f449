//! Who has which device: asked of the kubelet, or else read from the ledger. What the node keeps for itself only the ledger
//! knows.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Serialize;
use zerobridge_device_plugin::{Hardware, Holdings};
use zerobridge_ledger::{Attachment, Ledger, LedgerError};
use zerobridge_proto::chain;

use crate::kubelet;

/// A container that has a device, or a leg of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Owner {
    /// The pod's namespace; `null` if the runtime named no pod.
    pub(crate) namespace: Option<String>,
    /// The pod's name.
    pub(crate) pod: Option<String>,
    /// The container's name; from the ledger, the ID of the pod's sandbox. `node:leg` for a leg.
    pub(crate) container: String,
    /// The leg's name; absent for a container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) leg: Option<String>,
}

/// Who says who has which device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Source {
    /// The kubelet.
    Kubelet,
    /// The ledger: devices that the CNI plugin attached.
    Ledger,
}

/// The devices that containers have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owners {
    /// Who has each device: several containers for one with shares.
    pub(crate) devices: BTreeMap<Hardware, Vec<Owner>>,
    /// The resource under which each device was given; `None` if the kubelet does not say.
    pub(crate) resources: Option<Holdings>,
}

/// The owners, who says so, and what kept better sources from saying it.
pub(crate) fn read(kubelet_root: &Path, state_dir: &Path) -> (Owners, Option<Source>, Vec<String>) {
    let mut notes = Vec::new();
    match kubelet::owners(kubelet_root) {
        Ok(mut owners) => {
            if Ledger::exists(state_dir)
                && let Err(error) = owners.add_legs(state_dir)
            {
                notes.push(chain(&error));
            }
            return (owners, Some(Source::Kubelet), notes);
        }
        Err(error) => notes.push(chain(&error)),
    }
    // None is made by looking for it.
    if !Ledger::exists(state_dir) {
        notes.push(format!("there is no ledger in {}", state_dir.display()));
        return (Owners::default(), None, notes);
    }
    match from_ledger(state_dir) {
        Ok(owners) => (owners, Some(Source::Ledger), notes),
        Err(error) => {
            notes.push(chain(&error));
            (Owners::default(), None, notes)
        }
    }
}

fn from_ledger(state_dir: &Path) -> Result<Owners, LedgerError> {
    let mut owners = Owners::default();
    for attachment in Ledger::open(state_dir)?.attachments()? {
        owners.add(attachment);
    }
    Ok(owners)
}

impl Owners {
    fn add_legs(&mut self, state_dir: &Path) -> Result<(), LedgerError> {
        Ledger::open(state_dir)?
            .attachments_of_legs()?
            .into_iter()
            .for_each(|attachment| self.add(attachment));
        Ok(())
    }

    fn add(&mut self, attachment: Attachment) {
        let (namespace, pod) = attachment.pod.map(|pod| (pod.namespace, pod.name)).unzip();
        let leg = attachment.owner.is_leg().then_some(attachment.owner.ifname);
        let owner = Owner { namespace, pod, container: attachment.owner.container_id, leg };
        self.devices.entry(Hardware::Function(attachment.device)).or_default().push(owner);
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.namespace, &self.pod, &self.leg) {
            (_, _, Some(leg)) => write!(out, "leg {leg}"),
            (Some(namespace), Some(pod), None) => write!(out, "{namespace}/{pod}"),
            _ => write!(out, "container {}", self.container),
        }
    }
}
