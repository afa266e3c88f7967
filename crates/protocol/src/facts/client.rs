//! Who the client is, behind proxies that are trusted.
//!
//! Forwarding headers are read from the right, because each proxy appends the address it was called from:
//! the right-most address that is no trusted proxy is the last one that nobody could forge. Everything
//! left of it is the client's own claim.
//! Read RFC 7239 §4 to §6 before changing this file.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use offpath_types::Host;

/// Most hops that are followed; a longer chain of trusted proxies ends the walk as invalid.
const HOPS_MAX: usize = 32;
/// Longest text of an address: IPv6 with brackets, zone and port.
const ADDRESS_BYTES_MAX: usize = 80;

/// The trusted networks.
// Invariant: sorted by start, disjoint, start <= end; IPv4 in its mapped form.
pub(super) struct TrustedNets(Vec<(u128, u128)>);

impl TrustedNets {
    pub(super) fn new(nets: &[IpNet]) -> Self {
        let number = |ip: IpAddr| u128::from_be_bytes(*Host::from(ip).octets());
        let mut ranges: Vec<_> = nets.iter().map(|n| (number(n.network()), number(n.broadcast()))).collect();
        ranges.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
        for (start, end) in ranges {
            match merged.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => merged.push((start, end)),
            }
        }
        Self(merged)
    }

    /// Tells whether `host` is in one of them. Cost: a binary search.
    pub(super) fn contains(&self, host: Host) -> bool {
        let number = u128::from_be_bytes(*host.octets());
        let after = self.0.partition_point(|r| r.0 <= number);
        after > 0 && self.0[after - 1].1 >= number
    }
}

/// How far a walk came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Walk {
    /// The client, as far as it can be told.
    pub(super) client: Host,
    /// Something on the way was no address.
    pub(super) invalid: bool,
}

/// A walk under way.
struct Hops<'t> {
    trusted: &'t TrustedNets,
    client: Host,
    count: usize,
}

impl<'t> Hops<'t> {
    fn from(trusted: &'t TrustedNets, client: Host) -> Self {
        Self { trusted, client, count: 0 }
    }

    /// Goes on to the hop that `element` names; returns the walk where it ends. Empty elements are passed over.
    fn take(&mut self, element: &[u8], read: impl FnOnce(&[u8]) -> Node) -> Option<Walk> {
        let element = element.trim_ascii();
        if element.is_empty() {
            return None;
        }
        self.count += 1;
        match read(element) {
            Node::Address(host) if self.count <= HOPS_MAX => {
                self.client = host;
                (!self.trusted.contains(host)).then(|| self.end(false))
            }
            Node::Hidden => Some(self.end(false)),
            Node::Address(_) | Node::Invalid => Some(self.end(true)),
        }
    }

    fn end(&self, invalid: bool) -> Walk {
        Walk { client: self.client, invalid }
    }
}

/// Walks X-Forwarded-For lines, last line first, from the trusted peer `from`.
///
/// Empty elements are passed over. Linear in the bytes walked, which end at the first untrusted address.
pub(super) fn walk_x_forwarded_for<'a>(
    trusted: &TrustedNets,
    from: Host,
    lines_reversed: impl Iterator<Item = &'a [u8]>,
) -> Walk {
    let mut hops = Hops::from(trusted, from);
    for element in lines_reversed.flat_map(|line| line.rsplit(|c| *c == b',')) {
        if let Some(walk) = hops.take(element, Node::of_address) {
            return walk;
        }
    }
    hops.end(false)
}

/// Walks Forwarded lines (RFC 7239), last line first, from the trusted peer `from`.
///
/// An element that hides its address (`unknown`, `_name`, no `for`) ends the walk at the hop before it.
pub(super) fn walk_forwarded<'a>(
    trusted: &TrustedNets,
    from: Host,
    lines_reversed: impl Iterator<Item = &'a [u8]>,
) -> Walk {
    let mut hops = Hops::from(trusted, from);
    for line in lines_reversed {
        let (ring, count, closed) = last_elements(line);
        if !closed {
            return hops.end(true);
        }
        for back in 1..=count {
            if back > HOPS_MAX {
                return hops.end(true);
            }
            let (start, end) = ring[(count - back) % HOPS_MAX];
            if let Some(walk) = hops.take(&line[start..end], forwarded_for) {
                return walk;
            }
        }
    }
    hops.end(false)
}

/// Joins what X-Forwarded-For and Forwarded of one head say, from the trusted peer `from`.
///
/// A proxy writes one of them and may pass on what the client sent in the other. Which one it writes does not show. Where
/// they name different clients, X-Forwarded-For is taken, which nearly every proxy writes, and the doubt is marked: to
/// believe neither would let any client hide as the proxy by sending the other one. `client.header` settles it. One that
/// names nobody (`Forwarded: proto=https`) denies nothing.
pub(super) fn agreed(from: Host, x_forwarded_for: Walk, forwarded: Walk) -> Walk {
    if x_forwarded_for == forwarded {
        return forwarded;
    }
    let silent = Walk { client: from, invalid: false };
    if forwarded == silent {
        x_forwarded_for
    } else if x_forwarded_for == silent {
        forwarded
    } else {
        Walk { client: x_forwarded_for.client, invalid: true }
    }
}

/// Parses an address as proxies write it: with or without port, brackets, quotes or zone.
pub(super) fn parse_address(text: &[u8]) -> Option<Host> {
    let text = text.trim_ascii();
    let text = text.strip_prefix(b"\"").and_then(|t| t.strip_suffix(b"\"")).unwrap_or(text);
    if text.is_empty() || text.len() > ADDRESS_BYTES_MAX {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    if let Some(rest) = text.strip_prefix('[') {
        let (inside, after) = rest.split_once(']')?;
        let port_ok = after.is_empty() || after.strip_prefix(':').is_some_and(is_port);
        return port_ok.then(|| parse_v6(inside)).flatten();
    }
    match text.bytes().filter(|c| *c == b':').count() {
        0 => text.parse().ok().map(|v4: std::net::Ipv4Addr| Host::from_v4(v4.octets())),
        1 => {
            let (address, port) = text.split_once(':')?;
            let v4: std::net::Ipv4Addr = address.parse().ok()?;
            is_port(port).then(|| Host::from_v4(v4.octets()))
        }
        _ => parse_v6(text),
    }
}

fn parse_v6(text: &str) -> Option<Host> {
    let address = text.split_once('%').map_or(text, |(address, _zone)| address);
    address.parse().ok().map(|v6: Ipv6Addr| Host::from_v6(v6.octets()))
}

/// RFC 7239 §6: digits, or an obfuscated `_name`.
fn is_port(text: &str) -> bool {
    match text.strip_prefix('_') {
        Some(name) => !name.is_empty(),
        None => !text.is_empty() && text.len() <= 5 && text.bytes().all(|c| c.is_ascii_digit()),
    }
}

/// What an element says of the hop before.
enum Node {
    Address(Host),
    Hidden,
    Invalid,
}

impl Node {
    fn of_address(text: &[u8]) -> Self {
        parse_address(text).map_or(Self::Invalid, Self::Address)
    }
}

fn forwarded_for(element: &[u8]) -> Node {
    let mut rest = element;
    while !rest.is_empty() {
        let end = unquoted(rest, b';').unwrap_or(rest.len());
        let pair = rest[..end].trim_ascii();
        rest = rest.get(end + 1..).unwrap_or_default();
        let Some(equals) = pair.iter().position(|c| *c == b'=') else {
            if pair.is_empty() {
                continue;
            }
            return Node::Invalid;
        };
        if !pair[..equals].trim_ascii().eq_ignore_ascii_case(b"for") {
            continue;
        }
        let mut buf = [0; ADDRESS_BYTES_MAX];
        let Some(value) = unquote(pair[equals + 1..].trim_ascii(), &mut buf) else { return Node::Invalid };
        if value.starts_with(b"_") || value.eq_ignore_ascii_case(b"unknown") || value.starts_with(b"unknown:")
        {
            return Node::Hidden;
        }
        return Node::of_address(value);
    }
    Node::Hidden
}

/// Takes quotes and backslashes off a quoted string; a token comes back as it is.
fn unquote<'a>(value: &'a [u8], buf: &'a mut [u8; ADDRESS_BYTES_MAX]) -> Option<&'a [u8]> {
    let Some(inside) = value.strip_prefix(b"\"") else { return Some(value) };
    let inside = inside.strip_suffix(b"\"")?;
    let mut len = 0;
    let mut escaped = false;
    for &c in inside {
        if c == b'\\' && !escaped {
            escaped = true;
            continue;
        }
        escaped = false;
        *buf.get_mut(len)? = c;
        len += 1;
    }
    Some(&buf[..len])
}

/// Returns the first place of `wanted` outside quotes.
fn unquoted(text: &[u8], wanted: u8) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, &c) in text.iter().enumerate() {
        match c {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if c == wanted && !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

/// Cuts `line` at commas outside quotes: a ring of the last elements, how many there were, and whether all
/// quotes were closed. Quotes can only be told from the left, so this goes that way once.
fn last_elements(line: &[u8]) -> ([(usize, usize); HOPS_MAX], usize, bool) {
    let mut ring = [(0, 0); HOPS_MAX];
    let (mut count, mut start) = (0, 0);
    let (mut quoted, mut escaped) = (false, false);
    for (at, &c) in line.iter().enumerate() {
        match c {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                ring[count % HOPS_MAX] = (start, at);
                count += 1;
                start = at + 1;
            }
            _ => {}
        }
    }
    ring[count % HOPS_MAX] = (start, line.len());
    (ring, count + 1, !quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Host {
        Host::from(text.parse::<IpAddr>().unwrap())
    }

    fn nets() -> TrustedNets {
        let nets: Vec<IpNet> = ["10.0.0.0/8", "10.1.0.0/16", "192.0.2.1/32", "2001:db8:ffff::/48"]
            .iter()
            .map(|n| n.parse().unwrap())
            .collect();
        TrustedNets::new(&nets)
    }

    #[test]
    fn trusted_networks() {
        for (address, want) in [
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("9.255.255.255", false),
            ("192.0.2.1", true),
            ("192.0.2.2", false),
            ("2001:db8:ffff:1::1", true),
            ("2001:db8:fffe::1", false),
            ("::ffff:10.0.0.1", true),
            ("::", false),
        ] {
            assert_eq!(nets().contains(host(address)), want, "{address}");
        }
        assert!(!TrustedNets::new(&[]).contains(host("10.0.0.1")));
    }

    #[test]
    fn addresses() {
        for (text, want) in [
            ("192.0.2.7", Some("192.0.2.7")),
            ("192.0.2.7:443", Some("192.0.2.7")),
            (" 192.0.2.7 ", Some("192.0.2.7")),
            ("\"192.0.2.7\"", Some("192.0.2.7")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("[2001:db8::1]:8080", Some("2001:db8::1")),
            ("\"[2001:db8::1]:_x\"", Some("2001:db8::1")),
            ("fe80::1%eth0", Some("fe80::1")),
            ("::ffff:192.0.2.7", Some("192.0.2.7")),
            ("192.0.2.7:", None),
            ("192.0.2.7:x", None),
            ("192.0.2", None),
            ("192.0.2.256", None),
            ("010.0.0.1", None),
            ("[2001:db8::1", None),
            ("[2001:db8::1]x", None),
            ("", None),
            ("unknown", None),
            ("localhost", None),
            ("<script>", None),
        ] {
            assert_eq!(parse_address(text.as_bytes()), want.map(host), "{text}");
        }
        assert_eq!(parse_address(&[b':'; 1000]), None);
        assert_eq!(parse_address(b"\xff\xfe"), None);
    }

    #[test]
    fn walks_of_x_forwarded_for() {
        for (name, lines, want, invalid) in [
            ("one", &["198.51.100.9"] as &[&str], "198.51.100.9", false),
            ("left-most is a claim", &["1.1.1.1, 198.51.100.9"], "198.51.100.9", false),
            ("over trusted hops", &["1.1.1.1, 198.51.100.9, 10.2.3.4"], "198.51.100.9", false),
            ("lines join in order", &["1.1.1.1, 198.51.100.9", "10.2.3.4, 192.0.2.1"], "198.51.100.9", false),
            ("all trusted", &["10.5.5.5, 10.2.3.4"], "10.5.5.5", false),
            ("empty elements", &[",, 198.51.100.9 , ,"], "198.51.100.9", false),
            ("garbage", &["1.1.1.1, <x>, 10.2.3.4"], "10.2.3.4", true),
            ("garbage beyond the client", &["<x>, 198.51.100.9"], "198.51.100.9", false),
            ("ports and IPv6", &["[2001:db8::7]:99, 10.2.3.4:1"], "2001:db8::7", false),
            ("empty", &[""], "10.0.0.1", false),
        ] {
            let walk =
                walk_x_forwarded_for(&nets(), host("10.0.0.1"), lines.iter().rev().map(|l| l.as_bytes()));
            assert_eq!(walk, Walk { client: host(want), invalid }, "{name}");
        }
    }

    #[test]
    fn walks_of_forwarded() {
        for (name, lines, want, invalid) in [
            ("one", &["for=198.51.100.9"] as &[&str], "198.51.100.9", false),
            ("quoted IPv6", &["For=\"[2001:db8::7]:4711\";proto=http"], "2001:db8::7", false),
            ("escaped", &["for=\"198\\.51.100.9\""], "198.51.100.9", false),
            (
                "right-most untrusted",
                &["for=1.1.1.1, for=198.51.100.9;by=10.2.3.4, for=10.2.3.4"],
                "198.51.100.9",
                false,
            ),
            ("hidden stops", &["for=198.51.100.9, for=_hidden, for=10.2.3.4"], "10.2.3.4", false),
            ("unknown stops", &["for=198.51.100.9, for=unknown"], "10.0.0.1", false),
            ("no for", &["proto=https"], "10.0.0.1", false),
            ("comma in quotes", &["for=198.51.100.9;host=\"a,b;for=1.2.3.4\""], "198.51.100.9", false),
            ("garbage", &["for=198.51.100.9, gibberish, for=10.2.3.4"], "10.2.3.4", true),
            ("open quote", &["for=198.51.100.9, for=\"10.2.3.4"], "10.0.0.1", true),
            ("lines", &["for=198.51.100.9", "for=10.2.3.4"], "198.51.100.9", false),
        ] {
            let walk = walk_forwarded(&nets(), host("10.0.0.1"), lines.iter().rev().map(|l| l.as_bytes()));
            assert_eq!(walk, Walk { client: host(want), invalid }, "{name}");
        }
    }

    #[test]
    fn chains_are_capped() {
        let trusted = "10.2.3.4,".repeat(10_000);
        let walk = walk_x_forwarded_for(&nets(), host("10.0.0.1"), [trusted.as_bytes()].into_iter());
        assert_eq!(walk, Walk { client: host("10.2.3.4"), invalid: true });
        let trusted = "for=10.2.3.4,".repeat(10_000);
        let walk = walk_forwarded(&nets(), host("10.0.0.1"), [trusted.as_bytes()].into_iter());
        assert_eq!(walk, Walk { client: host("10.2.3.4"), invalid: true });
        let lines = vec![b"10.2.3.4".as_slice(); 10_000];
        let walk = walk_x_forwarded_for(&nets(), host("10.0.0.1"), lines.into_iter().rev());
        assert!(walk.invalid);
    }
}
