#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| offpath_packet::fuzz_decode_frame(data));
