//! What the parser is told.

use ipnet::IpNet;

use crate::facts::FactsConfig;
use crate::{DecryptLimits, OutsideConfig, QuicLimits};

/// Configuration of the protocol stage.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProtocolConfig {
    /// Bounds.
    pub limits: ProtocolLimits,
    /// Networks whose PROXY protocol preface (HAProxy's `proxy-protocol.txt`, versions 1 and 2) is
    /// believed: the TCP client must be in one of them. Others' prefaces are consumed, not believed.
    pub proxy_protocol: Vec<IpNet>,
    /// What is looked for in heads and bodies.
    pub facts: FactsConfig,
    /// What terminators tell of the TLS connections outside of them.
    pub outside: OutsideConfig,
    /// Bounds of QUIC flows.
    pub quic: QuicLimits,
    /// How TLS connections wait for their secrets.
    pub decryption: DecryptLimits,
}

/// Bounds of the protocol stage; each with its policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtocolLimits {
    /// Longest head that is kept, bytes. Past it: what fitted is used (`head_too_long`), the rest of the
    /// head passes by unkept.
    pub head_bytes_max: usize,
    /// Header fields kept of one head, at most 256. Past it: framing fields are still obeyed, the others
    /// are not kept (`header_count_exceeded`).
    pub headers_max: usize,
    /// Requests waiting for their response on one flow. Past it: the oldest is emitted without its
    /// response (`pipeline_overflow`), which comes out as a half of its own.
    pub open_transactions_per_flow_max: usize,
    /// Requests waiting for their response over all flows of a worker. Past it: the oldest of the flow
    /// that adds one is given up, as above. The last eighth is for flows with at most 8 open.
    pub open_transactions_max: usize,
    /// Response bytes of one flow held back until their request arrives. Past it: they are parsed as they are.
    pub early_response_bytes_max: usize,
    /// How long such bytes are held, nanoseconds of packet time. Past it: they are parsed as they are.
    pub early_response_nanos_max: u64,
    /// First bytes of a direction within which a start line with an unregistered method must end. Past it:
    /// the flow is not HTTP.
    pub sniff_bytes_max: usize,
    /// Bytes searched for a message start on a flow never recognised as HTTP (joined in the middle, or
    /// its start lost), per direction. Past it: the flow is not HTTP.
    pub search_bytes_max: u64,
    /// Unfinished line kept while searching for a request start: the longest request line found that way.
    pub search_line_bytes_max: usize,
    /// Longest chunk-size line, extensions included. Past it: framing is lost (`chunk_size_invalid`).
    pub chunk_line_bytes_max: u32,
    /// HTTP/2 streams open on one flow. Past it: the oldest is emitted as it is (`pipeline_overflow`), and its response
    /// comes out as a half of its own.
    pub http2_streams_max: usize,
    /// Field bytes kept of one HTTP/2 head, each field counted with 32 bytes more (RFC 9113 §6.5.2). Past it: the
    /// others are decoded for the header table and not kept (`head_too_long`).
    pub http2_list_bytes_max: u32,
    /// Header table kept of one HTTP/2 direction, bytes as RFC 7541 §4.1 counts them. Past it: the oldest entries
    /// become unknown (`header_unresolved` where they are used).
    pub http2_table_bytes_max: u32,
    /// Longest header block, compressed, all its frames together. Past it: it is not decoded, and the header table
    /// is unknown from there on (`header_block_lost`).
    pub http2_block_bytes_max: usize,
    /// Frames of one header block. Past it: as above.
    pub http2_block_frames_max: u32,
    /// Requests of one flow that its client may take back before they are answered: so many at once, and 10 more a
    /// second. Past it: each is marked `rapid_reset` (CVE-2023-44487).
    pub http2_resets_max: u32,
    /// Frames of one direction that carry nothing (empty DATA, SETTINGS, PING, PRIORITY, unknown types): so many at
    /// once, and 100 more a second. Past it: what is open is marked `frame_flood` (CVE-2019-9512 and those beside it).
    pub http2_useless_max: u32,
    /// Bytes held by all flows of a worker in buffers (unfinished heads, held responses, header tables). Past it: what
    /// the flow that needs more holds is dropped as if the capture had missed it. Three quarters of it may be kept by
    /// what is open: texts of requests (past it: the flow that adds one gives up its oldest) and bodies (past it: the
    /// one that needs more is not looked into, `body_capped`). The last eighth of those is for flows with at most 8
    /// requests open, and for bodies of at most 4 KiB.
    pub held_bytes_max: usize,
}

impl Default for ProtocolLimits {
    fn default() -> Self {
        Self {
            head_bytes_max: 64 << 10,
            headers_max: 128,
            open_transactions_per_flow_max: 128,
            open_transactions_max: 1 << 18,
            early_response_bytes_max: 64 << 10,
            early_response_nanos_max: 200_000_000,
            sniff_bytes_max: 1024,
            search_bytes_max: 16 << 20,
            search_line_bytes_max: 8 << 10,
            chunk_line_bytes_max: 4 << 10,
            http2_streams_max: 1024,
            http2_list_bytes_max: 64 << 10,
            http2_table_bytes_max: 64 << 10,
            http2_block_bytes_max: 256 << 10,
            http2_block_frames_max: 1024,
            http2_resets_max: 64,
            http2_useless_max: 1000,
            held_bytes_max: 256 << 20,
        }
    }
}
