//! Everything that a VM of the lab needs, made once and cached.
//!
//! Refuses to know what a VM is used for.

mod apt;
mod cache;
mod golang;
mod guest_program;
mod host;
mod image;
mod initramfs;
mod kernel;
mod packages;
mod progress;
mod rdma_image;
mod services;

use std::path::{Path, PathBuf};

use thiserror::Error;
use zerobridge_image::{LayoutError, TreeError};

pub use apt::AptError;
pub use cache::{Cache, CacheError};
pub use host::HostError;
pub(crate) use host::tail;
pub use kernel::KernelError;
pub use packages::PackageError;
pub use progress::Progress;
pub(crate) use services::object as services_object;

/// The container image of the lab, as a pod's manifest names it.
pub const IMAGE: &str = image::NAME;
/// The container image with verbs programs, as a pod's manifest names it.
pub const RDMA_IMAGE: &str = rdma_image::NAME;

/// Why the lab cannot be prepared.
#[derive(Debug, Error)]
pub enum PrepareError {
    /// A Debian package is missing.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// There is no kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A command failed.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The files of an image.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// An image.
    #[error(transparent)]
    Image(#[from] LayoutError),
}

/// Where the finished things are.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The uncompressed kernel.
    pub vmlinux: PathBuf,
    /// The folder that holds the kernel's modules by release.
    pub modules: PathBuf,
    /// The initial file system.
    pub initramfs: PathBuf,
    /// The guest's first program.
    pub guest: PathBuf,
    /// The folder of `kubelet`.
    pub kubernetes: PathBuf,
    /// The folder of `containerd`, its shim and `ctr`.
    pub containerd: PathBuf,
    /// The folder of the CNI reference plugins.
    pub cni_plugins: PathBuf,
    /// The folder of `cnitool`.
    pub cnitool: PathBuf,
    /// The container image's archive.
    pub image: PathBuf,
    /// The archive of the container image with verbs programs.
    pub rdma_image: PathBuf,
}

/// Installs, fetches and builds what is missing, with one line per step.
///
/// # Errors
/// The first step that fails; what was finished before it is kept.
pub fn prepare(cache: &Cache, progress: &Progress) -> Result<Prepared, PrepareError> {
    let made = |entry: &cache::Entry| if entry.made { "made" } else { "cached" }.to_owned();
    progress.step("Debian packages", packages::install_missing, |names| match names.len() {
        0 => "present".into(),
        _ => format!("installed {}", names.join(" ")),
    })?;
    let (kernel, release) = progress.step(
        "kernel",
        || kernel::prepare(cache),
        |(entry, release)| format!("{release}, {}", made(entry)),
    )?;
    let initramfs = progress.step("initramfs", || initramfs::prepare(cache, &kernel.path, &release), made)?;
    let guest = progress.step("lab-guest", || guest_program::prepare(cache), made)?;
    let image = progress.step("container image", || image::prepare(cache), made)?;
    let rdma_image = progress.step("container image with verbs", || rdma_image::prepare(cache), made)?;
    let name = format!("CNI reference plugins {}", golang::CNI_PLUGINS);
    let cni_plugins = progress.step(&name, || golang::cni_plugins(cache), made)?;
    let name = format!("cnitool {}", golang::CNITOOL);
    let cnitool = progress.step(&name, || golang::cnitool(cache), made)?;
    let name = format!("containerd {}", golang::CONTAINERD);
    let containerd = progress.step(&name, || golang::containerd(cache), made)?;
    let name = format!("kubelet {}", golang::KUBERNETES);
    let kubernetes = progress.step(&name, || golang::kubernetes(cache), made)?;
    Ok(Prepared {
        vmlinux: kernel.path.join("vmlinux"),
        modules: kernel.path.join("root/usr/lib/modules"),
        initramfs: initramfs.path.join("initrd.img"),
        guest: guest.path.join("lab-guest"),
        kubernetes: kubernetes.path,
        containerd: containerd.path,
        cni_plugins: cni_plugins.path,
        cnitool: cnitool.path,
        image: image.path.join(image::ARCHIVE),
        rdma_image: rdma_image.path.join(rdma_image::ARCHIVE),
    })
}

/// Builds etcd and the API server, if they are not in the cache, and returns the folder of `etcd` and `kube-apiserver`. No
/// VM needs them: they are run on the host.
///
/// # Errors
/// The Go toolchain is missing, or the build fails.
pub fn control_plane(cache: &Cache, progress: &Progress) -> Result<PathBuf, PrepareError> {
    let made = |entry: &cache::Entry| if entry.made { "made" } else { "cached" }.to_owned();
    let name = format!("etcd and kube-apiserver {}", golang::KUBERNETES);
    Ok(progress.step(&name, || golang::control_plane(cache), made)?.path)
}

/// Builds the tools that users apply `manifests/` with, if they are not in the cache, and returns the folder of `kustomize`
/// and `helm`.
///
/// # Errors
/// The Go toolchain is missing, or the build fails.
pub fn manifest_tools(cache: &Cache, progress: &Progress) -> Result<PathBuf, PrepareError> {
    let made = |entry: &cache::Entry| if entry.made { "made" } else { "cached" }.to_owned();
    Ok(progress.step("kustomize and helm", || golang::manifest_tools(cache), made)?.path)
}

/// Builds what a cluster has beyond the control plane and the kubelet, if it is not in the cache, and returns the folder of
/// `kube-controller-manager`, `kube-scheduler`, `kubectl`, which are run on the host, and `kube-proxy`, which is run on nodes.
///
/// # Errors
/// The Go toolchain is missing, or the build fails.
pub fn cluster_programs(cache: &Cache, progress: &Progress) -> Result<PathBuf, PrepareError> {
    let made = |entry: &cache::Entry| if entry.made { "made" } else { "cached" }.to_owned();
    let name = format!("controllers, scheduler, proxy, kubectl {}", golang::KUBERNETES);
    Ok(progress.step(&name, || golang::cluster(cache), made)?.path)
}

/// Builds Multus, if it is not in the cache, and returns the folder of `multus`, the thin plugin.
///
/// # Errors
/// The Go toolchain is missing, or the build fails.
pub fn multus(cache: &Cache, progress: &Progress) -> Result<PathBuf, PrepareError> {
    let made = |entry: &cache::Entry| if entry.made { "made" } else { "cached" }.to_owned();
    Ok(progress.step(&format!("Multus {}", golang::MULTUS), || golang::multus(cache), made)?.path)
}

/// The folder of the workspace that this crate is part of.
#[must_use]
pub fn checkout() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap_or(own)
}
