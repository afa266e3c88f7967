//! What is told of a connection besides its transactions.

use std::cmp::Ordering;

use crate::{FlowInfo, Handshake, Timestamp};

/// Something that is written of a connection as a record of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connection {
    /// A TLS or QUIC handshake.
    Handshake(Handshake),
    /// A WebSocket connection that has ended.
    WebSocket(Box<WebSocketEnd>),
}

/// What went over a WebSocket connection (RFC 6455), told at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSocketEnd {
    /// Its flow; the client is who asked for the upgrade.
    pub flow: FlowInfo,
    /// Hash of the flow's key and start, as in the transaction that opened it.
    pub flow_id: u64,
    /// Number on its flow of the transaction that opened it.
    pub index: u32,
    /// SHA-1 of the Community ID (v1, seed 0).
    pub community_id: [u8; 20],
    /// Where it was opened: method and path with placeholders, as in the transaction. Empty where no request was seen.
    pub endpoint: Box<[u8]>,
    /// When the upgrade was answered.
    pub started: Timestamp,
    /// Last byte of either side.
    pub ended: Timestamp,
    /// Packet time at which it was handed on.
    pub emitted: Timestamp,
    /// What the client sent.
    pub client: WebSocketSide,
    /// What the server sent.
    pub server: WebSocketSide,
}

/// What one side of a WebSocket connection sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WebSocketSide {
    /// Messages, whole ones.
    pub messages: u64,
    /// Messages that said to be compressed.
    pub compressed: u64,
    /// Control frames.
    pub control_frames: u64,
    /// Bytes of frames with their heads, without those that the capture missed.
    pub bytes: u64,
    /// The status code of its close frame (§7.4); 1005 where that has none.
    pub close: Option<u16>,
    /// The place in the stream was lost, or broke the framing: nothing after it was counted.
    pub lost: bool,
}

impl Connection {
    /// Packet time at which it was handed on.
    pub fn emitted(&self) -> Timestamp {
        match self {
            Self::Handshake(handshake) => handshake.emitted,
            Self::WebSocket(websocket) => websocket.emitted,
        }
    }

    /// Compares by the total order in which these are joined and written, independent of workers and runs.
    pub fn cmp_order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Handshake(a), Self::Handshake(b)) => a.order().cmp(&b.order()),
            (Self::WebSocket(a), Self::WebSocket(b)) => a.order().cmp(&b.order()),
            (Self::Handshake(_), Self::WebSocket(_)) => {
                self.emitted().cmp(&other.emitted()).then(Ordering::Less)
            }
            (Self::WebSocket(_), Self::Handshake(_)) => {
                self.emitted().cmp(&other.emitted()).then(Ordering::Greater)
            }
        }
    }
}

impl WebSocketEnd {
    fn order(&self) -> impl Ord {
        (self.emitted, self.flow.key, self.flow.opened, self.index)
    }
}
