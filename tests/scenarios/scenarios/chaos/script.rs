//! A step as a shell script: one exchange with the guest for what is done and for what is seen afterwards.

use zerobridge_lab::{CniCall, LEDGER, PLUGIN_FOLDER};
use zerobridge_proto::PciAddress;
use zerobridge_scenarios::Disturbance;

/// What separates the parts of what a script prints.
pub(super) const MARK: &str = "--- next";

/// All promises in one row.
const LEDGER_AS_JSON: &str = "SELECT json_object(
    'attachments', (SELECT json_group_array(json_object('device', device, 'container', container_id,
        'path', sandbox_path, 'inode', sandbox_ino)) FROM attachments),
    'leases', (SELECT json_group_array(json_object('network', network, 'address', address,
        'container', container_id)) FROM leases WHERE released_at IS NULL))";

/// Calls of the plugin, all at once; each prints its exit code, its output and its log as a line of its own.
pub(super) fn calls(calls: &[(CniCall, Option<u64>)]) -> String {
    let mut script = String::from("mkdir -p /run/chaos; cd /run/chaos; rm -f -- *\n");
    for (number, (call, killed_after)) in calls.iter().enumerate() {
        let CniCall { command, container, netns, ifname, config, .. } = call;
        // A single quote would end the shell's word; no configuration here has one.
        let timeout = killed_after.map(|ms| format!("timeout -s KILL {}.{:03} ", ms / 1000, ms % 1000));
        script += &format!(
            "(set +e; printf %s '{config}' | CNI_COMMAND={command} CNI_CONTAINERID={container} CNI_NETNS={netns} \
             CNI_IFNAME={ifname} CNI_PATH={PLUGIN_FOLDER} {}{PLUGIN_FOLDER}/zerobridge >{number}.out 2>{number}.err; \
             echo $? >{number}.code) &\n",
            timeout.unwrap_or_default(),
        );
    }
    script += "wait\n";
    for number in 0..calls.len() {
        for kind in ["code", "out", "err"] {
            script += &format!("tr '\\n' ' ' <{number}.{kind}; echo\n");
        }
    }
    script
}

/// Changes a VF behind the plugin's back; what the kernel refuses is left as it is. `netns` is where the VF is, if not on
/// the host.
pub(super) fn disturb(how: Disturbance, vf: PciAddress, pf: &str, index: u32, netns: Option<&str>) -> String {
    let (list, ip) = match netns {
        Some(name) => (format!("ip netns exec {name} ls"), format!("ip -n {name}")),
        None => ("ls".to_owned(), "ip".to_owned()),
    };
    let change = match how {
        Disturbance::Down => format!("{ip} link set $dev down"),
        Disturbance::Mtu => format!("{ip} link set $dev mtu 1300"),
        Disturbance::Mac => format!("{ip} link set $dev address 02:00:00:0c:0a:05"),
        Disturbance::AddressesFlushed => format!("{ip} addr flush dev $dev"),
        Disturbance::RoutesFlushed => format!("{ip} route flush dev $dev"),
        Disturbance::Renamed => format!("{ip} link set $dev down; {ip} link set $dev name stray-{index}"),
        Disturbance::AltName => format!("{ip} link property add dev $dev altname chaos-{pf}-{index}"),
        Disturbance::Vlan => format!("ip link set {pf} vf {index} vlan 77"),
        Disturbance::SpoofCheckAndTrust => {
            format!("ip link set {pf} vf {index} spoofchk on; ip link set {pf} vf {index} trust on")
        }
        Disturbance::Rate => format!("ip link set {pf} vf {index} max_tx_rate 500"),
    };
    format!(
        "set +e; dev=$({list} /sys/bus/pci/devices/{vf}/net); [ -z \"$dev\" ] || {{ {change}; }} >/dev/null 2>&1; set -e\n"
    )
}

/// What is to be seen: the host's links, the ledger, the namespaces, and the links of those in `netns`.
pub(super) fn look(netns: &[String]) -> String {
    let mut script = format!(
        "echo '{MARK}'; ip -j -d link\n\
         echo '{MARK}'; sqlite3 -readonly {LEDGER} \"{LEDGER_AS_JSON}\"\n\
         echo '{MARK}'; stat -L -c '%i %n' /run/netns/* 2>/dev/null || true\n"
    );
    for name in netns {
        script += &format!("echo '{MARK}'; echo {name}; ip -n {name} -j -d link\n");
    }
    script
}
