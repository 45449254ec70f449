//! Devices that are attached to containers.

use std::path::PathBuf;

use rusqlite::{Row, params};
use zerobridge_proto::PciAddress;

use crate::records::Records;
use crate::{LedgerError, Owner, Transaction, UnixSeconds};

/// The promise that a device belongs to a container until it is given back. A device has at most one, an owner too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The PCI function.
    pub device: PciAddress,
    /// Who has it.
    pub owner: Owner,
    /// The network that it was attached to.
    pub network: String,
    /// The namespace that it was moved into.
    pub sandbox: Sandbox,
    /// The pod, where the runtime named one.
    pub pod: Option<Pod>,
    /// The device's state before, to which giving it back returns: JSON that only the writer understands.
    pub original: String,
    /// The state that it was meant to get: JSON that only the writer understands.
    pub wanted: String,
    /// The boot in which it was attached; namespaces do not outlive it.
    pub boot_id: String,
    /// When.
    pub created_at: UnixSeconds,
}

/// A network namespace: the path under which the runtime had it, and which one it was, since paths are used again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// `CNI_NETNS`; must be UTF-8.
    pub path: PathBuf,
    /// `st_dev` of the path.
    pub dev: u64,
    /// `st_ino` of the path.
    pub ino: u64,
}

/// A pod as the runtime named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID, which older runtimes do not say.
    pub uid: Option<String>,
}

impl Pod {
    /// The pod of a row, from the three columns that each table with pods has; `None` where no pod is known.
    pub(crate) fn from_row(row: &Row<'_>) -> rusqlite::Result<Option<Self>> {
        let names: (Option<String>, Option<String>) = (row.get("pod_namespace")?, row.get("pod_name")?);
        Ok(match names {
            (Some(namespace), Some(name)) => Some(Self { namespace, name, uid: row.get("pod_uid")? }),
            _ => None,
        })
    }
}

impl Records {
    /// The attachment of a device.
    ///
    /// # Errors
    /// [`LedgerError::Storage`]; [`LedgerError::UnreadableRow`] when somebody edited the file.
    pub fn attachment_of_device(&self, device: PciAddress) -> Result<Option<Attachment>, LedgerError> {
        Ok(self.read_attachments("WHERE device = ?1", [device.to_string()])?.into_iter().next())
    }

    /// The attachment of an owner.
    ///
    /// # Errors
    /// As [`attachment_of_device`](Self::attachment_of_device).
    pub fn attachment_of(&self, owner: &Owner) -> Result<Option<Attachment>, LedgerError> {
        let condition = "WHERE container_id = ?1 AND ifname = ?2";
        Ok(self.read_attachments(condition, [&owner.container_id, &owner.ifname])?.into_iter().next())
    }

    /// The attachments of the node's legs: VFs that the node keeps for itself, by device.
    ///
    /// # Errors
    /// As [`attachment_of_device`](Self::attachment_of_device).
    pub fn attachments_of_legs(&self) -> Result<Vec<Attachment>, LedgerError> {
        self.read_attachments("WHERE container_id = ?1 ORDER BY device", [Owner::leg("").container_id])
    }

    /// All attachments, by device.
    ///
    /// # Errors
    /// As [`attachment_of_device`](Self::attachment_of_device).
    pub fn attachments(&self) -> Result<Vec<Attachment>, LedgerError> {
        self.read_attachments("ORDER BY device", [])
    }

    fn read_attachments(
        &self,
        condition: &str,
        parameters: impl rusqlite::Params,
    ) -> Result<Vec<Attachment>, LedgerError> {
        let sql = format!("SELECT * FROM attachments {condition}");
        self.rows("reading attachments", &sql, parameters, read_row)
    }
}

impl Transaction<'_> {
    /// Records an attachment.
    ///
    /// # Errors
    /// [`LedgerError::DeviceHeld`] or [`LedgerError::OwnerAttached`] with the attachment that is in the way;
    /// [`LedgerError::Invalid`] when `original` or `wanted` is no JSON or the sandbox's path is not UTF-8;
    /// [`LedgerError::Storage`].
    pub fn insert_attachment(&mut self, attachment: &Attachment) -> Result<(), LedgerError> {
        if let Some(held) = self.attachment_of_device(attachment.device)? {
            return Err(LedgerError::DeviceHeld {
                device: held.device,
                holder: held.owner,
                network: held.network,
            });
        }
        if let Some(held) = self.attachment_of(&attachment.owner)? {
            return Err(LedgerError::OwnerAttached { owner: held.owner, device: held.device });
        }
        self.require_json("original", &attachment.original)?;
        self.require_json("wanted", &attachment.wanted)?;
        let sandbox_path = attachment.sandbox.path.to_str().ok_or_else(|| LedgerError::Invalid {
            field: "the sandbox's path",
            value: format!("{:?}", attachment.sandbox.path),
            rule: "it must be UTF-8",
        })?;
        let pod = attachment.pod.as_ref();
        let sql = "INSERT INTO attachments (device, container_id, ifname, network, sandbox_path, sandbox_dev, sandbox_ino,
                   pod_namespace, pod_name, pod_uid, original, wanted, boot_id, created_at)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
        self.write("recording an attachment", |connection| {
            connection.execute(
                sql,
                params![
                    attachment.device.to_string(),
                    attachment.owner.container_id,
                    attachment.owner.ifname,
                    attachment.network,
                    sandbox_path,
                    attachment.sandbox.dev.cast_signed(),
                    attachment.sandbox.ino.cast_signed(),
                    pod.map(|pod| &pod.namespace),
                    pod.map(|pod| &pod.name),
                    pod.and_then(|pod| pod.uid.as_ref()),
                    attachment.original,
                    attachment.wanted,
                    attachment.boot_id,
                    attachment.created_at.0,
                ],
            )
        })
        .map(|_| ())
    }

    /// Removes an owner's attachment. `false` when there was none.
    ///
    /// # Errors
    /// [`LedgerError::Storage`].
    pub fn remove_attachment(&mut self, owner: &Owner) -> Result<bool, LedgerError> {
        let sql = "DELETE FROM attachments WHERE container_id = ?1 AND ifname = ?2";
        let removed = self.write("removing an attachment", |connection| {
            connection.execute(sql, [&owner.container_id, &owner.ifname])
        })?;
        Ok(removed > 0)
    }

    fn require_json(&self, field: &'static str, text: &str) -> Result<(), LedgerError> {
        let valid = self.run("checking JSON", |connection| {
            connection.query_row("SELECT json_valid(?1)", [text], |row| row.get(0))
        })?;
        if valid {
            return Ok(());
        }
        Err(LedgerError::Invalid { field, value: format!("{text:?}"), rule: "it must be JSON" })
    }
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<Result<Attachment, LedgerError>> {
    let device: String = row.get("device")?;
    let Ok(device) = device.parse() else {
        return Ok(Err(LedgerError::UnreadableRow { table: "attachments", column: "device", value: device }));
    };
    let owner = Owner { container_id: row.get("container_id")?, ifname: row.get("ifname")? };
    let sandbox = Sandbox {
        path: row.get::<_, String>("sandbox_path")?.into(),
        dev: row.get::<_, i64>("sandbox_dev")?.cast_unsigned(),
        ino: row.get::<_, i64>("sandbox_ino")?.cast_unsigned(),
    };
    Ok(Ok(Attachment {
        device,
        owner,
        network: row.get("network")?,
        sandbox,
        pod: Pod::from_row(row)?,
        original: row.get("original")?,
        wanted: row.get("wanted")?,
        boot_id: row.get("boot_id")?,
        created_at: UnixSeconds(row.get("created_at")?),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ledger;

    fn attachment(device: &str, container_id: &str) -> Attachment {
        Attachment {
            device: device.parse().unwrap(),
            owner: Owner { container_id: container_id.to_owned(), ifname: "eth0".to_owned() },
            network: "blue".to_owned(),
            sandbox: Sandbox { path: "/run/netns/x".into(), dev: 4, ino: u64::MAX },
            pod: Some(Pod { namespace: "default".to_owned(), name: "web".to_owned(), uid: None }),
            original: r#"{"vlan":0}"#.to_owned(),
            wanted: r#"{"vlan":100}"#.to_owned(),
            boot_id: "b1".to_owned(),
            created_at: UnixSeconds(1),
        }
    }

    #[test]
    fn what_was_recorded_is_found_by_device_and_by_owner_until_it_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(directory.path()).unwrap();
        let one = attachment("0000:01:10.0", "c1");
        let two = Attachment { pod: None, ..attachment("0000:01:10.2", "c2") };
        let mut transaction = ledger.begin().unwrap();
        transaction.insert_attachment(&two).unwrap();
        transaction.insert_attachment(&one).unwrap();
        assert_eq!(transaction.attachment_of(&one.owner).unwrap(), Some(one.clone()));
        transaction.commit().unwrap();

        assert_eq!(ledger.attachments().unwrap(), [one.clone(), two.clone()]);
        assert_eq!(ledger.attachment_of_device(two.device).unwrap(), Some(two));
        let mut transaction = ledger.begin().unwrap();
        assert!(transaction.remove_attachment(&one.owner).unwrap());
        assert!(!transaction.remove_attachment(&one.owner).unwrap());
        transaction.commit().unwrap();
        assert_eq!(ledger.attachment_of_device(one.device).unwrap(), None);
    }

    #[test]
    fn a_second_attachment_of_a_device_or_an_owner_names_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(directory.path()).unwrap();
        let mut transaction = ledger.begin().unwrap();
        transaction.insert_attachment(&attachment("0000:01:10.0", "c1")).unwrap();
        let same_device = transaction.insert_attachment(&attachment("0000:01:10.0", "c2")).unwrap_err();
        assert_eq!(
            same_device.to_string(),
            "device 0000:01:10.0 is attached to eth0 of container c1 on network blue"
        );
        let same_owner = transaction.insert_attachment(&attachment("0000:01:10.2", "c1")).unwrap_err();
        assert_eq!(same_owner.to_string(), "eth0 of container c1 has device 0000:01:10.0 attached already");
        transaction.commit().unwrap();
        assert_eq!(ledger.attachments().unwrap().len(), 1);
    }

    #[test]
    fn what_is_no_json_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(directory.path()).unwrap();
        let wrong = Attachment { wanted: "{".to_owned(), ..attachment("0000:01:10.0", "c1") };
        let error = ledger.begin().unwrap().insert_attachment(&wrong).unwrap_err();
        assert!(matches!(error, LedgerError::Invalid { field: "wanted", .. }), "{error}");
    }

    #[test]
    fn the_schema_itself_forbids_a_device_or_an_owner_twice() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(directory.path()).unwrap();
        let mut transaction = ledger.begin().unwrap();
        transaction.insert_attachment(&attachment("0000:01:10.0", "c1")).unwrap();
        for (device, container_id) in [("0000:01:10.0", "c2"), ("0000:01:10.2", "c1")] {
            let sql = "INSERT INTO attachments SELECT ?1, ?2, ifname, network, sandbox_path, sandbox_dev, sandbox_ino,
                       pod_namespace, pod_name, pod_uid, original, wanted, boot_id, created_at FROM attachments";
            let copied =
                transaction.run("test", |connection| connection.execute(sql, [device, container_id]));
            assert!(copied.unwrap_err().to_string().contains("test in"));
        }
    }
}
