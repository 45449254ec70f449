//! Devices given by name (Container Device Interface) rather than one by one.

use std::time::Duration;

use serde_json::{Value, json};
use zerobridge_lab::{Lab, PodRequest};
use zerobridge_proto::PciAddress;

use crate::expect;
use crate::group::{Group, Outcome};
use crate::inventory::{rebind, vfio_nodes};

pub(crate) const GROUP: Group = Group {
    name: "cdi",
    vm: "device_plugin",
    scenarios: &[("three_pools_in_one_container_all_arrive", three_pools_in_one_container_all_arrive)],
};

const RESOURCES: [&str; 3] = ["zerobridge.io/red", "zerobridge.io/green", "zerobridge.io/blue"];
/// Where the runtime looks for specifications.
const FOLDER: &str = "/var/run/cdi";
/// How long a specification that nobody uses may stay.
const COLLECTED_WITHIN: Duration = Duration::from_secs(150);

/// A pool for each VF, all given by name.
fn one_pool_each(vfs: &[PciAddress]) -> Value {
    let pool = |(resource, vf): (&&str, &PciAddress)| {
        let name = resource.split('/').next_back();
        json!({"resourceName": name, "selectors": {"drivers": ["vfio-pci"], "pciAddresses": [vf]}})
    };
    json!({"pools": RESOURCES.iter().zip(vfs).map(pool).collect::<Vec<_>>(), "cdi": "on"})
}

fn three_pools_in_one_container_all_arrive(lab: &mut Lab) -> Outcome {
    let (guest, node) = lab.node()?;
    guest.load_vfio()?;
    let vfs = [guest.vf(1, 0)?, guest.vf(1, 1)?, guest.vf(2, 0)?];
    node.reconfigure(guest, &one_pool_each(&vfs), &[])?;
    rebind(guest, node, &vfs, "vfio-pci", &RESOURCES.map(|resource| (resource, 1)))?;

    let pods = node.run_pods(guest, &[PodRequest::on_host_network("three-pools", &RESOURCES)])?;
    let mut expected = vec!["vfio".to_owned()];
    for vf in vfs {
        expected.push(guest.iommu_group(vf)?);
    }
    expected.sort();
    for pod in &pods {
        expect::equal("what is below /dev/vfio", &vfio_nodes(guest, pod)?, &expected)?;
    }
    let specifications = guest.run(&["ls", "-A", FOLDER])?;
    expect::that(!specifications.is_empty(), || "the devices came, but not by name".into())?;

    node.delete_pods(guest, &pods)?;
    guest.wait_for("the end of unused specifications", COLLECTED_WITHIN, |guest| {
        let left = guest.run(&["ls", "-A", FOLDER])?;
        Ok(if left.is_empty() { Ok(()) } else { Err(left) })
    })?;
    rebind(guest, node, &vfs, "igbvf", &RESOURCES.map(|resource| (resource, 0)))
}
