//! What a terminator tells of the TLS connection outside of it: by headers, and by the PROXY protocol.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use offpath_types::{FlowInfo, Host, Ja4, Peer, TlsFacts, Transaction};

use super::hello::Fields;
use crate::head::Header;
use crate::stage::Http;

/// How terminators are asked. Headers are believed from trusted proxies only (`ProtocolConfig::proxy_protocol`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutsideConfig {
    /// Take client, port and TLS extensions of PROXY protocol prefaces.
    pub proxy_protocol: bool,
    /// Header with the client's port (`40000`), or address and port (`192.0.2.1:40000`, `[2001:db8::1]:40000`).
    pub client_port_header: Option<String>,
    /// Header with the JA4 that the terminator saw.
    pub ja4_header: Option<String>,
    /// Header with the JA3 hash that the terminator saw, in hexadecimal.
    pub ja3_header: Option<String>,
}

impl OutsideConfig {
    fn reads_headers(&self) -> bool {
        self.client_port_header.is_some() || self.ja4_header.is_some() || self.ja3_header.is_some()
    }
}

impl Http {
    /// Adds to a request, after all else is known of it, what is known of the TLS connection around it: `told` goes for
    /// the whole flow, headers for one request. Costs a comparison where neither is there.
    pub(crate) fn attach_tls(
        &self,
        told: Option<&Arc<TlsFacts>>,
        flow: &FlowInfo,
        headers: &[Header<'_>],
        tx: &mut Transaction,
    ) {
        let by_header = if self.config.outside.reads_headers() {
            self.header_facts(flow, headers, tx.client)
        } else {
            None
        };
        match (told, by_header) {
            (None, None) => {}
            (Some(told), None) => tx.attach_tls(Arc::clone(told)),
            (None, Some(facts)) => tx.attach_tls(Arc::new(facts)),
            (Some(told), Some(mut facts)) => {
                facts.fill(told);
                tx.attach_tls(Arc::new(facts));
            }
        }
    }

    #[cold]
    fn header_facts(&self, flow: &FlowInfo, headers: &[Header<'_>], client: Host) -> Option<TlsFacts> {
        let config = &self.config.outside;
        // The sender of the request as it came here: the terminator.
        let from = headers_from(flow);
        if !self.config.proxy_protocol.iter().any(|net| net.contains(&from)) {
            return None;
        }
        // The last field counts: proxies add theirs behind what a client may have sent.
        let last = |name: &Option<String>| {
            let name = name.as_deref()?.as_bytes();
            headers.iter().rev().find(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value)
        };
        let facts = TlsFacts {
            ja4: last(&config.ja4_header).and_then(Ja4::new),
            ja3: last(&config.ja3_header).and_then(hash_of),
            outside: last(&config.client_port_header).and_then(|value| peer_of(value, client)),
            ..TlsFacts::default()
        };
        (facts != TlsFacts::default()).then_some(facts)
    }
}

fn headers_from(flow: &FlowInfo) -> IpAddr {
    flow.client().host.to_ip()
}

/// Reads 32 hexadecimal digits.
fn hash_of(text: &[u8]) -> Option<[u8; 16]> {
    let text = std::str::from_utf8(text).ok().filter(|t| t.len() == 32 && !t.starts_with('+'))?;
    u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)
}

/// Reads a port, which belongs to `client`, or an address and a port.
fn peer_of(text: &[u8], client: Host) -> Option<Peer> {
    let text = std::str::from_utf8(text).ok()?.trim();
    match text.parse::<u16>() {
        Ok(port) => Some(Peer { host: client, port }),
        Err(_) => {
            text.parse::<SocketAddr>().ok().map(|addr| Peer { host: addr.ip().into(), port: addr.port() })
        }
    }
}

/// Reads what follows the addresses of a PROXY protocol preface, version 2: fields of type, length and value.
///
/// Unknown types are passed over; what is malformed ends the reading.
pub(crate) fn proxy_extensions(bytes: &[u8], facts: &mut TlsFacts) {
    const ALPN: u8 = 0x01;
    const AUTHORITY: u8 = 0x02;
    const SSL: u8 = 0x20;
    const SSL_VERSION: u8 = 0x21;

    let mut fields = Fields::new(bytes);
    while let (Some(kind), Some(value)) = (fields.u8(), fields.vec16()) {
        match kind {
            ALPN => facts.next_protocol = Some(value.into()),
            AUTHORITY => facts.server_name = Some(value.into()),
            // What the client presented in one byte, the verdict on its certificate in four, then fields of their own.
            SSL => {
                let mut inner = Fields::new(value);
                if inner.take(5).is_none() {
                    return;
                }
                while let (Some(kind), Some(value)) = (inner.u8(), inner.vec16()) {
                    if kind == SSL_VERSION {
                        facts.version = version_of(value);
                    }
                }
            }
            _ => {}
        }
    }
}

/// OpenSSL's names of versions, which HAProxy sends.
fn version_of(name: &[u8]) -> Option<u16> {
    Some(match name {
        b"SSLv3" => 0x0300,
        b"TLSv1" | b"TLSv1.0" => 0x0301,
        b"TLSv1.1" => 0x0302,
        b"TLSv1.2" => 0x0303,
        b"TLSv1.3" => 0x0304,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use offpath_types::{Envelope, FlowKey, IdentityKey, Timestamp, TunnelId};

    use super::*;
    use crate::ProtocolConfig;

    fn attached(trusted: bool, headers: &[(&str, &str)], told: Option<TlsFacts>) -> Option<Arc<TlsFacts>> {
        let peer = |last, port| Peer { host: Host::from_v4([10, 0, 0, last]), port };
        let (key, client_side) = FlowKey::new(peer(1, 40000), peer(2, 80), TunnelId(0));
        let opened = Timestamp::from_nanos(1);
        let flow = FlowInfo { key, client_side, opened, midstream: false, envelope: Envelope::NONE };
        let outside = OutsideConfig {
            proxy_protocol: true,
            client_port_header: Some("X-Client-Port".into()),
            ja4_header: Some("X-JA4".into()),
            ja3_header: Some("X-JA3".into()),
        };
        let nets = if trusted { vec!["10.0.0.0/8".parse().unwrap()] } else { Vec::new() };
        let config = ProtocolConfig { outside, proxy_protocol: nets, ..ProtocolConfig::default() };
        let http = Http::new(config, IdentityKey::new([1; 32]));
        let headers: Vec<_> =
            headers.iter().map(|(n, v)| Header { name: n.as_bytes(), value: v.as_bytes() }).collect();
        let mut tx = Transaction::new(flow, 1, 0, opened);
        tx.client = Host::from_v4([192, 0, 2, 9]);
        http.attach_tls(told.map(Arc::new).as_ref(), &flow, &headers, &mut tx);
        tx.tls
    }

    #[test]
    fn headers_of_trusted_terminators_name_the_client_and_its_fingerprints() {
        let ja4 = "t13d1516h2_8daaf6152771_e5627efa2ab1";
        let got =
            attached(true, &[("x-ja4", ja4), ("X-JA3", &"ab".repeat(16)), ("x-client-port", "5000")], None);
        let got = got.unwrap();
        assert_eq!((got.ja4.unwrap().to_string().as_str(), got.ja3), (ja4, Some([0xab; 16])));
        assert_eq!(got.outside, Some(Peer { host: Host::from_v4([192, 0, 2, 9]), port: 5000 }));
        assert_eq!(attached(false, &[("X-JA4", ja4)], None), None, "anybody could have sent it");
        let twice = attached(true, &[("X-Client-Port", "1"), ("X-Client-Port", "2")], None).unwrap();
        assert_eq!(twice.outside.map(|p| p.port), Some(2), "the terminator's is behind the client's");
        for (value, want) in [
            ("192.0.2.7:81", Some("192.0.2.7:81")),
            ("[2001:db8::1]:81", Some("[2001:db8::1]:81")),
            ("70000", None),
            ("192.0.2.7", None),
            ("", None),
            ("x", None),
        ] {
            let got = attached(true, &[("X-Client-Port", value)], None).and_then(|f| f.outside);
            let want = want.map(|w| w.parse::<SocketAddr>().unwrap());
            assert_eq!(got.map(|p| (p.host.to_ip(), p.port)), want.map(|w| (w.ip(), w.port())), "{value}");
        }
        for bad in ["", "ab", &"+".repeat(32), &"zz".repeat(16)] {
            assert_eq!(attached(true, &[("X-JA3", bad)], None), None, "{bad}");
        }
    }

    #[test]
    fn what_the_flow_told_goes_for_each_request_and_headers_come_first() {
        let told = TlsFacts { version: Some(0x304), ja3: Some([1; 16]), ..TlsFacts::default() };
        assert_eq!(attached(true, &[], Some(told.clone())).as_deref(), Some(&told));
        let got = attached(true, &[("X-JA3", &"02".repeat(16))], Some(told)).unwrap();
        assert_eq!((got.version, got.ja3), (Some(0x304), Some([2; 16])));
    }

    #[test]
    fn extensions_of_a_preface_are_read_as_far_as_they_are_whole() {
        let field = |kind: u8, value: &[u8]| [&[kind, 0, value.len() as u8][..], value].concat();
        let ssl = [&[1, 0, 0, 0, 0][..], &field(0x21, b"TLSv1.3"), &field(0x23, b"any")].concat();
        let all =
            [field(0x04, &[0; 3]), field(0x01, b"h2"), field(0x02, b"a.example"), field(0x20, &ssl)].concat();
        let want = TlsFacts {
            next_protocol: Some((*b"h2").into()),
            server_name: Some((*b"a.example").into()),
            version: Some(0x304),
            ..TlsFacts::default()
        };
        for cut in 0..=all.len() {
            let mut facts = TlsFacts::default();
            proxy_extensions(&all[..cut], &mut facts);
            assert_eq!(facts == want, cut == all.len(), "cut at {cut}");
        }
        for (name, version) in [(&b"TLSv1.2"[..], Some(0x303)), (b"TLSv1", Some(0x301)), (b"TLSv9", None)] {
            assert_eq!(version_of(name), version);
        }
    }
}
