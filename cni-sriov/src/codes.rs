//! The error codes that this plugin adds to those of the CNI specification. They are part of its interface: monitoring
//! matches on them, so a number is never given a second meaning.

use zerobridge_proto::cni::ErrorCode;

/// 101: the device does not exist, or is none that can be attached.
pub const BAD_DEVICE: ErrorCode = ErrorCode::plugin(1);

/// 102: the pod was given no device of the network's resource.
pub const NO_DEVICE: ErrorCode = ErrorCode::plugin(2);

/// 103: all devices that the pod was given are attached already.
pub const DEVICES_IN_USE: ErrorCode = ErrorCode::plugin(3);

/// 104: the sandbox already has an interface of the requested name.
pub const INTERFACE_EXISTS: ErrorCode = ErrorCode::plugin(4);

/// 105: the kernel or the driver refused a setting.
pub const REFUSED: ErrorCode = ErrorCode::plugin(5);

/// 106: an attachment is not as ADD left it.
pub const DRIFTED: ErrorCode = ErrorCode::plugin(6);

/// 107: another IPAM plugin ended without an answer, or without an address.
pub const IPAM_FAILED: ErrorCode = ErrorCode::plugin(7);

/// 108: foreign hosts have the addresses that were asked for, or all that were tried.
pub const ADDRESS_CONFLICT: ErrorCode = ErrorCode::plugin(8);

/// 109: a gateway that must answer does not.
pub const GATEWAY_SILENT: ErrorCode = ErrorCode::plugin(9);
