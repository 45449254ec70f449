//! What the driver of a PCI function says of it through devlink: the mode of its switch, its health, its parameters.
//!
//! Reads only. A kernel without devlink, a function that its driver does not register there, and a question that the
//! driver has no answer to are absence and no error. Refuses to judge the answers.

mod message;
#[cfg(test)]
mod tests;

use netlink_sys::protocols::NETLINK_GENERIC;
use nix::libc;
use thiserror::Error;
use zerobridge_proto::PciAddress;

use crate::netlink::attributes::Attributes;
use crate::netlink::{Conversation, NetlinkError};
use message::GenericMessage;

/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY` and `CTRL_ATTR_…` of the kernel's `linux/genetlink.h`: which number a family has.
const CONTROLLER: u16 = 16;
const CONTROLLER_VERSION: u8 = 2;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// `DEVLINK_GENL_NAME` and `DEVLINK_GENL_VERSION` of the kernel's `linux/devlink.h`, as are all numbers below.
const FAMILY: &str = "devlink";
const VERSION: u8 = 1;

/// `enum devlink_command`.
mod command {
    pub(super) const ESWITCH_GET: u8 = 29;
    pub(super) const PARAM_GET: u8 = 38;
    pub(super) const INFO_GET: u8 = 51;
    pub(super) const HEALTH_REPORTER_GET: u8 = 52;
}

/// `enum devlink_attr`.
mod attribute {
    pub(super) const BUS_NAME: u16 = 1;
    pub(super) const DEV_NAME: u16 = 2;
    pub(super) const PORT_INDEX: u16 = 3;
    pub(super) const ESWITCH_MODE: u16 = 25;
    pub(super) const PARAM: u16 = 80;
    pub(super) const PARAM_NAME: u16 = 81;
    pub(super) const PARAM_TYPE: u16 = 83;
    pub(super) const PARAM_VALUES_LIST: u16 = 84;
    pub(super) const PARAM_VALUE: u16 = 85;
    pub(super) const PARAM_VALUE_DATA: u16 = 86;
    pub(super) const PARAM_VALUE_CMODE: u16 = 87;
    pub(super) const INFO_VERSION_RUNNING: u16 = 101;
    pub(super) const INFO_VERSION_NAME: u16 = 103;
    pub(super) const INFO_VERSION_VALUE: u16 = 104;
    pub(super) const HEALTH_REPORTER: u16 = 114;
    pub(super) const HEALTH_REPORTER_NAME: u16 = 115;
    pub(super) const HEALTH_REPORTER_STATE: u16 = 116;
    pub(super) const HEALTH_REPORTER_ERR_COUNT: u16 = 117;
    pub(super) const HEALTH_REPORTER_RECOVER_COUNT: u16 = 118;
}

/// `NLA_FLAG` of the kernel's `net/netlink.h`, which is how devlink calls a parameter that is true or false.
const FLAG: u8 = 6;

/// What the kernel answers to a question about a parameter that the driver does not have (`devlink_nl_param_get_doit`),
/// or about something that it never has.
const NO_ANSWER: [i32; 3] = [libc::EINVAL, libc::ENOENT, libc::EOPNOTSUPP];

/// A conversation with devlink.
#[derive(Debug)]
pub struct Devlink {
    conversation: Conversation,
    family: u16,
}

/// Why devlink was not heard, or what it refused.
#[derive(Debug, Error)]
#[error(transparent)]
pub struct DevlinkError(#[from] NetlinkError);

/// How a PF's switch treats its VFs (`enum devlink_eswitch_mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EswitchMode {
    /// The NIC forwards by MAC address and VLAN.
    Legacy,
    /// Each VF has a representor on the host, and flows are programmed.
    Switchdev,
}

/// A part of a function that the driver watches, such as `fw` or `tx`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthReporter {
    /// Its name.
    pub name: String,
    /// The port that it watches; `None` when it watches the whole function.
    pub port: Option<u32>,
    /// It is in the state of error, and has not recovered (`enum devlink_health_reporter_state` of `net/devlink.h`).
    pub failed: bool,
    /// Errors since the driver was loaded.
    pub errors: u64,
    /// Recoveries since the driver was loaded.
    pub recoveries: u64,
}

impl Devlink {
    /// Finds the family. `None` on a kernel that has none.
    ///
    /// # Errors
    /// [`DevlinkError`].
    pub fn open() -> Result<Option<Self>, DevlinkError> {
        Ok(Self::find(Conversation::open(NETLINK_GENERIC, "generic netlink")?)?)
    }

    fn find(mut conversation: Conversation) -> Result<Option<Self>, NetlinkError> {
        Ok(family_number(&mut conversation, FAMILY)?.map(|family| Self { conversation, family }))
    }

    /// The mode of a PF's switch. `None` for a function that has none.
    ///
    /// # Errors
    /// [`DevlinkError`].
    pub fn eswitch_mode(&mut self, pf: PciAddress) -> Result<Option<EswitchMode>, DevlinkError> {
        let answer = self.ask(pf, command::ESWITCH_GET, &[], "the mode of the switch")?;
        let mode = answer.and_then(|answer| answer.attributes().u16(attribute::ESWITCH_MODE));
        Ok(match mode {
            Some(0) => Some(EswitchMode::Legacy),
            Some(1) => Some(EswitchMode::Switchdev),
            _ => None,
        })
    }

    /// The health reporters of a function and its ports.
    ///
    /// # Errors
    /// [`DevlinkError`].
    pub fn health(&mut self, function: PciAddress) -> Result<Vec<HealthReporter>, DevlinkError> {
        let request = self.request(function, command::HEALTH_REPORTER_GET, &[]);
        let reporters = self.conversation.dump(
            request,
            || format!("list the health reporters of {function}"),
            // Before Linux 6.6 the kernel lists those of all functions, whatever the request names.
            |answer| reporter_of(answer.attributes(), function),
        );
        Ok(known(reporters)?.unwrap_or_default())
    }

    /// The name of the DDP package that an Intel NIC runs (`fw.app.name`, kernel `Documentation/networking/devlink/ice.rst`).
    ///
    /// # Errors
    /// [`DevlinkError`].
    pub fn ddp_profile(&mut self, function: PciAddress) -> Result<Option<String>, DevlinkError> {
        let answer = self.ask(function, command::INFO_GET, &[], "the versions")?;
        Ok(answer.and_then(|answer| running_version(answer.attributes(), "fw.app.name").map(str::to_owned)))
    }

    /// A parameter that is true or false, such as `enable_rdma`. `None` where the driver does not have it or it is of
    /// another type.
    ///
    /// A parameter has up to three values. The one for now is preferred to the one from the next reload of the driver,
    /// and that to the one that is stored in the device (`enum devlink_param_cmode`).
    ///
    /// # Errors
    /// [`DevlinkError`].
    pub fn param_flag(&mut self, function: PciAddress, name: &str) -> Result<Option<bool>, DevlinkError> {
        let more = [(attribute::PARAM_NAME, name)];
        let answer = self.ask(function, command::PARAM_GET, &more, &format!("the parameter {name}"))?;
        Ok(answer.and_then(|answer| flag_of(answer.attributes(), name)))
    }

    fn ask(
        &mut self,
        function: PciAddress,
        command: u8,
        more: &[(u16, &str)],
        what: &str,
    ) -> Result<Option<GenericMessage>, NetlinkError> {
        let request = self.request(function, command, more);
        let answer = self.conversation.get(request, || format!("read {what} of {function} through devlink"));
        Ok(known(answer)?.flatten())
    }

    fn request(&self, function: PciAddress, command: u8, more: &[(u16, &str)]) -> GenericMessage {
        let name = function.to_string();
        let mut attributes = vec![(attribute::BUS_NAME, "pci"), (attribute::DEV_NAME, name.as_str())];
        attributes.extend(more);
        GenericMessage::request(self.family, command, VERSION, &attributes)
    }
}

/// The number that the kernel gave a generic netlink family. `None` when it has no such family.
fn family_number(conversation: &mut Conversation, name: &str) -> Result<Option<u16>, NetlinkError> {
    let request = GenericMessage::request(CONTROLLER, GET_FAMILY, CONTROLLER_VERSION, &[(FAMILY_NAME, name)]);
    let answer = conversation.get(request, || format!("find the netlink family {name}"));
    Ok(known(answer)?.flatten().and_then(|answer| answer.attributes().u16(FAMILY_ID)))
}

/// The answer, and `None` when the kernel or the driver does not have one.
fn known<T>(answer: Result<T, NetlinkError>) -> Result<Option<T>, NetlinkError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.errno().is_some_and(|errno| NO_ANSWER.contains(&errno)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads an answer in every way, for a fuzzer.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn read_all_of(message: &GenericMessage) {
    let answer = message.attributes();
    let function = answer.text(attribute::DEV_NAME).and_then(|name| name.parse().ok());
    let reporter = function.and_then(|function| reporter_of(answer, function));
    let read = (flag_of(answer, "enable_roce"), answer.u16(FAMILY_ID));
    std::hint::black_box((reporter, read, running_version(answer, "fw.app.name")));
}

fn reporter_of(answer: Attributes<'_>, function: PciAddress) -> Option<HealthReporter> {
    let named = answer.text(attribute::DEV_NAME).and_then(|name| name.parse().ok());
    if answer.text(attribute::BUS_NAME) != Some("pci") || named != Some(function) {
        return None;
    }
    let reporter = answer.nested(attribute::HEALTH_REPORTER).next()?;
    Some(HealthReporter {
        name: reporter.text(attribute::HEALTH_REPORTER_NAME)?.to_owned(),
        port: answer.u32(attribute::PORT_INDEX),
        failed: reporter.u8(attribute::HEALTH_REPORTER_STATE)? != 0,
        errors: reporter.u64(attribute::HEALTH_REPORTER_ERR_COUNT).unwrap_or(0),
        recoveries: reporter.u64(attribute::HEALTH_REPORTER_RECOVER_COUNT).unwrap_or(0),
    })
}

fn running_version<'a>(answer: Attributes<'a>, name: &str) -> Option<&'a str> {
    answer
        .nested(attribute::INFO_VERSION_RUNNING)
        .find(|version| version.text(attribute::INFO_VERSION_NAME) == Some(name))?
        .text(attribute::INFO_VERSION_VALUE)
}

fn flag_of(answer: Attributes<'_>, name: &str) -> Option<bool> {
    let param = answer.nested(attribute::PARAM).next()?;
    if param.text(attribute::PARAM_NAME) != Some(name) || param.u8(attribute::PARAM_TYPE) != Some(FLAG) {
        return None;
    }
    param
        .nested(attribute::PARAM_VALUES_LIST)
        .flat_map(|list| list.nested(attribute::PARAM_VALUE))
        .min_by_key(|value| value.u8(attribute::PARAM_VALUE_CMODE).unwrap_or(u8::MAX))
        .map(|value| value.has(attribute::PARAM_VALUE_DATA))
}
