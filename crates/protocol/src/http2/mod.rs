//! HTTP/2.

#[allow(dead_code, reason = "the parser that uses it comes next")]
mod hpack;
mod hpack_model;
mod huffman;
mod static_table;

pub use hpack_model::{bench_hpack_blocks, fuzz_hpack_block};
