//! The capability `bandwidth`: what Kubernetes asks for a pod, as a VF's rate.
//!
//! A NIC limits what a VF sends and nothing else, so the other direction is refused instead of being promised.

use serde_json::Value;
use zerobridge_proto::cni::{CniError, ErrorCode};

use super::bad_value;

/// Bits in the unit of a VF's rate, Mbit/s.
const UNIT: u64 = 1_000_000;

/// The keys as the convention has them, in bits and bits per second.
const KEYS: [&str; 4] = ["ingressRate", "ingressBurst", "egressRate", "egressBurst"];

/// The rate in Mbit/s that the pod may send with, rounded up: 1 is the least that is no "unlimited". `None` when nothing
/// limits it. Bursts are left to the NIC, which has its own.
///
/// # Errors
/// Code 7 for another shape, for a value that is no number, and for a limit of what the pod receives.
pub(super) fn limit(bandwidth: Option<&Value>) -> Result<Option<u32>, CniError> {
    let Some(bandwidth) = bandwidth.filter(|value| !value.is_null()) else { return Ok(None) };
    let shape = || bad_value("runtimeConfig.bandwidth", bandwidth, "an object with egressRate in bit/s");
    let keys = bandwidth.as_object().ok_or_else(shape)?;
    let mut values = [0; KEYS.len()];
    for (key, number) in KEYS.into_iter().zip(&mut values) {
        let Some(value) = keys.get(key) else { continue };
        let place = format!("runtimeConfig.bandwidth.{key}");
        *number = value.as_u64().ok_or_else(|| bad_value(&place, value, "a number of bits from 0"))?;
    }
    let [ingress, _, egress, _] = values;
    if ingress > 0 {
        return Err(CniError::new(
            ErrorCode::INVALID_CONFIG,
            format!(
                "runtimeConfig.bandwidth.ingressRate is {ingress}; a NIC limits only what a VF sends, so what the pod \
                 receives cannot be limited"
            ),
        )
        .with_details("remove the annotation kubernetes.io/ingress-bandwidth from the pod"));
    }
    let rate = egress.div_ceil(UNIT);
    Ok(u32::try_from(rate).ok().filter(|rate| *rate > 0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_pod_sends_is_limited_in_whole_megabits_and_at_least_one() {
        for (bandwidth, rate) in [
            (json!(null), None),
            (json!({}), None),
            (json!({"egressRate": 0, "ingressRate": 0}), None),
            (json!({"egressRate": 1}), Some(1)),
            (json!({"egressRate": 10_000_000, "egressBurst": 2_147_483_647_u64}), Some(10)),
            (json!({"egressRate": 10_000_001}), Some(11)),
            // More than any NIC's rate is no limit.
            (json!({"egressRate": u64::MAX}), None),
        ] {
            assert_eq!(limit(Some(&bandwidth)).unwrap(), rate, "{bandwidth}");
        }
    }

    #[test]
    fn what_cannot_be_kept_is_refused_by_name() {
        for (bandwidth, part) in [
            (json!({"ingressRate": 1}), "ingressRate is 1"),
            (json!({"egressRate": "10M"}), "egressRate is \"10M\""),
            (json!({"egressRate": -1}), "egressRate is -1"),
            (json!(7), "bandwidth is 7"),
        ] {
            let error = limit(Some(&bandwidth)).unwrap_err();
            assert!(error.code == ErrorCode::INVALID_CONFIG && error.msg.contains(part), "{error}");
        }
    }
}
