//! Any Ethernet frame, as anybody on a pod's link may send it while that is probed.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &[u8]| zerobridge_kernel::testing::read_frame(frame));
