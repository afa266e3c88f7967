#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| offpath_enforce::fuzz_webhook_body(data));
