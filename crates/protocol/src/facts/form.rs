//! Form fields (`application/x-www-form-urlencoded`) that pass by.
//!
//! Keeps the unfinished pair only: at most [`NAME_BYTES_MAX`] of a name, or what is looked at of a value that is wanted.

use super::fields::{Collector, ENCODED_BYTES_MAX, Named};
use super::secret::SecretBuf;

/// Longest name that is looked at, as written; a longer one is none of ours.
const NAME_BYTES_MAX: usize = 512;

/// Where in a pair.
#[derive(Clone, Copy, Default)]
enum State {
    #[default]
    Name,
    Value(Named),
    /// In a value that nobody wants.
    Skip,
}

/// The state of one form.
// Invariant: `held` holds the beginning of the name or value in progress.
#[derive(Default)]
pub(super) struct FormScanner {
    state: State,
    held: SecretBuf,
}

impl FormScanner {
    /// Forgets the form before; the allocation stays.
    pub(super) fn reset(&mut self) {
        self.held.clear();
        self.state = State::Name;
    }

    /// Takes the next piece.
    pub(super) fn feed(&mut self, mut bytes: &[u8], found: &mut Collector<'_>) {
        while !bytes.is_empty() {
            match self.state {
                State::Name => {
                    let Some(end) = memchr::memchr2(b'=', b'&', bytes) else {
                        return self.hold(bytes, NAME_BYTES_MAX + 1);
                    };
                    if bytes[end] == b'=' {
                        let named = self.with(&bytes[..end], NAME_BYTES_MAX + 1, |name| {
                            if name.len() > NAME_BYTES_MAX { None } else { found.named(name, true) }
                        });
                        self.state = named.map_or(State::Skip, State::Value);
                    } else {
                        self.held.clear();
                    }
                    bytes = &bytes[end + 1..];
                }
                State::Value(named) => {
                    let Some(end) = memchr::memchr(b'&', bytes) else {
                        return self.hold(bytes, ENCODED_BYTES_MAX + 1);
                    };
                    self.with(&bytes[..end], ENCODED_BYTES_MAX + 1, |value| found.add_form(named, value));
                    self.state = State::Name;
                    bytes = &bytes[end + 1..];
                }
                State::Skip => {
                    let Some(end) = memchr::memchr(b'&', bytes) else { return };
                    self.state = State::Name;
                    bytes = &bytes[end + 1..];
                }
            }
        }
    }

    /// Ends the form; where it is not `whole`, its last pair may be cut and is left out.
    pub(super) fn finish(&mut self, whole: bool, found: &mut Collector<'_>) {
        if whole && let State::Value(named) = self.state {
            let value = self.held.bytes();
            // A line end after a form is none of it.
            let value = if value.len() > ENCODED_BYTES_MAX { value } else { value.trim_ascii_end() };
            found.add_form(named, value);
        }
        self.reset();
    }

    fn hold(&mut self, bytes: &[u8], max: usize) {
        self.held.extend(&bytes[..bytes.len().min(max.saturating_sub(self.held.len()))]);
    }

    /// Calls `f` with what is held and `rest`, without a copy where nothing is held.
    fn with<T>(&mut self, rest: &[u8], max: usize, f: impl FnOnce(&[u8]) -> T) -> T {
        if self.held.len() == 0 {
            return f(&rest[..rest.len().min(max)]);
        }
        self.hold(rest, max);
        let result = f(self.held.bytes());
        self.held.clear();
        result
    }
}
