//! The keys of ib-sriov-cni, read as settings of ours.
//!
//! Refuses to know whether a device is of InfiniBand.

use serde_json::{Map, Value};
use zerobridge_proto::Guid;
use zerobridge_proto::cni::{CniError, NetworkConfig};

use super::settings::{Keys, RdmaSetting, VfSettings};
use super::{bad_value, invalid};

/// What ib-kubernetes writes into `args.cni` when the subnet manager knows the GUID, and under which key.
const CONFIGURED: (&str, &str) = ("mellanox.infiniband.app", "configured");

pub(super) const KEYS: [&str; 5] = ["guid", "pkey", "rdmaIsolation", "ibKubernetesEnabled", "vfioPciMode"];

/// Reads the keys into `settings`.
pub(super) fn read(
    keys: &Map<String, Value>,
    place: &str,
    settings: &mut VfSettings,
) -> Result<(), CniError> {
    let keys = Keys { keys, place };
    settings.guid = keys.text("guid", ALLOWED_GUID, guid)?;
    // The partition is the subnet manager's to set, by the GUID; what is written here is for ib-kubernetes.
    keys.text("pkey", "a partition key as text, such as \"0x8001\"", |text| {
        u16::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
    })?;
    settings.vfio = keys.flag("vfioPciMode")?;
    settings.managed_guid = keys.flag("ibKubernetesEnabled")?;
    if keys.flag("rdmaIsolation")? {
        if !matches!(settings.rdma, RdmaSetting::Auto | RdmaSetting::Exclusive) {
            return Err(invalid(format!(
                "{place}rdmaIsolation is true, and {place}rdma is \"{}\"; remove one of them",
                settings.rdma.as_str()
            )));
        }
        settings.rdma = RdmaSetting::Exclusive;
    }
    Ok(())
}

/// The GUID asked for: `runtimeConfig.infinibandGUID`, else `args.cni.guid`, the order that ib-sriov-cni keeps.
pub(super) fn requested_guid(config: &NetworkConfig) -> Result<Option<Guid>, CniError> {
    let from_runtime = config.runtime.infiniband_guid.as_deref().filter(|text| !text.is_empty());
    let from_args = || config.cni_args("guid").and_then(Value::as_str);
    let (place, text) = match (from_runtime, from_args()) {
        (Some(text), _) => ("runtimeConfig.infinibandGUID", text),
        (None, Some(text)) => ("args.cni.guid", text),
        (None, None) => return Ok(None),
    };
    let error = || bad_value(place, &Value::from(text), ALLOWED_GUID);
    guid(text).map(Some).ok_or_else(error)
}

/// Checks that ib-kubernetes has done its part where it is to.
pub(super) fn check_managed(
    config: &NetworkConfig,
    network: &str,
    settings: &VfSettings,
) -> Result<(), CniError> {
    let (key, word) = CONFIGURED;
    let said = config.cni_args(key).and_then(Value::as_str);
    if !settings.managed_guid || (said == Some(word) && settings.guid.is_some()) {
        return Ok(());
    }
    let guid = settings.guid.map_or_else(|| "no GUID".to_owned(), |guid| format!("the GUID {guid}"));
    let error = invalid(format!(
        "ibKubernetesEnabled of network {network} is true, and ib-kubernetes has not configured the pod: args.cni[\"{key}\"] is \
         {}, and there is {guid}",
        said.map_or_else(|| "absent".to_owned(), |said| format!("\"{said}\""))
    ));
    Err(error.with_details("is ib-kubernetes running, and does it have GUIDs left?"))
}

const ALLOWED_GUID: &str = "eight octets in hexadecimal, not all zero, such as 02:00:00:00:00:00:00:01";

fn guid(text: &str) -> Option<Guid> {
    text.parse().ok().filter(|guid: &Guid| !guid.is_zero())
}
