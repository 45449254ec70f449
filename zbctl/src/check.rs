//! `zbctl config check`: whether a configuration can be used, and how it is understood.

use std::io::Write;

use zerobridge_device_plugin::{
    ConfigFile, Format, LegAddresses, LegConfig, LegKind, NodeConfig, PoolConfig, PortName, Selector,
    Selectors,
};
use zerobridge_proto::chain;

use crate::cli::CheckArguments;
use crate::node::{identity, undecided};
use crate::table::or_dash;
use crate::{Failure, Finding, table, write_json};

pub(crate) fn run(arguments: &CheckArguments, out: &mut impl Write) -> Result<Finding, Failure> {
    let path = arguments.file.display();
    let file = match ConfigFile::load(&arguments.file, arguments.identity.resource_prefix.as_deref()) {
        Ok(file) => file,
        Err(problem) => {
            writeln!(out, "{path}: {}", chain(&problem))?;
            return Ok(Finding::Problem);
        }
    };
    let node = file.for_node(&identity(&arguments.identity));
    if arguments.print {
        write_json(out, &node.config)?;
        return Ok(Finding::Fine);
    }
    let whose = match (arguments.identity.node.as_str(), &arguments.identity.labels[..]) {
        ("", []) => "a node of which nothing is known".to_owned(),
        ("", _) => "a node with these labels".to_owned(),
        (name, _) => format!("node {name}"),
    };
    writeln!(out, "{path}: a valid configuration {}", written_for(file.format))?;
    writeln!(out, "{whose} gets what stands in {}:", node.section)?;
    write_pools(out, &node)?;
    write_legs(out, &node)?;
    if let Some(undecided) = undecided(&node.undecided, &arguments.identity) {
        writeln!(out, "note: {undecided}")?;
    }
    for notice in &file.notices {
        writeln!(out, "note: {notice}")?;
    }
    Ok(Finding::Fine)
}

fn written_for(format: Format) -> &'static str {
    match format {
        Format::Own => "in the format of Zerobridge",
        Format::SriovNetwork => "in the format of sriov-network-device-plugin",
        Format::RdmaShared => "in the format of k8s-rdma-shared-dev-plugin",
    }
}

fn write_pools(out: &mut impl Write, node: &NodeConfig) -> Result<(), Failure> {
    if node.config.pools.is_empty() {
        return Ok(writeln!(out, "nothing")?);
    }
    let row = |pool: &PoolConfig| {
        let shares = pool.shares.map_or_else(|| "-".to_owned(), |shares| shares.to_string());
        [pool.resource.to_string(), pool.kind.name().to_owned(), shares, selectors(pool)]
    };
    let rows: Vec<_> = node.config.pools.iter().map(row).collect();
    Ok(table::write(out, ["POOL", "TYPE", "SHARES", "SELECTORS"], &rows)?)
}

/// The legs; nothing for a node that has none.
fn write_legs(out: &mut impl Write, node: &NodeConfig) -> Result<(), Failure> {
    if node.config.legs.is_empty() {
        return Ok(());
    }
    let row = |leg: &LegConfig| {
        let port = match &leg.port {
            PortName::Netdev(name) => name.clone(),
            PortName::Address(address) => address.to_string(),
        };
        let addresses = match &leg.addresses {
            LegAddresses::Pool(_) => "of the pool".to_owned(),
            LegAddresses::Fixed(nets) => nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        };
        let place = match leg.kind {
            LegKind::Vf { index, .. } => format!("{port} VF {index}"),
            LegKind::Pf | LegKind::Vlan { .. } => port,
        };
        let vlan = or_dash(leg.kind.vlan().map(|vlan| vlan.to_string()).unwrap_or_default());
        [leg.name.clone(), leg.kind.name().to_owned(), place, vlan, leg.network.clone(), addresses]
    };
    let rows: Vec<_> = node.config.legs.iter().map(row).collect();
    Ok(table::write(out, ["LEG", "KIND", "PF", "VLAN", "NETWORK", "ADDRESSES"], &rows)?)
}

/// The names of the selectors of each alternative.
fn selectors(pool: &PoolConfig) -> String {
    let alternative = |selectors: &Selectors| {
        let names: Vec<&str> = selectors.written().map(Selector::name).collect();
        if names.is_empty() { "any".to_owned() } else { names.join("+") }
    };
    pool.selectors.iter().map(alternative).collect::<Vec<_>>().join(" or ")
}

#[cfg(test)]
mod tests;
