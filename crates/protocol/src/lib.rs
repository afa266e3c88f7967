//! HTTP push parsers: chunks in, transactions out.
#![forbid(unsafe_code)]

pub mod facts;
pub mod head;
