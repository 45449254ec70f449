//! Which specifications nobody needs any more. Pure.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use super::name::owner;
use crate::device::DeviceId;
use crate::resource::ResourceName;
use zerobridge_cni_sriov::documents::Document;

/// Which of the files in the folder are ours, of a device that is not in `held`, and older than `grace` at the time `now`.
///
/// `held` is everything that the kubelet knows to be somebody's. It lists a pod only after the files of its devices were
/// written, and a container that is started again needs the file again, hence the grace. A pool that is no longer
/// configured makes no difference.
#[must_use]
pub(crate) fn stale_specs(
    existing: Vec<Document>,
    held: &BTreeSet<(ResourceName, DeviceId)>,
    now: SystemTime,
    grace: Duration,
) -> Vec<Document> {
    let is_stale = |document: &Document| {
        owner(&document.name).is_some_and(|owner| !held.contains(&owner))
            && document.is_older_than(grace, now)
    };
    existing.into_iter().filter(is_stale).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held() -> BTreeSet<(ResourceName, DeviceId)> {
        let pool = |name| ResourceName::new("zerobridge.io", name).unwrap();
        [(pool("vf"), "0000:01:10.0".parse().unwrap()), (pool("rdma"), "0000:01:00.0#3".parse().unwrap())]
            .into()
    }

    #[test]
    fn only_our_own_old_files_of_devices_that_nobody_holds_are_stale() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        for (name, age, is_stale) in [
            ("zerobridge-zerobridge.io_vf:0000:01:10.2.json", 61, true),
            ("zerobridge-zerobridge.io_vf:0000:01:10.2.json", 60, false),
            ("zerobridge-zerobridge.io_vf:0000:01:10.0.json", 900, false),
            ("zerobridge-zerobridge.io_vf:0000:01:10.0:3.json", 900, true),
            ("zerobridge-zerobridge.io_rdma:0000:01:00.0:3.json", 900, false),
            ("zerobridge-zerobridge.io_rdma:0000:01:00.0:4.json", 900, true),
            ("zerobridge-forgotten.example_old:0000:01:10.0.json", 900, true),
            ("zerobridge-zerobridge.io_vf:eth0.json", 900, false),
            ("nvidia.json", 900, false),
        ] {
            let document = Document { name: name.to_owned(), modified: now - Duration::from_secs(age) };
            let stale = stale_specs(vec![document], &held(), now, Duration::from_secs(60));
            assert_eq!(stale.len() == 1, is_stale, "{name} {age}");
        }
    }
}
