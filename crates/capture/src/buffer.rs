//! A window that slides over a byte stream.
//!
//! ```text
//! buf: [ consumed | window (start..end) | free ]      base = stream offset of buf[0]
//! ```

use std::io::{self, Read};

// Invariant: start <= end <= buf.len().
pub(crate) struct Refill {
    input: Box<dyn Read + Send>,
    buf: Vec<u8>,
    start: usize,
    end: usize,
    base: u64,
    done: bool,
    /// The input has nothing just now, and will be asked again.
    pending: bool,
    failed: Option<io::Error>,
}

impl Refill {
    /// Makes a window over `input` with a buffer of `bytes`. The buffer grows when a record needs more, and
    /// only as data really arrives: a record that lies about its length allocates at most twice the data.
    pub(crate) fn new(input: Box<dyn Read + Send>, bytes: usize) -> Self {
        Self {
            input,
            buf: vec![0; bytes.max(64)],
            start: 0,
            end: 0,
            base: 0,
            done: false,
            pending: false,
            failed: None,
        }
    }

    /// Returns what is buffered and not consumed.
    #[inline]
    pub(crate) fn window(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }

    /// Tries to have `n` bytes in the window; tells whether they are there. Only the end of the stream (or
    /// a failure, see [`Refill::failure`]; or an input that would block, see [`Refill::is_pending`]) leaves fewer.
    #[inline]
    pub(crate) fn ensure(&mut self, n: usize) -> bool {
        self.end - self.start >= n || self.fill(n)
    }

    /// Moves the start of the window; `n` is at most the window's length.
    #[inline]
    pub(crate) fn consume(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
    }

    /// Makes the buffer at least `n` bytes. A caller that moves by single bytes and looks far ahead needs
    /// room for several looks, or each step would move the whole window.
    pub(crate) fn reserve(&mut self, n: usize) {
        if self.buf.len() < n {
            self.buf.resize(n, 0);
        }
    }

    /// Returns the stream offset of the window's start.
    pub(crate) fn offset(&self) -> u64 {
        self.base + self.start as u64
    }

    /// Returns how many bytes of the stream were read so far.
    pub(crate) fn bytes_in(&self) -> u64 {
        self.base + self.end as u64
    }

    /// Tells whether the last time that bytes were missing, they may still come.
    pub(crate) const fn is_pending(&self) -> bool {
        self.pending
    }

    /// Returns the failure that ended the stream, if it was one.
    pub(crate) fn failure(&self) -> Option<&io::Error> {
        self.failed.as_ref()
    }

    #[cold]
    fn fill(&mut self, n: usize) -> bool {
        if self.done {
            // Whoever searches the rest byte by byte may ask for more at each; moving it each time is quadratic.
            self.pending = false;
            return false;
        }
        if self.start > 0 {
            self.buf.copy_within(self.start..self.end, 0);
            self.base += self.start as u64;
            self.end -= self.start;
            self.start = 0;
        }
        self.pending = false;
        while self.end < n && !self.done {
            if self.end == self.buf.len() {
                self.buf.resize(self.buf.len() * 2, 0);
            }
            match self.input.read(&mut self.buf[self.end..]) {
                Ok(0) => self.done = true,
                Ok(got) => self.end += got,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.pending = true;
                    break;
                }
                Err(e) => {
                    self.done = true;
                    self.failed = Some(e);
                }
            }
        }
        self.end >= n
    }
}

/// Reads a `u32` at `at`, in the byte order that was found out; 0 past the end (callers checked).
#[inline]
pub(crate) fn u32_at(bytes: &[u8], at: usize, big: bool) -> u32 {
    match bytes.get(at..at + 4) {
        Some(&[a, b, c, d]) if big => u32::from_be_bytes([a, b, c, d]),
        Some(&[a, b, c, d]) => u32::from_le_bytes([a, b, c, d]),
        _ => 0,
    }
}

/// Reads a `u16` likewise.
#[inline]
pub(crate) fn u16_at(bytes: &[u8], at: usize, big: bool) -> u16 {
    match bytes.get(at..at + 2) {
        Some(&[a, b]) if big => u16::from_be_bytes([a, b]),
        Some(&[a, b]) => u16::from_le_bytes([a, b]),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_at_the_end_is_not_moved_for_every_question() {
        let mut buf = Refill::new(Box::new(io::Cursor::new(vec![7u8; 1000])), 64);
        assert!(buf.ensure(1000) && !buf.ensure(1001));
        for at in 1..=1000 {
            buf.consume(1);
            assert!(!buf.ensure(1001 - at) && !buf.is_pending());
            assert_eq!((buf.start, buf.window().len(), buf.offset()), (at, 1000 - at, at as u64));
        }
        assert_eq!(buf.bytes_in(), 1000);
    }
}
