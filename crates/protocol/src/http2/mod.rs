//! HTTP/2.

#[allow(dead_code, reason = "the parser that uses it comes next")]
mod hpack;
mod huffman;
mod static_table;

#[cfg(test)]
mod hpack_tests;
