//! QEMU's command line for a VM with SR-IOV network cards. Decides only; starting it is the VM's business.

use std::net::Ipv4Addr;
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
    /// What it has as one of several; a VM by itself has nothing of it.
    pub member: Option<Member>,
    /// Whether the guest's clock counts its instructions, two nanoseconds each, on one thread for all processors. Times taken in
    /// it then say how much was done, however busy the host is.
    pub counts_instructions: bool,
}

impl Default for Hardware {
    fn default() -> Self {
        Self {
            cards: 2,
            boot_memory: 2560,
            more_memory: 1024,
            processors: 2,
            member: None,
            counts_instructions: false,
        }
    }
}

/// One of several VMs: what tells it from the others, and what joins them. Nothing of it changes when the VM is switched
/// off and on again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number from 1; in the MACs of its cards (`02:00:00:NUMBER:CARD:00`), in its UUID and in [`Member::address`].
    pub number: u8,
    /// The other end of its wire.
    pub wire: Wire,
    /// Ports of the host's loopback that lead to ports of the guest's [`Member::address`].
    pub forwards: Vec<Forward>,
    /// A raw image that the guest has as `/dev/vda`.
    pub disk: PathBuf,
}

/// The two ends of the wire that joins the cards of two VMs, as UDP ports of the host's loopback. Without a connection there
/// is none to be made again: a VM that comes back is on the wire, and one that is away gets nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wire {
    /// Where this VM receives.
    pub here: u16,
    /// Where the other one does.
    pub there: u16,
}

/// A TCP port of the host's loopback, and where it leads in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// On the host.
    pub host: u16,
    /// In the guest.
    pub guest: u16,
}

/// What a [`Member`] calls the host's loopback, as QEMU's user network has it.
pub const HOST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// Of the network of [`HOST_ADDRESS`], in bits.
pub const MANAGEMENT_PREFIX: u8 = 24;

impl Member {
    /// Its address on the management network, which each VM has for itself: the host tells them apart by the forwards.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 2, self.number.saturating_add(10))
    }

    /// The MAC of its interface on the management network.
    #[must_use]
    pub fn management_mac(&self) -> String {
        format!("02:00:00:{:02x}:ff:00", self.number)
    }

    fn uuid(&self) -> String {
        format!("7a65726f-6272-4964-8765-0000000000{:02x}", self.number)
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
    if hardware.counts_instructions {
        add(&["-machine", "q35", "-accel", "tcg,thread=single,tb-size=512", "-cpu", "max,phys-bits=46"]);
        add(&["-icount", "shift=1,align=off,sleep=on"]);
    } else if kvm {
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

    let number = hardware.member.as_ref().map_or(0, |member| member.number);
    for card in 1..=hardware.cards {
        add(&["-device", &format!("pcie-root-port,id=port{card},chassis={card},slot={card}")]);
        add(&["-netdev", &format!("hubport,id=wire{card},hubid=0")]);
        add(&[
            "-device",
            &format!("igb,bus=port{card},netdev=wire{card},mac=02:00:00:{number:02x}:{card:02x}:00"),
        ]);
    }
    if let Some(member) = &hardware.member {
        arguments.extend(member_arguments(member));
    }
    arguments
}

fn member_arguments(member: &Member) -> Vec<String> {
    let Wire { here, there } = member.wire;
    let ends = format!(
        "local.type=inet,local.host=127.0.0.1,local.port={here},remote.type=inet,remote.host=127.0.0.1,remote.port={there}"
    );
    let forwards = member
        .forwards
        .iter()
        .map(|Forward { host, guest }| format!(",hostfwd=tcp:127.0.0.1:{host}-{}:{guest}", member.address()));
    let network = format!("net={HOST_ADDRESS}/{MANAGEMENT_PREFIX},host={HOST_ADDRESS}");
    let disk = member.disk.display();
    // Unsafe only for a host that loses power: what the guest has written lives on in the host's memory.
    let drive = format!("file={disk},if=none,id=disk,format=raw,cache=unsafe,discard=unmap");
    [
        ("-uuid", member.uuid()),
        ("-netdev", format!("dgram,id=far,{ends}")),
        ("-netdev", "hubport,id=wire0,hubid=0,netdev=far".to_owned()),
        ("-netdev", format!("user,id=management,{network}{}", forwards.collect::<String>())),
        ("-device", format!("virtio-net-pci,netdev=management,mac={}", member.management_mac())),
        ("-drive", drive),
        ("-device", "virtio-blk-pci,drive=disk".to_owned()),
    ]
    .into_iter()
    .flat_map(|(flag, value)| [flag.to_owned(), value])
    .collect()
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
    fn the_two_of_a_wire_are_joined_and_share_no_address() {
        let files = Files { folder: "/run/vm".into() };
        let member = |number, here, there| {
            let forwards = vec![Forward { host: 4000 + u16::from(number), guest: 10250 }];
            Member { number, wire: Wire { here, there }, forwards, disk: format!("/d{number}").into() }
        };
        let [one, two] = [member(1, 7001, 7002), member(2, 7002, 7001)].map(|member| {
            let hardware = Hardware { member: Some(member), ..Hardware::default() };
            arguments(&prepared(), &hardware, &files, false)
        });
        let far = |list: &[String]| {
            value_of(list, "-netdev").into_iter().find(|one| one.contains("dgram")).unwrap().to_owned()
        };
        assert!(far(&one).contains("local.port=7001") && far(&one).contains("remote.port=7002"));
        assert!(far(&two).contains("local.port=7002") && far(&two).contains("remote.port=7001"));
        assert!(value_of(&one, "-netdev").contains(&"hubport,id=wire0,hubid=0,netdev=far"));
        let own = |list: &[String]| -> Vec<String> {
            let marked =
                |word: &&str| word.contains("mac=") || word.contains("hostfwd") || word.contains("file=");
            let words =
                ["-device", "-netdev", "-drive", "-uuid"].into_iter().flat_map(|flag| value_of(list, flag));
            words.filter(marked).map(str::to_owned).collect()
        };
        assert_eq!(own(&one).len(), 5, "two cards, the management interface, its forward, the disk");
        assert!(own(&one).iter().all(|word| !own(&two).contains(word)));
        assert_ne!(value_of(&one, "-uuid"), value_of(&two, "-uuid"));
        assert!(
            value_of(&one, "-netdev")
                .iter()
                .any(|word| word.ends_with("hostfwd=tcp:127.0.0.1:4001-10.0.2.11:10250"))
        );
    }

    #[test]
    fn emulation_is_chosen_without_the_processor_flags() {
        assert!(offers_virtualisation("flags\t\t: fpu vmx ssse3\n"));
        assert!(offers_virtualisation("flags\t\t: fpu svm\n"));
        assert!(!offers_virtualisation("flags\t\t: fpu hypervisor\nvmx flags\t: vnmi svm_lock\n"));
    }

    #[test]
    fn a_clock_that_counts_instructions_is_that_of_an_emulated_machine() {
        let files = Files { folder: "/run/vm".into() };
        for kvm in [false, true] {
            let usual = arguments(&prepared(), &Hardware::default(), &files, kvm);
            assert!(!usual.contains(&"-icount".to_owned()), "{usual:?}");
            let hardware = Hardware { counts_instructions: true, ..Hardware::default() };
            let counting = arguments(&prepared(), &hardware, &files, kvm);
            let position = counting.iter().position(|word| word == "-icount").unwrap();
            assert!(counting[position + 1].starts_with("shift=1,"), "{counting:?}");
            assert!(counting.iter().any(|word| word.starts_with("tcg,thread=single")), "{counting:?}");
        }
    }
}
