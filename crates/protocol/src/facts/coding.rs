//! Content and transfer codings: which a message names, and how they are undone.
//!
//! A coded body is kept as it is on the wire and undone in one go, from the outermost coding inwards, a few KiB at a
//! time. So how it was cut cannot matter, and of what comes out nothing is kept but what is looked for.

use std::cell::Cell;
use std::io::{self, Read};

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use zeroize::Zeroize;

/// How many bytes a coded byte may become on average, beyond the first [`OUTPUT_FREE_BYTES`]. Text stays far below;
/// zeros would reach 1000, with two codings a million.
const RATIO_MAX: usize = 200;
const OUTPUT_FREE_BYTES: usize = 4 << 10;
/// Most codings of one body.
const CODINGS_MAX: usize = 4;
/// Largest window of Zstandard: what RFC 8878 §3.1.1.1.2 recommends to support.
const ZSTD_WINDOW_BYTES_MAX: u64 = 8 << 20;
const PIECE_BYTES: usize = 4 << 10;

/// One coding that can be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    /// With or without zlib's wrapper.
    Deflate,
    Brotli,
    Zstd,
}

/// The codings of a body, in the order in which they were applied.
// Invariant: the first `len` of `list` are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Codings {
    list: [Option<Coding>; CODINGS_MAX],
    len: u8,
    /// One that is not known, or one too many.
    pub(super) unknown: bool,
}

impl Codings {
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes a Content-Encoding or Transfer-Encoding; `chunked` is somebody else's.
    pub(super) fn note(&mut self, value: &[u8]) {
        for item in value.split(|c| *c == b',') {
            let item = item.split(|c| *c == b';').next().unwrap_or_default().trim_ascii();
            let is = |known: &str| item.eq_ignore_ascii_case(known.as_bytes());
            let coding = if item.is_empty() || is("identity") || is("chunked") {
                continue;
            } else if is("gzip") || is("x-gzip") {
                Coding::Gzip
            } else if is("deflate") {
                Coding::Deflate
            } else if is("br") {
                Coding::Brotli
            } else if is("zstd") {
                Coding::Zstd
            } else {
                self.unknown = true;
                continue;
            };
            match self.list.get_mut(usize::from(self.len)) {
                Some(slot) => {
                    *slot = Some(coding);
                    self.len += 1;
                }
                None => self.unknown = true,
            }
        }
    }

    /// Adds codings that were applied after these.
    pub(super) fn append(&mut self, other: &Self) {
        self.unknown |= other.unknown;
        for coding in other.list.iter().flatten() {
            match self.list.get_mut(usize::from(self.len)) {
                Some(slot) => {
                    *slot = Some(*coding);
                    self.len += 1;
                }
                None => self.unknown = true,
            }
        }
    }
}

/// How decoding went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// To the end.
    Whole,
    /// Longer than `bytes_max`.
    OverCap,
    /// Larger by more than [`RATIO_MAX`], in the end or between two codings.
    OverRatio,
    /// Broken off; what came before is there.
    Broken,
}

/// Undoes `codings`; `take` gets what comes out, at most `bytes_max` of it, and returns whether to go on.
/// Returns how it went and how many bytes came out.
pub(super) fn decode(
    codings: &Codings,
    input: &[u8],
    bytes_max: usize,
    mut take: impl FnMut(&[u8]),
) -> (Decoded, usize) {
    let ratio_max = OUTPUT_FREE_BYTES + input.len().saturating_mul(RATIO_MAX);
    let over = Cell::new(false);
    let mut from: Box<dyn Read + '_> = Box::new(input);
    let mut coded = codings.list.iter().flatten().rev().peekable();
    while let Some(coding) = coded.next() {
        from = match coding {
            Coding::Gzip => Box::new(MultiGzDecoder::new(from)),
            Coding::Deflate => Box::new(Deflate::Unknown(from)),
            Coding::Brotli => Box::new(brotli_decompressor::Decompressor::new(from, PIECE_BYTES)),
            Coding::Zstd => Box::new(Zstd::new(from)),
        };
        if coded.peek().is_some() {
            // What lies between two codings is not counted by the caller.
            from = Box::new(Capped { from, left: ratio_max, over: &over });
        }
    }
    let mut piece = [0; PIECE_BYTES];
    let mut total = 0;
    let result = loop {
        match from.read(&mut piece) {
            Ok(0) => break Decoded::Whole,
            Ok(len) => {
                let limit = bytes_max.min(ratio_max);
                let len_taken = len.min(limit - total);
                take(&piece[..len_taken]);
                total += len_taken;
                if len_taken < len {
                    break if limit == bytes_max { Decoded::OverCap } else { Decoded::OverRatio };
                }
            }
            Err(_) if over.get() => break Decoded::OverRatio,
            Err(_) => break Decoded::Broken,
        }
    };
    piece.as_mut_slice().zeroize();
    (result, total)
}

/// Passes at most so many bytes on.
struct Capped<'a, R> {
    from: R,
    left: usize,
    over: &'a Cell<bool>,
}

impl<R: Read> Read for Capped<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let len = self.from.read(out)?;
        match self.left.checked_sub(len) {
            Some(left) => self.left = left,
            None => {
                self.over.set(true);
                return Err(io::ErrorKind::FileTooLarge.into());
            }
        }
        Ok(len)
    }
}

/// A deflate stream whose first two bytes tell whether zlib's wrapper (RFC 1950) is around it.
enum Deflate<'a> {
    Unknown(Box<dyn Read + 'a>),
    Known(Box<dyn Read + 'a>),
}

impl Read for Deflate<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if let Self::Unknown(from) = self {
            let (mut first, mut len) = ([0; 2], 0);
            while len < first.len() {
                match from.read(&mut first[len..])? {
                    0 => break,
                    more => len += more,
                }
            }
            // Without a wrapper, such a first byte would begin a stored block with a bit set that nobody sets.
            let [cmf, flags] = first.map(usize::from);
            let wrapped = cmf & 0x0f == 8 && cmf >> 4 <= 7 && (cmf << 8 | flags) % 31 == 0;
            let empty: Box<dyn Read> = Box::new(io::empty());
            let all = io::Cursor::new(first).take(len as u64).chain(std::mem::replace(from, empty));
            *self = Self::Known(if wrapped {
                Box::new(ZlibDecoder::new(all))
            } else {
                Box::new(DeflateDecoder::new(all))
            });
        }
        match self {
            Self::Known(from) | Self::Unknown(from) => from.read(out),
        }
    }
}

/// Zstandard frames one after the other.
enum Zstd<R: Read> {
    /// Before a frame.
    Between(AheadOne<R>, FrameDecoder),
    Frame(StreamingDecoder<AheadOne<R>, FrameDecoder>),
    Broken,
}

impl<R: Read> Zstd<R> {
    fn new(from: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(ZSTD_WINDOW_BYTES_MAX);
        Self::Between(AheadOne { byte: None, from }, decoder)
    }
}

impl<R: Read> Read for Zstd<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            match std::mem::replace(self, Self::Broken) {
                Self::Between(mut from, decoder) => {
                    if from.ended()? {
                        *self = Self::Between(from, decoder);
                        return Ok(0);
                    }
                    let frame = StreamingDecoder::new_with_decoder(from, decoder);
                    *self = Self::Frame(frame.map_err(|_| io::ErrorKind::InvalidData)?);
                }
                Self::Frame(mut frame) => {
                    let len = frame.read(out)?;
                    if len > 0 {
                        *self = Self::Frame(frame);
                        return Ok(len);
                    }
                    let (from, decoder) = frame.into_parts();
                    *self = Self::Between(from, decoder);
                }
                Self::Broken => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }
}

/// Can be asked whether anything follows.
struct AheadOne<R> {
    byte: Option<u8>,
    from: R,
}

impl<R: Read> AheadOne<R> {
    fn ended(&mut self) -> io::Result<bool> {
        if self.byte.is_none() {
            let mut byte = [0];
            self.byte = (self.from.read(&mut byte)? == 1).then_some(byte[0]);
        }
        Ok(self.byte.is_none())
    }
}

impl<R: Read> Read for AheadOne<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match out.first_mut() {
            None => Ok(0),
            Some(slot) => match self.byte.take() {
                Some(byte) => {
                    *slot = byte;
                    Ok(1)
                }
                None => self.from.read(out),
            },
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use super::*;

    /// Codes `text` as `codings` (`gzip, br`) say, in their order.
    pub(in crate::facts) fn encode(codings: &str, text: &[u8]) -> Vec<u8> {
        codings.split(", ").fold(text.to_vec(), |text, coding| match coding {
            "gzip" => {
                let mut z = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
                z.write_all(&text).unwrap();
                z.finish().unwrap()
            }
            "deflate" => {
                let mut z = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
                z.write_all(&text).unwrap();
                z.finish().unwrap()
            }
            "raw" => {
                let mut z = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
                z.write_all(&text).unwrap();
                z.finish().unwrap()
            }
            "br" => {
                let mut out = Vec::new();
                let mut z = brotli::CompressorWriter::new(&mut out, 4096, 5, 22);
                z.write_all(&text).unwrap();
                drop(z);
                out
            }
            "zstd" => ruzstd::encoding::compress_to_vec(&*text, ruzstd::encoding::CompressionLevel::Fastest),
            other => panic!("{other}"),
        })
    }

    fn run(codings: &str, input: &[u8], max: usize) -> (Vec<u8>, Decoded) {
        let mut list = Codings::default();
        list.note(codings.replace("raw", "deflate").as_bytes());
        assert!(!list.unknown);
        let mut out = Vec::new();
        let (result, total) = decode(&list, input, max, |piece| out.extend_from_slice(piece));
        assert_eq!(total, out.len());
        (out, result)
    }

    const ALL: &[&str] = &[
        "gzip",
        "deflate",
        "raw",
        "br",
        "zstd",
        "gzip, br",
        "br, gzip",
        "zstd, raw",
        "gzip, deflate, br, zstd",
    ];

    #[test]
    fn every_coding_and_stacks_of_them() {
        let text: Vec<u8> =
            (0..500u32).flat_map(|i| format!("{{\"k{i}\":{}}}", i * 7919).into_bytes()).collect();
        for codings in ALL {
            let packed = encode(codings, &text);
            assert_eq!(run(codings, &packed, 1 << 20), (text.clone(), Decoded::Whole), "{codings}");
            assert_eq!(run(codings, &packed, 1000), (text[..1000].to_vec(), Decoded::OverCap), "{codings}");
            for end in (0..packed.len()).step_by(7) {
                let (got, result) = run(codings, &packed[..end], 1 << 20);
                assert!(
                    text.starts_with(&got) && (result == Decoded::Broken || got == text || end == 0),
                    "{codings} {end}"
                );
            }
            assert_eq!(run(codings, &encode(codings, b""), 1 << 20), (vec![], Decoded::Whole), "{codings}");
            let (got, result) = run(codings, b"no such thing at all", 1 << 20);
            assert!(got.is_empty() && result == Decoded::Broken, "{codings}");
        }
        for coding in ["gzip", "zstd"] {
            let twice = [encode(coding, b"ab"), encode(coding, b""), encode(coding, b"cd")].concat();
            assert_eq!(run(coding, &twice, 100), (b"abcd".to_vec(), Decoded::Whole), "{coding}");
        }
    }

    #[test]
    fn bombs_stop_at_the_caps() {
        for codings in ALL {
            let bomb = encode(codings, &vec![0; 8 << 20]);
            let (got, result) = run(codings, &bomb, 1 << 16);
            assert!(got.len() <= 1 << 16, "{codings}");
            assert!(matches!(result, Decoded::OverCap | Decoded::OverRatio), "{codings}: {result:?}");
            let (got, result) = run(codings, &bomb, usize::MAX);
            assert!(got.len() <= OUTPUT_FREE_BYTES + bomb.len() * RATIO_MAX, "{codings}");
            assert_eq!(result == Decoded::OverRatio, got.len() < 8 << 20, "{codings}: {}", got.len());
        }
        // Nothing comes out in the end, a lot in between.
        let members = encode("gzip", b"").repeat(200_000);
        let packed = encode("br", &members);
        assert_eq!(run("gzip, br", &packed, 1 << 20), (vec![], Decoded::OverRatio));
    }

    #[test]
    fn lists() {
        for (values, len, unknown) in [
            (&["gzip"][..], 1, false),
            (&["GZIP , br", "x-gzip;q=1"], 3, false),
            (&["identity", "", "chunked"], 0, false),
            (&["gzip, compress"], 1, true),
            (&["gzip, gzip, gzip, gzip, gzip"], 4, true),
        ] {
            let mut list = Codings::default();
            values.iter().for_each(|v| list.note(v.as_bytes()));
            assert_eq!((list.len, list.unknown), (len, unknown), "{values:?}");
        }
        let (mut content, mut transfer) = (Codings::default(), Codings::default());
        content.note(b"br");
        transfer.note(b"gzip, chunked");
        content.append(&transfer);
        assert_eq!(content.list[..2], [Some(Coding::Brotli), Some(Coding::Gzip)]);
    }
}
