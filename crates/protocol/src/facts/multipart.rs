//! Multipart form fields (RFC 7578) that pass by.
//!
//! ```text
//! --B CRLF head CRLF CRLF value CRLF --B CRLF … CRLF --B--
//! ```
//! Files are passed over; a part without its end is left out. Keeps a part's head up to [`HEAD_BYTES_MAX`], or what is
//! looked at of a value that is wanted. What was matched of a delimiter is known without being kept.

use super::fields::{Collector, Named, VALUE_BYTES_MAX, parameter};
use super::secret::SecretBuf;

/// Longest head of a part; a part with a longer one is passed over (`body_capped`).
const HEAD_BYTES_MAX: usize = 4 << 10;
const BLANK: &[u8] = b"\r\n\r\n";

/// Where in a body.
#[derive(Clone, Copy, Default)]
enum State {
    /// Before the first delimiter.
    #[default]
    Before,
    /// In a part's head, with so much of its blank line.
    Head { blank: usize },
    /// In the value of a wanted field.
    Value(Named),
    /// In a part that nobody wants.
    Skip,
    /// After the closing delimiter.
    After,
}

/// The state of one body.
// Invariant: `before <= matched < delimiter.len()`: so much of the delimiter lies directly before the next byte.
#[derive(Default)]
pub(super) struct MultipartScanner {
    state: State,
    delimiter: Vec<u8>,
    matched: usize,
    /// How much of that lies before the value: a head's end.
    before: usize,
    held: SecretBuf,
    capped: bool,
}

impl MultipartScanner {
    /// Begins a body.
    pub(super) fn reset(&mut self, boundary: &[u8]) {
        self.held.clear();
        self.delimiter.clear();
        self.delimiter.extend_from_slice(b"\r\n--");
        self.delimiter.extend_from_slice(boundary);
        // The first delimiter needs no line before it.
        (self.state, self.matched, self.before, self.capped) = (State::Before, 2, 2, false);
    }

    pub(super) fn boundary(&self) -> &[u8] {
        self.delimiter.get(4..).unwrap_or_default()
    }

    /// Tells whether a part's head was too long to be looked at.
    pub(super) fn capped(&self) -> bool {
        self.capped
    }

    /// Ends the body; returns whether its closing delimiter was there.
    pub(super) fn finish(&mut self) -> bool {
        self.held.clear();
        matches!(self.state, State::After)
    }

    /// Takes the next piece.
    pub(super) fn feed(&mut self, mut bytes: &[u8], found: &mut Collector<'_>) {
        while !bytes.is_empty() {
            match self.state {
                State::After => return,
                State::Head { .. } => {}
                State::Before | State::Skip | State::Value(_) if self.matched == 0 => {
                    // Nothing of a delimiter before its CR.
                    let run = memchr::memchr(b'\r', bytes).unwrap_or(bytes.len());
                    self.value(&bytes[..run]);
                    bytes = &bytes[run..];
                    if bytes.is_empty() {
                        return;
                    }
                }
                State::Before | State::Skip | State::Value(_) => {}
            }
            self.byte(bytes[0], found);
            bytes = &bytes[1..];
        }
    }

    fn byte(&mut self, byte: u8, found: &mut Collector<'_>) {
        if self.delimiter[self.matched] == byte {
            self.matched += 1;
            if self.matched == self.delimiter.len() {
                return self.part_end(found);
            }
            if let State::Head { .. } = self.state {
                self.head_byte(byte, found);
            }
            return;
        }
        // What was matched was part of the value. CR stands only at a delimiter's beginning, so nothing shorter matches.
        let passed = std::mem::take(&mut self.matched);
        let before = std::mem::take(&mut self.before);
        if let State::Head { .. } = self.state {
            self.matched = usize::from(byte == b'\r');
            return self.head_byte(byte, found);
        }
        if let State::Value(_) = self.state {
            let room = VALUE_BYTES_MAX.saturating_sub(self.held.len());
            let passed = &self.delimiter[before..passed];
            self.held.extend(&passed[..passed.len().min(room)]);
        }
        if byte == b'\r' {
            self.matched = 1;
        } else {
            self.value(&[byte]);
        }
    }

    /// Takes bytes of a value.
    fn value(&mut self, bytes: &[u8]) {
        if let State::Value(_) = self.state {
            let room = VALUE_BYTES_MAX.saturating_sub(self.held.len());
            self.held.extend(&bytes[..bytes.len().min(room)]);
        }
    }

    /// A delimiter is whole: ends the part before it.
    fn part_end(&mut self, found: &mut Collector<'_>) {
        if let State::Value(named) = self.state {
            found.add_plain(named, self.held.bytes());
        }
        self.held.clear();
        (self.matched, self.before) = (0, 0);
        self.state = State::Head { blank: 0 };
    }

    /// Takes a byte of a head, which begins behind the delimiter.
    fn head_byte(&mut self, byte: u8, found: &mut Collector<'_>) {
        let State::Head { blank } = self.state else { return };
        let blank = match byte {
            _ if BLANK[blank] == byte => blank + 1,
            b'\r' => 1,
            _ => 0,
        };
        self.state = State::Head { blank };
        if self.held.len() >= HEAD_BYTES_MAX {
            self.capped = true;
            self.state = State::Skip;
            return self.held.clear();
        }
        self.held.push(byte);
        if self.held.bytes() == b"--" {
            self.state = State::After;
            self.held.clear();
        } else if blank == BLANK.len() {
            let named = part_name(self.held.bytes()).and_then(|name| found.named(name, false));
            self.state = named.map_or(State::Skip, State::Value);
            self.held.clear();
            // The blank line's end may begin a delimiter: an empty value.
            (self.matched, self.before) = (2, 2);
        }
    }
}

/// Returns the field name that a part's head gives it; `None` where it is a file or has none.
fn part_name(head: &[u8]) -> Option<&[u8]> {
    for line in head.split(|c| *c == b'\n') {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        if !line[..colon].trim_ascii().eq_ignore_ascii_case(b"content-disposition") {
            continue;
        }
        let parameters = &line[colon + 1..];
        if parameter(parameters, b"filename").is_some() || parameter(parameters, b"filename*").is_some() {
            return None;
        }
        return parameter(parameters, b"name");
    }
    None
}
