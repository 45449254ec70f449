//! CHECK: is the attachment still what ADD made of it?
//!
//! What is expected is what ADD recorded, as far as `prevResult` still lists it: a later plugin of the chain may have
//! changed or taken away the rest, and may have added what is not ours to judge.

use std::fmt::Display;
use std::time::Instant;

use ipnet::IpNet;
use zerobridge_kernel::Netns;
use zerobridge_ledger::{Attachment, Ledger};
use zerobridge_proto::chain;
use zerobridge_proto::cni::{AddResult, CniError, Command, ErrorCode, Interface};

use crate::attachment::{Place, RdmaPlace, RdmaState, VfAccess, VfState, diff};
use crate::call::Call;
use crate::codes;
use crate::config::{Config, Network, RdmaSetting};
use crate::failure::{all, attachment_error, ledger_error, netns_error, record_error};
use crate::record;

/// Compares the kernel and the ledger with what ADD recorded and returned, and has a delegated IPAM plugin do the same.
///
/// # Errors
/// No `prevResult`, no record, or everything that differs, each with what is and what should be.
pub(crate) fn check(call: &Call<'_>) -> Result<(), CniError> {
    let config = Config::parse(call.config, &call.environment.args)?;
    let previous = call.config.prev_result()?.ok_or_else(|| {
        let msg = "prevResult is missing; CHECK needs the result of the ADD that it is to check";
        CniError::new(ErrorCode::INVALID_CONFIG, msg)
    })?;
    let owner = call.owner();
    let ledger = call.ledger()?;
    let record = ledger.attachment_of(&owner).map_err(ledger_error)?.ok_or_else(|| {
        CniError::new(ErrorCode::UNKNOWN_CONTAINER, format!("no VF is attached as {owner}"))
    })?;
    let network = config.networks.iter().find(|network| network.name == record.network).ok_or_else(|| {
        let msg =
            format!("{owner} is attached to network {}, which the configuration has not", record.network);
        CniError::new(ErrorCode::INVALID_CONFIG, msg)
    })?;
    let delegate = call.delegate(network);
    let delegated = delegate.map_or(Ok(()), |delegate| delegate.forward(Command::Check));
    all([own(call, network, &ledger, &record, &previous), delegated])
}

fn own(
    call: &Call<'_>,
    network: &Network,
    ledger: &Ledger,
    record: &Attachment,
    previous: &AddResult,
) -> Result<(), CniError> {
    let ifname = &call.environment.ifname;
    let in_sandbox = |interface: &&Interface| interface.sandbox.as_ref().is_some_and(|path| !path.is_empty());
    let listed = previous.interfaces.iter().filter(in_sandbox).find(|interface| interface.name == *ifname);
    let listed = listed.ok_or_else(|| {
        let msg =
            format!("prevResult lists no interface {ifname} in a sandbox, so it is not that of its ADD");
        CniError::new(ErrorCode::INVALID_CONFIG, msg)
    })?;
    let path = call.environment.netns.as_deref().unwrap_or("".as_ref());
    let netns = Netns::open(path).map_err(netns_error)?;
    let wanted = record::wanted(record).map_err(record_error)?;
    let mut differing = promises(ledger, record, &wanted)?;
    if record.sandbox
        != (zerobridge_ledger::Sandbox { path: record.sandbox.path.clone(), ..record::sandbox(&netns) })
    {
        differing.push(format!(
            "CNI_NETNS is {}, and ADD moved the VF into another namespace, that of {}",
            path.display(),
            record.sandbox.path.display()
        ));
    } else {
        let mut access =
            VfAccess::open(&call.sysfs(), record.device, Some(netns)).map_err(attachment_error)?;
        let observed = access.observe().map_err(attachment_error)?;
        let found = differences(&observed, &wanted, previous, listed);
        let demanded = !matches!(network.settings.rdma, RdmaSetting::Auto | RdmaSetting::Off);
        if let (true, true, Some(rdma)) = (found.is_empty(), demanded, &wanted.rdma) {
            let listed = |address: &&IpNet| previous.ips.iter().any(|ip| ip.address == **address);
            let addresses: Vec<_> = wanted.addresses.iter().filter(listed).map(IpNet::addr).collect();
            let ready = access.wait_for_rdma(rdma, &addresses, Instant::now());
            differing.extend(ready.err().map(|error| chain(&error)));
        }
        differing.extend(found);
    }
    if differing.is_empty() {
        return Ok(());
    }
    let msg = format!("VF {} as {} is not as ADD left it", record.device, record.owner);
    Err(CniError::new(codes::DRIFTED, msg).with_details(differing.join("; ")))
}

/// What the ledger no longer promises of an attachment's addresses.
fn promises(ledger: &Ledger, record: &Attachment, wanted: &VfState) -> Result<Vec<String>, CniError> {
    if let Some(delegation) = record::delegation(record).map_err(record_error)? {
        let unanswered = delegation.result.is_none();
        return Ok(unanswered
            .then(|| "its ADD died while the IPAM plugin worked".to_owned())
            .into_iter()
            .collect());
    }
    let mut missing = Vec::new();
    for address in wanted.addresses.iter().map(ipnet::IpNet::addr) {
        match ledger.lease_at(&record.network, address).map_err(ledger_error)? {
            Some(lease) if lease.owner == record.owner => {}
            Some(lease) => missing.push(format!("address {address} is leased to {}", lease.owner)),
            None => missing.push(format!("address {address} is not leased any more")),
        }
    }
    Ok(missing)
}

/// What of the VF is not as ADD made it. Pure. `listed` is the interface in `previous`.
///
/// Not judged: the MTU, which the reference plugin `tuning` changes without a word in the result; alternative names;
/// the table and the metric of a route, which `sbr` changes likewise.
fn differences(
    observed: &VfState,
    wanted: &VfState,
    previous: &AddResult,
    listed: &Interface,
) -> Vec<String> {
    let mut differing = match (&observed.link, &wanted.link) {
        (Some(is), Some(should)) if is.place == Place::Sandbox => {
            // A later plugin that gave the interface another address said so.
            let mac = listed.mac.as_ref().and_then(|mac| mac.parse().ok()).unwrap_or(should.mac);
            let compared = [
                differs("the name", &is.name, &should.name),
                differs("the MAC", is.mac, mac),
                differs("the link", up(is.up), up(should.up)),
            ];
            let missing = missing(observed, wanted, previous);
            compared.into_iter().flatten().chain(missing).collect()
        }
        (Some(is), Some(_)) => {
            return vec![format!("the VF is on the host as {}, not in the sandbox", is.name)];
        }
        (None, None) => Vec::new(),
        (is, _) => {
            let driver = |state: &VfState| state.driver.clone().unwrap_or_else(|| "no driver".to_owned());
            let has = if is.is_some() { "has an" } else { "has no" };
            let (is, should) = (driver(observed), driver(wanted));
            return vec![format!("the device {has} interface: it is bound to {is}, and was to {should}")];
        }
    };
    if let (Some(is), Some(should)) = (&observed.admin, &wanted.admin) {
        let on = |on: bool| if on { "on" } else { "off" };
        let compared = [
            differs("the MAC that the PF imposes", is.mac, should.mac),
            differs("vlan", is.vlan.id, should.vlan.id),
            differs("vlanQoS", is.vlan.qos, should.vlan.qos),
            differs("vlanProto", format!("{:?}", is.vlan.protocol), format!("{:?}", should.vlan.protocol)),
            differs("spoofchk", on(is.spoof_check), on(should.spoof_check)),
            differs("trust", on(is.trust), on(should.trust)),
            differs("link_state", format!("{:?}", is.link_state), format!("{:?}", should.link_state)),
            differs("min_tx_rate", is.min_tx_rate, should.min_tx_rate),
            differs("max_tx_rate", is.max_tx_rate, should.max_tx_rate),
        ];
        differing.extend(compared.into_iter().flatten());
    }

    differing.extend(rdma_difference(observed.rdma.as_ref(), wanted.rdma.as_ref()));

    // Whatever else belongs to a state: nothing may be left that a convergence would do.
    let mut rest = wanted.clone();
    (rest.admin, rest.rdma) = (observed.admin, observed.rdma.clone());
    (rest.addresses, rest.routes) = (observed.addresses.clone(), observed.routes.clone());
    if let (Some(is), Some(should)) = (&observed.link, &mut rest.link) {
        let (all_multicast, promiscuous) = (should.all_multicast, should.promiscuous);
        should.clone_from(is);
        (should.all_multicast, should.promiscuous) = (all_multicast, promiscuous);
    }
    differing.extend(
        diff(observed, &rest).iter().map(|operation| format!("to be as it was it needs {operation:?}")),
    );
    differing
}

/// What became of the RDMA device. A record that is older than the field says nothing.
fn rdma_difference(is: Option<&RdmaState>, should: Option<&RdmaState>) -> Option<String> {
    let should = should?;
    let Some(is) = is else { return Some(format!("RDMA device {} is gone", should.name)) };
    let described = |rdma: &RdmaState| match rdma.place {
        RdmaPlace::Everywhere => format!("{} of all namespaces", rdma.name),
        RdmaPlace::Host => format!("{} on the host", rdma.name),
        RdmaPlace::Sandbox => format!("{} in the sandbox", rdma.name),
    };
    differs("the RDMA device", described(is), described(should))
}

/// The addresses and routes that ADD made, that `previous` still lists, and that are gone.
fn missing(observed: &VfState, wanted: &VfState, previous: &AddResult) -> Vec<String> {
    let has_address = |address| observed.addresses.contains(address);
    let is_listed = |address: &&ipnet::IpNet| previous.ips.iter().any(|ip| ip.address == **address);
    let lost = wanted.addresses.iter().filter(|address| is_listed(address) && !has_address(address));
    let mut missing: Vec<String> = lost.map(|address| format!("address {address} is missing")).collect();
    for route in &wanted.routes {
        let is_listed = previous.routes.iter().any(|listed| {
            listed.dst == route.destination && listed.gw.is_none_or(|gateway| Some(gateway) == route.gateway)
        });
        let leads_there = |other: &zerobridge_kernel::Route| {
            other.destination.trunc() == route.destination.trunc() && other.gateway == route.gateway
        };
        if is_listed && !observed.routes.iter().any(leads_there) {
            let gateway = route.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
            missing.push(format!("the route to {}{gateway} is missing", route.destination));
        }
    }
    missing
}

fn up(up: bool) -> &'static str {
    if up { "up" } else { "down" }
}

fn differs<T: PartialEq + Display>(what: &str, is: T, should: T) -> Option<String> {
    (is != should).then(|| format!("{what} is {is}, and ADD made it {should}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use zerobridge_kernel::{Route, VfAdmin, VlanProtocol};

    use super::*;
    use crate::attachment::LinkState;
    use crate::attachment::model::{at_home, in_pod, with_roce};

    fn result() -> AddResult {
        AddResult::decode(&json!({
            "interfaces": [{"name": "eth0", "sandbox": "/run/netns/x", "mac": "02:00:00:00:00:02"}],
            "ips": [{"address": "10.1.0.2/24", "interface": 0}], "routes": [{"dst": "0.0.0.0/0"}],
        }))
        .unwrap()
    }

    fn link(state: &mut VfState) -> &mut LinkState {
        state.link.as_mut().unwrap()
    }

    fn admin(state: &mut VfState) -> &mut VfAdmin {
        state.admin.as_mut().unwrap()
    }

    fn found(change: impl FnOnce(&mut VfState), later: impl FnOnce(&mut AddResult)) -> String {
        let (mut observed, mut previous) = (in_pod(), result());
        change(&mut observed);
        later(&mut previous);
        differences(&observed, &in_pod(), &previous, &previous.interfaces[0]).join("; ")
    }

    #[test]
    fn each_difference_is_named_with_what_is_and_what_should_be() {
        type Change = fn(&mut VfState);
        let cases: [(Change, &str); 15] = [
            (|_| (), ""),
            (|vf| link(vf).place = Place::Host, "the VF is on the host as eth0, not in the sandbox"),
            (|vf| link(vf).name = "net9".to_owned(), "the name is net9, and ADD made it eth0"),
            (
                |vf| link(vf).mac = [2, 0, 0, 0, 0, 9].into(),
                "the MAC is 02:00:00:00:00:09, and ADD made it 02:00:00:00:00:02",
            ),
            (|vf| link(vf).up = false, "the link is down, and ADD made it up"),
            (
                |vf| admin(vf).mac = [2, 0, 0, 0, 0, 9].into(),
                "the MAC that the PF imposes is 02:00:00:00:00:09, and ADD made it 02:00:00:00:00:02",
            ),
            (|vf| admin(vf).vlan.id = 0, "vlan is 0, and ADD made it 100"),
            (
                |vf| admin(vf).vlan.protocol = VlanProtocol::Dot1Ad,
                "vlanProto is Dot1Ad, and ADD made it Dot1Q",
            ),
            (|vf| admin(vf).spoof_check = true, "spoofchk is on, and ADD made it off"),
            (|vf| admin(vf).trust = true, "trust is on, and ADD made it off"),
            (|vf| admin(vf).max_tx_rate = 7, "max_tx_rate is 7, and ADD made it 0"),
            (
                |vf| (vf.link, vf.driver) = (None, Some("vfio-pci".to_owned())),
                "the device has no interface: it is bound to vfio-pci, and was to igbvf",
            ),
            (|vf| vf.addresses.clear(), "address 10.1.0.2/24 is missing"),
            (|vf| vf.routes.clear(), "the route to 0.0.0.0/0 via 10.1.0.1 is missing"),
            (
                |vf| {
                    link(vf).up = false;
                    vf.routes.clear();
                },
                "the link is down, and ADD made it up; the route to 0.0.0.0/0 via 10.1.0.1 is missing",
            ),
        ];
        for (change, expected) in cases {
            assert_eq!(found(change, |_| ()), expected);
        }
    }

    #[test]
    fn an_rdma_device_that_is_elsewhere_or_gone_is_named() {
        let (observed, wanted) = (with_roce(in_pod()).rdma, with_roce(in_pod()).rdma);
        let difference = |is: Option<RdmaState>| rdma_difference(is.as_ref(), wanted.as_ref());
        assert_eq!(difference(observed.clone()), None);
        assert_eq!(difference(None).unwrap(), "RDMA device mlx5_3 is gone");
        assert_eq!(
            difference(with_roce(at_home()).rdma).unwrap(),
            "the RDMA device is mlx5_3 on the host, and ADD made it mlx5_3 in the sandbox"
        );
        assert_eq!(rdma_difference(observed.as_ref(), None), None);
    }

    #[test]
    fn what_later_plugins_did_is_not_judged() {
        let more_and_tuned = |vf: &mut VfState| {
            vf.addresses.push("10.9.0.2/24".parse().unwrap());
            link(vf).alt_names.insert("rail0".to_owned());
            link(vf).mtu = 1400;
            vf.routes = vf.routes.iter().map(|route| Route { table: Some(100), ..route.clone() }).collect();
        };
        assert_eq!(found(more_and_tuned, |_| ()), "");
        let another_mac = |vf: &mut VfState| link(vf).mac = [2, 0, 0, 0, 0, 9].into();
        let told = |result: &mut AddResult| result.interfaces[0].mac = Some("02:00:00:00:00:09".to_owned());
        assert_eq!(found(another_mac, told), "");
        let taken_away = |vf: &mut VfState| {
            vf.addresses.clear();
            vf.routes.clear();
        };
        let unlisted = |result: &mut AddResult| {
            result.ips.clear();
            result.routes.clear();
        };
        assert_eq!(found(taken_away, unlisted), "");
    }
}
