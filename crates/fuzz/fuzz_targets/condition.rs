#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| offpath_score::fuzz_condition(data));
