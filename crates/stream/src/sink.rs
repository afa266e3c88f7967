//! What reassembly calls.

use offpath_types::{Chunk, Direction, FlowInfo, Timestamp};

/// Takes the ordered bytes of every flow; implemented by the protocol stage.
///
/// Per flow the calls are: `open`, then any number of `chunk` (and `wants` after each data chunk), among
/// them exactly one `Chunk::End` per direction and nothing of that direction after it, then `close`.
/// Flows that never carried a byte (nor lost one) cause no call at all.
///
/// A sink must not panic: the table is no more use once a panic has passed through it. What may go wrong in a
/// parser is contained by the sink, which alone knows what to do with the flow.
pub trait StreamSink {
    /// What the sink keeps per flow. Lives inside the flow's table entry: box it where it is large.
    type Flow;

    /// Makes the state of a flow, at its first data or gap (not at its SYN: a SYN flood costs nothing here).
    fn open(&mut self, flow: &FlowInfo) -> Self::Flow;

    /// Takes the next piece of one direction.
    ///
    /// `now` is the packet time at which the piece became deliverable; the chunk's own `seen` is when its
    /// segment was captured.
    fn chunk(
        &mut self,
        state: &mut Self::Flow,
        flow: &FlowInfo,
        direction: Direction,
        chunk: Chunk<'_>,
        now: Timestamp,
    );

    /// Tells whether the sink still has use for this direction's bytes.
    ///
    /// Asked after each data chunk of that direction. Once false it is not asked again: the direction's
    /// further bytes are counted as bypassed and not held, its gaps are not reported, its end still is.
    fn wants(&self, state: &Self::Flow, direction: Direction) -> bool;

    /// Notes that a second copy of held bytes differed from the first, which was kept.
    ///
    /// Never called for bytes already delivered: those are not kept, so they cannot be compared.
    fn overlap_conflict(&mut self, _state: &mut Self::Flow, _flow: &FlowInfo, _direction: Direction) {}

    /// Takes the state back: exactly once per opened flow, after the end of both directions.
    fn close(&mut self, state: Self::Flow, flow: &FlowInfo, now: Timestamp);
}
