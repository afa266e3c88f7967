//! JA3, JA3S and JA4: hashes of what a hello offers.
//!
//! JA3 and JA3S (Salesforce, BSD-3-Clause) keep the order of the wire, JA4 (FoxIO, BSD-3-Clause, see `NOTICE`)
//! sorts ciphers and extensions, because browsers shuffle them. Other members of the JA4+ family are not used:
//! their licence forbids it. GREASE values (RFC 8701) are left out of both.

use md5::{Digest, Md5};
use offpath_types::Ja4;
use sha2::Sha256;

use super::hello::{ClientHello, ServerHello, extension, extensions, is_grease, numbers};

/// Returns the JA3 of a client: MD5 of `version,ciphers,extensions,groups,formats` in decimal.
pub(crate) fn ja3(hello: &ClientHello<'_>) -> [u8; 16] {
    let mut text = Md5::new();
    let plain = |value: &u16| !is_grease(*value);
    push_list(&mut text, std::iter::once(hello.version));
    text.update(b",");
    push_list(&mut text, numbers(hello.ciphers).filter(plain));
    text.update(b",");
    push_list(&mut text, extensions(hello.extensions).map(|(kind, _)| kind).filter(plain));
    text.update(b",");
    push_list(&mut text, numbers(hello.groups()).filter(plain));
    text.update(b",");
    push_list(&mut text, hello.point_formats().iter().map(|b| u16::from(*b)));
    text.finalize().into()
}

/// Returns the JA3S of a server: MD5 of `version,cipher,extensions` in decimal.
pub(crate) fn ja3s(hello: &ServerHello<'_>) -> [u8; 16] {
    let mut text = Md5::new();
    push_list(&mut text, [hello.legacy_version].into_iter());
    text.update(b",");
    push_list(&mut text, [hello.cipher].into_iter());
    text.update(b",");
    push_list(&mut text, extensions(hello.extensions).map(|(kind, _)| kind));
    text.finalize().into()
}

/// Returns the JA4 of a client; `transport` is `t` for TCP, `q` for QUIC.
///
/// github.com/FoxIO-LLC/ja4, `technical_details/JA4.md`. Sorting makes it n log n in ciphers and extensions,
/// of which a hello of the longest kind has 32 768.
pub(crate) fn ja4(hello: &ClientHello<'_>, transport: u8) -> Option<Ja4> {
    let plain = |value: &u16| !is_grease(*value);
    let mut ciphers: Vec<u16> = numbers(hello.ciphers).filter(plain).collect();
    let mut kinds: Vec<u16> = extensions(hello.extensions).map(|(kind, _)| kind).filter(plain).collect();
    let mut text = Vec::with_capacity(36);
    text.push(transport);
    text.extend_from_slice(version_name(highest_version(hello)));
    text.push(if kinds.contains(&extension::SERVER_NAME) { b'd' } else { b'i' });
    push_count(&mut text, ciphers.len());
    push_count(&mut text, kinds.len());
    text.extend_from_slice(&alpn_letters(hello.alpn()));
    text.push(b'_');
    ciphers.sort_unstable();
    push_hash(&mut text, &hex_list(&ciphers));
    text.push(b'_');
    kinds.retain(|kind| !matches!(*kind, extension::SERVER_NAME | extension::ALPN));
    kinds.sort_unstable();
    let mut list = hex_list(&kinds);
    let signatures: Vec<u16> = numbers(hello.signature_algorithms()).filter(plain).collect();
    if !signatures.is_empty() {
        list.push(b'_');
        list.extend_from_slice(&hex_list(&signatures));
    }
    push_hash(&mut text, &list);
    Ja4::new(&text)
}

fn highest_version(hello: &ClientHello<'_>) -> u16 {
    let offered = hello.supported_versions().unwrap_or_default();
    numbers(offered).filter(|v| !is_grease(*v)).max().unwrap_or(hello.version)
}

const fn version_name(version: u16) -> &'static [u8; 2] {
    match version {
        0x0304 => b"13",
        0x0303 => b"12",
        0x0302 => b"11",
        0x0301 => b"10",
        0x0300 => b"s3",
        0x0002 => b"s2",
        _ => b"00",
    }
}

/// First and last character of the first protocol; those of its hexadecimal form where they are no letters or digits.
fn alpn_letters(list: &[u8]) -> [u8; 2] {
    let first = list.split_first().and_then(|(len, rest)| rest.get(..usize::from(*len)));
    let Some(([head, ..], [.., tail])) = first.map(|name| (name, name)) else { return *b"00" };
    if head.is_ascii_alphanumeric() && tail.is_ascii_alphanumeric() {
        [*head, *tail]
    } else {
        [HEX[usize::from(head >> 4)], HEX[usize::from(tail & 15)]]
    }
}

/// Appends a count in two digits, 99 for more.
fn push_count(text: &mut Vec<u8>, count: usize) {
    let count = count.min(99) as u8;
    text.extend_from_slice(&[b'0' + count / 10, b'0' + count % 10]);
}

/// Appends the first 12 hexadecimal digits of a SHA-256; zeros for the empty list.
fn push_hash(text: &mut Vec<u8>, list: &[u8]) {
    if list.is_empty() {
        text.extend_from_slice(b"000000000000");
        return;
    }
    for byte in &Sha256::digest(list)[..6] {
        text.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn hex_list(values: &[u16]) -> Vec<u8> {
    let mut list = Vec::with_capacity(values.len() * 5);
    for value in values {
        if !list.is_empty() {
            list.push(b',');
        }
        list.extend([12, 8, 4, 0].map(|shift| HEX[usize::from(value >> shift & 15)]));
    }
    list
}

fn push_list(text: &mut Md5, values: impl Iterator<Item = u16>) {
    for (i, value) in values.enumerate() {
        let mut digits = [0u8; 6];
        let mut at = digits.len();
        let mut rest = value;
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if i > 0 {
            at -= 1;
            digits[at] = b'-';
        }
        text.update(&digits[at..]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::hello::tests::{client_body, ext, server_body, sni};
    use super::*;

    fn u16s(values: &[u16]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_be_bytes()).collect()
    }

    fn list16(values: &[u16]) -> Vec<u8> {
        [&((values.len() * 2) as u16).to_be_bytes()[..], &u16s(values)].concat()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    const CHROME: [u16; 16] = [
        0x2a2a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014,
        0x009c, 0x009d, 0x002f, 0x0035,
    ];

    /// The example of JA4.md: `t13d1516h2_8daaf6152771_e5627efa2ab1`.
    fn chrome(alpn: &[u8]) -> Vec<u8> {
        let versions = [0xeaea, 0x0304, 0x0303];
        let signatures = [0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601];
        let plain = |kind| ext(kind, &[]);
        let exts = [
            plain(0x9a9a),
            plain(0x001b),
            sni("a.example"),
            plain(0x0033),
            ext(16, &[&(alpn.len() as u16).to_be_bytes(), alpn].concat()),
            plain(0x4469),
            plain(0x0017),
            plain(0x002d),
            ext(13, &list16(&signatures)),
            plain(0x0005),
            plain(0x0023),
            plain(0x0012),
            ext(43, &[&[6][..], &u16s(&versions)].concat()),
            plain(0xff01),
            ext(11, &[1, 0]),
            ext(10, &list16(&[0x3a3a, 0x001d, 0x0017, 0x0018])),
            plain(0x0015),
            plain(0x6a6a),
        ];
        client_body(0x303, &CHROME, &exts)
    }

    fn ja4_of(body: &[u8], transport: u8) -> String {
        ja4(&ClientHello::parse(body).unwrap(), transport).unwrap().to_string()
    }

    #[test]
    fn the_published_example_of_ja4_comes_out() {
        assert_eq!(ja4_of(&chrome(b"\x02h2\x08http/1.1"), b't'), "t13d1516h2_8daaf6152771_e5627efa2ab1");
        assert_eq!(ja4_of(&chrome(b"\x02h3"), b'q'), "q13d1516h3_8daaf6152771_e5627efa2ab1");
    }

    #[test]
    fn ja4_of_odd_hellos() {
        for (name, body, want) in [
            ("nothing offered", client_body(0x300, &[], &[]), "ts3i000000_000000000000_000000000000"),
            (
                "only GREASE",
                client_body(0x301, &[0xaaaa], &[ext(0x1a1a, &[])]),
                "t10i000000_000000000000_000000000000",
            ),
            ("unknown version", client_body(0x7f12, &[], &[]), "t00i000000_000000000000_000000000000"),
        ] {
            assert_eq!(ja4_of(&body, b't'), want, "{name}");
        }
        let many = client_body(0x303, &[0x1301; 120], &[]);
        assert!(ja4_of(&many, b't').starts_with("t12i990000_"));
        for (alpn, want) in [
            (&b"\x08http/1.1"[..], "h1"),
            (b"\x01x", "xx"),
            (b"\x02\xab\xcd", "ad"),
            (b"\x03h2-", "6d"),
            (b"\x00", "00"),
            (b"\x09h2", "00"),
        ] {
            assert_eq!(&ja4_of(&chrome(alpn), b't')[8..10], want, "{alpn:x?}");
        }
    }

    /// MD5 of the strings, computed apart (`md5sum`).
    #[test]
    fn ja3_is_the_md5_of_decimal_lists() {
        let body = client_body(0x301, &[0x0a0a, 4, 5, 10, 9, 100, 98, 3, 6, 19, 18, 99], &[ext(0xdada, &[])]);
        // The published example without extensions: 769,4-5-10-9-100-98-3-6-19-18-99,,,
        assert_eq!(hex(&ja3(&ClientHello::parse(&body).unwrap())), "de350869b8c85de67a350c8d186f11e6");
        let server = server_body(
            0x301,
            47,
            &[ext(65281, &[]), ext(0, &[]), ext(11, &[]), ext(35, &[]), ext(5, &[]), ext(16, &[])],
        );
        // The published example: 769,47,65281-0-11-35-5-16
        assert_eq!(hex(&ja3s(&ServerHello::parse(&server).unwrap())), "836ce314215654b5b1f85f97c73e506f");
    }
}
