//! Every fuzz target runs on its seeds here, with the ordinary compiler.

use std::fs;

use crate::support::root;

/// Panics where something is wrong.
type Body = fn(&[u8]);

/// Each target and its body.
const TARGETS: [(&str, Body); 17] = [
    ("body_fields", offpath_protocol::facts::fuzz_body_fields),
    ("condition", offpath_score::fuzz_condition),
    ("config", offpath::fuzz_config),
    ("decode_frame", offpath_packet::fuzz_decode_frame),
    ("hpack_block", offpath_protocol::fuzz_hpack_block),
    ("http1_cuts", offpath_protocol::fuzz_http1_cuts),
    ("http2_frames", offpath_protocol::fuzz_http2_frames),
    ("keylog", offpath_protocol::fuzz_keylog),
    ("pcap_file", offpath_capture::fuzz_pcap_file),
    ("quic_initial", offpath_protocol::fuzz_quic_initial),
    ("reassemble_ops", offpath_stream::fuzz_reassemble_ops),
    ("sctp_packets", offpath_stream::fuzz_sctp_packets),
    ("tls_hello", offpath_protocol::fuzz_tls_hello),
    ("tls_records", offpath_protocol::fuzz_tls_records),
    ("webhook_body", offpath_enforce::fuzz_webhook_body),
    ("webhook_headers", offpath_enforce::fuzz_webhook_headers),
    ("websocket_frames", offpath_protocol::fuzz_websocket_frames),
];

#[test]
fn every_target_runs_on_its_seeds() {
    let folder = root().join("crates/fuzz");
    let mut files: Vec<_> = fs::read_dir(folder.join("fuzz_targets"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    files.sort();
    assert_eq!(files, TARGETS.map(|(name, _)| name), "a target is missing here");
    for (name, body) in TARGETS {
        let seeds: Vec<_> = fs::read_dir(folder.join("seeds").join(name)).unwrap().collect();
        assert!(!seeds.is_empty(), "{name} has no seed");
        for seed in seeds {
            body(&fs::read(seed.unwrap().path()).unwrap());
        }
    }
}
