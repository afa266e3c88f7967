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
    /// Names a TCP flow.
    pub(crate) fn new(flow: &FlowInfo) -> Self {
        Self::of(flow, Transport::Tcp)
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
        if transport == Transport::Quic {
            h.update(b"udp");
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
}
