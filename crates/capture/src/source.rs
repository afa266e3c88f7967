//! What every source of frames offers.

use offpath_types::{Frame, Timestamp};

use crate::{Secrets, SourceError};

/// What a source has to say when asked for the next frame.
#[derive(Clone, Copy, Debug)]
pub enum Polled<'a> {
    /// The next frame, valid until the source is asked again.
    Frame(Frame<'a>),
    /// Live only: the ring is empty just now, so what is batched should go out. The time is the clock's,
    /// less what frames may still wait in the kernel: no frame with an earlier time follows.
    ///
    /// Comes once as soon as the ring has run dry, then after every poll time without a frame.
    Idle(Timestamp),
    /// Nothing will follow.
    End,
}

/// A source of frames that is pulled.
pub trait PacketSource {
    /// Returns the next frame, or what there is instead.
    ///
    /// Frame times never go back within one source: a time that does is clamped to the newest one seen
    /// and counted as `time_backwards_total`. After [`Polled::End`] or an error it stays at the end.
    ///
    /// # Errors
    /// Only what ends the source: a live interface that vanished, more overlapping files than may be open.
    fn next_frame(&mut self) -> Result<Polled<'_>, SourceError>;

    /// Returns what has been counted so far.
    fn counters(&self) -> CaptureCounters;

    /// Returns the decryption secrets that stand before the next frame and were not returned yet. Only captures in
    /// pcapng have any.
    ///
    /// # Errors
    /// As [`PacketSource::next_frame`], which need not be asked again then.
    #[inline]
    fn fresh_secrets(&mut self) -> Result<&[Secrets], SourceError> {
        Ok(&[])
    }

    /// Fetches counts that are kept elsewhere (the kernel's), where there are any; otherwise they may lag.
    fn refresh(&mut self) {}
}

impl<S: PacketSource + ?Sized> PacketSource for &mut S {
    fn next_frame(&mut self) -> Result<Polled<'_>, SourceError> {
        (**self).next_frame()
    }

    fn counters(&self) -> CaptureCounters {
        (**self).counters()
    }

    fn fresh_secrets(&mut self) -> Result<&[Secrets], SourceError> {
        (**self).fresh_secrets()
    }

    fn refresh(&mut self) {
        (**self).refresh();
    }
}

impl<S: PacketSource + ?Sized> PacketSource for Box<S> {
    fn next_frame(&mut self) -> Result<Polled<'_>, SourceError> {
        (**self).next_frame()
    }

    fn counters(&self) -> CaptureCounters {
        (**self).counters()
    }

    fn fresh_secrets(&mut self) -> Result<&[Secrets], SourceError> {
        (**self).fresh_secrets()
    }

    fn refresh(&mut self) {
        (**self).refresh();
    }
}

offpath_types::counters! {
    /// What a source counted.
    ///
    /// Files, at [`Polled::End`]: `stream_bytes_total == bytes_total + overhead_bytes_total +
    /// damaged_bytes_total`. Faults: `frames_total == frames of the inner source - fault_dropped_total +
    /// fault_duplicated_total`. Live, once the ring is empty and the counts are fresh: `kernel_received ==
    /// frames_total + frames_before_group_total + kernel_dropped`; on `lo` the kernel counts each frame
    /// twice, going out and coming in, and libpcap hands out one of them.
    pub struct CaptureCounters {
        /// Frames handed out; of several files also the one that each open file stands on.
        frames_total,
        /// Captured bytes in them.
        bytes_total,
        /// Frames that a snap length cut (fewer bytes captured than were on the wire).
        frames_snapped_total,
        /// Frames whose time was before the one of the frame before them, and was clamped.
        time_backwards_total,
        /// Frames that passed the filter in the kernel, dropped ones included; in pcapng files, what interface
        /// statistics say.
        kernel_received,
        /// Frames that the kernel dropped since the ring was full; in pcapng files likewise.
        kernel_dropped,
        /// Frames that the interface or its driver dropped; in pcapng files likewise.
        interface_dropped,
        /// Live: frames caught between opening and joining the fanout group, and put aside: other
        /// workers saw the same ones.
        frames_before_group_total,
        /// Damaged places in files, each one a [`FileProblem`](crate::FileProblem) (of which only the
        /// first ones are kept).
        records_damaged_total,
        /// Bytes of capture files, after decompression, that were read.
        stream_bytes_total,
        /// Bytes of file, block and record headers, padding, and blocks that hold no frame.
        overhead_bytes_total,
        /// Bytes that were skipped since they are damaged or follow damage; of a stream that we ended, also those of
        /// records that were not whole or not handed out.
        damaged_bytes_total,
        /// Blocks of pcapng files that hold no frame and mean nothing here (name resolution, unknown).
        blocks_skipped_total,
        /// Bytes of secrets blocks over the cap on what is kept.
        secrets_dropped_bytes_total,
        /// Files that were read.
        files_total,
        /// Files named by the user that are no capture or can't be opened, while others could.
        files_failed_total,
        /// Followed files that grew after they were left for a newer one; what was added is not read.
        files_grown_late_total,
        /// Files in a directory that are no capture, and paths that name a file for the second time.
        files_skipped_total,
        /// Frames that a `FaultySource` dropped.
        fault_dropped_total,
        /// Frames that a `FaultySource` handed out twice.
        fault_duplicated_total,
        /// Frames that a `FaultySource` handed out late.
        fault_reordered_total,
        /// Frames that a `FaultySource` cut.
        fault_truncated_total,
    }
}
