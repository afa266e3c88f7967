#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| offpath_capture::fuzz_pcap_file(data));
