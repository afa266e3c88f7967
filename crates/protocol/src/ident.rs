//! Names of a flow that are the same on every machine and run.

use offpath_types::{FlowInfo, Peer, Side, Transport};
use sha1::{Digest, Sha1};

/// A flow's two names; made once, when its first transaction starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlowNames {
    /// First 8 bytes of BLAKE3 over key and start.
    pub(crate) flow_id: u64,
    /// Community ID version 1, seed 0, before base64.
    pub(crate) community_id: [u8; 20],
}

impl FlowNames {
    /// Names a flow that reassembly made.
    pub(crate) fn new(flow: &FlowInfo) -> Self {
        Self::of(flow, Transport::of(&flow.key))
    }

    /// Names a flow.
    pub(crate) fn of(flow: &FlowInfo, transport: Transport) -> Self {
        let (low, high) = (flow.key.peer(Side::Low), flow.key.peer(Side::High));
        let mut h = blake3::Hasher::new();
        for peer in [low, high] {
            h.update(peer.host.octets());
            h.update(&peer.port.to_be_bytes());
        }
        h.update(&flow.key.tunnel().0.to_be_bytes());
        h.update(&flow.opened.as_nanos().to_be_bytes());
        match (transport, flow.key.stream()) {
            (Transport::Tcp, _) => {}
            (Transport::Quic, _) => drop(h.update(b"udp")),
            (Transport::Sctp, stream) => drop(h.update(b"sctp").update(&stream.unwrap_or(0).to_be_bytes())),
        }
        let mut id = [0; 8];
        id.copy_from_slice(&h.finalize().as_bytes()[..8]);
        Self { flow_id: u64::from_be_bytes(id), community_id: community_id(low, high, transport) }
    }
}

/// github.com/corelight/community-id-spec: SHA-1 of seed, lower address, higher address, protocol,
/// padding, ports. A key's peers are sorted by address, then port, as the specification asks.
fn community_id(low: Peer, high: Peer, transport: Transport) -> [u8; 20] {
    let protocol = match transport {
        Transport::Tcp => 6,
        Transport::Quic => 17,
        Transport::Sctp => 132,
    };
    let mut h = Sha1::new();
    h.update([0, 0]);
    for host in [low.host, high.host] {
        if host.is_v4() {
            h.update(&host.octets()[12..]);
        } else {
            h.update(host.octets());
        }
    }
    h.update([protocol, 0]);
    h.update(low.port.to_be_bytes());
    h.update(high.port.to_be_bytes());
    h.finalize().into()
}

#[cfg(test)]
mod tests {
    use offpath_types::{FlowKey, Host, Timestamp, TunnelId};

    use super::*;

    #[test]
    fn community_id_is_the_specifications() {
        // From the specification's baseline: 128.232.110.120:34855 > 66.35.250.204:80 over TCP.
        let client = Peer { host: Host::from_v4([128, 232, 110, 120]), port: 34855 };
        let server = Peer { host: Host::from_v4([66, 35, 250, 204]), port: 80 };
        let (key, client_side) = FlowKey::new(client, server, TunnelId(0));
        let flow = FlowInfo {
            key,
            client_side,
            opened: Timestamp::ZERO,
            midstream: false,
            envelope: Default::default(),
        };
        let hex: String = FlowNames::new(&flow).community_id.iter().map(|b| format!("{b:02x}")).collect();
        // base64 "LQU9qZlK+B5F3KDmev6m5PMibrg="
        assert_eq!(hex, "2d053da9994af81e45dca0e67afea6e4f3226eb8");
        let later = FlowInfo { opened: Timestamp::from_nanos(1), ..flow };
        assert_ne!(FlowNames::new(&flow).flow_id, FlowNames::new(&later).flow_id);
    }

    #[test]
    fn streams_of_an_association_share_its_community_id_and_nothing_else() {
        // From the specification's baseline: 192.168.170.8:7 > 192.168.170.56:80 over SCTP.
        let client = Peer { host: Host::from_v4([192, 168, 170, 8]), port: 7 };
        let server = Peer { host: Host::from_v4([192, 168, 170, 56]), port: 80 };
        let (key, client_side) = FlowKey::new(client, server, TunnelId(0));
        let names = [key, key.with_stream(0), key.with_stream(1)].map(|key| {
            let (opened, envelope) = (Timestamp::ZERO, Default::default());
            FlowNames::new(&FlowInfo { key, client_side, opened, midstream: false, envelope })
        });
        let [tcp, first, second] = names;
        let hex: String = first.community_id.iter().map(|b| format!("{b:02x}")).collect();
        // base64 "1:jQgCxbku+pNGw8WPbEc/TS/uTpQ="
        assert_eq!(hex, "8d0802c5b92efa9346c3c58f6c473f4d2fee4e94");
        assert_eq!(first.community_id, second.community_id);
        assert_ne!(tcp.community_id, first.community_id);
        assert!(tcp.flow_id != first.flow_id && first.flow_id != second.flow_id);
    }
}
