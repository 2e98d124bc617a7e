//! Packets of a hostile guest to the vsock device: headers and payloads as they come.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| slipway_vsock::fuzzing::guest_packets(bytes));
