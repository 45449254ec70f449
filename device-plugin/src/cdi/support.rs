//! Whether device nodes reach a container by CDI: a pure decision from what the node says about itself.

use crate::config::CdiMode;
use crate::release::first_two_numbers;

/// The first Kubernetes in which a device plugin's `cdi_devices` are generally available (feature gate
/// `DevicePluginCDIDevices`).
const KUBELET: (u32, u32) = (1, 31);

/// The first containerd that has CDI switched on unless told otherwise (containerd#9621).
const CONTAINERD: (u32, u32) = (2, 0);

/// The first CRI-O with CDI, which is always on there.
const CRI_O: (u32, u32) = (1, 23);

/// How device nodes reach a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeMethod {
    /// The kubelet hands them to the runtime one by one.
    Plain,
    /// The runtime reads them from a CDI specification.
    Cdi,
}

/// How device nodes reach a container under this configuration, kubelet and runtime. The versions are those of a Node's
/// `status.nodeInfo`, `v1.34.1` and `containerd://2.1.4`. What is not known to work with CDI gets nodes plainly: that works
/// everywhere.
#[must_use]
pub(crate) fn node_method(mode: CdiMode, kubelet: Option<&str>, runtime: Option<&str>) -> NodeMethod {
    match mode {
        CdiMode::On => NodeMethod::Cdi,
        CdiMode::Off => NodeMethod::Plain,
        CdiMode::Auto => {
            let kubelet = kubelet.and_then(version).is_some_and(|version| version >= KUBELET);
            if kubelet && runtime.is_some_and(has_cdi) { NodeMethod::Cdi } else { NodeMethod::Plain }
        }
    }
}

fn has_cdi(runtime: &str) -> bool {
    let Some((name, text)) = runtime.split_once("://") else { return false };
    let since = match name {
        "containerd" => CONTAINERD,
        "cri-o" => CRI_O,
        _ => return false,
    };
    version(text).is_some_and(|version| version >= since)
}

/// Major and minor number.
fn version(text: &str) -> Option<(u32, u32)> {
    first_two_numbers(text.strip_prefix('v').unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_takes_cdi_where_both_sides_are_known_to_have_it() {
        for (kubelet, runtime, cdi) in [
            ("v1.34.1", "containerd://2.1.4", true),
            ("v1.31.0", "containerd://2.0.0", true),
            ("v1.31.2+k3s1", "containerd://2.0.1-k3s1", true),
            ("v1.33.0-gke.1", "containerd://v2.0.0-rc.1", true),
            ("v2.0.0", "containerd://3.0", true),
            ("v1.31.0", "cri-o://1.31.0", true),
            ("v1.31.0", "cri-o://1.23.0-dev", true),
            ("v1.30.9", "containerd://2.1.4", false),
            ("v1.34.1", "containerd://1.7.22-k3s1", false),
            ("v1.34.1", "cri-o://1.22.5", false),
            ("v1.34.1", "docker://27.0.3", false),
            ("v1.34.1", "containerd", false),
            ("v1.34.1", "containerd://Unknown", false),
            ("v1", "containerd://2.1.4", false),
            ("", "containerd://2.1.4", false),
        ] {
            let expected = if cdi { NodeMethod::Cdi } else { NodeMethod::Plain };
            assert_eq!(
                node_method(CdiMode::Auto, Some(kubelet), Some(runtime)),
                expected,
                "{kubelet} {runtime}"
            );
        }
    }

    #[test]
    fn what_is_unknown_is_plain_and_what_is_said_is_done() {
        let (kubelet, runtime) = (Some("v1.34.1"), Some("containerd://2.1.4"));
        for (mode, kubelet, runtime, expected) in [
            (CdiMode::Auto, None, runtime, NodeMethod::Plain),
            (CdiMode::Auto, kubelet, None, NodeMethod::Plain),
            (CdiMode::On, None, None, NodeMethod::Cdi),
            (CdiMode::Off, kubelet, runtime, NodeMethod::Plain),
        ] {
            assert_eq!(node_method(mode, kubelet, runtime), expected);
        }
    }
}
