//! Link headers of radio captures and of the Linux firewall: radiotap, IEEE 802.11 data frames, NFLOG.
//!
//! Sources: IEEE 802.11-2020 §9.2, <https://www.radiotap.org>, <https://www.tcpdump.org/linktypes/LINKTYPE_NFLOG.html>.
//!
//! Not read: encrypted frames, fragments, and aggregates (A-MSDU); they count as frames without IP.

use crate::walk::{Cursor, Next, Step, Stop};
use crate::{Layer, LengthSource};

/// Takes the radiotap header off; what it says of padding behind the 802.11 header goes along.
pub(crate) fn radiotap<'b>(c: &mut Cursor<'b>) -> Step<'b> {
    /// Another word of presence bits follows.
    const MORE: u32 = 1 << 31;
    let whole = c.bytes;
    let &[_, _, low, high, ..] = c.take::<8>(Layer::Ieee80211)?;
    let len = usize::from(u16::from_le_bytes([low, high]));
    let Some(rest) = len.checked_sub(8) else {
        return Err(crate::ip::invalid(Layer::Ieee80211, 8, len as u32).into());
    };
    c.skip(rest, Layer::Ieee80211)?;
    let head = whole.get(..len).unwrap_or_default();
    let word = |at: usize| head.get(at..at + 4).and_then(|w| w.first_chunk()).map(|w| u32::from_le_bytes(*w));
    let present = word(4).unwrap_or(0);
    let mut at = 8;
    let mut more = present;
    while more & MORE != 0 {
        more = word(at).unwrap_or(0);
        at += 4;
    }
    // Field 0, the timer, is 8 bytes at a multiple of 8; field 1 is a byte of flags.
    if present & 1 != 0 {
        at = at.next_multiple_of(8) + 8;
    }
    let flags = if present & 2 != 0 { head.get(at).copied().unwrap_or(0) } else { 0 };
    Ok(Next::Ieee80211 { padded: flags & 0x20 != 0 })
}

/// Reads an 802.11 data frame; `padded` where its header is filled up to a multiple of 4 bytes.
pub(crate) fn ieee80211<'b>(c: &mut Cursor<'b>, padded: bool) -> Step<'b> {
    let header = c.take::<24>(Layer::Ieee80211)?;
    let (kind, flags) = (header[0], header[1]);
    let (is_data, without_data, qos) = (kind & 0x0f == 0x08, kind & 0x40 != 0, kind & 0x80 != 0);
    let (more_fragments, protected, order) = (flags & 0x04 != 0, flags & 0x40 != 0, flags & 0x80 != 0);
    let fragment = header[22] & 0x0f;
    if !is_data || without_data || more_fragments || protected || fragment != 0 {
        return Err(Stop::NonIp);
    }
    // A fourth address where both ends are access points.
    let mut len = 24;
    if flags & 0x03 == 0x03 {
        c.skip(6, Layer::Ieee80211)?;
        len += 6;
    }
    if qos {
        let control = c.take::<2>(Layer::Ieee80211)?;
        len += 2;
        if control[0] & 0x80 != 0 {
            return Err(Stop::NonIp);
        }
        if order {
            c.skip(4, Layer::Ieee80211)?;
            len += 4;
        }
    }
    if padded {
        c.skip(usize::next_multiple_of(len, 4) - len, Layer::Ieee80211)?;
    }
    Ok(Next::Llc)
}

/// Finds the packet among the attributes of an NFLOG message.
///
/// Lengths are in the byte order of the host that logged; the first attribute tells which, since one is never as long
/// as it would be in the other order.
pub(crate) fn nflog<'b>(c: &mut Cursor<'b>) -> Step<'b> {
    const PAYLOAD: u16 = 9;
    let header = c.take::<4>(Layer::Nflog)?;
    let family = header[0];
    let mut big = None;
    while !c.bytes.is_empty() {
        let [a, b, x, y] = *c.take::<4>(Layer::Nflog)?;
        let big = *big.get_or_insert(u16::from_le_bytes([a, b]) > u16::from_be_bytes([a, b]));
        let read = |bytes| if big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) };
        // The top bits say that it is nested, or in network order.
        let (len, kind) = (usize::from(read([a, b])), read([x, y]) & 0x3fff);
        let Some(len) = len.checked_sub(4) else {
            return Err(crate::ip::invalid(Layer::Nflog, 4, len as u32).into());
        };
        if kind == PAYLOAD {
            c.bound_to(len, LengthSource::Nflog);
            return match family {
                2 => Ok(Next::Ipv4),
                10 => Ok(Next::Ipv6),
                _ => Ok(Next::Ip),
            };
        }
        // Attributes begin at multiples of 4; the last one need not be filled up.
        let padded = len.next_multiple_of(4).min(len.max(c.bytes.len()));
        c.skip(padded, Layer::Nflog)?;
    }
    Err(Stop::NonIp)
}

#[cfg(test)]
mod tests {
    use offpath_types::{Frame, LinkType, Timestamp};

    use crate::testing::*;
    use crate::{Decoder, DecoderLimits, Outcome};

    /// Tells whether a segment is found, and what was counted as not IP.
    fn decode(link: LinkType, bytes: &[u8]) -> (bool, u64) {
        let mut decoder = Decoder::new(DecoderLimits::default());
        let frame = Frame { time: Timestamp::from_nanos(1), link, wire_len: bytes.len() as u32, bytes };
        let found = matches!(decoder.decode(&frame), Outcome::Tcp(_));
        assert!(decoder.counters().is_balanced());
        (found, decoder.counters().frames_non_ip_total)
    }

    fn v4() -> Bytes {
        ip4(6, &tcp(b"GET / HTTP/1.1\r\n\r\n"))
    }

    /// 802.11 with `kind` and `flags`, `more` header bytes, then LLC and an IPv4 packet.
    fn wireless(kind: u8, flags: u8, more: &[u8]) -> Bytes {
        let mut header = vec![0; 24];
        (header[0], header[1]) = (kind, flags);
        cat(&[&header, more, &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0], &v4()])
    }

    #[test]
    fn data_frames_are_read_and_others_are_not() {
        let four = wireless(0x08, 0x03, &[0; 6]);
        let mut fragment = wireless(0x08, 0x01, &[]);
        fragment[22] = 1;
        let rows: Vec<(&str, Bytes, bool)> = vec![
            ("to the access point", wireless(0x08, 0x01, &[]), true),
            ("from it, again", wireless(0x08, 0x0a, &[]), true),
            ("between two", four, true),
            ("QoS", wireless(0x88, 0x01, &[0, 0]), true),
            ("QoS with HT control", wireless(0x88, 0x81, &[0; 6]), true),
            ("aggregate", wireless(0x88, 0x01, &[0x80, 0]), false),
            ("without data", wireless(0x48, 0x01, &[]), false),
            ("encrypted", wireless(0x08, 0x41, &[]), false),
            ("more fragments", wireless(0x08, 0x05, &[]), false),
            ("fragment", fragment, false),
            ("beacon", wireless(0x80, 0, &[]), false),
        ];
        for (name, bytes, want) in rows {
            assert_eq!(decode(LinkType::Ieee80211, &bytes), (want, u64::from(!want)), "{name}");
            for len in 0..bytes.len() {
                decode(LinkType::Ieee80211, &bytes[..len]);
            }
        }
    }

    #[test]
    fn radiotap_headers_of_any_length_are_taken_off() {
        let plain = wireless(0x08, 0x01, &[]);
        let padded = wireless(0x88, 0x01, &[0, 0, 0xee, 0xee]);
        let rows: Vec<(&str, Bytes, bool)> = vec![
            ("nothing", cat(&[&[0, 0, 8, 0, 0, 0, 0, 0], &plain]), true),
            ("rate", cat(&[&[0, 0, 9, 0, 4, 0, 0, 0, 2], &plain]), true),
            ("flags: padded", cat(&[&[0, 0, 9, 0, 2, 0, 0, 0, 0x20], &padded]), true),
            ("timer, flags: padded", cat(&[&[0, 0, 17, 0, 3, 0, 0, 0], &[0; 8], &[0x20], &padded]), true),
            (
                "two words, timer, flags: padded",
                cat(&[&[0, 0, 25, 0, 3, 0, 0, 0x80], &[0; 16], &[0x20], &padded]),
                true,
            ),
            ("words without end", cat(&[&[0, 0, 12, 0, 0, 0, 0, 0x80], &[0xff; 4], &plain]), true),
            ("too short", cat(&[&[0, 0, 7, 0, 0, 0, 0, 0], &plain]), false),
            ("longer than the frame", cat(&[&[0, 0, 0xff, 0xff, 0, 0, 0, 0], &plain]), false),
        ];
        for (name, bytes, want) in rows {
            assert_eq!(decode(LinkType::Radiotap, &bytes).0, want, "{name}");
            for len in 0..bytes.len() {
                decode(LinkType::Radiotap, &bytes[..len]);
            }
        }
    }

    #[test]
    fn nflog_packets_are_found_in_both_byte_orders() {
        let v4 = v4();
        let message = |big: bool, attributes: &[(u16, &[u8])]| {
            let mut bytes = vec![2, 0, 0, 0];
            for (kind, value) in attributes {
                let len = value.len() as u16 + 4;
                for field in [len, *kind] {
                    bytes.extend_from_slice(&if big { field.to_be_bytes() } else { field.to_le_bytes() });
                }
                bytes.extend_from_slice(value);
                bytes.resize(bytes.len().next_multiple_of(4), 0);
            }
            bytes
        };
        for big in [false, true] {
            let whole = message(big, &[(1, &[8, 0, 1, 0]), (10, b"prefix\0"), (9, &v4)]);
            assert_eq!(decode(LinkType::Nflog, &whole), (true, 0), "{big}");
            assert_eq!(decode(LinkType::Nflog, &message(big, &[(10, b"x")])), (false, 1), "{big}");
            for len in 0..whole.len() {
                decode(LinkType::Nflog, &whole[..len]);
            }
        }
        assert_eq!(
            decode(LinkType::Nflog, &[2, 0, 0, 0, 3, 0, 1, 0]),
            (false, 0),
            "an attribute shorter than itself"
        );
    }
}
