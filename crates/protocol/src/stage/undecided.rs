//! First bytes that are no HTTP/1: another protocol that is known, or none.

use offpath_types::{Anomalies, Chunk, Direction};

use super::{FlowContext, Kind, Leaving, Leftover, Next};
use crate::tls::hello;

/// A flow, or a tunnel, whose first bytes do not tell yet.
pub(super) struct Undecided {
    pub(super) context: FlowContext,
    pub(super) pending: [Anomalies; 2],
    pub(super) rest: Leftover,
    pub(super) leaving: Option<Box<Leaving>>,
    at: [u64; 2],
    first: [Vec<u8>; 2],
}

/// What the first bytes of a direction are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judgement {
    /// Too few to tell.
    More,
    /// Something whose layer is known.
    Is(Protocol),
    /// Nothing that is known.
    Nothing,
}

/// What first bytes can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    /// The SETTINGS that an HTTP/2 server begins with (RFC 9113 §3.4), before the client's preface was seen.
    Http2Server,
    /// A TLS handshake.
    Tls,
}

/// Judges the first `bytes` of a direction. The answer for a prefix is `More` or the answer for every
/// continuation, so cutting changes nothing.
fn judge(bytes: &[u8]) -> Judgement {
    match hello::begins(bytes) {
        None if !bytes.is_empty() => return Judgement::More,
        Some(true) => return Judgement::Is(Protocol::Tls),
        _ => {}
    }
    // At most 64 settings in one frame, which is ten times what anybody sends.
    let settings = |i: usize, b: u8| match i {
        0 | 4..=8 => b == 0,
        1 => b <= 1,
        2 => u16::from_be_bytes([bytes[1], b]).is_multiple_of(6),
        3 => b == 4,
        _ => true,
    };
    if !bytes.iter().enumerate().all(|(i, b)| settings(i, *b)) {
        return Judgement::Nothing;
    }
    if bytes.len() < 9 { Judgement::More } else { Judgement::Is(Protocol::Http2Server) }
}

/// First bytes of a direction that [`judge`] may need.
const FIRST_BYTES: usize = 16;

impl Undecided {
    pub(super) fn new(context: FlowContext, pending: [Anomalies; 2], at: [u64; 2]) -> Self {
        Self { context, pending, rest: Leftover::default(), leaving: None, at, first: Default::default() }
    }

    /// Takes the next chunk; leaves as soon as one direction tells.
    pub(super) fn chunk(&mut self, dir: Direction, chunk: Chunk<'_>) {
        self.rest.push(dir, chunk);
        let judgement = match chunk {
            Chunk::Data { bytes, .. } => {
                let first = &mut self.first[dir.index()];
                let room = FIRST_BYTES - first.len().min(FIRST_BYTES);
                first.extend_from_slice(&bytes[..bytes.len().min(room)]);
                judge(first)
            }
            Chunk::Gap { .. } => Judgement::Nothing,
            Chunk::End { .. } => Judgement::More,
        };
        let next = match judgement {
            Judgement::More => return,
            Judgement::Is(Protocol::Tls) => Next::Tls,
            Judgement::Is(Protocol::Http2Server) => Next::Http2 { requests: dir.flip(), anywhere: None },
            Judgement::Nothing => Next::Nothing,
        };
        self.leaving = Some(Box::new(Leaving {
            next,
            rest: std::mem::take(&mut self.rest),
            kind: Kind::Unknown,
            pending: self.pending,
            at: self.at,
            context: std::mem::take(&mut self.context),
        }));
    }
}
