//! Receiver.
pub(crate) fn fuzz_body(_data: &[u8]) {}
