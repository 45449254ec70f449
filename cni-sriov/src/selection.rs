//! Which device and which network an ADD is about. Pure.

use zerobridge_proto::PciAddress;
use zerobridge_proto::cni::{CniError, ErrorCode};

use crate::codes;
use crate::config::{Config, Network};
use crate::pod_resources::AllocatedDevice;

/// A device and the network that it is to belong to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Selection<'a> {
    /// The VF.
    pub device: PciAddress,
    /// Its network.
    pub network: &'a Network,
}

/// The selection when the configuration names the device.
///
/// # Errors
/// Code 7 when several networks are configured: a device that came without its resource chooses none.
pub(crate) fn of_named_device(config: &Config, device: PciAddress) -> Result<Selection<'_>, CniError> {
    match config.networks.as_slice() {
        [network] => Ok(Selection { device, network }),
        networks => Err(CniError::new(
            ErrorCode::INVALID_CONFIG,
            format!(
                "deviceID is {device}, and networks has {} entries; with a named device, configure the one network \
                 that it belongs to",
                networks.len()
            ),
        )),
    }
}

/// The selection among the devices that the kubelet gave pod `pod`: of the first network, in the order of the
/// configuration, whose resource the pod holds, the first device that is not `attached` yet.
///
/// # Errors
/// [`codes::NO_DEVICE`] when the pod holds no device of any network, [`codes::DEVICES_IN_USE`] when all are attached.
pub(crate) fn of_allocated_devices<'a>(
    config: &'a Config,
    pod: &str,
    devices: &[AllocatedDevice],
    attached: impl Fn(PciAddress) -> bool,
) -> Result<Selection<'a>, CniError> {
    let mut in_use = Vec::new();
    for network in &config.networks {
        let Some(resource) = &network.resource_name else { continue };
        for allocated in devices.iter().filter(|device| device.resource == *resource) {
            let device = allocated.id.parse().map_err(|_| {
                let msg = format!("pod {pod} holds {} of {resource}, which is no PCI address", allocated.id);
                CniError::new(codes::NO_DEVICE, msg)
                    .with_details("zerobridge attaches SR-IOV virtual functions")
            })?;
            if !attached(device) {
                return Ok(Selection { device, network });
            }
            in_use.push(device.to_string());
        }
    }
    if in_use.is_empty() { Err(no_device(config, pod, devices)) } else { Err(all_in_use(pod, &in_use)) }
}

fn no_device(config: &Config, pod: &str, devices: &[AllocatedDevice]) -> CniError {
    let resources: Vec<&str> =
        config.networks.iter().filter_map(|network| network.resource_name.as_deref()).collect();
    if resources.is_empty() {
        return CniError::new(
            ErrorCode::INVALID_CONFIG,
            "neither deviceID nor resourceName is set, so there is no device to attach",
        )
        .with_details(
            "set resourceName to the resource that pods ask for; under Multus, annotate the network with \
             k8s.v1.cni.cncf.io/resourceName, and see that the pod asks for as many devices as it has networks",
        );
    }
    let holds: Vec<String> = devices.iter().map(|device| device.resource.clone()).collect();
    let holds =
        if holds.is_empty() { "no device at all".to_owned() } else { format!("only {}", holds.join(", ")) };
    CniError::new(
        codes::NO_DEVICE,
        format!("pod {pod} was given no device of {}; it holds {holds}", resources.join(" or ")),
    )
    .with_details(
        "let a container of the pod ask for it under resources.limits; if it does, the pod was admitted before the \
         device plugin registered the resource: delete the pod once the node shows it as allocatable",
    )
}

fn all_in_use(pod: &str, in_use: &[String]) -> CniError {
    CniError::new(
        codes::DEVICES_IN_USE,
        format!("every device that pod {pod} was given is attached already: {}", in_use.join(", ")),
    )
    .with_details("ask for one device more for each network of the pod")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::VfSettings;

    fn config(resources: &[Option<&str>]) -> Config {
        let network = |(number, resource): (usize, &Option<&str>)| Network {
            name: format!("net{number}"),
            resource_name: resource.map(str::to_owned),
            settings: VfSettings::default(),
            ipam: None,
        };
        Config {
            device: None,
            networks: resources.iter().enumerate().map(network).collect(),
            dns: Default::default(),
            ready_when_full: false,
        }
    }

    fn holds(devices: &[(&str, &str)]) -> Vec<AllocatedDevice> {
        let device = |(resource, id): &(&str, &str)| AllocatedDevice {
            resource: (*resource).to_owned(),
            id: (*id).to_owned(),
        };
        devices.iter().map(device).collect()
    }

    #[test]
    fn the_resource_that_the_pod_holds_chooses_the_network() {
        let config = config(&[Some("x/blue"), Some("x/green")]);
        let devices = holds(&[("x/gpu", "gpu-0"), ("x/green", "0000:01:10.4")]);
        let selection = of_allocated_devices(&config, "default/web", &devices, |_| false).unwrap();
        assert_eq!(
            (selection.network.name.as_str(), selection.device.to_string().as_str()),
            ("net1", "0000:01:10.4")
        );
    }

    #[test]
    fn a_device_that_is_attached_is_passed_over_and_named_when_it_was_the_last() {
        let config = config(&[Some("x/vf")]);
        let devices = holds(&[("x/vf", "0000:01:10.0"), ("x/vf", "0000:01:10.2")]);
        let first: PciAddress = "0000:01:10.0".parse().unwrap();
        let selection =
            of_allocated_devices(&config, "default/web", &devices, |device| device == first).unwrap();
        assert_eq!(selection.device.to_string(), "0000:01:10.2");
        let error = of_allocated_devices(&config, "default/web", &devices, |_| true).unwrap_err();
        assert_eq!(error.code, codes::DEVICES_IN_USE);
        assert!(error.msg.contains("0000:01:10.0, 0000:01:10.2"), "{error}");
    }

    #[test]
    fn a_pod_without_a_device_is_told_what_it_lacks_and_why_that_can_be() {
        let devices = holds(&[("x/gpu", "gpu-0")]);
        let error =
            of_allocated_devices(&config(&[Some("x/vf")]), "default/web", &devices, |_| false).unwrap_err();
        assert_eq!(error.code, codes::NO_DEVICE);
        for part in ["default/web", "x/vf", "x/gpu"] {
            assert!(error.msg.contains(part), "{error}");
        }
        assert!(error.details.contains("resources.limits"), "{error}");
        let neither = of_allocated_devices(&config(&[None]), "default/web", &[], |_| false).unwrap_err();
        assert_eq!(neither.code, ErrorCode::INVALID_CONFIG);
        assert!(neither.details.contains("k8s.v1.cni.cncf.io/resourceName"), "{neither}");
    }

    #[test]
    fn a_named_device_does_not_choose_among_networks() {
        let device = "0000:01:10.0".parse().unwrap();
        of_named_device(&config(&[None]), device).unwrap();
        of_named_device(&config(&[Some("x/a"), Some("x/b")]), device).unwrap_err();
    }
}
