//! Read-only views of ClientHello and ServerHello, and the reader that gets them out of TLS records.
//!
//! In: bytes of one direction from its start, in any pieces. Out: the first handshake messages. A message may
//! lie in several records and a record may hold several messages; nothing but lengths is trusted.
//! Read RFC 8446 §4.1 and §5.1, RFC 5246 §6.2 and RFC 6066 §3 before changing this file.

/// Longest record that is accepted: 2^14 bytes of text and 2048 of expansion (RFC 5246 §6.2.3).
const RECORD_BYTES_MAX: u16 = (1 << 14) + 2048;
/// Longest hello that is read. With post-quantum key shares and Encrypted ClientHello they reach 2 to 4 KiB;
/// OpenSSL takes 128 KiB and sends what fits into 16.
pub(crate) const HELLO_BYTES_MAX: usize = 64 << 10;

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

pub(crate) const CLIENT_HELLO: u8 = 1;
pub(crate) const SERVER_HELLO: u8 = 2;

/// Hash that a ServerHello has for its random when it is a HelloRetryRequest (RFC 8446 §4.1.3).
const RETRY_RANDOM: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2,
    0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// Says of the first bytes of a direction whether TLS begins here: a handshake record with a hello, or a hello of
/// SSL 2.0. `None` for too few bytes; every other answer holds for every continuation.
pub(crate) fn begins(bytes: &[u8]) -> Option<bool> {
    let good = |i: usize, b: u8| match (i, bytes[0]) {
        (0, _) => b == HANDSHAKE || b & 0x80 != 0,
        (1, HANDSHAKE) => b == 3,
        (2, HANDSHAKE) => b <= 4,
        (4, HANDSHAKE) => (1..=RECORD_BYTES_MAX).contains(&u16::from_be_bytes([bytes[3], b])),
        (5, HANDSHAKE) => matches!(b, CLIENT_HELLO | SERVER_HELLO),
        (3, HANDSHAKE) | (1, _) => true,
        (2, _) => b == CLIENT_HELLO,
        (3, _) => matches!(b, 0 | 3),
        (4, _) => begins_sslv2(&bytes[..5]),
        _ => true,
    };
    if !bytes.iter().take(6).enumerate().all(|(i, b)| good(i, *b)) {
        return Some(false);
    }
    let needed = if bytes.first() == Some(&HANDSHAKE) { 6 } else { 5 };
    (bytes.len() >= needed).then_some(true)
}

/// Tells whether `bytes` begin like the hello of SSL 2.0, which clients sent into the 2000s to offer SSL 3.0
/// and TLS 1.0 as well (RFC 5246 §E.2). False while too few bytes are there.
fn begins_sslv2(bytes: &[u8]) -> bool {
    let &[length, _, kind, major, minor, ..] = bytes else { return false };
    length & 0x80 != 0 && kind == CLIENT_HELLO && matches!((major, minor), (0, 2) | (3, 0..=3))
}

/// Reads big-endian fields; every read past the end is `None`.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        let (head, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*head)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        let (head, rest) = self.0.split_first_chunk::<2>()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*head))
    }

    /// Takes a vector behind its length in one byte.
    pub(crate) fn vec8(&mut self) -> Option<&'a [u8]> {
        let len = self.u8()?;
        self.take(usize::from(len))
    }

    /// Takes a vector behind its length in two bytes.
    pub(crate) fn vec16(&mut self) -> Option<&'a [u8]> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }
}

/// Yields the 16-bit numbers of a vector; a last odd byte is passed over.
pub(crate) fn numbers(bytes: &[u8]) -> impl Iterator<Item = u16> + Clone {
    bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_be_bytes(*pair))
}

/// Yields extensions as (type, data), up to the first that does not fit.
pub(crate) fn extensions(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> + Clone {
    let mut fields = Fields::new(bytes);
    std::iter::from_fn(move || Some((fields.u16()?, fields.vec16()?)))
}

/// Tells whether a code point is one of those that clients sprinkle to keep servers tolerant (RFC 8701).
pub(crate) const fn is_grease(value: u16) -> bool {
    value & 0x0f0f == 0x0a0a && value >> 8 == value & 0xff
}

/// Extension types that are looked into.
pub(crate) mod extension {
    pub(crate) const SERVER_NAME: u16 = 0;
    pub(crate) const GROUPS: u16 = 10;
    pub(crate) const POINT_FORMATS: u16 = 11;
    pub(crate) const SIGNATURE_ALGORITHMS: u16 = 13;
    pub(crate) const ALPN: u16 = 16;
    pub(crate) const SUPPORTED_VERSIONS: u16 = 43;
    pub(crate) const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
}

/// A ClientHello.
// Invariant: `extensions` is exactly the sequence of (type, length, data) that `extensions()` yields.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientHello<'a> {
    /// Version of the hello itself, 0x0303 in TLS 1.3 too.
    pub(crate) version: u16,
    pub(crate) ciphers: &'a [u8],
    pub(crate) extensions: &'a [u8],
}

impl<'a> ClientHello<'a> {
    /// Views the body of a handshake message of type 1; `None` where its lengths contradict each other.
    pub(crate) fn parse(body: &'a [u8]) -> Option<Self> {
        let mut f = Fields::new(body);
        let version = f.u16()?;
        let _random = f.take(32)?;
        let _session = f.vec8()?;
        let ciphers = f.vec16()?;
        let _compression = f.vec8()?;
        // Before TLS 1.0's extensions a hello ended here (RFC 5246 §7.4.1.2).
        let extensions = if f.is_empty() { &[][..] } else { f.vec16()? };
        if !whole(extensions) {
            return None;
        }
        Some(Self { version, ciphers, extensions })
    }

    /// Returns the data of the first extension of this type.
    pub(crate) fn extension(&self, kind: u16) -> Option<&'a [u8]> {
        extensions(self.extensions).find(|(k, _)| *k == kind).map(|(_, data)| data)
    }

    /// Returns the first host name that is asked for (RFC 6066 §3).
    pub(crate) fn server_name(&self) -> Option<&'a [u8]> {
        let mut list = Fields::new(Fields::new(self.extension(extension::SERVER_NAME)?).vec16()?);
        loop {
            let (kind, name) = (list.u8()?, list.vec16()?);
            if kind == 0 {
                return Some(name);
            }
        }
    }

    /// Returns the list of protocols that are offered, as on the wire.
    pub(crate) fn alpn(&self) -> &'a [u8] {
        let list = self.extension(extension::ALPN).and_then(|data| Fields::new(data).vec16());
        list.unwrap_or_default()
    }

    /// Returns the supported groups, as on the wire.
    pub(crate) fn groups(&self) -> &'a [u8] {
        let list = self.extension(extension::GROUPS).and_then(|data| Fields::new(data).vec16());
        list.unwrap_or_default()
    }

    /// Returns the point formats.
    pub(crate) fn point_formats(&self) -> &'a [u8] {
        let list = self.extension(extension::POINT_FORMATS).and_then(|data| Fields::new(data).vec8());
        list.unwrap_or_default()
    }

    /// Returns the signature algorithms, as on the wire.
    pub(crate) fn signature_algorithms(&self) -> &'a [u8] {
        let list = self.extension(extension::SIGNATURE_ALGORITHMS).and_then(|data| Fields::new(data).vec16());
        list.unwrap_or_default()
    }

    /// Returns the versions offered in the extension, as on the wire; `None` without it.
    pub(crate) fn supported_versions(&self) -> Option<&'a [u8]> {
        self.extension(extension::SUPPORTED_VERSIONS).and_then(|data| Fields::new(data).vec8())
    }

    /// Tells whether an encrypted ClientHello lies inside, or bytes that pretend to be one.
    pub(crate) fn has_ech(&self) -> bool {
        self.extension(extension::ENCRYPTED_CLIENT_HELLO).is_some()
    }
}

/// A ServerHello.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerHello<'a> {
    /// Version of the hello itself, 0x0303 in TLS 1.3 too.
    pub(crate) legacy_version: u16,
    pub(crate) random: &'a [u8; 32],
    pub(crate) cipher: u16,
    pub(crate) extensions: &'a [u8],
}

impl<'a> ServerHello<'a> {
    /// Views the body of a handshake message of type 2; `None` where its lengths contradict each other.
    pub(crate) fn parse(body: &'a [u8]) -> Option<Self> {
        let mut f = Fields::new(body);
        let legacy_version = f.u16()?;
        let random = f.take(32)?.first_chunk()?;
        let _session = f.vec8()?;
        let cipher = f.u16()?;
        let _compression = f.u8()?;
        let extensions = if f.is_empty() { &[][..] } else { f.vec16()? };
        if !whole(extensions) {
            return None;
        }
        Some(Self { legacy_version, random, cipher, extensions })
    }

    /// Tells whether the server only asks for another ClientHello.
    pub(crate) fn is_retry(&self) -> bool {
        *self.random == RETRY_RANDOM
    }

    /// Returns the data of the first extension of this type.
    pub(crate) fn extension(&self, kind: u16) -> Option<&'a [u8]> {
        extensions(self.extensions).find(|(k, _)| *k == kind).map(|(_, data)| data)
    }

    /// Returns the version that the server chose.
    pub(crate) fn version(&self) -> u16 {
        let chosen = self.extension(extension::SUPPORTED_VERSIONS).and_then(|data| Fields::new(data).u16());
        chosen.unwrap_or(self.legacy_version)
    }

    /// Returns the protocol that the server chose; in TLS 1.3 it says so only under encryption.
    pub(crate) fn alpn(&self) -> Option<&'a [u8]> {
        let list = Fields::new(self.extension(extension::ALPN)?).vec16()?;
        Fields::new(list).vec8()
    }
}

/// Tells whether extensions fill their vector exactly.
fn whole(bytes: &[u8]) -> bool {
    let used: usize = extensions(bytes).map(|(_, data)| 4 + data.len()).sum();
    used == bytes.len()
}

/// Why a direction shows no (further) handshake messages in the clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// What should be a record is none.
    NotTls,
    /// It begins with a hello of SSL 2.0, which has no extensions and nothing to fingerprint.
    Sslv2,
    /// A message longer than [`HELLO_BYTES_MAX`].
    TooLong,
    /// Encryption has begun, or the peer gave up with an alert.
    Over,
}

/// Type and body of a handshake message.
pub(crate) type Message<'m> = (u8, &'m [u8]);

/// Gets handshake messages out of the records at the start of one direction.
///
/// Holds at most one message of [`HELLO_BYTES_MAX`]; linear in the bytes, whoever cuts them.
#[derive(Debug)]
pub(crate) struct MessageReader {
    header: [u8; 5],
    header_len: u8,
    /// No record header has been read whole.
    is_first: bool,
    /// Bytes of the record in progress that are still to come.
    left: u16,
    /// The message in progress, with its header of 4 bytes.
    message: Vec<u8>,
}

impl Default for MessageReader {
    fn default() -> Self {
        Self { header: [0; 5], header_len: 0, is_first: true, left: 0, message: Vec::new() }
    }
}

impl MessageReader {
    /// Takes bytes up to the end of the next handshake message, and returns how many with what was found:
    /// `Ok(Some((type, body)))`, `Ok(None)` where more bytes are needed.
    pub(crate) fn next<'m>(&'m mut self, bytes: &[u8]) -> (usize, Result<Option<Message<'m>>, Stop>) {
        // A message that was handed out by the call before is done with.
        if self.missing() == 0 {
            self.message.clear();
        }
        let mut at = 0;
        while at < bytes.len() {
            if self.left == 0 {
                // Byte by byte, so that what is no record is found out at the same byte whoever cuts.
                self.header[usize::from(self.header_len)] = bytes[at];
                self.header_len += 1;
                at += 1;
                if self.header[0] & 0x80 != 0 && self.is_first && self.header_len == 5 {
                    let stop = if begins_sslv2(&self.header) { Stop::Sslv2 } else { Stop::NotTls };
                    return (at, Err(stop));
                }
                if !self.header_is_plausible() {
                    return (at, Err(Stop::NotTls));
                }
                if self.header_len < 5 {
                    continue;
                }
                self.is_first = false;
                self.header_len = 0;
                self.left = u16::from_be_bytes([self.header[3], self.header[4]]);
                match self.header[0] {
                    HANDSHAKE => {}
                    // After a HelloRetryRequest, servers send one for the sake of middleboxes.
                    CHANGE_CIPHER_SPEC if self.left == 1 => {}
                    _ => return (at, Err(Stop::Over)),
                }
                continue;
            }
            let mut n = usize::from(self.left).min(bytes.len() - at);
            if self.header[0] == HANDSHAKE {
                n = n.min(self.missing());
                self.message.extend_from_slice(&bytes[at..at + n]);
            }
            at += n;
            self.left -= n as u16;
            if self.header[0] != HANDSHAKE {
                continue;
            }
            if self.message.len() >= 4 && self.missing() + self.message.len() > HELLO_BYTES_MAX {
                return (at, Err(Stop::TooLong));
            }
            if self.missing() == 0 {
                return (at, Ok(Some((self.message[0], &self.message[4..]))));
            }
        }
        (at, Ok(None))
    }

    /// Bytes held.
    pub(crate) fn held(&self) -> usize {
        self.message.len()
    }

    /// Bytes that the message in progress still needs, as far as is known: first its header.
    fn missing(&self) -> usize {
        let Some(&[_, a, b, c]) = self.message.first_chunk::<4>() else { return 4 - self.message.len() };
        let len = 4 + (usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c));
        len - self.message.len().min(len)
    }

    fn header_is_plausible(&self) -> bool {
        let have = usize::from(self.header_len);
        if self.header[0] & 0x80 != 0 {
            return self.is_first;
        }
        let kind = matches!(self.header[0], CHANGE_CIPHER_SPEC | ALERT | HANDSHAKE | APPLICATION_DATA);
        let length = u16::from_be_bytes([self.header[3], self.header[4]]);
        kind && (have < 2 || self.header[1] == 3)
            && (have < 3 || self.header[2] <= 4)
            // A handshake record is never empty (RFC 8446 §5.1).
            && (have < 5 || length <= RECORD_BYTES_MAX && (length > 0 || self.header[0] != HANDSHAKE))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Puts `body` behind a handshake header.
    pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[kind], &(body.len() as u32).to_be_bytes()[1..], body].concat()
    }

    /// Puts `bytes` into records of at most `size` bytes.
    pub(crate) fn records(bytes: &[u8], size: usize) -> Vec<u8> {
        let record = |part: &[u8]| [&[22, 3, 1], &(part.len() as u16).to_be_bytes()[..], part].concat();
        bytes.chunks(size).flat_map(record).collect()
    }

    pub(crate) fn ext(kind: u16, data: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &(data.len() as u16).to_be_bytes(), data].concat()
    }

    pub(crate) fn client_body(version: u16, ciphers: &[u16], exts: &[Vec<u8>]) -> Vec<u8> {
        let ciphers: Vec<u8> = ciphers.iter().flat_map(|c| c.to_be_bytes()).collect();
        let exts = exts.concat();
        let mut body = [&version.to_be_bytes()[..], &[7; 32], &[0]].concat();
        body.extend((ciphers.len() as u16).to_be_bytes());
        body.extend(&ciphers);
        body.extend([1, 0]);
        body.extend((exts.len() as u16).to_be_bytes());
        body.extend(exts);
        body
    }

    pub(crate) fn server_body(version: u16, cipher: u16, exts: &[Vec<u8>]) -> Vec<u8> {
        let exts = exts.concat();
        let mut body = [&version.to_be_bytes()[..], &[9; 32], &[0], &cipher.to_be_bytes(), &[0]].concat();
        body.extend((exts.len() as u16).to_be_bytes());
        body.extend(exts);
        body
    }

    pub(crate) fn sni(name: &str) -> Vec<u8> {
        let name = name.as_bytes();
        let entry = [&[0], &(name.len() as u16).to_be_bytes()[..], name].concat();
        ext(0, &[&(entry.len() as u16).to_be_bytes()[..], &entry].concat())
    }

    type Read = (Vec<(u8, Vec<u8>)>, Option<Stop>, usize);

    fn read_all(bytes: &[u8], piece: usize) -> Read {
        let (mut reader, mut found, mut used) = (MessageReader::default(), Vec::new(), 0);
        for mut part in bytes.chunks(piece.max(1)) {
            while !part.is_empty() {
                let (n, got) = reader.next(part);
                used += n;
                part = &part[n..];
                match got {
                    Ok(Some((kind, body))) => found.push((kind, body.to_vec())),
                    Ok(None) => {}
                    Err(stop) => return (found, Some(stop), used),
                }
            }
        }
        (found, None, used)
    }

    #[test]
    fn messages_come_out_of_any_records_in_any_pieces() {
        let hello = client_body(0x303, &[0x1301, 0xc02b], &[sni("a.example")]);
        let other = message(SERVER_HELLO, &[1; 300]);
        let stream = [message(CLIENT_HELLO, &hello), other, message(14, &[])].concat();
        let want = vec![(1, hello), (2, vec![1; 300]), (14, vec![])];
        for size in [1, 2, 3, 5, 50, 16384] {
            let bytes = records(&stream, size);
            for piece in [1, 2, 3, 4, 5, 6, 7, 64, usize::MAX] {
                let (found, stop, used) = read_all(&bytes, piece);
                assert_eq!(
                    (&found, stop, used),
                    (&want, None, bytes.len()),
                    "records {size}, pieces {piece}"
                );
            }
        }
    }

    #[test]
    fn a_stream_ends_where_it_stops_being_a_handshake() {
        let hello = records(&message(CLIENT_HELLO, &[5; 40]), 100);
        for (name, tail, want) in [
            ("alert", &[21u8, 3, 3, 0, 2, 2, 40][..], Some(Stop::Over)),
            ("data", &[23, 3, 3, 0, 9, 1, 2], Some(Stop::Over)),
            ("compatibility change cipher spec", &[20, 3, 3, 0, 1, 1], None),
            ("other type", &[24, 3, 3, 0, 9], Some(Stop::NotTls)),
            ("other version", &[22, 2], Some(Stop::NotTls)),
            ("record too long", &[22, 3, 3, 0xff, 0xff], Some(Stop::NotTls)),
            ("empty handshake record", &[22, 3, 3, 0, 0], Some(Stop::NotTls)),
            ("message too long", &[22, 3, 3, 0, 9, 1, 1, 0, 0, 9], Some(Stop::TooLong)),
        ] {
            let bytes = [&hello[..], tail].concat();
            for piece in [1, 4, usize::MAX] {
                let (found, stop, _) = read_all(&bytes, piece);
                assert_eq!((found.len(), stop), (1, want), "{name} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn a_cut_hello_is_refused_at_every_length() {
        let client = client_body(0x303, &[0x1301, 0xa0a], &[sni("a.example"), ext(16, b"\0\x03\x02h2")]);
        let server = server_body(0x303, 0x1301, &[ext(43, &[3, 4])]);
        // Without extensions a hello may end after the compression methods.
        let client_min = client.len() - 2 - sni("a.example").len() - 9;
        for cut in 0..client.len() {
            assert_eq!(ClientHello::parse(&client[..cut]).is_some(), cut == client_min, "client at {cut}");
        }
        for cut in 0..server.len() {
            assert_eq!(
                ServerHello::parse(&server[..cut]).is_some(),
                cut == server.len() - 8,
                "server at {cut}"
            );
        }
        let hello = ClientHello::parse(&client).unwrap();
        assert_eq!(hello.server_name(), Some(&b"a.example"[..]));
        assert_eq!(hello.alpn(), b"\x02h2");
        assert_eq!(ServerHello::parse(&server).unwrap().version(), 0x304);
    }

    #[test]
    fn lists_that_lie_are_empty_not_guessed() {
        for (name, exts) in [
            ("server name beyond its list", vec![ext(0, &[0, 4, 0, 0, 9, b'a'])]),
            ("server name list beyond its data", vec![ext(0, &[0, 9, 0, 0, 1, b'a'])]),
            ("only other kinds of name", vec![ext(0, &[0, 4, 7, 0, 1, b'a'])]),
            ("empty data", vec![ext(0, &[]), ext(16, &[]), ext(10, &[9])]),
        ] {
            let body = client_body(0x303, &[1], &exts);
            let hello = ClientHello::parse(&body).unwrap();
            assert_eq!(
                (hello.server_name(), hello.alpn(), hello.groups()),
                (None, &[][..], &[][..]),
                "{name}"
            );
        }
    }

    #[test]
    fn an_ssl_2_hello_is_told_from_other_bytes_at_the_same_byte_in_every_cut() {
        for (bytes, want, used) in [
            (&[0x80u8, 0x2e, 1, 3, 1, 0, 0][..], Some(Stop::Sslv2), 5),
            (&[0x80, 0x2e, 1, 0, 2, 9, 9], Some(Stop::Sslv2), 5),
            (&[0x80, 0x2e, 4, 0, 2, 9, 9], Some(Stop::NotTls), 5),
            (&[0x80, 0x2e, 1], None, 3),
            (b"GET /", Some(Stop::NotTls), 1),
            (&[22, 3, 5, 0, 0], Some(Stop::NotTls), 3),
            (&[22, 3, 1, 0, 4, 0x80, 0x2e, 1, 3, 1], Some(Stop::TooLong), 9),
        ] {
            for piece in 1..=bytes.len() {
                let (_, stop, n) = read_all(bytes, piece);
                assert_eq!((stop, n), (want, used), "{bytes:x?} in pieces of {piece}");
            }
        }
        for (bytes, want) in [
            (&[22u8, 3, 1, 2, 0, 1][..], true),
            (&[22, 3, 4, 0, 1, 2], true),
            (&[22, 3, 1, 2, 0, 11], false),
            (&[22, 3, 1, 0, 0, 1], false),
            (&[22, 3, 5], false),
            (&[23, 3, 3], false),
            (&[0x80, 0x2e, 1, 3, 1], true),
            (&[0x80, 0x2e, 1, 3, 9], false),
            (&[0xff, 0x2e, 2], false),
        ] {
            assert_eq!(begins(bytes), Some(want), "{bytes:x?}");
            for cut in 0..bytes.len() {
                let got = begins(&bytes[..cut]);
                assert!(got.is_none() || got == Some(want), "{bytes:x?} cut at {cut}: {got:?}");
            }
        }
        let grease: Vec<_> = (0..=u16::MAX).filter(|v| is_grease(*v)).collect();
        assert_eq!((grease.len(), grease[0], grease[15]), (16, 0x0a0a, 0xfafa));
    }
}
