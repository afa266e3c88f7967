//! The clock of live sources: where packet time comes from.

use std::time::{SystemTime, UNIX_EPOCH};

use offpath_types::Timestamp;

/// How far [`crate::Polled::Idle`] stays behind the clock: frames that wait in an open block of the kernel's ring are
/// younger than this.
pub(crate) const IDLE_LAG_NANOS: u64 = 50_000_000;

/// Reads the clock.
#[expect(clippy::disallowed_methods, reason = "live capture reads the clock so that others need not")]
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_parts(since.as_secs(), u64::from(since.subsec_nanos()))
}

/// Returns the time before which no frame follows, where none waits.
pub(crate) fn settled() -> Timestamp {
    Timestamp::from_nanos(now().as_nanos().saturating_sub(IDLE_LAG_NANOS))
}
