//! The only place here that reads a clock: delivery and receiving live in wall time.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since the epoch; 0 on a machine whose clock is before it.
#[expect(clippy::disallowed_methods, reason = "webhooks are signed, retried and expired in wall time")]
pub(crate) fn wall_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// The monotonic clock, for latencies and timeouts.
#[expect(clippy::disallowed_methods, reason = "latencies and timeouts of delivery")]
pub(crate) fn instant() -> Instant {
    Instant::now()
}
