//! A node: a VM with a disk of its own, containerd, a kubelet and a kube-proxy in it. It may lose its power at any moment and
//! get it back.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use zerobridge_lab::{
    Guest, GuestError, HOST_ADDRESS, Hardware, MANAGEMENT_PREFIX, Member, PLUGIN_FOLDER, Prepared, Vm,
    import_image, launch_runtime, program,
};

use super::error::ClusterError;
use super::network::{self, MULTUS_CONFIG, MULTUS_KUBECONFIG, PLUGINS};
use super::programs::{
    AUTHORITY, KUBELET_CONFIG, KUBELET_KUBECONFIG, PROXY_CONFIG, PROXY_KUBECONFIG, kubeconfig,
    kubelet_arguments, kubelet_config, proxy_config,
};
use super::users;

const SETUP: &str = include_str!("setup.sh");
/// Sparse: what is not written takes no place on the host.
const DISK_SIZE: u64 = 8 << 30;
/// Memory in MiB, in the two parts of [`Hardware`].
const MEMORY: (u32, u32) = (2560, 512);
const LIMIT: Duration = Duration::from_secs(120);
/// Answers with success once all rules are written that are due.
const PROXY_HEALTH: &str = "http://127.0.0.1:10256/healthz";

/// What all nodes of a cluster have in common.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) prepared: Prepared,
    /// The folder of `kube-proxy`.
    pub(super) programs: PathBuf,
    /// The folder of `multus`, where there shall be a default network.
    pub(super) multus: Option<PathBuf>,
    /// VFs on each card.
    pub(super) vfs: Vec<u8>,
    /// Archives of images.
    pub(super) images: Vec<PathBuf>,
    /// How the API server is reached from a node.
    pub(super) server: String,
    /// Its authority's certificate.
    pub(super) authority: String,
    /// Number and `InternalIP` of all nodes.
    pub(super) nodes: Vec<(u8, Ipv4Addr)>,
}

impl Plan {
    fn others(&self, own: u8) -> impl Iterator<Item = (u8, Ipv4Addr)> {
        self.nodes.iter().copied().filter(move |(number, _)| *number != own)
    }
}

/// A node of the cluster.
#[derive(Debug)]
pub struct ClusterNode {
    name: String,
    member: Member,
    plan: Arc<Plan>,
    vm: Option<Vm>,
    kubelet: u32,
    /// Whether its disk has what belongs on it.
    installed: bool,
}

impl ClusterNode {
    pub(super) fn new(member: Member, plan: Arc<Plan>) -> Result<Self, ClusterError> {
        make_disk(&member.disk)?;
        Ok(Self { name: name_of(member.number), member, plan, vm: None, kubelet: 0, installed: false })
    }

    /// What the API server calls it, which is also its host name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its `InternalIP`.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.member.address()
    }

    /// Whether it has power.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.vm.is_some()
    }

    /// The way into it, for any command.
    ///
    /// # Errors
    /// [`ClusterError::Off`].
    pub fn guest(&mut self) -> Result<&mut Guest, ClusterError> {
        Ok(&mut self.vm()?.guest)
    }

    /// The VM itself, with its console and the folder of its logs.
    ///
    /// # Errors
    /// [`ClusterError::Off`].
    pub fn vm(&mut self) -> Result<&mut Vm, ClusterError> {
        self.vm.as_mut().ok_or_else(|| ClusterError::Off { node: self.name.clone() })
    }

    /// Makes the image in an archive of the host known to the node's runtime, which keeps it on its disk.
    ///
    /// # Errors
    /// When it cannot be copied or imported, or the node is off.
    pub fn import_image(&mut self, archive: &Path) -> Result<(), ClusterError> {
        // By way of /out: what the guest sees of the host's root may be older than the host's file.
        let copy = self.vm()?.out().join("image.tar");
        fs::copy(archive, &copy).map_err(ClusterError::file("copy", archive))?;
        let plan = Arc::clone(&self.plan);
        let outcome = self.on_guest(|guest| import_image(guest, &plan.prepared, Path::new("/out/image.tar")));
        fs::remove_file(&copy).map_err(ClusterError::file("remove", copy))?;
        outcome
    }

    /// Kills the kubelet with SIGKILL and starts it again, without waiting for what it does then.
    ///
    /// # Errors
    /// When it cannot be killed or started, or the node is off.
    pub fn restart_kubelet(&mut self) -> Result<(), ClusterError> {
        let old = self.kubelet;
        self.on_guest(|guest| guest.kill(old))?;
        self.start_kubelet()
    }

    /// Takes its power away: no program gets to know, and what is not on its disk is lost.
    pub(super) fn power_off(&mut self) {
        self.vm.take();
    }

    /// Boots it and starts its programs.
    pub(super) fn power_on(&mut self) -> Result<(), ClusterError> {
        let (boot_memory, more_memory) = MEMORY;
        let cards = u8::try_from(self.plan.vfs.len()).unwrap_or(u8::MAX);
        let member = Some(self.member.clone());
        let hardware = Hardware { cards, boot_memory, more_memory, member, ..Hardware::default() };
        let vm = Vm::boot(&self.plan.prepared, &hardware);
        self.vm = Some(vm.map_err(|source| ClusterError::Vm { node: self.name.clone(), source })?);
        let plan = Arc::clone(&self.plan);
        let (name, member) = (self.name.clone(), self.member.clone());
        let first = !self.installed;
        self.on_guest(|guest| {
            set_up(guest, &name, &member)?;
            for (card, count) in (1..).zip(&plan.vfs) {
                guest.create_vfs(card, *count)?;
            }
            write_configurations(guest, &plan, &name)?;
            let others = || plan.others(member.number);
            for (number, address) in others() {
                guest.shell(&network::route_to_node(number, address))?;
            }
            if let Some(multus) = &plan.multus {
                if first {
                    install_multus(guest, &plan, multus, member.number)?;
                }
                for (number, _) in others() {
                    guest.shell(&network::route(number))?;
                }
            }
            launch_runtime(guest, &plan.prepared).map(drop)
        })?;
        if first {
            plan.images.iter().try_for_each(|archive| self.import_image(archive))?;
        }
        self.installed = true;
        self.start_kubelet()?;
        let proxy = plan.programs.join("kube-proxy").display().to_string();
        let config = format!("--config={PROXY_CONFIG}");
        self.on_guest(|guest| guest.start(program(&[&proxy, &config, "--v=2"]), "kube-proxy").map(drop))
    }

    /// Waits until kube-proxy has written what it knows of.
    pub(super) fn wait_services(&mut self, limit: Duration) -> Result<(), ClusterError> {
        self.on_guest(|guest| {
            guest.wait_for("kube-proxy's first set of rules", limit, |guest| {
                let output =
                    guest.output(program(&["busybox", "wget", "-q", "-O", "-", PROXY_HEALTH]), LIMIT)?;
                Ok(if output.code == 0 { Ok(()) } else { Err(output.stderr) })
            })
        })
    }

    fn start_kubelet(&mut self) -> Result<(), ClusterError> {
        let kubelet = self.plan.prepared.kubernetes.join("kubelet").display().to_string();
        let arguments = kubelet_arguments(&self.name, self.address());
        let words: Vec<&str> =
            std::iter::once(kubelet.as_str()).chain(arguments.iter().map(String::as_str)).collect();
        self.kubelet = self.on_guest(|guest| guest.start(program(&words), "kubelet"))?;
        Ok(())
    }

    fn on_guest<T>(
        &mut self,
        action: impl FnOnce(&mut Guest) -> Result<T, GuestError>,
    ) -> Result<T, ClusterError> {
        let node = self.name.clone();
        action(self.guest()?).map_err(|source| ClusterError::Guest { node, source })
    }
}

/// A node's name.
pub(super) fn name_of(number: u8) -> String {
    format!("n{number}")
}

fn make_disk(path: &Path) -> Result<(), ClusterError> {
    let file = File::create(path).map_err(ClusterError::file("create", path))?;
    file.set_len(DISK_SIZE).map_err(ClusterError::file("make room in", path))?;
    let command = format!("mke2fs -q -F -t ext4 {}", path.display());
    let output = Command::new("mke2fs").args(["-q", "-F", "-t", "ext4"]).arg(path).output();
    let output = output.map_err(|source| ClusterError::Run { command: command.clone(), source })?;
    if output.status.success() {
        return Ok(());
    }
    Err(ClusterError::Failed { command, said: String::from_utf8_lossy(&output.stderr).into_owned() })
}

fn set_up(guest: &mut Guest, name: &str, member: &Member) -> Result<(), GuestError> {
    let machine_id = format!("{:032x}", u32::from(member.number) + 0x7a62_0000);
    let address = format!("{}/{MANAGEMENT_PREFIX}", member.address());
    let wire = format!("{}/24", network::on_the_wire(member.number));
    let (mac, gateway) = (member.management_mac(), HOST_ADDRESS.to_string());
    guest.run_within(
        &["sh", "-ec", SETUP, "setup", name, &machine_id, &mac, &address, &gateway, &wire],
        LIMIT,
    )?;
    Ok(())
}

fn write_configurations(guest: &mut Guest, plan: &Plan, name: &str) -> Result<(), GuestError> {
    guest.write(AUTHORITY, &plan.authority)?;
    let kubelet = kubeconfig(&plan.server, &users::kubelet(name));
    guest.write(KUBELET_KUBECONFIG, &kubelet.to_string())?;
    guest.write(KUBELET_CONFIG, &kubelet_config().to_string())?;
    guest.write(PROXY_KUBECONFIG, &kubeconfig(&plan.server, users::PROXY).to_string())?;
    guest.write(PROXY_CONFIG, &proxy_config(name).to_string())
}

fn install_multus(guest: &mut Guest, plan: &Plan, multus: &Path, number: u8) -> Result<(), GuestError> {
    let binaries = std::iter::once(multus.join("multus"))
        .chain(PLUGINS.iter().map(|plugin| plan.prepared.cni_plugins.join(plugin)))
        .map(|path| path.display().to_string());
    guest.run(&["mkdir", "-p", PLUGIN_FOLDER])?;
    for binary in binaries {
        guest.run(&["cp", &binary, PLUGIN_FOLDER])?;
    }
    guest.write(MULTUS_KUBECONFIG, &kubeconfig(&plan.server, users::MULTUS).to_string())?;
    guest.write(MULTUS_CONFIG, &network::multus_config(number).to_string())
}
