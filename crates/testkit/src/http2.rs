//! Writes HTTP/2: frames, and header blocks with or without the dynamic table (RFC 9113, RFC 7541).
//!
//! Only what tests need: no Huffman code, no flow control. It shares nothing with the parser that it tests.

/// What a client's connection begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Frame types.
pub mod kind {
    #![allow(missing_docs, reason = "the names are those of RFC 9113")]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}
/// END_STREAM on DATA and HEADERS, ACK on SETTINGS and PING.
pub const END_STREAM: u8 = 0x1;
/// END_HEADERS.
pub const END_HEADERS: u8 = 0x4;

/// Names of the static table that the encoder uses, with their index.
const NAMES: [(&str, u8); 12] = [
    (":authority", 1),
    (":method", 2),
    (":path", 4),
    (":scheme", 6),
    (":status", 8),
    ("accept-encoding", 16),
    ("content-length", 28),
    ("content-type", 31),
    ("cookie", 32),
    ("location", 46),
    ("set-cookie", 55),
    ("user-agent", 58),
];

/// Returns a frame; `payload` is shorter than 16 MiB.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = (payload.len() as u32).to_be_bytes();
    let mut out = length.to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// Returns a SETTINGS frame.
pub fn settings(list: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        list.iter().flat_map(|(id, v)| [&id.to_be_bytes()[..], &v.to_be_bytes()].concat()).collect();
    frame(kind::SETTINGS, 0, 0, &payload)
}

/// The header encoder of one direction.
#[derive(Clone, Debug, Default)]
pub struct Encoder {
    /// What was inserted, newest first; never so much that the peer would evict.
    table: Vec<(String, String)>,
    /// New fields are inserted.
    pub indexing: bool,
}

impl Encoder {
    /// Makes an encoder that uses the dynamic table, or does not.
    pub fn new(indexing: bool) -> Self {
        Self { table: Vec::new(), indexing }
    }

    /// Returns the block of `fields`; `:method GET`, `:scheme http` and `:status 200` are indices.
    pub fn block(&mut self, fields: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        for &(name, value) in fields {
            let fixed = match (name, value) {
                (":method", "GET") => Some(2),
                (":method", "POST") => Some(3),
                (":scheme", "http") => Some(6),
                (":status", "200") => Some(8),
                _ => None,
            };
            let held = self.table.iter().position(|(n, v)| (&**n, &**v) == (name, value));
            if let Some(index) = fixed.or(held.map(|at| 62 + at)) {
                integer(&mut out, 0x80, 7, index);
                continue;
            }
            let known = NAMES.iter().find(|(n, _)| *n == name).map_or(0, |(_, i)| usize::from(*i));
            let (mark, bits) = if self.indexing { (0x40, 6) } else { (0x00, 4) };
            integer(&mut out, mark, bits, known);
            if known == 0 {
                text(&mut out, name);
            }
            text(&mut out, value);
            if self.indexing {
                self.table.insert(0, (name.to_owned(), value.to_owned()));
            }
        }
        out
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    integer(out, 0, 7, text.len());
    out.extend(text.as_bytes());
}

/// RFC 7541 §5.1.
fn integer(out: &mut Vec<u8>, mark: u8, bits: u32, value: usize) {
    let most = (1 << bits) - 1;
    if value < most {
        out.push(mark | value as u8);
        return;
    }
    out.push(mark | most as u8);
    let mut rest = value - most;
    while rest >= 128 {
        out.push((rest % 128) as u8 | 0x80);
        rest /= 128;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_specification() {
        // RFC 7541 §C.3.1 and §C.3.2, with :path as a literal.
        let mut encoder = Encoder::new(true);
        let first =
            encoder.block(&[(":method", "GET"), (":scheme", "http"), (":authority", "www.example.com")]);
        assert_eq!(first, [&[0x82, 0x86, 0x41, 15][..], b"www.example.com"].concat());
        assert_eq!(encoder.block(&[(":authority", "www.example.com")]), [0xbe]);
        assert_eq!(frame(kind::DATA, END_STREAM, 1, b"ab"), b"\0\0\x02\0\x01\0\0\0\x01ab");
        let mut long = Vec::new();
        integer(&mut long, 0, 5, 1337);
        assert_eq!(long, [31, 154, 10]);
    }
}
