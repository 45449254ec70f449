//! An update of the daemon: for a while there are two.

use std::thread;
use std::time::Duration;

use zerobridge_lab::{BLUE, GREEN, Lab, device_config, rebinding};

use crate::expect;
use crate::group::{Group, Outcome, say};

pub(crate) const GROUP: Group = Group {
    name: "rolling",
    vm: "device_plugin",
    scenarios: &[("two_instances_hand_over_without_a_gap", two_instances_hand_over_without_a_gap)],
};

const KNOWN_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks: half the kubelet's own limit of 100 questions a second, because there are two watches.
const CLOSELY: Duration = Duration::from_millis(20);
/// How long to go on looking after the old instance has ended: longer than the kubelet needs to notice.
const AFTERWARDS: Duration = Duration::from_secs(2);

fn two_instances_hand_over_without_a_gap(lab: &mut Lab) -> Outcome {
    let (guest, node) = lab.node()?;
    let config = device_config();
    node.reconfigure(guest, &config, &[])?;
    for resource in [BLUE, GREEN] {
        node.wait_allocatable(guest, resource, 4, KNOWN_WITHIN, None)?;
    }
    let watches = [BLUE, GREEN].map(|resource| (resource, node.watch(guest, resource, CLOSELY)));
    // Twice: the second instance must be as replaceable as the first.
    for _ in 0..2 {
        node.update_device_plugin(guest, &config, &[])?;
        thread::sleep(AFTERWARDS);
    }
    for (resource, watch) in watches {
        let watched = watch?.end(guest)?;
        say(&format!(
            "  {resource}: {} to {} in {} samples",
            watched.minimum, watched.maximum, watched.samples
        ));
        expect::equal("the kubelet's failures to answer", &watched.failures, &Vec::new())?;
        expect::that(watched.changes.len() == 1 && watched.minimum == 4, || {
            format!("{resource} did not stay as it was: {:?}", watched.changes)
        })?;
    }
    // A device list that nobody sends any more would have looked the same.
    let vf = guest.vf(1, 0)?;
    let unbind = format!("echo {vf} > /sys/bus/pci/devices/{vf}/driver/unbind");
    node.follow(guest, &unbind, &[(BLUE, 3)], KNOWN_WITHIN)?;
    node.follow(guest, &rebinding(vf, "igbvf"), &[(BLUE, 4)], KNOWN_WITHIN)?;
    Ok(())
}
