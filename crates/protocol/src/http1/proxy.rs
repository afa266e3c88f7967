//! The PROXY protocol preface, versions 1 and 2 (HAProxy, `proxy-protocol.txt`, 2020-03-05).

use std::net::IpAddr;

use offpath_types::{Host, Peer, TlsFacts};

use crate::tls::outside::proxy_extensions;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Longest version 1 line, its CRLF included.
const LINE_MAX: usize = 107;

/// Longest preface of which what follows the addresses is waited for.
pub(super) const EXTENSIONS_MAX: usize = 4096;

/// Prefaces in a row that are taken off: one of each proxy on the way that does not expect its client's.
pub(super) const PREFACES_MAX: u8 = 4;

/// What a flow's first bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Preface {
    /// No preface.
    None,
    /// Possibly one: too few bytes.
    More,
    /// A preface of `len` bytes, and the client it names (none for `UNKNOWN` and `LOCAL`). `len` may reach
    /// beyond the bytes at hand: what follows the addresses is of no interest.
    Found { len: usize, client: Option<Host> },
}

/// Judges the first bytes of a flow's client. The answer for a prefix is `More` or the final one.
pub(super) fn parse(bytes: &[u8]) -> Preface {
    let head = &bytes[..bytes.len().min(SIGNATURE.len())];
    if SIGNATURE.starts_with(head) {
        return version2(bytes);
    }
    let head = &bytes[..bytes.len().min(6)];
    if !b"PROXY ".starts_with(head) {
        return Preface::None;
    }
    match memchr::memchr(b'\n', &bytes[..bytes.len().min(LINE_MAX)]) {
        Some(end) => Preface::Found { len: end + 1, client: version1(&bytes[..end]) },
        None if bytes.len() >= LINE_MAX => Preface::None,
        None => Preface::More,
    }
}

fn version1(line: &[u8]) -> Option<Host> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.trim_end().split(' ').skip(1);
    let family = words.next()?;
    let ip: IpAddr = words.next()?.parse().ok()?;
    matches!((family, ip), ("TCP4", IpAddr::V4(_)) | ("TCP6", IpAddr::V6(_))).then(|| ip.into())
}

fn version2(bytes: &[u8]) -> Preface {
    let [_, _, _, _, _, _, _, _, _, _, _, _, command, family, hi, lo, rest @ ..] = bytes else {
        return Preface::More;
    };
    if command >> 4 != 2 {
        return Preface::None;
    }
    let size = usize::from(u16::from_be_bytes([*hi, *lo]));
    let len = 16 + size;
    let needed = match family >> 4 {
        1 => 12,
        2 => 36,
        _ => 0,
    };
    // 0 is LOCAL: a health check of the proxy itself.
    if command & 0xf != 1 || needed == 0 || size < needed {
        return Preface::Found { len, client: None };
    }
    if rest.len() < needed {
        return Preface::More;
    }
    let client = if needed == 12 {
        Host::from_v4([rest[0], rest[1], rest[2], rest[3]])
    } else {
        let mut octets = [0; 16];
        octets.copy_from_slice(&rest[..16]);
        Host::from_v6(octets)
    };
    Preface::Found { len, client: Some(client) }
}

/// Returns what a preface, as far as it is there, tells of the connection outside: the client's address and port, and
/// in version 2 what a terminator of TLS adds. `None` where it names no client.
pub(super) fn told(preface: &[u8]) -> Option<TlsFacts> {
    let Preface::Found { client: Some(host), .. } = parse(preface) else { return None };
    let mut facts = TlsFacts::default();
    let port = if preface.starts_with(b"P") {
        let line = std::str::from_utf8(preface).ok()?;
        line.trim_end().split(' ').nth(4)?.parse().ok()?
    } else {
        // Two addresses, then the two ports.
        let addresses = if preface.get(13)? >> 4 == 1 { 8 } else { 32 };
        let [high, low] = *preface.get(16 + addresses..)?.first_chunk::<2>()?;
        proxy_extensions(preface.get(16 + addresses + 4..).unwrap_or_default(), &mut facts);
        u16::from_be_bytes([high, low])
    };
    facts.outside = Some(Peer { host, port });
    Some(facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefaces_in_every_cut() {
        let v4 = [SIGNATURE, &[0x21, 0x11, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 0, 2]].concat();
        let local = [SIGNATURE, &[0x20, 0, 0, 0]].concat();
        let v6 = [SIGNATURE, &[0x21, 0x21, 0, 40], &[9; 40]].concat();
        let rows: [(&[u8], Preface); 7] = [
            (
                b"PROXY TCP4 192.0.2.1 10.0.0.1 56324 443\r\n",
                Preface::Found { len: 41, client: Some(Host::from_v4([192, 0, 2, 1])) },
            ),
            (b"PROXY UNKNOWN\r\n", Preface::Found { len: 15, client: None }),
            (b"PROPFIND / HTTP/1.1\r\n", Preface::None),
            (b"\r\n\r\nGET / HTTP/1.1\r\n", Preface::None),
            (&v4, Preface::Found { len: 28, client: Some(Host::from_v4([1, 2, 3, 4])) }),
            (&local, Preface::Found { len: 16, client: None }),
            (&v6, Preface::Found { len: 56, client: Some(Host::from_v6([9; 16])) }),
        ];
        for (bytes, want) in rows {
            let name = bytes.escape_ascii().to_string();
            assert_eq!(parse(bytes), want, "{name}");
            for cut in 1..bytes.len() {
                let got = parse(&bytes[..cut]);
                assert!(got == Preface::More || got == want, "{name} cut at {cut}: {got:?}");
            }
        }
    }

    #[test]
    fn prefaces_tell_port_and_extensions() {
        let peer = |host, port| Some(Peer { host, port });
        let v1 = told(b"PROXY TCP4 192.0.2.1 10.0.0.1 56324 443\r\n").unwrap();
        assert_eq!(v1.outside, peer(Host::from_v4([192, 0, 2, 1]), 56324));
        let head = |family, len: u8| [SIGNATURE, &[0x21, family, 0, len]].concat();
        let v4 = [
            head(0x11, 20),
            vec![1, 2, 3, 4, 5, 6, 7, 8, 0x12, 0x34, 0, 2],
            vec![2, 0, 5],
            b"a.exa".to_vec(),
        ];
        let v4 = told(&v4.concat()).unwrap();
        assert_eq!(v4.outside, peer(Host::from_v4([1, 2, 3, 4]), 0x1234));
        assert_eq!(v4.server_name.as_deref(), Some(&b"a.exa"[..]));
        let v6 = told(&[head(0x21, 36), vec![9; 36]].concat()).unwrap();
        assert_eq!(v6.outside, peer(Host::from_v6([9; 16]), 0x0909));
        for bytes in
            [&b"PROXY UNKNOWN\r\n"[..], b"PROXY TCP4 192.0.2.1 10.0.0.1 x 443\r\n", b"GET / HTTP/1.1\r\n"]
        {
            assert_eq!(told(bytes), None);
        }
    }
}
