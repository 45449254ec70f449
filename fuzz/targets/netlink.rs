//! Any datagram, read as an answer of the kernel.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagram: &[u8]| zerobridge_kernel::testing::read_datagram(datagram));
