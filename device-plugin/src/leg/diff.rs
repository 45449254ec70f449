//! From what is to what should be: the ordered operations that lead there. Pure.
//!
//! The PF goes up before anything on it, since a VLAN interface cannot be up without. An interface is marked as made here
//! before it is used. An address that goes is taken away before others come, so that one whose prefix changes is free.

use std::fmt;

use ipnet::IpNet;

use super::state::{LegState, Maker, Wish};

/// One request to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Set the PF's interface up.
    RaisePort,
    /// Make the VLAN interface, under a name that says that it has no note yet.
    Make,
    /// Give an interface that was made its name, and the note whose it is.
    Finish {
        /// The name.
        name: String,
    },
    /// Write down that it is this leg's by now.
    Note,
    /// Set the MTU.
    SetMtu(u32),
    /// Set the interface up.
    Raise,
    /// Take an address away.
    DeleteAddress(IpNet),
    /// Give it an address.
    AddAddress(IpNet),
}

/// The operations that lead from `observed` to what is wanted, in order; empty when nothing is missing. After
/// [`Operation::Make`] it has to be looked at again.
pub(crate) fn diff(observed: &LegState, wish: &Wish) -> Vec<Operation> {
    let mut operations = Vec::new();
    if !observed.port_up {
        operations.push(Operation::RaisePort);
    }
    let Some(link) = &observed.link else {
        operations.extend(wish.made.is_some().then_some(Operation::Make));
        return operations;
    };
    match (&link.maker, &wish.made) {
        (Maker::Unfinished, Some(name)) => operations.push(Operation::Finish { name: name.clone() }),
        (Maker::Own { leg }, Some(_)) if *leg != wish.leg => operations.push(Operation::Note),
        _ => {}
    }
    if let Some(mtu) = wish.mtu.filter(|mtu| *mtu != link.mtu && link.maker != Maker::Other) {
        operations.push(Operation::SetMtu(mtu));
    }
    if !link.up {
        operations.push(Operation::Raise);
    }
    let is_in_the_way = |present: &&IpNet| {
        let is_wanted = |wanted: &IpNet| wanted.addr() == present.addr();
        wish.superseded.contains(&present.addr()) && !wish.addresses.iter().any(is_wanted)
            || wish.addresses.iter().any(|wanted| is_wanted(wanted) && wanted != *present)
    };
    operations.extend(observed.addresses.iter().filter(is_in_the_way).copied().map(Operation::DeleteAddress));
    let missing = wish.addresses.iter().filter(|wanted| !observed.addresses.contains(wanted));
    operations.extend(missing.copied().map(Operation::AddAddress));
    operations
}

impl fmt::Display for Operation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RaisePort => out.write_str("set the PF up"),
            Self::Make => out.write_str("make the VLAN interface"),
            Self::Finish { name } => write!(out, "name it {name}"),
            Self::Note => out.write_str("note whose it is"),
            Self::SetMtu(mtu) => write!(out, "set the MTU to {mtu}"),
            Self::Raise => out.write_str("set it up"),
            Self::DeleteAddress(address) => write!(out, "take {address} away"),
            Self::AddAddress(address) => write!(out, "give it {address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::{select, subsequence};

    use super::super::state::LinkState;
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn wish() -> Wish {
        Wish {
            leg: "pods".to_owned(),
            made: Some("ens1f0.100".to_owned()),
            mtu: Some(9000),
            addresses: vec![net("10.0.0.5/24")],
            superseded: vec!["10.0.0.4".parse().unwrap()],
        }
    }

    fn link(maker: Maker) -> LinkState {
        LinkState { name: "ens1f0.100".to_owned(), mtu: 1500, up: false, carrier: false, maker }
    }

    /// What the kernel makes of an operation.
    fn operate(state: &mut LegState, wish: &Wish, operation: &Operation) {
        let maker = || Maker::Own { leg: wish.leg.clone() };
        match operation {
            Operation::RaisePort => state.port_up = true,
            Operation::Make => {
                assert_eq!(state.link, None);
                state.link = Some(LinkState { name: "zbl1.64".to_owned(), ..link(Maker::Unfinished) });
            }
            Operation::DeleteAddress(address) => state.addresses.retain(|present| present != address),
            Operation::AddAddress(address) => state.addresses.push(*address),
            _ => {
                let link = state.link.as_mut().unwrap();
                match operation {
                    Operation::Finish { name } => (link.name, link.maker) = (name.clone(), maker()),
                    Operation::Note => link.maker = maker(),
                    Operation::SetMtu(mtu) => link.mtu = *mtu,
                    _ => {
                        assert!(state.port_up, "it cannot be up without the PF");
                        link.up = true;
                    }
                }
            }
        }
    }

    #[test]
    fn the_interface_is_made_marked_and_then_used() {
        let mut state = LegState { port_up: false, link: None, addresses: Vec::new() };
        let mut rounds = Vec::new();
        loop {
            let missing = diff(&state, &wish());
            if missing.is_empty() {
                break;
            }
            missing.iter().for_each(|operation| operate(&mut state, &wish(), operation));
            rounds.push(missing);
        }
        assert_eq!(rounds[0], [Operation::RaisePort, Operation::Make]);
        let finish = Operation::Finish { name: "ens1f0.100".to_owned() };
        let address = Operation::AddAddress(net("10.0.0.5/24"));
        assert_eq!(rounds[1..], [vec![finish, Operation::SetMtu(9000), Operation::Raise, address]]);
    }

    #[test]
    fn what_somebody_else_made_is_used_and_only_its_own_addresses_go() {
        let addresses = ["10.0.0.4/24", "10.0.0.6/24", "10.0.0.5/16"].map(net).to_vec();
        let state = LegState { port_up: true, link: Some(link(Maker::Other)), addresses };
        let expected = [
            Operation::Raise,
            Operation::DeleteAddress(net("10.0.0.4/24")),
            Operation::DeleteAddress(net("10.0.0.5/16")),
            Operation::AddAddress(net("10.0.0.5/24")),
        ];
        assert_eq!(diff(&state, &wish()), expected);
        let renamed = LegState {
            link: Some(LinkState { up: true, mtu: 9000, ..link(Maker::Own { leg: "old".to_owned() }) }),
            addresses: wish().addresses,
            ..state
        };
        assert_eq!(diff(&renamed, &wish()), [Operation::Note]);
    }

    const ADDRESSES: [&str; 5] = ["10.0.0.4/24", "10.0.0.5/24", "10.0.0.5/16", "10.0.0.6/24", "fd00::5/64"];

    fn any_addresses() -> impl Strategy<Value = Vec<IpNet>> {
        subsequence(ADDRESSES.map(net).to_vec(), 0..=ADDRESSES.len())
    }

    fn any_state(of_vlan: bool) -> impl Strategy<Value = LegState> {
        let makers = if of_vlan {
            vec![
                Maker::Other,
                Maker::Unfinished,
                Maker::Own { leg: "pods".to_owned() },
                Maker::Own { leg: "old".to_owned() },
            ]
        } else {
            vec![Maker::Other]
        };
        let link = (select(makers), any::<bool>(), select(vec![1500, 9000]))
            .prop_map(|(maker, up, mtu)| LinkState { up, mtu, ..link(maker) });
        let link = if of_vlan { proptest::option::of(link).boxed() } else { link.prop_map(Some).boxed() };
        (any::<bool>(), link, any_addresses()).prop_map(|(port_up, link, addresses)| {
            let link = link.map(|link| LinkState { up: link.up && port_up, ..link });
            let addresses = if link.is_some() { addresses } else { Vec::new() };
            LegState { port_up, link, addresses }
        })
    }

    fn any_wish(of_vlan: bool) -> impl Strategy<Value = Wish> {
        // One address is wanted once, with one prefix.
        let addresses = subsequence(["10.0.0.5/24", "10.0.0.6/24", "fd00::5/64"].map(net).to_vec(), 0..=3);
        let mtu = proptest::option::of(select(vec![1500, 9000]));
        (addresses, any_addresses(), mtu).prop_map(move |(addresses, superseded, mtu)| Wish {
            leg: "pods".to_owned(),
            made: of_vlan.then(|| "ens1f0.100".to_owned()),
            mtu: mtu.filter(|_| of_vlan),
            addresses,
            superseded: superseded.iter().map(IpNet::addr).collect(),
        })
    }

    fn any_case() -> impl Strategy<Value = (LegState, Wish)> {
        any::<bool>().prop_flat_map(|of_vlan| (any_state(of_vlan), any_wish(of_vlan)))
    }

    proptest! {
        #[test]
        fn two_rounds_are_enough_and_what_is_not_ours_stays((mut state, wish) in any_case()) {
            let before = state.clone();
            for _ in 0..2 {
                for operation in diff(&state, &wish) {
                    operate(&mut state, &wish, &operation);
                }
            }
            prop_assert_eq!(diff(&state, &wish), []);
            prop_assert!(state.port_up);
            prop_assert!(wish.addresses.iter().all(|address| state.addresses.contains(address)));
            let is_ours = |address: &&IpNet| {
                wish.superseded.contains(&address.addr())
                    || wish.addresses.iter().any(|wanted| wanted.addr() == address.addr())
            };
            for address in before.addresses.iter().filter(|address| !is_ours(address)) {
                prop_assert!(state.addresses.contains(address));
            }
            if let Some(link) = before.link.filter(|link| link.maker == Maker::Other) {
                let after = state.link.unwrap();
                prop_assert_eq!((after.mtu, after.name, after.maker), (link.mtu, link.name, link.maker));
            }
        }
    }
}
