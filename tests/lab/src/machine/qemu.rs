//! QEMU's command line for a VM with SR-IOV network cards. Decides only; starting it is the VM's business.

use std::path::{Path, PathBuf};

use zerobridge_lab_guest::PORT_NAME;

use crate::prepare::Prepared;

/// What a VM consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hardware {
    /// Network cards with SR-IOV, on one wire, each behind its own root port: `enp1s0`, `enp2s0` …
    pub cards: u8,
    /// Memory at boot in MiB. Above 2.8 GiB the firmware puts the VFs' registers above 4 GiB, where the emulated
    /// mailbox between VF and PF reads as zero.
    pub boot_memory: u32,
    /// More memory, plugged in as a module, in MiB.
    pub more_memory: u32,
    /// Processors.
    pub processors: u8,
}

impl Default for Hardware {
    fn default() -> Self {
        Self { cards: 2, boot_memory: 2560, more_memory: 1024, processors: 2 }
    }
}

/// The files of one running VM.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    /// The folder that they are in.
    pub(crate) folder: PathBuf,
}

impl Files {
    /// The agent's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("agent.sock")
    }

    /// What the guest's kernel and first process print.
    pub(crate) fn console(&self) -> PathBuf {
        self.folder.join("console.log")
    }

    /// What QEMU itself prints.
    pub(crate) fn qemu(&self) -> PathBuf {
        self.folder.join("qemu.log")
    }

    /// The folder that the guest sees as `/out`.
    pub(crate) fn out(&self) -> PathBuf {
        self.folder.join("out")
    }
}

/// Whether QEMU may use KVM: the processor must offer virtualisation and the device must open. A /dev/kvm without the
/// processor flags belongs to a paravirtual hypervisor that cannot run an ordinary kernel.
pub(crate) fn kvm_is_usable() -> bool {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let device = Path::new("/dev/kvm");
    offers_virtualisation(&flags) && std::fs::OpenOptions::new().read(true).write(true).open(device).is_ok()
}

fn offers_virtualisation(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter(|line| line.starts_with("flags"))
        .any(|line| line.split_whitespace().any(|flag| flag == "vmx" || flag == "svm"))
}

/// QEMU's arguments.
pub(crate) fn arguments(prepared: &Prepared, hardware: &Hardware, files: &Files, kvm: bool) -> Vec<String> {
    let mut arguments = Vec::new();
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(|word| (*word).to_owned()));
    let path = |path: &Path| path.display().to_string();

    add(&["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    if kvm {
        // Interrupt remapping of the emulated IOMMU needs the I/O APIC in user space.
        add(&["-machine", "q35,kernel-irqchip=split", "-accel", "kvm", "-cpu", "host"]);
    } else {
        add(&["-machine", "q35", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max,phys-bits=46"]);
    }
    add(&["-smp", &hardware.processors.to_string()]);
    add(&["-m", &format!("{}M,slots=2,maxmem=32G", hardware.boot_memory)]);
    if hardware.more_memory > 0 {
        add(&["-object", &format!("memory-backend-ram,id=more,size={}M", hardware.more_memory)]);
        add(&["-device", "pc-dimm,memdev=more"]);
    }
    add(&["-device", "intel-iommu", "-device", "virtio-rng-pci"]);

    add(&["-kernel", &path(&prepared.vmlinux), "-initrd", &path(&prepared.initramfs)]);
    // The kernel's test of its timer counts ticks and panics when a crowded host keeps them from an emulated processor.
    let append = format!(
        "console=ttyS0 panic=-1 quiet no_timer_check intel_iommu=on mitigations=off memhp_default_state=online lab.guest={} lab.modules={}",
        path(&prepared.guest),
        path(&prepared.modules)
    );
    add(&["-append", &append]);
    add(&["-serial", &format!("file:{}", path(&files.console()))]);

    add(&["-chardev", &format!("socket,id=agent,path={},server=on,wait=off", path(&files.socket()))]);
    add(&["-device", "virtio-serial-pci"]);
    add(&["-device", &format!("virtserialport,chardev=agent,name={PORT_NAME}")]);

    add(&["-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap"]);
    add(&["-device", "virtio-9p-pci,fsdev=host,mount_tag=host"]);
    add(&["-fsdev", &format!("local,id=out,path={},security_model=none", path(&files.out()))]);
    add(&["-device", "virtio-9p-pci,fsdev=out,mount_tag=out"]);

    for card in 1..=hardware.cards {
        add(&["-device", &format!("pcie-root-port,id=port{card},chassis={card},slot={card}")]);
        add(&["-netdev", &format!("hubport,id=wire{card},hubid=0")]);
        add(&["-device", &format!("igb,bus=port{card},netdev=wire{card},mac=02:00:00:00:{card:02x}:00")]);
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared() -> Prepared {
        Prepared {
            vmlinux: "/c/kernel/vmlinux".into(),
            modules: "/c/kernel/modules".into(),
            initramfs: "/c/initrd.img".into(),
            guest: "/c/guest/lab-guest".into(),
            kubernetes: "/c/k".into(),
            containerd: "/c/c".into(),
            cni_plugins: "/c/p".into(),
            cnitool: "/c/t".into(),
            image: "/c/i.tar".into(),
            rdma_image: "/c/r.tar".into(),
        }
    }

    fn value_of<'a>(arguments: &'a [String], flag: &str) -> Vec<&'a str> {
        let pairs = arguments.windows(2).filter(|pair| pair[0] == flag);
        pairs.map(|pair| pair[1].as_str()).collect()
    }

    #[test]
    fn every_card_has_its_own_root_port_and_all_share_the_wire() {
        let files = Files { folder: "/run/vm".into() };
        let arguments = arguments(&prepared(), &Hardware { cards: 3, ..Hardware::default() }, &files, false);
        let cards: Vec<&str> =
            value_of(&arguments, "-device").into_iter().filter(|device| device.starts_with("igb,")).collect();
        assert_eq!(cards[2], "igb,bus=port3,netdev=wire3,mac=02:00:00:00:03:00");
        assert_eq!(cards.len(), 3);
        assert!(value_of(&arguments, "-netdev").iter().all(|netdev| netdev.ends_with("hubid=0")));
    }

    #[test]
    fn boot_memory_stays_below_the_trap_whatever_is_asked_for_beyond() {
        let files = Files { folder: "/run/vm".into() };
        let hardware = Hardware { more_memory: 6144, ..Hardware::default() };
        let arguments = arguments(&prepared(), &hardware, &files, false);
        assert_eq!(value_of(&arguments, "-m"), ["2560M,slots=2,maxmem=32G"]);
        assert_eq!(value_of(&arguments, "-object"), ["memory-backend-ram,id=more,size=6144M"]);
    }

    #[test]
    fn the_host_cannot_be_written_to() {
        let files = Files { folder: "/run/vm".into() };
        let arguments = arguments(&prepared(), &Hardware::default(), &files, true);
        let shares = value_of(&arguments, "-fsdev");
        assert!(shares[0].contains("path=/,") && shares[0].contains("readonly=on"));
        assert!(shares[1].contains("path=/run/vm/out,"));
    }

    #[test]
    fn emulation_is_chosen_without_the_processor_flags() {
        assert!(offers_virtualisation("flags\t\t: fpu vmx ssse3\n"));
        assert!(offers_virtualisation("flags\t\t: fpu svm\n"));
        assert!(!offers_virtualisation("flags\t\t: fpu hypervisor\nvmx flags\t: vnmi svm_lock\n"));
    }
}
