#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| offpath_stream::fuzz_reassemble_ops(data));
