//! Programs from the Go module proxy: the kubelet, the control plane, what else a cluster needs, containerd, Multus and the
//! CNI reference plugins, at pinned versions.

use std::path::Path;

use super::PrepareError;
use super::cache::{Cache, CacheError, Entry, Key};
use super::checkout;
use super::host::HostCommand;

/// Kept equal to `require k8s.io/kubernetes` in the fixture modules; a unit test compares them.
pub(crate) const KUBERNETES: &str = "1.36.3";
/// The programs that the fixture module's one binary can be.
const KUBERNETES_PROGRAMS: [&str; 1] = ["kubelet"];
/// Below the checkout.
const KUBERNETES_MODULE: &str = "tests/fixtures/kubernetes";

/// The programs that the binary of the control plane's module can be.
const CONTROL_PLANE_PROGRAMS: [&str; 2] = ["etcd", "kube-apiserver"];
/// Below the checkout.
const CONTROL_PLANE_MODULE: &str = "tests/fixtures/control-plane";

/// The programs that the binary of the cluster's module can be.
const CLUSTER_PROGRAMS: [&str; 4] = ["kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl"];
/// Below the checkout.
const CLUSTER_MODULE: &str = "tests/fixtures/cluster";

/// Kept equal to the `require` in its fixture module; a unit test compares them.
pub(crate) const MULTUS: &str = "4.3.0";
/// Below the checkout.
const MULTUS_MODULE: &str = "tests/fixtures/multus";
const MULTUS_PACKAGE: &str = "gopkg.in/k8snetworkplumbingwg/multus-cni.v4/cmd/multus";

pub(crate) const CONTAINERD: &str = "2.2.9";
const CONTAINERD_PACKAGES: [&str; 3] = [
    "github.com/containerd/containerd/v2/cmd/containerd",
    "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
    "github.com/containerd/containerd/v2/cmd/ctr",
];
/// Snapshotters that need C libraries are left out.
const CONTAINERD_TAGS: &str = "no_btrfs,no_devmapper,no_zfs,netgo,osusergo";

pub(crate) const CNI_PLUGINS: &str = "1.9.1";
/// What a measurement compares Zerobridge with, what scenarios chain it with, containerd's loopback plugin, and
/// the default network of a cluster with Multus.
const CNI_PLUGIN_PACKAGES: [&str; 5] = [
    "github.com/containernetworking/plugins/plugins/ipam/host-local",
    "github.com/containernetworking/plugins/plugins/main/host-device",
    "github.com/containernetworking/plugins/plugins/main/loopback",
    "github.com/containernetworking/plugins/plugins/main/ptp",
    "github.com/containernetworking/plugins/plugins/meta/tuning",
];

/// The specification's own runtime library, as a command.
pub(crate) const CNITOOL: &str = "1.3.1";
const CNITOOL_PACKAGES: [&str; 1] = ["github.com/containernetworking/cni/cnitool"];

/// The two tools that users apply `manifests/` with.
const MANIFEST_TOOLS: [(&str, &str); 2] =
    [("sigs.k8s.io/kustomize/kustomize/v5", "5.8.0"), ("helm.sh/helm/v3/cmd/helm", "3.19.2")];

/// A folder with `kubelet`.
pub(crate) fn kubernetes(cache: &Cache) -> Result<Entry, PrepareError> {
    multicall(cache, "kubernetes", KUBERNETES_MODULE, &KUBERNETES_PROGRAMS)
}

/// A folder with `etcd` and `kube-apiserver`.
pub(crate) fn control_plane(cache: &Cache) -> Result<Entry, PrepareError> {
    multicall(cache, "control-plane", CONTROL_PLANE_MODULE, &CONTROL_PLANE_PROGRAMS)
}

/// A folder with `kube-controller-manager`, `kube-proxy`, `kube-scheduler` and `kubectl`.
pub(crate) fn cluster(cache: &Cache) -> Result<Entry, PrepareError> {
    multicall(cache, "cluster", CLUSTER_MODULE, &CLUSTER_PROGRAMS)
}

/// A folder with `multus`, the thin plugin.
pub(crate) fn multus(cache: &Cache) -> Result<Entry, PrepareError> {
    let module = checkout().join(MULTUS_MODULE);
    let key = key()?.with_folder(&module)?;
    cache.entry("multus", &key, |folder| {
        go().args(["build", "-trimpath", "-ldflags", "-s -w", "-o"])
            .args([folder.join("multus")])
            .args([MULTUS_PACKAGE])
            .folder(&module)
            .run()?;
        Ok(())
    })
}

/// A folder with the one binary of a fixture module, and a link to it for each program that it can be.
fn multicall(cache: &Cache, name: &str, module: &str, programs: &[&str]) -> Result<Entry, PrepareError> {
    let module = checkout().join(module);
    let minor = KUBERNETES.split('.').nth(1).unwrap_or_default();
    let version = "k8s.io/component-base/version";
    let flags = format!(
        "-s -w -X {version}.gitVersion=v{KUBERNETES} -X {version}.gitMajor=1 -X {version}.gitMinor={minor}"
    );
    let key = key()?.with("flags", &flags).with_folder(&module)?;
    cache.entry(name, &key, |folder| {
        let binary = folder.join(name);
        go().args(["build", "-trimpath", "-ldflags", &flags, "-o"])
            .args([&binary])
            .args(["."])
            .folder(&module)
            .run()?;
        for program in programs {
            std::os::unix::fs::symlink(name, folder.join(program))
                .map_err(CacheError::file("link in", folder))?;
        }
        Ok(())
    })
}

/// A folder with `containerd`, `containerd-shim-runc-v2` and `ctr`.
pub(crate) fn containerd(cache: &Cache) -> Result<Entry, PrepareError> {
    install(cache, "containerd", &CONTAINERD_PACKAGES, CONTAINERD, CONTAINERD_TAGS)
}

/// A folder with `host-device`, `host-local`, `loopback`, `ptp` and `tuning`.
pub(crate) fn cni_plugins(cache: &Cache) -> Result<Entry, PrepareError> {
    install(cache, "cni-plugins", &CNI_PLUGIN_PACKAGES, CNI_PLUGINS, "")
}

/// A folder with `cnitool`.
pub(crate) fn cnitool(cache: &Cache) -> Result<Entry, PrepareError> {
    install(cache, "cnitool", &CNITOOL_PACKAGES, CNITOOL, "")
}

/// A folder with `kustomize` and `helm`.
pub(crate) fn manifest_tools(cache: &Cache) -> Result<Entry, PrepareError> {
    let versioned = MANIFEST_TOOLS.map(|(package, version)| format!("{package}@v{version}"));
    let key = key()?.with("packages", versioned.join(" "));
    cache.entry("manifest-tools", &key, |folder| {
        // One by one: go installs packages of one module at a time.
        versioned.iter().try_for_each(|package| go_install(std::slice::from_ref(package), "", folder))
    })
}

fn install(
    cache: &Cache,
    name: &str,
    packages: &[&str],
    version: &str,
    tags: &str,
) -> Result<Entry, PrepareError> {
    let versioned: Vec<String> = packages.iter().map(|package| format!("{package}@v{version}")).collect();
    let key = key()?.with("packages", versioned.join(" ")).with("tags", tags);
    cache.entry(name, &key, |folder| go_install(&versioned, tags, folder))
}

fn go_install(versioned: &[String], tags: &str, folder: &Path) -> Result<(), PrepareError> {
    go().args(["install", "-trimpath", "-ldflags", "-s -w", "-tags", tags])
        .args(versioned)
        .env("GOBIN", folder)
        .run()?;
    Ok(())
}

fn key() -> Result<Key, PrepareError> {
    Ok(Key::new().with("go", go().args(["version"]).text()?))
}

/// go without the machine's own flags, making programs that need no C library.
fn go() -> HostCommand {
    HostCommand::new("go").env("CGO_ENABLED", "0").env("GOFLAGS", "")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_fixture_modules_require_the_version_that_is_announced() {
        for module in [KUBERNETES_MODULE, CONTROL_PLANE_MODULE, CLUSTER_MODULE] {
            let text = fs::read_to_string(checkout().join(module).join("go.mod")).unwrap();
            let required = format!("k8s.io/kubernetes v{KUBERNETES}\n");
            assert!(text.contains(&required), "go.mod of {module} and KUBERNETES differ");
        }
        let text = fs::read_to_string(checkout().join(MULTUS_MODULE).join("go.mod")).unwrap();
        assert!(
            text.contains(&format!("multus-cni.v4 v{MULTUS}\n")),
            "go.mod of {MULTUS_MODULE} and MULTUS differ"
        );
    }
}
