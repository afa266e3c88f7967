//! The handshake before what a SOCKS proxy forwards: versions 4 and 4a (NEC, `SOCKS4.protocol`), version 5 (RFC 1928)
//! without authentication or with a password (RFC 1929).
//!
//! Each direction is read by itself: every message says how long it is. Names and passwords are passed over.

use super::proxy::Preface;

/// Longest name in a version 4 request; servers take less.
const NAME_MAX: usize = 255;

/// Tells whether a flow's first byte in this direction may begin a handshake; no HTTP message begins with it.
pub(super) const fn may_begin(first: u8, to_server: bool) -> bool {
    first == 5 || first == if to_server { 4 } else { 0 }
}

/// Judges the first bytes of one direction: all that the client says before the data, or all that the server does.
///
/// The answer for a prefix is `More` or the final one. At most some 1000 bytes are looked at.
pub(super) fn parse(bytes: &[u8], to_server: bool) -> Preface {
    let mut at = Reader { bytes, used: 0 };
    let accepted = match (bytes.first(), to_server) {
        (None, _) => None,
        (Some(4), true) => at.request4(),
        (Some(5), true) => at.client5(),
        (Some(0), false) => at.reply4(),
        (Some(5), false) => at.server5(),
        _ => Some(false),
    };
    match accepted {
        None => Preface::More,
        Some(true) => Preface::Found { len: at.used, client: None },
        Some(false) => Preface::None,
    }
}

/// What is read so far. Its methods return `None` where bytes are missing, and whether they accept what is there.
struct Reader<'a> {
    bytes: &'a [u8],
    used: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.used..self.used + len)?;
        self.used += len;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    /// Takes the bytes of `want` as far as they are there.
    fn expect(&mut self, want: &[u8]) -> Option<bool> {
        for b in want {
            if self.byte()? != *b {
                return Some(false);
            }
        }
        Some(true)
    }

    /// Takes a text that ends with a zero byte.
    fn name(&mut self) -> Option<bool> {
        let rest = &self.bytes[self.used..];
        match rest.iter().take(NAME_MAX + 1).position(|b| *b < b' ') {
            Some(end) if rest[end] == 0 => {
                self.used += end + 1;
                Some(true)
            }
            None if rest.len() <= NAME_MAX => None,
            _ => Some(false),
        }
    }

    /// Version, CONNECT, port, address, user; 4a names the host after an address that is none.
    fn request4(&mut self) -> Option<bool> {
        if !self.expect(&[4, 1])? {
            return Some(false);
        }
        let address = &self.take(6)?[2..];
        if !self.name()? {
            return Some(false);
        }
        if address[..3] == [0; 3] && address[3] != 0 { self.name() } else { Some(true) }
    }

    /// Zero, granted or one of three refusals, port, address.
    fn reply4(&mut self) -> Option<bool> {
        self.byte()?;
        if !(0x5a..=0x5d).contains(&self.byte()?) {
            return Some(false);
        }
        self.take(6).map(|_| true)
    }

    /// Offered methods, perhaps a password, CONNECT.
    fn client5(&mut self) -> Option<bool> {
        self.byte()?;
        let methods = usize::from(self.byte()?);
        if methods == 0 {
            return Some(false);
        }
        self.take(methods)?;
        let mut next = self.byte()?;
        if next == 1 {
            for _ in 0..2 {
                let len = usize::from(self.byte()?);
                self.take(len)?;
            }
            next = self.byte()?;
        }
        if next != 5 {
            return Some(false);
        }
        if !self.expect(&[1, 0])? {
            return Some(false);
        }
        self.address()
    }

    /// Chosen method, perhaps the answer to the password, success.
    fn server5(&mut self) -> Option<bool> {
        self.byte()?;
        let method = self.byte()?;
        if !matches!(method, 0 | 2) {
            return Some(false);
        }
        if method == 2 && !self.expect(&[1, 0])? {
            return Some(false);
        }
        if !self.expect(&[5, 0, 0])? {
            return Some(false);
        }
        self.address()
    }

    /// Kind, address, port.
    fn address(&mut self) -> Option<bool> {
        let len = match self.byte()? {
            1 => 4,
            3 => usize::from(self.byte()?),
            4 => 16,
            _ => return Some(false),
        };
        self.take(len + 2).map(|_| true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes_in_every_cut() {
        let found = |len| Preface::Found { len, client: None };
        let long = [&[4, 1, 0, 80, 1, 2, 3, 4][..], &[b'u'; 300]].concat();
        let rows: [(&str, bool, &[u8], Preface); 17] = [
            ("4", true, b"\x04\x01\x00\x50\x5d\xb8\xd8\x77\x00GET", found(9)),
            ("4 with user", true, b"\x04\x01\x00\x50\x01\x02\x03\x04user\x00GET", found(13)),
            ("4a", true, b"\x04\x01\x00\x50\x00\x00\x00\x01u\x00www.example\x00GET", found(22)),
            ("4 bind", true, b"\x04\x02\x00\x50\x01\x02\x03\x04\x00", Preface::None),
            ("4 endless user", true, &long, Preface::None),
            ("4 granted", false, b"\x00\x5a\xdf\xb2\x0a\xb4\x9c\xf9HTTP", found(8)),
            ("4 of the wrong side", false, b"\x04\x01\x00\x50\x5d\xb8\xd8\x77\x00", Preface::None),
            ("zeros", false, &[0; 8], Preface::None),
            ("5 by name", true, b"\x05\x01\x00\x05\x01\x00\x03\x03a.b\x00\x50GET", found(13)),
            ("5 by IPv4", true, b"\x05\x02\x00\x02\x05\x01\x00\x01\x01\x02\x03\x04\x00\x50GET", found(14)),
            ("5 by IPv6", true, &[&[5, 1, 0, 5, 1, 0, 4][..], &[9; 18], b"GET"].concat(), found(25)),
            (
                "5 with password",
                true,
                b"\x05\x01\x02\x01\x01u\x02pw\x05\x01\x00\x01\x01\x02\x03\x04\x00\x50",
                found(19),
            ),
            ("5 no methods", true, b"\x05\x00\x05\x01", Preface::None),
            ("5 accepted", false, b"\x05\x00\x05\x00\x00\x01\x01\x02\x03\x04\x00\x50HTTP", found(12)),
            ("5 password accepted", false, b"\x05\x02\x01\x00\x05\x00\x00\x03\x01a\x00\x50HTTP", found(12)),
            ("5 no method", false, b"\x05\xff", Preface::None),
            ("5 refused", false, b"\x05\x00\x05\x05\x00\x01", Preface::None),
        ];
        for (name, to_server, bytes, want) in rows {
            assert!(name == "4 of the wrong side" || may_begin(bytes[0], to_server), "{name}");
            assert_eq!(parse(bytes, to_server), want, "{name}");
            for cut in 1..bytes.len() {
                let got = parse(&bytes[..cut], to_server);
                assert!(got == Preface::More || got == want, "{name} cut at {cut}: {got:?}");
            }
        }
    }
}
