#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| offpath::fuzz_config(data));
