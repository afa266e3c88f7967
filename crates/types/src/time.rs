//! Packet time.

use std::fmt;

/// A point in packet time: nanoseconds since 1970-01-01T00:00:00Z. Range: until the year 2554.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The epoch; also "before any packet".
    pub const ZERO: Self = Self(0);
    /// Later than any packet.
    pub const MAX: Self = Self(u64::MAX);

    /// Makes a timestamp from nanoseconds since the epoch.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Makes a timestamp from whole seconds and nanoseconds; saturates.
    pub const fn from_parts(secs: u64, nanos: u64) -> Self {
        Self(secs.saturating_mul(1_000_000_000).saturating_add(nanos))
    }

    /// Returns nanoseconds since the epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Returns the nanoseconds from `earlier` to `self`; 0 where `earlier` is later.
    pub const fn nanos_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Returns the time `nanos` later; saturates.
    pub const fn plus_nanos(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }

    /// Returns the time `secs` seconds later; saturates.
    pub const fn plus_secs(self, secs: u64) -> Self {
        self.plus_nanos(secs.saturating_mul(1_000_000_000))
    }
}

impl fmt::Display for Timestamp {
    /// Writes `seconds.nanoseconds`; records use RFC 3339, which the binary formats.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}
