//! RFC 3339 with nanoseconds, fast enough for one or two a record.

use jiff::Timestamp as Civil;
use offpath_types::Timestamp;

/// Formats packet time; keeps the text of the last whole second, which most records share.
#[derive(Debug)]
pub(crate) struct TimeFormat {
    second: u64,
    text: [u8; 20],
    valid: bool,
}

impl TimeFormat {
    /// Makes an empty cache.
    pub(crate) const fn new() -> Self {
        Self { second: 0, text: [0; 20], valid: false }
    }

    fn refresh(&mut self, second: u64) {
        if self.valid && self.second == second {
            return;
        }
        // jiff's range ends in 9999; packet time ends in 2554, so this holds for every timestamp.
        let civil = Civil::from_second(second.min(253_402_207_200) as i64).unwrap_or_default();
        let text = civil.strftime("%Y-%m-%dT%H:%M:%S.").to_string();
        if let Some(bytes) = text.as_bytes().first_chunk::<20>() {
            self.text = *bytes;
        }
        self.second = second;
        self.valid = true;
    }

    /// Appends `2026-11-23T15:18:00.123456789Z`.
    pub(crate) fn push(&mut self, time: Timestamp, out: &mut Vec<u8>) {
        let nanos = time.as_nanos();
        self.refresh(nanos / 1_000_000_000);
        out.extend_from_slice(&self.text);
        push_padded(nanos % 1_000_000_000, 9, out);
        out.push(b'Z');
    }

    /// Appends EVE's form, `2026-11-23T15:18:00.123456+0000`.
    pub(crate) fn push_eve(&mut self, time: Timestamp, out: &mut Vec<u8>) {
        let nanos = time.as_nanos();
        self.refresh(nanos / 1_000_000_000);
        out.extend_from_slice(&self.text);
        push_padded(nanos % 1_000_000_000 / 1000, 6, out);
        out.extend_from_slice(b"+0000");
    }
}

fn push_padded(value: u64, width: usize, out: &mut Vec<u8>) {
    let mut digits = itoa::Buffer::new();
    let text = digits.format(value).as_bytes();
    out.extend(std::iter::repeat_n(b'0', width.saturating_sub(text.len())));
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_both_forms() {
        for (nanos, rfc, eve) in [
            (0, "1970-01-01T00:00:00.000000000Z", "1970-01-01T00:00:00.000000+0000"),
            (1_468_449_727_199_844_001, "2016-07-13T22:42:07.199844001Z", "2016-07-13T22:42:07.199844+0000"),
            (u64::MAX, "2554-07-21T23:34:33.709551615Z", "2554-07-21T23:34:33.709551+0000"),
        ] {
            let (mut a, mut b) = (Vec::new(), Vec::new());
            let mut format = TimeFormat::new();
            format.push(Timestamp::from_nanos(nanos), &mut a);
            format.push_eve(Timestamp::from_nanos(nanos), &mut b);
            assert_eq!(
                (String::from_utf8(a).unwrap().as_str(), String::from_utf8(b).unwrap().as_str()),
                (rfc, eve)
            );
        }
    }
}
