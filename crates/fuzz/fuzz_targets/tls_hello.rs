#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| offpath_protocol::fuzz_tls_hello(data));
