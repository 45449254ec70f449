//! What is seen of the node after a step, and whether promises and facts agree.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use zerobridge_lab::{Link, Snapshot, VfPlace};
use zerobridge_proto::PciAddress;

use super::script::MARK;
use crate::expect;

/// A look at everything.
#[derive(Debug, Default)]
pub(super) struct Look {
    links: Vec<Link>,
    ledger: Ledger,
    /// Namespaces that have a path, and their numbers.
    namespaces: BTreeMap<String, u64>,
    /// The links in those that were looked into.
    inside: BTreeMap<String, Vec<Link>>,
}

/// All promises.
#[derive(Debug, Default, Deserialize)]
struct Ledger {
    attachments: Vec<Attachment>,
    leases: Vec<Lease>,
}

/// An attachment as the ledger has it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Attachment {
    pub(super) device: PciAddress,
    pub(super) container: String,
    pub(super) path: String,
    inode: u64,
}

/// A lease as the ledger has it.
#[derive(Debug, Deserialize)]
struct Lease {
    network: String,
    address: String,
    container: String,
}

impl Look {
    /// Reads what [`super::script::look`] prints, the parts before the first mark left out.
    pub(super) fn parse(text: &str) -> Result<Self, Box<dyn Error>> {
        let mut parts = text.split(MARK).skip(1);
        let mut part = |what| expect::some(parts.next(), what);
        let (links, ledger, namespaces) = (part("no links")?, part("no ledger")?, part("no namespaces")?);
        let inside = |part: &str| {
            let (name, links) = expect::some(part.trim().split_once('\n'), "a namespace without links")?;
            Ok((format!("/run/netns/{name}"), json(links)?))
        };
        let namespace = |line: &str| {
            let (inode, path) = line.split_once(' ')?;
            Some((path.to_owned(), inode.parse().ok()?))
        };
        Ok(Self {
            links: json(links)?,
            ledger: json(ledger)?,
            namespaces: namespaces.lines().filter_map(namespace).collect(),
            inside: parts.map(inside).collect::<Result<_, Box<dyn Error>>>()?,
        })
    }

    /// The ledger's attachments.
    pub(super) fn attachments(&self) -> &[Attachment] {
        &self.ledger.attachments
    }

    /// The attachment of a container.
    pub(super) fn of_container(&self, container: &str) -> Option<&Attachment> {
        self.attachments().iter().find(|attachment| attachment.container == container)
    }

    /// The attachment of a VF.
    pub(super) fn of_device(&self, device: PciAddress) -> Option<&Attachment> {
        self.attachments().iter().find(|attachment| attachment.device == device)
    }

    /// Whether the namespace of an attachment is still there.
    pub(super) fn lives(&self, attachment: &Attachment) -> bool {
        self.namespaces.get(&attachment.path) == Some(&attachment.inode)
    }

    /// Every promise without its fact and every fact without its promise, a sentence each.
    pub(super) fn disagreements(&self, places: &[VfPlace], before: &Snapshot) -> Vec<String> {
        let mut all = Vec::new();
        let Ledger { attachments, leases } = &self.ledger;
        let attached: BTreeSet<String> = attachments.iter().map(|one| one.device.to_string()).collect();
        if attached.len() < attachments.len() {
            all.push(format!("a VF has two attachments: {attachments:?}"));
        }
        let differences = Snapshot::of(places, &self.links).differences(before);
        let free = differences
            .into_iter()
            .filter(|text| !text.split_once(": ").is_some_and(|(vf, _)| attached.contains(vf)));
        all.extend(free.map(|text| format!("nobody has it, and {text}")));

        let addresses: BTreeSet<_> = leases.iter().map(|one| (&one.network, &one.address)).collect();
        if addresses.len() < leases.len() {
            all.push(format!("an address has two owners: {leases:?}"));
        }
        for lease in leases.iter().filter(|lease| self.of_container(&lease.container).is_none()) {
            all.push(format!("{} has address {} and no VF", lease.container, lease.address));
        }
        for attachment in attachments {
            let Attachment { device, container, .. } = attachment;
            if !leases.iter().any(|lease| lease.container == *container) {
                all.push(format!("{container} has VF {device} and no address"));
            }
            let has = |links: &Vec<Link>| links.iter().any(|link| link.pci() == Some(*device));
            let on_host = has(&self.links);
            match self.inside.get(&attachment.path).filter(|_| self.lives(attachment)) {
                Some(links) if on_host == has(links) => {
                    let where_ = if on_host { "in two places" } else { "nowhere" };
                    all.push(format!("VF {device} of {container} is {where_}"));
                }
                None if !self.lives(attachment) && !on_host => {
                    all.push(format!(
                        "VF {device} of {container}, whose namespace is gone, is not on the host"
                    ));
                }
                _ => {}
            }
        }
        all
    }
}

fn json<T: DeserializeOwned>(text: &str) -> Result<T, Box<dyn Error>> {
    serde_json::from_str(text.trim()).map_err(|error| format!("{error}: {text}").into())
}
