//! The pcapng format (draft-ietf-opsawg-pcapng): sections of blocks.
//!
//! Blocks are framed and packets are read by hand over the refillable buffer, so that a packet costs its
//! 28-byte header; `pcap-parser` reads the descriptions and the secrets, with their options.

use offpath_types::{LinkType, Timestamp};
use zeroize::Zeroize;

use crate::Damage;
use crate::buffer::{Refill, u16_at, u32_at};
use crate::reader::{Books, FRAME_BYTES_MAX, FRAME_BYTES_USUAL, Meta, Step};

/// Bytes of the shortest section header block.
pub(crate) const SECTION_HEADER_MIN: usize = 28;
/// Interfaces per section that are believed.
const INTERFACES_MAX: usize = 65_536;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const OLD_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const NAMES: u32 = 4;
const STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;
const SECRETS: u32 = 10;

/// The contents of one decryption secrets block.
#[derive(Clone, PartialEq, Eq)]
pub struct Secrets {
    /// What they are: `0x544c534b` is a TLS key log in the NSS format.
    pub kind: u32,
    /// The secrets as stored.
    pub data: Vec<u8>,
}

impl Drop for Secrets {
    fn drop(&mut self) {
        self.data.zeroize();
    }
}

impl std::fmt::Debug for Secrets {
    /// Tells the kind and length only.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets {{ kind: {:#x}, {} bytes }}", self.kind, self.data.len())
    }
}

/// How an interface's time units become nanoseconds.
#[derive(Clone, Copy)]
enum Scale {
    Times(u64),
    Over(u64),
    /// Units of 2^-n seconds.
    Binary(u8),
}

impl Scale {
    /// Reads `if_tsresol`: a power of 10, or with the top bit of 2.
    fn new(resolution: u8) -> Self {
        let n = resolution & 0x7f;
        if resolution & 0x80 != 0 {
            return Self::Binary(n);
        }
        match n {
            0..=9 => Self::Times(10u64.pow(9 - u32::from(n))),
            // In units finer than 10^-28 s a 64-bit count stays below a nanosecond.
            _ => 10u64.checked_pow(u32::from(n) - 9).map_or(Self::Times(0), Self::Over),
        }
    }

    #[inline]
    fn nanos(self, units: u64) -> u64 {
        match self {
            Self::Times(by) => units.saturating_mul(by),
            Self::Over(by) => units / by,
            // units < 2^64 and 10^9 < 2^30: no overflow.
            Self::Binary(n) => u64::try_from((u128::from(units) * 1_000_000_000) >> n).unwrap_or(u64::MAX),
        }
    }
}

#[derive(Clone, Copy)]
struct Interface {
    link: LinkType,
    snaplen: u32,
    scale: Scale,
    offset_secs: i64,
    /// Newest statistics: received, dropped by the interface, dropped by the system.
    seen: [u64; 3],
}

impl Interface {
    #[inline]
    fn time(&self, units: u64) -> Timestamp {
        let nanos = self.scale.nanos(units);
        if self.offset_secs == 0 {
            return Timestamp::from_nanos(nanos);
        }
        let moved = i128::from(nanos) + i128::from(self.offset_secs) * 1_000_000_000;
        Timestamp::from_nanos(u64::try_from(moved.max(0)).unwrap_or(u64::MAX))
    }
}

pub(crate) struct Ng {
    big: bool,
    /// The section has another major version: its blocks are passed over.
    foreign: bool,
    interfaces: Vec<Interface>,
    /// Simple packets have no time of their own.
    newest: Timestamp,
}

/// Tells the byte order of a section header block by its magic.
fn section_order(block: &[u8]) -> Option<bool> {
    match block.get(8..12)? {
        [0x1a, 0x2b, 0x3c, 0x4d] => Some(true),
        [0x4d, 0x3c, 0x2b, 0x1a] => Some(false),
        _ => None,
    }
}

impl Ng {
    /// Tells whether `start` begins with a section header block.
    pub(crate) fn is(start: &[u8]) -> bool {
        start.starts_with(&SECTION.to_be_bytes())
    }

    /// Makes a reader for the section that starts with `start`; `None` where its byte order is unknown.
    pub(crate) fn new(start: &[u8]) -> Option<Self> {
        Some(Self {
            big: section_order(start)?,
            foreign: false,
            interfaces: Vec::new(),
            newest: Timestamp::ZERO,
        })
    }

    /// Finds the next frame in `buf`.
    pub(crate) fn next(&mut self, buf: &mut Refill, books: &mut Books) -> Step {
        loop {
            if !buf.ensure(12) {
                return match buf.window().len() {
                    0 => Step::End,
                    have => Step::cut(12, have),
                };
            }
            let window = buf.window();
            let block_type = u32_at(window, 0, self.big);
            // Reads the same in both byte orders.
            if block_type == SECTION {
                match section_order(window) {
                    Some(big) => self.big = big,
                    None => return Step::Bad { what: Damage::BlockInvalid { block_type }, skip: None },
                }
            }
            let len = u32_at(window, 4, self.big);
            let least = match block_type {
                SECTION => 28,
                INTERFACE | SECRETS => 20,
                ENHANCED_PACKET | OLD_PACKET => 32,
                SIMPLE_PACKET => 16,
                STATISTICS => 24,
                _ => 12,
            };
            if len < least || !len.is_multiple_of(4) {
                return Step::Bad { what: Damage::LengthInvalid { len }, skip: None };
            }
            if len > FRAME_BYTES_MAX {
                return Step::Bad { what: Damage::RecordTooLong { len, limit: FRAME_BYTES_MAX }, skip: None };
            }
            let total = len as usize;
            if !buf.ensure(total) {
                return Step::cut(total, buf.window().len());
            }
            let block = &buf.window()[..total];
            let second = u32_at(block, total - 4, self.big);
            if second != len {
                return Step::Bad { what: Damage::LengthsDiffer { first: len, second }, skip: None };
            }
            let read = match block_type {
                other if self.foreign && other != SECTION => {
                    books.counters.blocks_skipped_total += 1;
                    Ok(())
                }
                ENHANCED_PACKET | OLD_PACKET | SIMPLE_PACKET => match self.packet(block_type, block) {
                    Ok(meta) => return Step::Frame(meta),
                    Err(what) => Err(what),
                },
                SECTION => self.section(block),
                INTERFACE => self.interface(block),
                STATISTICS => {
                    self.statistics(block, books);
                    Ok(())
                }
                SECRETS => self.secrets(block, books),
                _ => {
                    books.counters.blocks_skipped_total += 1;
                    Ok(())
                }
            };
            if let Err(what) = read {
                return Step::Bad { what, skip: Some(total) };
            }
            books.counters.overhead_bytes_total += total as u64;
            buf.consume(total);
        }
    }

    /// Reads the header of a packet block, which is whole and at least as long as its fixed part.
    #[inline]
    fn packet(&mut self, block_type: u32, block: &[u8]) -> Result<Meta, Damage> {
        let (big, total) = (self.big, block.len());
        if block_type == SIMPLE_PACKET {
            let face = self.interfaces.first().ok_or(Damage::InterfaceUnknown { interface: 0 })?;
            let wire_len = u32_at(block, 8, big);
            let snaplen = if face.snaplen == 0 { u32::MAX } else { face.snaplen };
            let len = (wire_len.min(snaplen) as usize).min(total - 16);
            return Ok(Meta { time: self.newest, link: face.link, wire_len, at: 12, len, total });
        }
        let interface = match block_type {
            OLD_PACKET => u32::from(u16_at(block, 8, big)),
            _ => u32_at(block, 8, big),
        };
        let face = self.interfaces.get(interface as usize).ok_or(Damage::InterfaceUnknown { interface })?;
        let units = u64::from(u32_at(block, 12, big)) << 32 | u64::from(u32_at(block, 16, big));
        let len = u32_at(block, 20, big);
        if len as usize > total - 32 {
            return Err(Damage::FrameOverrunsBlock { len });
        }
        let time = face.time(units);
        self.newest = self.newest.max(time);
        let wire_len = u32_at(block, 24, big);
        Ok(Meta { time, link: face.link, wire_len, at: 28, len: len as usize, total })
    }

    #[cold]
    fn section(&mut self, block: &[u8]) -> Result<(), Damage> {
        self.interfaces.clear();
        let major = u16_at(block, 12, self.big);
        self.foreign = major != 1;
        if self.foreign { Err(Damage::SectionVersionUnknown { major }) } else { Ok(()) }
    }

    #[cold]
    fn interface(&mut self, block: &[u8]) -> Result<(), Damage> {
        if self.interfaces.len() >= INTERFACES_MAX {
            return Err(Damage::TooManyInterfaces);
        }
        let parsed = if self.big {
            pcap_parser::parse_interfacedescriptionblock_be(block)
        } else {
            pcap_parser::parse_interfacedescriptionblock_le(block)
        };
        // A description whose options can't be read still counts: packets name interfaces by number.
        let (mut resolution, mut offset_secs) = (6, 0);
        if let Ok((_, face)) = &parsed {
            resolution = face.if_tsresol;
            // The parser's own `if_tsoffset` is little-endian in any file (0.17.0), so take the bytes.
            let option = face.options.iter().find(|o| o.code == pcap_parser::OptionCode::IfTsoffset);
            if let Some(&bytes) = option.and_then(|o| o.value().first_chunk::<8>()) {
                offset_secs = if self.big { i64::from_be_bytes(bytes) } else { i64::from_le_bytes(bytes) };
            }
        }
        self.interfaces.push(Interface {
            link: LinkType::from_number(u32::from(u16_at(block, 8, self.big))),
            snaplen: u32_at(block, 12, self.big),
            scale: Scale::new(resolution),
            offset_secs,
            seen: [0; 3],
        });
        parsed.map(drop).map_err(|_| Damage::BlockInvalid { block_type: INTERFACE })
    }

    /// Takes the counts out of an interface statistics block; they are cumulative per interface.
    #[cold]
    fn statistics(&mut self, block: &[u8], books: &mut Books) {
        let Some(face) = self.interfaces.get_mut(u32_at(block, 8, self.big) as usize) else { return };
        let mut at = 20;
        while at + 4 <= block.len() - 4 {
            let (code, len) = (u16_at(block, at, self.big), usize::from(u16_at(block, at + 2, self.big)));
            let slot = match code {
                0 => return,
                4 => Some(0),
                5 => Some(1),
                7 => Some(2),
                _ => None,
            };
            if let Some(slot) = slot
                && len == 8
                && at + 12 <= block.len() - 4
            {
                let (a, b) = (u32_at(block, at + 4, self.big), u32_at(block, at + 8, self.big));
                let (high, low) = if self.big { (a, b) } else { (b, a) };
                let value = u64::from(high) << 32 | u64::from(low);
                let more = value.saturating_sub(face.seen[slot]);
                face.seen[slot] = value;
                let c = &mut books.counters;
                let count = [&mut c.kernel_received, &mut c.interface_dropped, &mut c.kernel_dropped];
                let [received, interface, kernel] = count;
                let sum = match slot {
                    0 => received,
                    1 => interface,
                    _ => kernel,
                };
                *sum = sum.saturating_add(more);
            }
            at += 4 + len.next_multiple_of(4);
        }
    }

    #[cold]
    fn secrets(&mut self, block: &[u8], books: &mut Books) -> Result<(), Damage> {
        let parsed = if self.big {
            pcap_parser::parse_decryptionsecretsblock_be(block)
        } else {
            pcap_parser::parse_decryptionsecretsblock_le(block)
        };
        let (_, secrets) = parsed.map_err(|_| Damage::BlockInvalid { block_type: SECRETS })?;
        // The parser's `data` includes the padding.
        let data = secrets.data.get(..secrets.secrets_len as usize).unwrap_or(secrets.data);
        books.keep_secrets(Secrets { kind: secrets.secrets_type.0, data: data.to_vec() });
        Ok(())
    }

    /// Returns the length of the block that seems to start `at` bytes into the window.
    pub(crate) fn plausible(&self, buf: &mut Refill, at: usize) -> Option<usize> {
        if !buf.ensure(at + 12) {
            return None;
        }
        let head = &buf.window()[at..];
        let (block_type, len) = (u32_at(head, 0, self.big), u32_at(head, 4, self.big));
        let big = if block_type == SECTION { section_order(head)? } else { self.big };
        let len = if block_type == SECTION { u32_at(head, 4, big) } else { len };
        let known = matches!(block_type, SECTION | INTERFACE..=ENHANCED_PACKET | SECRETS);
        if !known || !len.is_multiple_of(4) || !(12..=FRAME_BYTES_USUAL + 64).contains(&len) {
            return None;
        }
        let total = len as usize;
        (buf.ensure(at + total) && u32_at(&buf.window()[at..], total - 4, big) == len).then_some(total)
    }
}

const _: () = assert!(NAMES == 4, "INTERFACE..=ENHANCED_PACKET covers name resolution");
