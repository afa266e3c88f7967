//! The `offpath` binary; everything is in the library beside it, so that it can be tested and fuzzed.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    offpath::run()
}
