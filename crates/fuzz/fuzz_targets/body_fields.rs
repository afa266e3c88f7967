#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| offpath_protocol::facts::fuzz_body_fields(data));
