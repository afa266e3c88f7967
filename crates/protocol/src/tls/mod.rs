//! TLS on one flow: passive decryption.

#[expect(dead_code, reason = "its layer is to come")]
mod decrypt;
mod fuzz;
#[expect(dead_code, reason = "its layer is to come")]
mod keys;
mod record;
mod schedule;

pub use self::decrypt::DecryptCounters;
pub use self::fuzz::fuzz_tls_records;
pub use self::keys::{KeyLimits, KeyLine, KeyLogCounters, KeyLogParser, KeyStore, fuzz_keylog};
