//! `zbctl node`: what is put on a node that works, what keeps it there, and the node as it was afterwards.

use std::error::Error;
use std::time::Duration;

use serde_json::{Value, json};
use zerobridge_lab::{
    BLUE, CNI_CONFIG, Guest, Lab, PLUGIN_FOLDER, PodRequest, Programs, cni_config, device_config, program,
};

use crate::expect;
use crate::group::{Group, Outcome, say};
use crate::hand;

pub(crate) const GROUP: Group = Group {
    name: "node_install",
    vm: "device_plugin",
    scenarios: &[(
        "a_node_is_installed_kept_while_pods_need_it_and_as_it_was_after",
        installed_kept_and_gone,
    )],
};

/// Another program under the name of sriov-cni.
const THEIRS: &str = "#!/bin/sh\necho theirs\n";

/// A file that the plugin accepts, for a runtime that will read it under this name.
const NETWORK: &str = "/run/10-zerobridge.conflist";

/// The plugin leaves records of calls that may be under way alone for a minute.
const LIMIT: Duration = Duration::from_secs(150);

/// Exit code of `zbctl node` and what it says.
fn node(guest: &mut Guest, words: &[&str]) -> Result<(i32, String), Box<dyn Error>> {
    let output = guest.output(program(&[&["zbctl", "node"], words].concat()), LIMIT)?;
    Ok((output.code, output.stdout + &output.stderr))
}

/// Every file of the runtime's folders with its digest.
fn files(guest: &mut Guest) -> Result<String, Box<dyn Error>> {
    let folder = CNI_CONFIG.rsplit_once('/').map_or("/", |(folder, _)| folder);
    Ok(guest.shell(&format!("find {PLUGIN_FOLDER} {folder} -type f | sort | xargs -r sha256sum"))?)
}

fn installed_kept_and_gone(lab: &mut Lab) -> Outcome {
    let pristine = lab.pristine();
    let programs = Programs::locate()?.folder();
    let (guest, running) = lab.node()?;
    running.reconfigure(guest, &device_config(), &[])?;
    // What the lab itself has put there goes, and something of others comes.
    let theirs = format!("{PLUGIN_FOLDER}/sriov");
    guest.shell(&format!("rm {PLUGIN_FOLDER}/zerobridge {PLUGIN_FOLDER}/zerobridge-ipam {CNI_CONFIG}"))?;
    guest.write(&theirs, THEIRS)?;
    guest.write(NETWORK, &cni_config().to_string())?;
    let before = files(guest)?;

    let install = ["install", "--from", &programs, "--as", "sriov", "--network", NETWORK];
    let (code, said) = node(guest, &install)?;
    expect::that(code == 0 && said.contains("kept as"), || format!("ended with {code}: {said}"))?;
    say(&said);
    let pods = running.run_pods(guest, &[PodRequest::with_one("needs", BLUE)])?;
    expect::that(pods[0].ip.starts_with("10.100.0."), || format!("its address is {}", pods[0].ip))?;
    let status: Value = guest.json(&["zbctl", "node", "status", "--json"])?;
    expect::equal("who needs it", &status["attachments"][0]["pod"], &json!("needs-lab"))?;
    let as_installed = |file: &Value| file["state"] == "asInstalled";
    let all =
        status["files"].as_array().is_some_and(|files| files.len() == 4 && files.iter().all(as_installed));
    expect::that(all, || status.to_string())?;

    // A sandbox that ended without a DEL, as after a crash of the runtime.
    let device = guest.vf(2, 2)?;
    hand::Attached::new(guest, "left", device)?;
    hand::remove_sandbox(guest, "left")?;

    let (code, said) = node(guest, &["uninstall", "--apply"])?;
    expect::that(code == 1 && said.contains("zerobridge-device-plugin runs"), || said.clone())?;
    running.stop_device_plugin(guest)?;
    let installed = files(guest)?;
    let (code, said) = node(guest, &["uninstall", "--apply"])?;
    expect::that(code == 1 && said.contains("in use: default/needs-lab has VF"), || said.clone())?;
    expect::equal("what is there", &files(guest)?, &installed)?;
    say(&said);
    running.delete_pods(guest, &pods)?;
    let said = guest.wait_for("the end of the uninstallation", LIMIT, |guest| {
        let output = guest.output(program(&["zbctl", "node", "uninstall", "--apply"]), LIMIT)?;
        let said = output.stdout + &output.stderr;
        Ok(if output.code == 0 { Ok(said) } else { Err(said) })
    })?;
    say(&said);
    expect::that(said.contains(&format!("{device}: given back")), || said.clone())?;
    expect::equal("what is there", &files(guest)?, &before)?;
    expect::as_before(guest, &pristine)?;
    for folder in ["/var/lib/zerobridge", "/run/zerobridge"] {
        // The lab has mounted the ledger's folder, so that it stays, empty.
        let left = guest.shell(&format!("find {folder} -mindepth 1 2>/dev/null || true"))?;
        expect::equal(&format!("what is left in {folder}"), &left.as_str(), &"")?;
    }
    for (what, folder) in
        [("CDI specifications", "/var/run/cdi"), ("device-info files", "/var/run/k8s.cni.cncf.io/devinfo/dp")]
    {
        let left = guest.shell(&format!("ls {folder} 2>/dev/null | grep '^zerobridge' || true"))?;
        expect::equal(what, &left.as_str(), &"")?;
    }

    // As the next scenario expects it.
    guest.run(&["rm", &theirs])?;
    guest.write(CNI_CONFIG, &cni_config().to_string())?;
    lab.install_plugins()?;
    let (guest, running) = lab.node()?;
    Ok(running.start_device_plugin(guest, &device_config(), &[])?)
}
