//! An explanation as people read it.

use std::io::{self, Write};

use zerobridge_device_plugin::{
    Explanation, Hardware, Obstacle, Outcome, Policy, PoolExplanation, Problem, Verdict,
};
use zerobridge_kernel::{FunctionRole, PciFunction};

use crate::node::Node;

pub(super) fn write(out: &mut impl Write, explanation: &Explanation, node: &Node) -> io::Result<()> {
    writeln!(out, "{}", about(&explanation.device, node))?;
    for pool in &explanation.pools {
        writeln!(out)?;
        write_pool(out, pool)?;
        if pool.is_offered() {
            for Problem { check, policy, reason } in &explanation.problems {
                let what = if *policy == Policy::Unhealthy { "unhealthy" } else { "warning" };
                writeln!(out, "  {what}: {reason} ({check})")?;
            }
            for Obstacle { cause, .. } in
                node.obstacles().iter().filter(|one| one.pools.contains(&pool.resource))
            {
                writeln!(out, "  not ready: {cause}")?;
            }
        }
    }
    Ok(())
}

/// What a device is, in one line.
fn about(device: &Hardware, node: &Node) -> String {
    let machine = &node.around.machine;
    let (what, function) = match device {
        Hardware::Function(address) => {
            let Some(function) = machine.functions.get(address) else { return device.to_string() };
            (role(function), function)
        }
        Hardware::Auxiliary(name) => {
            let found = machine
                .auxiliaries
                .get(name)
                .and_then(|part| Some((part, machine.functions.get(&part.parent)?)));
            let Some((part, function)) = found else { return device.to_string() };
            let number = part.sf_number.map_or_else(String::new, |number| format!(" {number}"));
            (format!("{}{number} of {}", part.kind.to_uppercase(), part.parent), function)
        }
    };
    let driver =
        function.driver.as_ref().map_or_else(|| "no driver".to_owned(), |driver| format!("driver {driver}"));
    let holders = node.owners.devices.get(device).into_iter().flatten().map(ToString::to_string);
    let holders: Vec<String> = holders.collect();
    let holders =
        if holders.is_empty() { String::new() } else { format!(", in use by {}", holders.join(", ")) };
    format!("{device}: {what}, {:04x}:{:04x}, {driver}{holders}", function.vendor, function.device)
}

fn role(function: &PciFunction) -> String {
    match &function.role {
        FunctionRole::Physical { total_vfs, vfs, .. } => format!("PF with {} of {total_vfs} VFs", vfs.len()),
        FunctionRole::Virtual(position) => format!("VF {} of {}", position.index, position.pf),
        FunctionRole::Plain => "function without SR-IOV".to_owned(),
    }
}

fn write_pool(out: &mut impl Write, pool: &PoolExplanation) -> io::Result<()> {
    let because = match (&pool.outcome, &pool.alternatives[..]) {
        (Outcome::Dropped, [verdicts]) => {
            let dropping: Vec<&str> = verdicts
                .iter()
                .filter(|verdict| !verdict.kept)
                .map(|verdict| verdict.selector.name())
                .collect();
            format!(", because of {}", dropping.join(" and "))
        }
        (Outcome::Dropped, _) => ", because none of its alternatives keeps it".to_owned(),
        _ => String::new(),
    };
    writeln!(out, "{}: {}{because}", pool.resource, pool.outcome)?;
    let several = pool.alternatives.len() > 1;
    for (position, verdicts) in pool.alternatives.iter().enumerate() {
        if several {
            writeln!(out, "  selectors[{position}]")?;
        }
        write_verdicts(out, verdicts, if several { "    " } else { "  " })?;
    }
    Ok(())
}

fn write_verdicts(out: &mut impl Write, verdicts: &[Verdict], indent: &str) -> io::Result<()> {
    if verdicts.is_empty() {
        return writeln!(out, "{indent}asks nothing in particular");
    }
    let width = verdicts.iter().map(|verdict| verdict.selector.name().len()).max().unwrap_or_default();
    for Verdict { selector, kept, wanted, found } in verdicts {
        // A selector that is a flag.
        let wanted = if wanted == "true" { "one" } else { wanted };
        let verdict = if *kept { "kept   " } else { "dropped" };
        writeln!(
            out,
            "{indent}{:width$}  {verdict}  asks for {wanted}; the device has {found}",
            selector.name()
        )?;
    }
    Ok(())
}
