//! Bytes of capture files: counted, and decompressed by what they are.

use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::FrameDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};

/// Compressions around each other that are undone.
pub(crate) const LAYERS_MAX: usize = 3;
const COMPRESSED_BUFFER: usize = 128 * 1024;
/// Largest zstd window: what `zstd -d` allows by default (`--long=27`), and so the most memory it takes.
const ZSTD_WINDOW_MAX: u64 = 128 * 1024 * 1024;

/// Counts the bytes that are read, for a progress bar.
pub(crate) struct Counted<R> {
    pub(crate) inner: R,
    pub(crate) bytes: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.bytes.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// Reads up to 8 bytes and returns them with a reader that still has them.
pub(crate) fn peek(mut input: Box<dyn Read + Send>) -> io::Result<(Vec<u8>, Box<dyn Read + Send>)> {
    let (mut start, mut len) = ([0u8; 8], 0);
    while len < start.len() {
        match input.read(&mut start[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            // What ends this early inside a compression is described later, with what there is.
            Err(_) if len > 0 => break,
            Err(e) => return Err(e),
        }
    }
    let start = start[..len].to_vec();
    Ok((start.clone(), Box::new(Cursor::new(start).chain(input))))
}

/// A compression, known by its magic.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layer {
    Gzip,
    Zstd,
}

impl Layer {
    pub(crate) fn of(start: &[u8]) -> Option<Self> {
        match start {
            [0x1f, 0x8b, 8, ..] => Some(Self::Gzip),
            // RFC 8878 §3.1: a frame, or a skippable frame before the first one.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            _ => None,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// Wraps `input` in the decompressor; errors come when it is read.
    pub(crate) fn open(self, input: Box<dyn Read + Send>) -> Box<dyn Read + Send> {
        let input = BufReader::with_capacity(COMPRESSED_BUFFER, input);
        match self {
            Self::Gzip => Box::new(MultiGzDecoder::new(input)),
            Self::Zstd => Box::new(ZstdFrames::new(input)),
        }
    }
}

/// Decompresses zstd frames one after another (`cat a.zst b.zst`, `pzstd`), skippable ones left out.
struct ZstdFrames<R> {
    input: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: BufRead> ZstdFrames<R> {
    fn new(input: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(ZSTD_WINDOW_MAX);
        Self { input, decoder, in_frame: false }
    }

    /// Begins the next frame; tells whether there is one.
    fn begin(&mut self) -> io::Result<bool> {
        loop {
            if self.input.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.decoder.reset(&mut self.input) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    if io::copy(&mut (&mut self.input).take(length), &mut io::sink())? < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(e) => return Err(invalid(e)),
            }
        }
    }
}

fn invalid(e: FrameDecoderError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, e.to_string())
}

impl<R: BufRead> Read for ZstdFrames<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        use ruzstd::decoding::BlockDecodingStrategy::UptoBlocks;
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.in_frame {
                if !self.begin()? {
                    return Ok(0);
                }
                self.in_frame = true;
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder.decode_blocks(&mut self.input, UptoBlocks(1)).map_err(invalid)?;
            }
            let n = self.decoder.read(buf)?;
            if n > 0 {
                return Ok(n);
            }
            self.in_frame = false;
            let (stored, found) =
                (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum());
            if stored.is_some() && found.is_some() && stored != found {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "zstd checksum differs"));
            }
        }
    }
}

/// Says what a file that is no capture looks like.
pub(crate) fn describe(start: &[u8]) -> String {
    if start.is_empty() {
        return "is empty".to_owned();
    }
    let magic: &[(&[u8], &str)] = &[
        (b"BZh", "is compressed with bzip2, which is not read"),
        (&[0xfd, b'7', b'z', b'X', b'Z', 0], "is compressed with xz, which is not read"),
        (&[0x04, 0x22, 0x4d, 0x18], "is compressed with lz4, which is not read"),
        (b"PK\x03\x04", "is a zip archive"),
        (b"\x7fELF", "is a program"),
    ];
    if let Some((_, name)) = magic.iter().find(|(m, _)| start.starts_with(m)) {
        return (*name).to_owned();
    }
    let text = start.iter().all(|b| matches!(b, b'\t' | b'\r' | b'\n' | 0x20..=0x7e | 0x80..));
    if text && start.iter().any(u8::is_ascii) {
        return "looks like text".to_owned();
    }
    if start.len() < 4 {
        return format!("has only {} bytes", start.len());
    }
    let hex: Vec<String> = start.iter().take(4).map(|b| format!("{b:02x}")).collect();
    format!("starts with {}, which is no capture format known here", hex.join(" "))
}
