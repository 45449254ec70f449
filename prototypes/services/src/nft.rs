//! The Services as nftables: one lookup for the Service, one for the backend, whatever the number of Services.
//!
//! kube-proxy's own nftables mode has a chain for each Service and one for each backend; this is less, so that nftables is
//! measured at its best.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddrV4;

use clap::ValueEnum;
use nix::sys::resource::UsageWho;

use crate::Outcome;
use crate::process::{ProcessError, cost, feed, show, show_mean};
use crate::table::{Service, table, without_last};

const NFT: [&str; 3] = ["nft", "-f", "-"];
/// A change that makes a table and removes it again.
const NOTHING: &str = "add table ip nothing\ndelete table ip nothing\n";
/// Changes that are timed.
const CHANGES: u32 = 10;

/// Where packets are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Hook {
    /// As they leave a socket: in a pod's network namespace.
    Output,
    /// As they come in: on the node, for pods that have it as gateway. Their source becomes the node.
    Gateway,
    /// As [`Hook::Gateway`], with the source left as it is.
    GatewayAsIs,
}

/// Installs the tables and changes one endpoint to and fro.
pub(crate) fn run(hook: Hook, count: u32) -> Outcome<()> {
    let services = table(count);
    let text = script(hook, &services);
    let backends: usize = services.iter().map(|service| service.backends.len()).sum();
    // The first run reads the program and the kernel's modules.
    feed(&NFT, &script(hook, &table(0)))?;
    feed(&NFT, "delete table ip services\n")?;
    let nothing = cost(UsageWho::RUSAGE_CHILDREN, || feed(&NFT, NOTHING))?;
    show("nft: start the program and change nothing", nothing);
    let whole = cost(UsageWho::RUSAGE_CHILDREN, || feed(&NFT, &text))?;
    show(&format!("nft: install {} Services, {backends} backends", services.len()), whole);
    if let Some(full) = services.last() {
        let less = without_last(full);
        let changes = [change(full, &less), change(&less, full)];
        let all = cost(UsageWho::RUSAGE_CHILDREN, || {
            (0..CHANGES).try_for_each(|_| changes.iter().try_for_each(|text| feed(&NFT, text)))
        });
        let all: Result<_, ProcessError> = all;
        show_mean("nft: one endpoint goes or comes", all?, CHANGES * 2);
    }
    Ok(())
}

/// Applies one change to the tables of another network namespace, or of this one.
pub(crate) fn apply(enter: &[&str], old: &Service, new: &Service) -> Result<(), ProcessError> {
    feed(&[enter, &NFT].concat(), &change(old, new))
}

fn key(service: &Service) -> String {
    format!("{} . {} . {}", service.at.ip(), service.protocol.name(), service.at.port())
}

fn element(service: &Service, slot: usize, backend: &SocketAddrV4) -> String {
    format!("{slot} . {} : {} . {}", key(service), backend.ip(), backend.port())
}

/// The whole table. Chains and maps exist for each number of backends that a Service has.
fn script(hook: Hook, services: &[Service]) -> String {
    let mut sizes: BTreeSet<usize> = services.iter().map(|service| service.backends.len()).collect();
    // What a change in a measurement or a check leads to.
    sizes.extend(1..=3);
    sizes.remove(&0);
    let mut text = String::from("table ip services {\n");
    let named = |wanted: &dyn Fn(&Service) -> Vec<String>| {
        let elements: Vec<String> = services.iter().flat_map(wanted).collect();
        if elements.is_empty() {
            String::new()
        } else {
            format!("elements = {{ {} }}\n", elements.join(", "))
        }
    };
    let chosen = named(&|service| match service.backends.len() {
        0 => Vec::new(),
        size => vec![format!("{} : goto pick-{size}", key(service))],
    });
    let empty = named(&|service| if service.backends.is_empty() { vec![key(service)] } else { Vec::new() });
    // Writing to a String cannot fail.
    let _ = writeln!(text, "map chosen {{ type ipv4_addr . inet_proto . inet_service : verdict\n{chosen}}}");
    let _ = writeln!(text, "set empty {{ type ipv4_addr . inet_proto . inet_service\n{empty}}}");
    for size in sizes {
        let backends = named(&|service| {
            let slots = service.backends.iter().enumerate();
            let all = || slots.map(|(slot, backend)| element(service, slot, backend)).collect();
            if service.backends.len() == size { all() } else { Vec::new() }
        });
        let pick = format!("numgen random mod {size}");
        let _ = writeln!(
            text,
            "map backends-{size} {{ typeof {pick} . ip daddr . meta l4proto . th dport : ip daddr . th dport\n{backends}}}\n\
             chain pick-{size} {{\ndnat to {pick} . ip daddr . meta l4proto . th dport map @backends-{size}\n}}"
        );
    }
    let (at, late) = match hook {
        Hook::Output => ("output", "output"),
        Hook::Gateway | Hook::GatewayAsIs => ("prerouting", "forward"),
    };
    let _ = writeln!(
        text,
        "chain translate {{\ntype nat hook {at} priority -100\nip daddr . meta l4proto . th dport vmap @chosen\n}}\n\
         chain refuse {{\ntype filter hook {late} priority 0\n\
         ip daddr . meta l4proto . th dport @empty reject with icmp type port-unreachable\n}}"
    );
    if hook == Hook::Gateway {
        text.push_str(
            "chain source {\ntype nat hook postrouting priority 100\nct status dnat masquerade\n}\n",
        );
    }
    text.push_str("}\n");
    text
}

/// One transaction that gives a Service other backends; both numbers of them must be among 1 to 3, or unchanged.
fn change(old: &Service, new: &Service) -> String {
    let mut text = String::new();
    let mut line = |verb: &str, map: &str, element: &str| {
        let _ = writeln!(text, "{verb} element ip services {map} {{ {element} }}");
    };
    line("delete", "chosen", &key(old));
    for (slot, backend) in old.backends.iter().enumerate() {
        line("delete", &format!("backends-{}", old.backends.len()), &element(old, slot, backend));
    }
    for (slot, backend) in new.backends.iter().enumerate() {
        line("add", &format!("backends-{}", new.backends.len()), &element(new, slot, backend));
    }
    line("add", "chosen", &format!("{} : goto pick-{}", key(new), new.backends.len()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_of_backends_has_one_map_and_one_chain() {
        let text = script(Hook::Output, &table(2));
        for size in [1, 2, 3, 1000] {
            assert_eq!(text.matches(&format!("map backends-{size} {{")).count(), 1, "{size}");
            assert_eq!(text.matches(&format!("chain pick-{size} {{")).count(), 1, "{size}");
        }
        assert!(text.contains("10.97.0.1 . tcp . 80 : goto pick-3"));
        assert!(text.contains("2 . 10.97.0.1 . tcp . 80 : 10.132.0.6 . 8000"));
        assert!(!text.contains("pick-0") && !text.contains("masquerade"));
        assert!(script(Hook::Gateway, &table(2)).contains("hook prerouting"));
    }

    #[test]
    fn a_change_replaces_all_that_a_service_had() {
        let full = &table(1)[6];
        let less = without_last(full);
        let text = change(full, &less);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 1 + 3 + 2 + 1);
        assert_eq!(lines[0], "delete element ip services chosen { 10.97.0.0 . tcp . 80 }");
        assert_eq!(lines[6], "add element ip services chosen { 10.97.0.0 . tcp . 80 : goto pick-2 }");
        assert!(lines[4..6].iter().all(|line| line.starts_with("add element ip services backends-2 {")));
    }
}
