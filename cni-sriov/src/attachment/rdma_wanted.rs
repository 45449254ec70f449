//! What becomes of an RDMA device, from what there is and what the network and the machine's mode say. Pure.

use zerobridge_kernel::RdmaNetnsMode;

use super::error::AttachmentError;
use super::rdma::soft_name;
use super::state::{RdmaKind, RdmaPlace, RdmaState, VfState};
use super::wanted::Wish;
use crate::config::RdmaSetting;

/// Why no device of this machine can have what `setting` asks for; `mode` is `None` without the RDMA subsystem.
pub(crate) fn machine_obstacle(setting: RdmaSetting, mode: Option<RdmaNetnsMode>) -> Option<String> {
    let is_demanded = !matches!(setting, RdmaSetting::Auto | RdmaSetting::Off);
    let found = match (setting, mode) {
        (_, None) if is_demanded => {
            return Some(
                "this node has no RDMA subsystem; load ib_core and the driver of its network cards"
                    .to_owned(),
            );
        }
        (RdmaSetting::Exclusive, Some(RdmaNetnsMode::Shared)) => "shared",
        (RdmaSetting::Shared, Some(RdmaNetnsMode::Exclusive)) => "exclusive",
        _ => return None,
    };
    Some(format!(
        "the RDMA subsystem of this node is in {found} mode; set it before any pod runs, with `rdma system set netns {}` or the \
         option netns_mode of ib_core",
        setting.as_str()
    ))
}

/// The RDMA device as the network wants it.
///
/// # Errors
/// [`AttachmentError::RdmaUnavailable`].
pub(super) fn wanted_rdma(wish: Wish<'_>, original: &VfState) -> Result<Option<RdmaState>, AttachmentError> {
    let Wish { device, network, rdma_mode: mode, .. } = wish;
    let (setting, name) = (network.settings.rdma, network.settings.rdma_name.as_ref());
    let rdma = original.rdma.as_ref();
    let unavailable = |key, value: &str, why| {
        Err(AttachmentError::RdmaUnavailable { device, key, value: value.to_owned(), why })
    };
    if let Some(why) = machine_obstacle(setting, mode).or_else(|| device_obstacle(wish, original)) {
        return unavailable("rdma", setting.as_str(), why);
    }
    let exclusive = mode == Some(RdmaNetnsMode::Exclusive);
    let moved = match (setting, rdma) {
        (RdmaSetting::Soft, _) => {
            let place = if exclusive { RdmaPlace::Sandbox } else { RdmaPlace::Everywhere };
            Some(RdmaState { kind: RdmaKind::Soft, place, name: soft_name(device) })
        }
        (RdmaSetting::Auto | RdmaSetting::Exclusive, Some(rdma)) if exclusive => {
            Some(RdmaState { place: RdmaPlace::Sandbox, ..rdma.clone() })
        }
        _ => None,
    };
    match (moved, name) {
        (None, None) => Ok(rdma.cloned()),
        (Some(moved), None) => Ok(Some(moved)),
        (Some(moved), Some(name)) if moved.place == RdmaPlace::Sandbox => {
            Ok(Some(RdmaState { name: name.clone(), ..moved }))
        }
        (_, Some(name)) if !exclusive => {
            let why = "the RDMA subsystem of this node is in shared mode, in which names are everybody's; remove it";
            unavailable("rdmaDeviceName", name, why.to_owned())
        }
        (_, Some(name)) => {
            unavailable("rdmaDeviceName", name, "no RDMA device moves into the pod".to_owned())
        }
    }
}

/// Why this device cannot have what the network asks for.
fn device_obstacle(wish: Wish<'_>, original: &VfState) -> Option<String> {
    let device = wish.device;
    match (wish.network.settings.rdma, &original.rdma) {
        (RdmaSetting::Exclusive | RdmaSetting::Shared, None) => Some(format!(
            "device {device} has no RDMA device; load its driver, or set rdma to \"off\" or \"soft\""
        )),
        (RdmaSetting::Soft, Some(rdma)) => Some(format!(
            "device {device} has an RDMA device of its own, {}; set rdma to \"auto\"",
            rdma.name
        )),
        (RdmaSetting::Soft, None) if original.link.is_none() => {
            Some(format!("device {device} has no network interface for it; bind it to its network driver"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attachment::model::{at_home, with_roce, with_vfio};
    use crate::config::{Network, VfSettings};

    fn rdma_of(
        original: &VfState,
        mode: RdmaNetnsMode,
        setting: RdmaSetting,
        name: Option<&str>,
    ) -> Result<Option<RdmaState>, String> {
        let settings =
            VfSettings { rdma: setting, rdma_name: name.map(str::to_owned), ..VfSettings::default() };
        let network = &Network { name: "blue".to_owned(), resource_name: None, settings, ipam: None };
        let device = "0000:01:10.0".parse().unwrap();
        let wish = Wish { device, network, ifname: "eth0", rdma_mode: Some(mode) };
        wanted_rdma(wish, original).map_err(|error| error.to_string())
    }

    #[test]
    fn an_rdma_device_follows_where_it_can() {
        use RdmaNetnsMode::{Exclusive, Shared};
        use RdmaSetting::{Auto, Off, Soft};
        let state = |kind, place, name: &str| Some(RdmaState { kind, place, name: name.to_owned() });
        let hardware = |place, name| state(RdmaKind::Ethernet, place, name);
        let soft = |place, name| state(RdmaKind::Soft, place, name);
        let (bare, host) = (at_home(), with_roce(at_home()));
        let mut shared = host.clone();
        shared.rdma.as_mut().unwrap().place = RdmaPlace::Everywhere;
        for (original, mode, setting, name, expected) in [
            (&host, Exclusive, Auto, None, hardware(RdmaPlace::Sandbox, "mlx5_3")),
            (&host, Exclusive, Auto, Some("rdma0"), hardware(RdmaPlace::Sandbox, "rdma0")),
            (&host, Exclusive, RdmaSetting::Exclusive, None, hardware(RdmaPlace::Sandbox, "mlx5_3")),
            (&host, Exclusive, Off, None, hardware(RdmaPlace::Host, "mlx5_3")),
            (&shared, Shared, Auto, None, hardware(RdmaPlace::Everywhere, "mlx5_3")),
            (&shared, Shared, RdmaSetting::Shared, None, hardware(RdmaPlace::Everywhere, "mlx5_3")),
            (&bare, Exclusive, Auto, None, None),
            (&bare, Exclusive, Soft, Some("rdma0"), soft(RdmaPlace::Sandbox, "rdma0")),
            (&bare, Shared, Soft, None, soft(RdmaPlace::Everywhere, "rxe_0000_01_10_0")),
        ] {
            assert_eq!(rdma_of(original, mode, setting, name), Ok(expected), "{mode:?} {setting:?} {name:?}");
        }
    }

    #[test]
    fn rdma_that_cannot_be_had_is_refused_with_the_reason() {
        use RdmaNetnsMode::{Exclusive, Shared};
        use RdmaSetting::{Auto, Soft};
        let (bare, host) = (at_home(), with_roce(at_home()));
        for (original, mode, setting, name, parts) in [
            (&host, Shared, RdmaSetting::Exclusive, None, ["rdma is \"exclusive\"", "netns exclusive"]),
            (&host, Exclusive, RdmaSetting::Shared, None, ["rdma is \"shared\"", "netns shared"]),
            (&bare, Exclusive, RdmaSetting::Exclusive, None, ["0000:01:10.0", "no RDMA device"]),
            (&host, Exclusive, Soft, None, ["mlx5_3", "auto"]),
            (&with_vfio(), Exclusive, Soft, None, ["no network interface", "driver"]),
            (&bare, Exclusive, Auto, Some("rdma0"), ["rdmaDeviceName is \"rdma0\"", "no RDMA device"]),
            (&bare, Shared, Soft, Some("rdma0"), ["rdmaDeviceName", "shared mode"]),
        ] {
            let error = rdma_of(original, mode, setting, name).unwrap_err();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }

    #[test]
    fn what_the_machine_lacks_is_known_without_a_device() {
        use RdmaNetnsMode::{Exclusive, Shared};
        for (setting, mode, obstacle) in [
            (RdmaSetting::Auto, None, None),
            (RdmaSetting::Off, None, None),
            (RdmaSetting::Soft, None, Some("no RDMA subsystem")),
            (RdmaSetting::Soft, Some(Shared), None),
            (RdmaSetting::Exclusive, Some(Exclusive), None),
            (RdmaSetting::Exclusive, Some(Shared), Some("in shared mode")),
            (RdmaSetting::Shared, Some(Exclusive), Some("in exclusive mode")),
        ] {
            let found = machine_obstacle(setting, mode);
            match obstacle {
                None => assert_eq!(found, None, "{setting:?} {mode:?}"),
                Some(part) => assert!(found.unwrap().contains(part), "{setting:?} {mode:?}"),
            }
        }
    }
}
