//! The requests and answers are built by hand from `linux/devlink.h`: this project's test machines have no devlink
//! device. A socket stands in for the kernel; the family lookup is also asked of the real one.

use super::*;
use crate::netlink::stand_in::attribute as nla;
use crate::netlink::stand_in::{self, acknowledgement, done, message, refusal};

const FAMILY_NUMBER: u16 = 21;
/// `NLA_F_NESTED` of the kernel's `linux/netlink.h`.
const NESTED: u16 = 0x8000;

fn pf() -> PciAddress {
    "0000:3b:00.0".parse().unwrap()
}

/// An answer of the family, with the attributes that name the function first.
fn answer(function: &str, command: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
    let mut payload = vec![command, VERSION, 0, 0];
    payload.extend(nla(attribute::BUS_NAME, b"pci\0"));
    payload.extend(nla(attribute::DEV_NAME, format!("{function}\0").as_bytes()));
    payload.extend(attributes.concat());
    message(FAMILY_NUMBER, 0, &payload)
}

/// What `work` makes of one answer, and the request that it sent.
fn asked<T>(
    datagrams: Vec<Vec<u8>>,
    work: impl FnOnce(&mut Devlink) -> Result<T, DevlinkError>,
) -> (T, Vec<u8>) {
    let (conversation, requests) = stand_in::answering(vec![datagrams]);
    let found = work(&mut Devlink { conversation, family: FAMILY_NUMBER }).unwrap();
    (found, requests.join().unwrap().remove(0))
}

#[test]
fn a_request_names_the_function_and_asks_one_thing() {
    let (_, request) = asked(vec![acknowledgement()], |devlink| devlink.param_flag(pf(), "enable_rdma"));
    #[rustfmt::skip]
    let expected: &[u8] = &[
        // Command, version, reserved.
        38, 1, 0, 0,
        8, 0, 1, 0, b'p', b'c', b'i', 0,
        17, 0, 2, 0, b'0', b'0', b'0', b'0', b':', b'3', b'b', b':', b'0', b'0', b'.', b'0', 0, 0, 0, 0,
        16, 0, 81, 0, b'e', b'n', b'a', b'b', b'l', b'e', b'_', b'r', b'd', b'm', b'a', 0,
    ];
    assert_eq!(&request[16..], expected);
    assert_eq!(request[4..6], FAMILY_NUMBER.to_ne_bytes());
}

#[test]
fn families_are_found_in_this_kernel_and_devlink_when_it_is_there() {
    let mut conversation = Conversation::open(NETLINK_GENERIC, "generic netlink").unwrap();
    // The controller is a family of itself, with a number that never changes.
    assert_eq!(family_number(&mut conversation, "nlctrl").unwrap(), Some(CONTROLLER));
    assert_eq!(family_number(&mut conversation, "no such one").unwrap(), None);
    if let Some(mut devlink) = Devlink::open().unwrap() {
        assert_eq!(devlink.eswitch_mode("ffff:ff:1f.7".parse().unwrap()).unwrap(), None);
    }
}

#[test]
fn a_family_is_opened_by_the_number_that_the_controller_tells() {
    let mut payload = vec![1, CONTROLLER_VERSION, 0, 0];
    payload.extend(nla(FAMILY_NAME, b"devlink\0"));
    payload.extend(nla(FAMILY_ID, &FAMILY_NUMBER.to_ne_bytes()));
    let found = message(CONTROLLER, 0, &payload);
    let (conversation, _requests) = stand_in::answering(vec![vec![found, acknowledgement()]]);
    assert_eq!(Devlink::find(conversation).unwrap().unwrap().family, FAMILY_NUMBER);
    let (conversation, _requests) = stand_in::answering(vec![vec![refusal(libc::ENOENT)]]);
    assert!(Devlink::find(conversation).unwrap().is_none());
}

#[test]
fn the_mode_of_the_switch_is_one_of_two_or_unknown() {
    for (mode, expected) in [
        (Some(0_u16), Some(EswitchMode::Legacy)),
        (Some(1), Some(EswitchMode::Switchdev)),
        (Some(2), None),
        (None, None),
    ] {
        let attributes: Vec<_> =
            mode.iter().map(|mode| nla(attribute::ESWITCH_MODE, &mode.to_ne_bytes())).collect();
        let datagrams = vec![answer("0000:3b:00.0", command::ESWITCH_GET, &attributes), acknowledgement()];
        assert_eq!(asked(datagrams, |devlink| devlink.eswitch_mode(pf())).0, expected, "{mode:?}");
    }
}

#[test]
fn health_is_that_of_the_function_asked_for_and_its_ports() {
    let reporter = |function, name: &str, port: Option<u32>, state: u8, errors: u64| {
        let inside = [
            nla(attribute::HEALTH_REPORTER_NAME, format!("{name}\0").as_bytes()),
            nla(attribute::HEALTH_REPORTER_STATE, &[state]),
            nla(attribute::HEALTH_REPORTER_ERR_COUNT, &errors.to_ne_bytes()),
            nla(attribute::HEALTH_REPORTER_RECOVER_COUNT, &1_u64.to_ne_bytes()),
        ];
        let mut attributes: Vec<_> =
            port.iter().map(|port| nla(attribute::PORT_INDEX, &port.to_ne_bytes())).collect();
        attributes.push(nla(attribute::HEALTH_REPORTER | NESTED, &inside.concat()));
        answer(function, command::HEALTH_REPORTER_GET, &attributes)
    };
    let first = [reporter("0000:3b:00.0", "fw", None, 0, 0), reporter("0000:3b:00.1", "fw", None, 1, 9)];
    let second = reporter("0000:3b:00.0", "tx", Some(65535), 1, 3);
    let (found, _) = asked(vec![first.concat(), second, done(0, &[])], |devlink| devlink.health(pf()));
    let expected = [("fw", None, false, 0), ("tx", Some(65535), true, 3)];
    let expected = expected.map(|(name, port, failed, errors)| HealthReporter {
        name: name.to_owned(),
        port,
        failed,
        errors,
        recoveries: 1,
    });
    assert_eq!(found, expected);
}

#[test]
fn the_ddp_package_is_the_running_version_of_that_name() {
    const STORED: u16 = 102;
    let version = |kind, name: &[u8], value: &[u8]| {
        let inside = [nla(attribute::INFO_VERSION_NAME, name), nla(attribute::INFO_VERSION_VALUE, value)];
        nla(kind | NESTED, &inside.concat())
    };
    let running = attribute::INFO_VERSION_RUNNING;
    let versions = [
        version(STORED, b"fw.app.name\0", b"from the next start\0"),
        version(running, b"fw.mgmt\0", b"5.1.9\0"),
        version(running, b"fw.app.name\0", b"ICE COMMS Package\0"),
    ];
    for (versions, expected) in [(&versions[..], Some("ICE COMMS Package")), (&versions[..2], None)] {
        let datagrams = vec![answer("0000:3b:00.0", command::INFO_GET, versions), acknowledgement()];
        assert_eq!(asked(datagrams, |devlink| devlink.ddp_profile(pf())).0.as_deref(), expected);
    }
}

#[test]
fn a_flag_is_its_value_for_now_before_that_for_later() {
    // (configuration mode, true)
    let param = |name: &[u8], kind: u8, values: &[(u8, bool)]| {
        let values = values.iter().flat_map(|(mode, on)| {
            let mut inside = nla(attribute::PARAM_VALUE_CMODE, &[*mode]);
            if *on {
                inside.extend(nla(attribute::PARAM_VALUE_DATA, &[]));
            }
            nla(attribute::PARAM_VALUE | NESTED, &inside)
        });
        let inside = [
            nla(attribute::PARAM_NAME, name),
            nla(attribute::PARAM_TYPE, &[kind]),
            nla(attribute::PARAM_VALUES_LIST | NESTED, &values.collect::<Vec<u8>>()),
        ];
        nla(attribute::PARAM | NESTED, &inside.concat())
    };
    let name = b"enable_rdma\0".as_slice();
    for (param, expected) in [
        (param(name, FLAG, &[(1, true)]), Some(true)),
        (param(name, FLAG, &[(2, true), (1, false)]), Some(false)),
        (param(name, FLAG, &[(2, false), (0, true), (1, false)]), Some(true)),
        (param(name, FLAG, &[]), None),
        (param(name, 1, &[(1, true)]), None),
        (param(b"enable_roce\0", FLAG, &[(1, true)]), None),
    ] {
        let datagrams =
            vec![answer("0000:3b:00.0", command::PARAM_GET, std::slice::from_ref(&param)), acknowledgement()];
        let (found, _) = asked(datagrams, |devlink| devlink.param_flag(pf(), "enable_rdma"));
        assert_eq!(found, expected, "{param:?}");
    }
}

#[test]
fn no_answer_is_no_error_and_a_refusal_is_one() {
    for errno in [libc::ENODEV, libc::EOPNOTSUPP, libc::EINVAL] {
        let (found, _) = asked(vec![refusal(errno)], |devlink| devlink.param_flag(pf(), "enable_rdma"));
        assert_eq!(found, None, "{errno}");
        let (reporters, _) = asked(vec![refusal(errno)], |devlink| devlink.health(pf()));
        assert_eq!(reporters, [], "{errno}");
    }
    let (conversation, _requests) = stand_in::answering(vec![vec![refusal(libc::EPERM)]]);
    let error = Devlink { conversation, family: FAMILY_NUMBER }.eswitch_mode(pf()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the kernel refuses to read the mode of the switch of 0000:3b:00.0 through devlink"
    );
}

#[test]
fn an_answer_cut_anywhere_is_read_as_far_as_it_goes() {
    let whole = answer("0000:3b:00.0", command::ESWITCH_GET, &[nla(attribute::ESWITCH_MODE, &[1, 0])]);
    let attributes = &whole[20..];
    for end in 0..attributes.len() {
        let mode = Attributes::of(&attributes[..end]).u16(attribute::ESWITCH_MODE);
        // Two bytes of padding follow the value.
        assert_eq!(mode, (end + 2 >= attributes.len()).then_some(1), "{end}");
    }
}
