#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| offpath_stream::fuzz_sctp_packets(data));
