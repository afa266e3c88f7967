//! The Huffman code of HPACK (RFC 7541 §5.2 and Appendix B).
//!
//! The code is canonical: among the symbols in order of (length, value), each code is the one before plus
//! one, shifted to its length. So the lengths are the whole table, and everything here is derived from
//! them by the compiler.

use super::hpack::HpackError;

/// Symbol that ends a string in the abstract; in a real one only its first bits may stand, as padding.
const EOS: u16 = 256;

/// Code length of each symbol, bits (RFC 7541 Appendix B).
pub(super) const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, //
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28, //
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, //
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, //
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, //
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, //
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, //
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, //
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, //
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, //
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, //
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, //
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, //
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, //
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, //
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, //
    30,
];

const LENGTH_MAX: usize = 30;
/// Codes up to this length are found by one look-up: every printable character but twelve.
const FAST_BITS: u32 = 10;

/// Symbol and length (high byte) of the code that the next [`FAST_BITS`] bits begin with; 0: a longer one.
static FAST: [u16; 1 << FAST_BITS] = TABLES.fast;
/// Symbols in order of their codes.
static SYMBOLS: [u16; 257] = TABLES.symbols;
/// For each length: the first 32-bit window that lies past its codes, its first code, and the rank in
/// [`SYMBOLS`] of that code's symbol.
static LONG: [(u64, u32, u32); LENGTH_MAX + 1] = TABLES.long;

struct Tables {
    fast: [u16; 1 << FAST_BITS],
    symbols: [u16; 257],
    long: [(u64, u32, u32); LENGTH_MAX + 1],
}

const TABLES: Tables = tables();

const fn tables() -> Tables {
    let mut tables =
        Tables { fast: [0; 1 << FAST_BITS], symbols: [0; 257], long: [(0, 0, 0); LENGTH_MAX + 1] };
    let (mut code, mut rank, mut length) = (0u32, 0usize, 1usize);
    while length <= LENGTH_MAX {
        code <<= 1;
        let (first_code, first_rank) = (code, rank as u32);
        let mut symbol = 0;
        while symbol < 257 {
            if LENGTHS[symbol] as usize == length {
                tables.symbols[rank] = symbol as u16;
                rank += 1;
                if length <= FAST_BITS as usize {
                    let spread = FAST_BITS as usize - length;
                    let mut i = (code as usize) << spread;
                    while i < ((code as usize) + 1) << spread {
                        tables.fast[i] = (length as u16) << 8 | symbol as u16;
                        i += 1;
                    }
                }
                code += 1;
            }
            symbol += 1;
        }
        tables.long[length] = ((code as u64) << (32 - length), first_code, first_rank);
        length += 1;
    }
    tables
}

/// Appends the string that `bytes` encode to `out`: at most 1.6 times as many bytes.
///
/// Errors: an end-of-string code inside the string, or what is left after the last symbol is not a
/// beginning of it of at most 7 bits.
pub(super) fn decode(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), HpackError> {
    let start = out.len();
    out.resize(start + bytes.len() * 8 / 5, 0);
    let slots = &mut out[start..];
    let mut written = 0;
    // `window` holds the next `bits` bits, left-aligned.
    let (mut window, mut bits, mut rest) = (0u64, 0u32, bytes);
    let result = loop {
        if bits <= 32 {
            if let [a, b, c, d, after @ ..] = rest {
                window |= u64::from(u32::from_be_bytes([*a, *b, *c, *d])) << (32 - bits);
                bits += 32;
                rest = after;
            } else if let [a, after @ ..] = rest {
                window |= u64::from(*a) << (56 - bits);
                bits += 8;
                rest = after;
                if bits <= 32 && !rest.is_empty() {
                    continue;
                }
            }
        }
        let fast = FAST[(window >> (64 - FAST_BITS)) as usize];
        let (symbol, length) =
            if fast != 0 { (fast & 0xff, u32::from(fast >> 8)) } else { long_code(window) };
        if length > bits {
            let padding = bits < 8 && (window | u64::MAX >> bits) == u64::MAX;
            break if padding { Ok(()) } else { Err(HpackError::HuffmanInvalid) };
        }
        if symbol == EOS {
            break Err(HpackError::HuffmanInvalid);
        }
        // A symbol takes five bits or more, so there is a slot for it.
        slots[written] = symbol as u8;
        written += 1;
        window <<= length;
        bits -= length;
    };
    out.truncate(start + written);
    result
}

/// Symbol and length of the code longer than [`FAST_BITS`] that `window` begins with.
fn long_code(window: u64) -> (u16, u32) {
    let head = window >> 32;
    for length in FAST_BITS + 1..LENGTH_MAX as u32 {
        let (past, first_code, first_rank) = LONG[length as usize];
        if head < past {
            let code = (head >> (32 - length)) as u32;
            return (SYMBOLS[(first_rank + (code - first_code)) as usize], length);
        }
    }
    let (_, first_code, first_rank) = LONG[LENGTH_MAX];
    let code = (head >> (32 - LENGTH_MAX)) as u32;
    (SYMBOLS[(first_rank + (code - first_code)) as usize], LENGTH_MAX as u32)
}

#[cfg(test)]
pub(super) fn encode(text: &[u8], out: &mut Vec<u8>) {
    let (mut window, mut bits) = (0u64, 0u32);
    for &byte in text {
        let rank = SYMBOLS.iter().position(|s| *s == u16::from(byte)).unwrap() as u32;
        let length = u32::from(LENGTHS[usize::from(byte)]);
        let (_, first_code, first_rank) = LONG[length as usize];
        window = window << length | u64::from(first_code + rank - first_rank);
        bits += length;
        while bits >= 8 {
            bits -= 8;
            out.push((window >> bits) as u8);
        }
    }
    if bits > 0 {
        out.push((window << (8 - bits)) as u8 | 0xff >> bits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8]) -> Result<Vec<u8>, HpackError> {
        let mut out = b"kept".to_vec();
        decode(bytes, &mut out)?;
        assert_eq!(&out[..4], b"kept");
        Ok(out[4..].to_vec())
    }

    #[test]
    fn codes_are_those_of_the_rfc() {
        // Symbol, code, length: one of each length, first and last of the long ones (Appendix B).
        for (symbol, code, length) in [
            (u16::from(b'0'), 0, 5),
            (u16::from(b'a'), 0x3, 5),
            (u16::from(b' '), 0x14, 6),
            (u16::from(b':'), 0x5c, 7),
            (u16::from(b'&'), 0xf8, 8),
            (u16::from(b'Z'), 0xfd, 8),
            (u16::from(b'!'), 0x3f8, 10),
            (u16::from(b'?'), 0x3fc, 10),
            (u16::from(b'\''), 0x7fa, 11),
            (u16::from(b'#'), 0xffa, 12),
            (0, 0x1ff8, 13),
            (u16::from(b'^'), 0x3ffc, 14),
            (u16::from(b'{'), 0x7ffe, 15),
            (u16::from(b'\\'), 0x7fff0, 19),
            (128, 0xfffe6, 20),
            (153, 0x1fffdc, 21),
            (129, 0x3fffd2, 22),
            (1, 0x7fffd8, 23),
            (9, 0xffffea, 24),
            (199, 0x1ffffec, 25),
            (192, 0x3ffffe0, 26),
            (203, 0x7ffffde, 27),
            (2, 0xfffffe2, 28),
            (249, 0xffffffe, 28),
            (10, 0x3ffffffc, 30),
            (EOS, 0x3fffffff, 30),
        ] {
            let rank = SYMBOLS.iter().position(|s| *s == symbol).unwrap() as u32;
            let (_, first_code, first_rank) = LONG[length];
            assert_eq!((first_code + rank - first_rank, LENGTHS[usize::from(symbol)]), (code, length as u8));
        }
        let kraft: u64 = LENGTHS.iter().map(|l| 1u64 << (30 - l)).sum();
        assert_eq!(kraft, 1 << 30, "the code leaves nothing undefined");
    }

    #[test]
    fn every_byte_survives_at_every_phase() {
        for byte in 0..=255u8 {
            for before in 0..8 {
                for after in 0..4 {
                    let text = [vec![b'0'; before], vec![byte], vec![b'a'; after]].concat();
                    let mut wire = Vec::new();
                    encode(&text, &mut wire);
                    assert_eq!(decoded(&wire), Ok(text));
                }
            }
        }
    }

    #[test]
    fn only_short_padding_of_ones_ends_a_string() {
        let bad = Err(HpackError::HuffmanInvalid);
        for (name, wire, want) in [
            ("empty", &b""[..], Ok(&b""[..])),
            ("0 and 3 bits of padding", &[0b0000_0111], Ok(b"0")),
            ("eight codes, no padding", &[0; 5], Ok(b"00000000")),
            ("& fills the byte", &[0xf8], Ok(b"&")),
            ("8 bits of padding", &[0xff], bad),
            ("& and 8 bits of padding", &[0xf8, 0xff], bad),
            ("0 and 11 bits of padding", &[0b0000_0111, 0xff], bad),
            ("padding with a zero", &[0b0000_0110], bad),
            ("padding of zeros", &[0b0000_0000], bad),
            ("end of string", &[0xff, 0xff, 0xff, 0xff], bad),
            ("end of string inside", &[0xff, 0xff, 0xff, 0xfc, 0x07], bad),
            ("30 ones, then ones", &[0xff; 9], bad),
            ("half a long code", &[0xff, 0xff, 0xff], bad),
        ] {
            assert_eq!(decoded(wire), want.map(<[u8]>::to_vec), "{name}");
        }
    }
}
