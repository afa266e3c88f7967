#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| offpath_protocol::fuzz_quic_initial(data));
