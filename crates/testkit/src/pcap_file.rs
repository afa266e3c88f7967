//! Writes capture files of every shape that Offpath reads, and reads classic pcap back.

use std::io::{self, Read, Write};

use offpath_types::Timestamp;

/// The variants of classic pcap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PcapFormat {
    /// Data link type number.
    pub link: u32,
    /// Nanosecond timestamps instead of microseconds.
    pub nanos: bool,
    /// Big-endian headers.
    pub big_endian: bool,
    /// Longest record; longer frames are cut, their wire length kept.
    pub snaplen: u32,
}

impl PcapFormat {
    /// Little-endian nanosecond pcap of `link`, 262144 bytes a record.
    pub const fn new(link: u32) -> Self {
        Self { link, nanos: true, big_endian: false, snaplen: 262_144 }
    }
}

/// One captured frame with its own bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When.
    pub time: Timestamp,
    /// Bytes on the wire.
    pub wire_len: u32,
    /// Captured bytes.
    pub bytes: Vec<u8>,
}

/// Writes classic pcap. Give it a buffered writer; nothing is buffered here.
#[derive(Debug)]
pub struct PcapWriter<W> {
    out: W,
    format: PcapFormat,
    packets: u64,
    bytes: u64,
}

impl<W: Write> PcapWriter<W> {
    /// Writes the file header.
    pub fn new(mut out: W, format: PcapFormat) -> io::Result<Self> {
        let put = |v: u32| if format.big_endian { v.to_be_bytes() } else { v.to_le_bytes() };
        let magic: u32 = if format.nanos { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
        let mut header = Vec::with_capacity(24);
        header.extend_from_slice(&put(magic));
        let version: [u8; 4] = if format.big_endian { [0, 2, 0, 4] } else { [2, 0, 4, 0] };
        header.extend_from_slice(&version);
        for word in [0, 0, format.snaplen, format.link] {
            header.extend_from_slice(&put(word));
        }
        out.write_all(&header)?;
        Ok(Self { out, format, packets: 0, bytes: 24 })
    }

    /// Writes one whole frame, cut at the snap length.
    pub fn write(&mut self, time: Timestamp, bytes: &[u8]) -> io::Result<()> {
        self.write_cut(time, bytes, bytes.len() as u32)
    }

    /// Writes the captured `bytes` of a frame that had `wire_len` bytes.
    pub fn write_cut(&mut self, time: Timestamp, bytes: &[u8], wire_len: u32) -> io::Result<()> {
        let bytes = &bytes[..bytes.len().min(self.format.snaplen as usize)];
        let nanos = time.as_nanos();
        let fraction = (nanos % 1_000_000_000) as u32;
        let words = [
            (nanos / 1_000_000_000) as u32,
            if self.format.nanos { fraction } else { fraction / 1000 },
            bytes.len() as u32,
            wire_len,
        ];
        let mut header = [0u8; 16];
        for (slot, word) in header.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *slot = if self.format.big_endian { word.to_be_bytes() } else { word.to_le_bytes() };
        }
        self.out.write_all(&header)?;
        self.out.write_all(bytes)?;
        self.packets += 1;
        self.bytes += 16 + bytes.len() as u64;
        Ok(())
    }

    /// Frames written so far.
    pub const fn packets(&self) -> u64 {
        self.packets
    }

    /// Bytes written so far, headers included.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Flushes and gives the writer back.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }
}

/// Writes pcapng: one section, any number of interfaces.
#[derive(Debug)]
pub struct PcapNgWriter<W> {
    out: W,
    big_endian: bool,
    /// Whether interface i counts nanoseconds.
    nanos: Vec<bool>,
}

impl<W: Write> PcapNgWriter<W> {
    /// Writes the section header.
    pub fn new(out: W, big_endian: bool) -> io::Result<Self> {
        let mut writer = Self { out, big_endian, nanos: Vec::new() };
        let mut body = writer.word(0x1a2b_3c4d).to_vec();
        body.extend_from_slice(&writer.half(1));
        body.extend_from_slice(&writer.half(0));
        body.extend_from_slice(&[0xff; 8]);
        writer.block(0x0a0d_0d0a, &body)?;
        Ok(writer)
    }

    /// Adds an interface and returns its number. `nanos` selects the timestamp resolution.
    pub fn interface(&mut self, link: u32, name: &str, nanos: bool) -> io::Result<u32> {
        let mut body = self.half(link as u16).to_vec();
        body.extend_from_slice(&[0, 0]);
        body.extend_from_slice(&self.word(262_144));
        self.option(&mut body, 2, name.as_bytes());
        if nanos {
            self.option(&mut body, 9, &[9]);
        }
        self.option(&mut body, 0, &[]);
        self.block(1, &body)?;
        self.nanos.push(nanos);
        Ok(self.nanos.len() as u32 - 1)
    }

    /// Writes one frame of `interface`; `wire_len` may exceed `bytes`.
    pub fn write(&mut self, interface: u32, time: Timestamp, bytes: &[u8], wire_len: u32) -> io::Result<()> {
        let nanos = self.nanos.get(interface as usize).copied().unwrap_or(false);
        let ticks = if nanos { time.as_nanos() } else { time.as_nanos() / 1000 };
        let mut body = Vec::with_capacity(bytes.len() + 24);
        for word in [interface, (ticks >> 32) as u32, ticks as u32, bytes.len() as u32, wire_len] {
            body.extend_from_slice(&self.word(word));
        }
        body.extend_from_slice(bytes);
        body.resize(body.len().next_multiple_of(4), 0);
        self.block(6, &body)
    }

    /// Writes a block of any type; `body` is padded to a multiple of 4.
    pub fn block(&mut self, kind: u32, body: &[u8]) -> io::Result<()> {
        let padded = body.len().next_multiple_of(4);
        let total = self.word((padded + 12) as u32);
        self.out.write_all(&self.word(kind))?;
        self.out.write_all(&total)?;
        self.out.write_all(body)?;
        self.out.write_all(&[0; 4][..padded - body.len()])?;
        self.out.write_all(&total)
    }

    /// Flushes and gives the writer back.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }

    fn option(&self, body: &mut Vec<u8>, code: u16, value: &[u8]) {
        body.extend_from_slice(&self.half(code));
        body.extend_from_slice(&self.half(value.len() as u16));
        body.extend_from_slice(value);
        body.resize(body.len().next_multiple_of(4), 0);
    }

    fn word(&self, v: u32) -> [u8; 4] {
        if self.big_endian { v.to_be_bytes() } else { v.to_le_bytes() }
    }

    fn half(&self, v: u16) -> [u8; 2] {
        if self.big_endian { v.to_be_bytes() } else { v.to_le_bytes() }
    }
}

/// Reads classic pcap of all four variants; for this kit's own files, so it is strict.
#[derive(Debug)]
pub struct PcapReader<R> {
    input: R,
    format: PcapFormat,
}

impl<R: Read> PcapReader<R> {
    /// Reads the file header.
    pub fn new(mut input: R) -> io::Result<Self> {
        let mut header = [0u8; 24];
        input.read_exact(&mut header)?;
        let (nanos, big_endian) = match header[..4] {
            [0xd4, 0xc3, 0xb2, 0xa1] => (false, false),
            [0x4d, 0x3c, 0xb2, 0xa1] => (true, false),
            [0xa1, 0xb2, 0xc3, 0xd4] => (false, true),
            [0xa1, 0xb2, 0x3c, 0x4d] => (true, true),
            _ => return Err(invalid("not a classic pcap file")),
        };
        let format = PcapFormat {
            link: word(&header, 20, big_endian),
            nanos,
            big_endian,
            snaplen: word(&header, 16, big_endian),
        };
        Ok(Self { input, format })
    }

    /// Returns what the file header says.
    pub const fn format(&self) -> PcapFormat {
        self.format
    }

    /// Returns the next record, `None` at the end of the file.
    ///
    /// # Errors
    /// A record cut short, or longer than 256 KiB.
    pub fn next_record(&mut self) -> io::Result<Option<Record>> {
        let mut header = [0u8; 16];
        match self.input.read(&mut header)? {
            0 => return Ok(None),
            n => self.input.read_exact(&mut header[n..])?,
        }
        let at = |i| word(&header, i, self.format.big_endian);
        let (secs, fraction, len) = (at(0), at(4), at(8));
        if len > 262_144 {
            return Err(invalid("record longer than 262144 bytes"));
        }
        let mut bytes = vec![0; len as usize];
        self.input.read_exact(&mut bytes)?;
        let nanos = u64::from(fraction) * if self.format.nanos { 1 } else { 1000 };
        Ok(Some(Record { time: Timestamp::from_parts(u64::from(secs), nanos), wire_len: at(12), bytes }))
    }
}

fn word(bytes: &[u8], at: usize, big_endian: bool) -> u32 {
    let mut w = [0u8; 4];
    w.copy_from_slice(&bytes[at..at + 4]);
    if big_endian { u32::from_be_bytes(w) } else { u32::from_le_bytes(w) }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variant_reads_back_and_cuts_at_the_snap_length() {
        let time = Timestamp::from_parts(1_700_000_000, 123_456_789);
        for nanos in [false, true] {
            for big_endian in [false, true] {
                let format = PcapFormat { link: 113, nanos, big_endian, snaplen: 4 };
                let mut writer = PcapWriter::new(Vec::new(), format).unwrap();
                writer.write(time, b"abcdefg").unwrap();
                writer.write_cut(time, b"ab", 99).unwrap();
                assert_eq!((writer.packets(), writer.bytes()), (2, 24 + 20 + 18));
                let file = writer.finish().unwrap();
                let mut reader = PcapReader::new(&file[..]).unwrap();
                assert_eq!(reader.format(), format);
                let first = reader.next_record().unwrap().unwrap();
                let want = if nanos { time } else { Timestamp::from_parts(1_700_000_000, 123_456_000) };
                assert_eq!(first, Record { time: want, wire_len: 7, bytes: b"abcd".to_vec() });
                assert_eq!(reader.next_record().unwrap().unwrap().wire_len, 99);
                assert!(reader.next_record().unwrap().is_none());
                for cut in 25..file.len() {
                    let mut reader = PcapReader::new(&file[..cut]).unwrap();
                    while let Ok(Some(_)) = reader.next_record() {}
                }
            }
        }
        assert!(PcapReader::new(&b"not a capture file at all"[..]).is_err());
    }

    #[test]
    fn pcapng_blocks_are_aligned_and_end_in_their_length() {
        for big_endian in [false, true] {
            let mut writer = PcapNgWriter::new(Vec::new(), big_endian).unwrap();
            let a = writer.interface(1, "eth1", true).unwrap();
            let b = writer.interface(113, "any", false).unwrap();
            writer.write(a, Timestamp::from_parts(1, 2), b"abcde", 5).unwrap();
            writer.write(b, Timestamp::from_parts(3, 4), b"x", 9).unwrap();
            let file = writer.finish().unwrap();
            let (mut at, mut kinds) = (0, Vec::new());
            while at < file.len() {
                let len = word(&file, at + 4, big_endian) as usize;
                assert_eq!(len % 4, 0);
                assert_eq!(word(&file, at + len - 4, big_endian) as usize, len);
                kinds.push(word(&file, at, big_endian));
                at += len;
            }
            assert_eq!(kinds, [0x0a0d_0d0a, 1, 1, 6, 6]);
        }
    }
}
