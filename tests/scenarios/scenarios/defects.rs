//! The defects that sriov-cni has, each as a scenario that its replacement passes.
//!
//! D6, the choice of the PF's interface on cards with several ports and in switchdev mode, needs hardware that no emulator
//! has, and is tested on trees of files: `kernel/src/sysfs/tests.rs`.

use serde_json::{Value, json};
use zerobridge_lab::{CniCall, Guest, LEDGER, Lab, PLUGIN_FOLDER, VFS_PER_CARD};

use crate::bad_input::refused_without_a_trace;
use crate::expect;
use crate::group::{Group, Outcome, say};
use crate::hand::{Attached, config, make_sandbox, promises_of, remove_sandbox};

pub(crate) const GROUP: Group = Group {
    name: "defects",
    vm: "conformance",
    scenarios: &[
        ("d01_a_refused_setting_leaves_nothing_half_applied", a_refused_setting_leaves_nothing),
        ("d02_a_del_that_failed_keeps_its_record_for_the_next", a_failed_del_keeps_its_record),
        ("d03_a_late_del_does_not_touch_the_vf_of_the_next_pod", a_late_del_touches_nothing),
        ("d04_a_del_without_a_path_restores_all", a_del_without_a_path_restores_all),
        ("d05_a_vf_that_returned_under_the_pods_name_gets_its_own_back", a_vf_gets_its_name_back),
        ("d07_internal_state_in_a_configuration_is_refused", internal_state_is_refused),
        ("d08_a_misspelt_switch_is_an_error", a_misspelt_switch_is_an_error),
        ("d09_a_record_of_an_earlier_boot_restores_nothing", a_record_of_an_earlier_boot_restores_nothing),
        ("d10_an_address_is_released_after_it_has_left_the_pod", an_address_is_released_last),
        ("d11_routes_keep_their_mtu_and_ipv6_is_usable_at_once", routes_keep_their_mtu),
        ("d12_settings_cost_no_lists_of_all_vfs", settings_cost_no_lists_of_all_vfs),
    ],
};

/// Ends unless nothing is left of a container's attachment and the VFs are as they were created.
fn nothing_is_left(lab: &mut Lab, container: &str) -> Outcome {
    let before = lab.pristine();
    expect::as_before(&mut lab.vm.guest, &before)?;
    expect::equal("what the ledger has", &promises_of(&mut lab.vm.guest, container)?, &(0, 0))
}

/// The code for what the kernel or the driver does not do.
const REFUSED: u32 = 105;

fn a_refused_setting_leaves_nothing(lab: &mut Lab) -> Outcome {
    let mut guest = lab.install_plugins()?;
    make_sandbox(guest, "half")?;
    for (index, name, value) in [(0, "link_state", json!("disable")), (1, "min_tx_rate", json!(100))] {
        // VLAN, address and spoof check before it are accepted; igb has no such thing as the last one.
        let mut config = config(guest.vf(1, index)?);
        config["trust"] = "on".into();
        config[name] = value;
        let error = guest.cni_refusal(&CniCall::new("ADD", "half", &config))?;
        expect::equal(&format!("the code of {error:?}"), &error.code, &REFUSED)?;
        nothing_is_left(lab, "half")?;
        guest = &mut lab.vm.guest;
    }
    remove_sandbox(guest, "half")
}

fn a_failed_del_keeps_its_record(lab: &mut Lab) -> Outcome {
    let guest = lab.install_plugins()?;
    let device = guest.vf(1, 0)?;
    let home = guest.snapshot()?.field(device, "name").unwrap_or_default().to_owned();
    let attached = Attached::new(guest, "stuck", device)?;
    // Another link has taken the VF's name meanwhile, so the VF cannot be what it was.
    guest.run(&["ip", "link", "add", &home, "type", "bridge"])?;
    guest.cni_refusal(&attached.del())?;
    expect::equal("what the ledger has", &attached.promises(guest)?, &(1, 1))?;
    guest.run(&["ip", "link", "del", &home])?;
    guest.cni_success(&attached.del())?;
    remove_sandbox(guest, attached.name)?;
    nothing_is_left(lab, "stuck")
}

fn a_late_del_touches_nothing(lab: &mut Lab) -> Outcome {
    let guest = lab.install_plugins()?;
    let device = guest.vf(1, 0)?;
    let old = Attached::new(guest, "old", device)?;
    remove_sandbox(guest, old.name)?;
    let new = Attached::new(guest, "new", device)?;
    let state = guest.snapshot()?;
    for netns in ["/run/netns/old", "", "/run/netns/new"] {
        // The last one: the path of a sandbox may be used again, the container's ID is not.
        guest.cni_success(&CniCall { netns: netns.into(), ..old.del() })?;
        expect::as_before(guest, &state)?;
        expect::equal("what the ledger has of the new pod", &new.promises(guest)?, &(1, 1))?;
    }
    guest.cni_success(&new.del())?;
    remove_sandbox(guest, new.name)?;
    nothing_is_left(lab, "old")
}

fn a_del_without_a_path_restores_all(lab: &mut Lab) -> Outcome {
    let guest = lab.install_plugins()?;
    let device = guest.vf(1, 0)?;
    let attached = Attached::new(guest, "pathless", device)?;
    guest.cni_success(&CniCall { netns: String::new(), ..attached.del() })?;
    remove_sandbox(guest, attached.name)?;
    nothing_is_left(lab, "pathless")
}

fn a_vf_gets_its_name_back(lab: &mut Lab) -> Outcome {
    let guest = lab.install_plugins()?;
    let device = guest.vf(1, 0)?;
    let attached = Attached::new(guest, "dead", device)?;
    remove_sandbox(guest, attached.name)?;
    guest.wait_for("the VF's return", std::time::Duration::from_secs(30), |guest| {
        let snapshot = guest.snapshot()?;
        let name = snapshot.field(device, "name").unwrap_or_default();
        Ok(if name == "net1" { Ok(()) } else { Err(format!("it is {name}")) })
    })?;
    guest.cni_success(&attached.del())?;
    nothing_is_left(lab, "dead")
}

fn internal_state_is_refused(lab: &mut Lab) -> Outcome {
    let guest = lab.install_plugins()?;
    make_sandbox(guest, "injected")?;
    for (key, value) in [
        ("Master", json!("enp2s0")),
        ("VFID", json!(3)),
        ("OrigVfState", json!({"HostIFName": "eth0", "AdminMAC": "02:00:00:00:00:99"})),
        ("MTU", json!(9000)),
        ("DPDKMode", json!(true)),
    ] {
        let mut config = config(guest.vf(1, 0)?);
        config[key] = value;
        refused_without_a_trace(guest, &CniCall::new("ADD", "injected", &config), &[key])?;
    }
    remove_sandbox(guest, "injected")
}

fn a_misspelt_switch_is_an_error(lab: &mut Lab) -> Outcome {
    let guest = lab.install_plugins()?;
    make_sandbox(guest, "misspelt")?;
    for (key, value) in [
        ("spoofchk", json!("yes")),
        ("spoofchk", json!(true)),
        ("trust", json!("enable")),
        ("link_state", json!("up")),
    ] {
        let mut config = config(guest.vf(1, 0)?);
        config[key] = value.clone();
        let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let words = [key, &shown, if key == "link_state" { "auto" } else { "on" }];
        refused_without_a_trace(guest, &CniCall::new("ADD", "misspelt", &config), &words)?;
    }
    remove_sandbox(guest, "misspelt")
}

fn a_record_of_an_earlier_boot_restores_nothing(lab: &mut Lab) -> Outcome {
    let guest = lab.install_plugins()?;
    let device = guest.vf(1, 0)?;
    let attached = Attached::new(guest, "before", device)?;
    let sql = |guest: &mut Guest, statements: &str| {
        guest.run(&["sqlite3", LEDGER, &format!("ATTACH '/run/kept.db' AS kept; {statements}")])
    };
    sql(guest, "CREATE TABLE kept.attachments AS SELECT * FROM main.attachments")?;
    guest.cni_success(&attached.del())?;
    remove_sandbox(guest, attached.name)?;
    // As after a reboot without a DEL: the record is there, what it says of the VF is not so any more.
    let rows = sql(
        guest,
        "UPDATE kept.attachments SET boot_id = 'earlier', original = replace(original, '\"mtu\":1500', '\"mtu\":9000');
         INSERT INTO main.attachments SELECT * FROM kept.attachments; SELECT original FROM main.attachments",
    )?;
    expect::that(rows.contains("\"mtu\":9000"), || format!("the record was not changed: {rows}"))?;
    let next = Attached::new(guest, "after", device)?;
    expect::equal("what the ledger has of the earlier boot", &promises_of(guest, "before")?.0, &0)?;
    guest.cni_success(&next.del())?;
    guest.cni_success(&attached.del())?;
    remove_sandbox(guest, next.name)?;
    guest.run(&["rm", "/run/kept.db"])?;
    nothing_is_left(lab, "after")
}

/// An IPAM plugin that notes where the VF is when it is told to release its address.
const WITNESS: &str = r#"#!/bin/sh
cat > /dev/null
case $CNI_COMMAND in
ADD) echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.23.0.2/24"}]}' ;;
DEL) if ip -n witnessed link show dev net1; then echo inside; else echo gone; fi > /run/witness 2> /dev/null ;;
esac
"#;

fn an_address_is_released_last(lab: &mut Lab) -> Outcome {
    let guest = lab.install_plugins()?;
    let path = format!("{PLUGIN_FOLDER}/witness");
    guest.write(&path, WITNESS)?;
    guest.run(&["chmod", "755", &path])?;
    let mut config = config(guest.vf(1, 0)?);
    config["ipam"] = json!({"type": "witness"});
    make_sandbox(guest, "witnessed")?;
    guest.cni_success(&CniCall::new("ADD", "witnessed", &config))?;
    let inside = guest.run(&["ip", "-n", "witnessed", "addr", "show", "dev", "net1"])?;
    expect::that(inside.contains("10.23.0.2/24"), || format!("the address is not there: {inside}"))?;
    guest.cni_success(&CniCall::new("DEL", "witnessed", &config))?;
    let seen = guest.read("/run/witness")?.unwrap_or_default();
    expect::equal("where the VF was when its address was released", &seen.lines().last(), &Some("gone"))?;
    remove_sandbox(guest, "witnessed")?;
    nothing_is_left(lab, "witnessed")
}

fn routes_keep_their_mtu(lab: &mut Lab) -> Outcome {
    let guest = lab.install_plugins()?;
    let mut config = config(guest.vf(1, 0)?);
    config["ipam"] = json!({
        "type": "zerobridge-ipam",
        "ranges": [[{"subnet": "10.24.0.0/24", "gateway": "10.24.0.1"}],
                   [{"subnet": "fd00:24::/64", "gateway": "fd00:24::1"}]],
        "routes": [{"dst": "10.25.0.0/16", "mtu": 1300, "advmss": 1200}, {"dst": "fd00:25::/64"}],
    });
    make_sandbox(guest, "routed")?;
    guest.cni_success(&CniCall::new("ADD", "routed", &config))?;
    let addresses =
        guest.run(&["ip", "-n", "routed", "-6", "addr", "show", "dev", "net1", "scope", "global"])?;
    expect::that(addresses.contains("fd00:24::") && !addresses.contains("tentative"), || {
        format!("the IPv6 address cannot be used yet: {addresses}")
    })?;
    let route = guest.run(&["ip", "-n", "routed", "route", "show", "10.25.0.0/16"])?;
    for word in ["via 10.24.0.1", "mtu 1300", "advmss 1200"] {
        expect::that(route.contains(word), || format!("the route has no {word:?}: {route}"))?;
    }
    guest.cni_success(&CniCall::new("DEL", "routed", &config))?;
    remove_sandbox(guest, "routed")?;
    nothing_is_left(lab, "routed")
}

/// Counts, from now on, how often igb is asked for the state of one VF: a list of a PF's VFs asks once for each.
const COUNT: &str = "
    mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing
    cd /sys/kernel/tracing
    echo 0 > events/enable
    echo > kprobe_events
    echo 'p:zerobridge_vf igb:igb_ndo_get_vf_config' > kprobe_events
    echo 1 > events/kprobes/zerobridge_vf/enable";

const COUNTED: &str = "awk '$1 == \"zerobridge_vf\" {print $2}' /sys/kernel/tracing/kprobe_profile";

fn settings_cost_no_lists_of_all_vfs(lab: &mut Lab) -> Outcome {
    let guest = lab.install_plugins()?;
    let device = guest.vf(1, 0)?;
    let few =
        json!({"cniVersion": "1.1.0", "name": "few", "type": "zerobridge", "deviceID": device, "vlan": 100});
    let mut many: Value = config(device);
    many["trust"] = "on".into();
    many["max_tx_rate"] = 100.into();
    make_sandbox(guest, "counted")?;
    let mut counts = Vec::new();
    for config in [&few, &many] {
        guest.run(&["udevadm", "settle"])?;
        guest.shell(COUNT)?;
        guest.cni_success(&CniCall::new("ADD", "counted", config))?;
        counts.push(guest.shell(COUNTED)?.trim().parse::<u32>()? / u32::from(VFS_PER_CARD));
        guest.cni_success(&CniCall::new("DEL", "counted", config))?;
    }
    guest.shell("cd /sys/kernel/tracing; echo 0 > events/kprobes/enable; echo > kprobe_events")?;
    say(&format!("  lists of VFs read by ADD with one setting and with five: {counts:?}"));
    // One before, to know what it was, and one after, to know that it is as wanted.
    expect::equal("lists of all VFs that ADD reads, whatever it sets", &counts, &vec![2, 2])?;
    remove_sandbox(guest, "counted")?;
    nothing_is_left(lab, "counted")
}
