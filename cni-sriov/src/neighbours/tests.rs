use std::cell::RefCell;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn foreign(text: &str) -> Foreign {
    Foreign { address: ip(text), mac: "02:00:00:00:00:09".parse().unwrap() }
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| ip(text)).collect()
}

/// Settles on a link where foreign hosts have some addresses, with a pool that gives `next` in turns. Returns what was
/// probed for in each turn, and what came of it.
fn settled(
    first: &[&str],
    own: &[&str],
    taken: &[&str],
    next: &[&[&str]],
    tries: u32,
) -> (Vec<Vec<IpAddr>>, Result<Vec<IpAddr>, CniError>) {
    let turns = RefCell::new(Vec::new());
    let mut next = next.iter();
    let probe_for = |addresses: &[IpAddr]| {
        turns.borrow_mut().push(addresses.to_vec());
        let is_taken = |text: &&&str| addresses.contains(&ip(text));
        Ok(taken.iter().filter(is_taken).map(|text| foreign(text)).collect())
    };
    let replace = |_: &[Foreign], is_last: bool| match next.next() {
        Some(addresses) if !is_last => Ok(ips(addresses)),
        _ => Err(CniError::new(codes::ADDRESS_CONFLICT, "no more")),
    };
    let outcome = until_nobody_has_them(ips(first), Clone::clone, tries, ips(own), probe_for, replace);
    (turns.into_inner(), outcome)
}

#[test]
fn addresses_that_nobody_has_are_probed_for_once_and_all_at_once() {
    let (turns, outcome) = settled(&["10.0.0.2", "fd00::2"], &[], &[], &[], 4);
    assert_eq!(turns, [[ip("10.0.0.2"), ip("fd00::2")]]);
    assert_eq!(outcome.unwrap(), [ip("10.0.0.2"), ip("fd00::2")]);
}

#[test]
fn only_what_came_in_anothers_place_is_probed_for_again() {
    let next: [&[&str]; 2] = [&["10.0.0.3", "fd00::2"], &["10.0.0.4", "fd00::2"]];
    let (turns, outcome) = settled(&["10.0.0.2", "fd00::2"], &[], &["10.0.0.2", "10.0.0.3"], &next, 4);
    assert_eq!(turns, [vec![ip("10.0.0.2"), ip("fd00::2")], vec![ip("10.0.0.3")], vec![ip("10.0.0.4")]]);
    assert_eq!(outcome.unwrap(), [ip("10.0.0.4"), ip("fd00::2")]);
}

#[test]
fn what_the_pod_has_already_is_its_own() {
    let (turns, outcome) = settled(&["10.0.0.2", "fd00::2"], &["10.0.0.2", "fd00::2"], &["10.0.0.2"], &[], 4);
    assert_eq!(turns, Vec::<Vec<IpAddr>>::new());
    outcome.unwrap();
    let (turns, _) = settled(&["10.0.0.2", "fd00::2"], &["10.0.0.2"], &["10.0.0.2"], &[], 4);
    assert_eq!(turns, [[ip("fd00::2")]]);
}

#[test]
fn after_the_last_try_no_more_is_asked() {
    let next: [&[&str]; 3] = [&["10.0.0.3"], &["10.0.0.4"], &["10.0.0.5"]];
    let taken = ["10.0.0.2", "10.0.0.3", "10.0.0.4"];
    let (turns, outcome) = settled(&["10.0.0.2"], &[], &taken, &next, 3);
    assert_eq!((turns.len(), outcome.unwrap_err().code), (3, codes::ADDRESS_CONFLICT));
    let (turns, outcome) = settled(&["10.0.0.2"], &[], &taken, &next, 4);
    assert_eq!((turns.len(), outcome.unwrap()), (4, vec![ip("10.0.0.5")]));
}

#[test]
fn each_gateway_that_is_silent_is_named_with_who_asked() {
    let pairs = [(ip("10.0.0.2"), ip("10.0.0.1")), (ip("fd00::2"), ip("fd00::1"))];
    let answer = |text| Holder { address: ip(text), mac: "02:00:00:00:00:01".parse().unwrap() };
    all_answered("blue", &pairs, &[answer("fd00::1"), answer("10.0.0.1")]).unwrap();
    let error = all_answered("blue", &pairs, &[answer("fd00::1")]).unwrap_err();
    assert_eq!(error.code, codes::GATEWAY_SILENT);
    assert_eq!(error.msg, "gateway 10.0.0.1 does not answer 10.0.0.2 in network blue");
    let both = all_answered("blue", &pairs, &[]).unwrap_err().msg;
    assert!(both.contains("10.0.0.1") && both.contains("and gateway fd00::1"), "{both}");
}
