//! The chunks of an SCTP packet (RFC 9260 §3.2 and §3.3; RFC 6525 §3.1). A FORWARD TSN (RFC 3758) says nothing until its receiver acknowledges it, so it
//! is none of them.

/// What one DATA chunk says of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) stream: u16,
    /// Number of the message on its stream.
    pub(super) ssn: u16,
    /// The message begins here.
    pub(super) begins: bool,
    /// The message ends here.
    pub(super) ends: bool,
    /// The message has no number.
    pub(super) unordered: bool,
    /// Bytes after the captured ones that a snap length cut off.
    pub(super) cut: u32,
}

/// One chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunk<'a> {
    Data { tsn: u32, place: Place, bytes: &'a [u8] },
    Init { answer: bool, tag: u32, tsn: u32 },
    Sack { cumulative: u32 },
    Shutdown { cumulative: u32 },
    ShutdownAck,
    ShutdownComplete { reflected: bool },
    Abort { reflected: bool },
    Reconfig,
    Other,
}

/// The rest of the packet cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Yields the chunks of a packet; after [`Malformed`] nothing more.
pub(super) struct Chunks<'a> {
    rest: &'a [u8],
    /// Bytes after `rest` that were not captured.
    cut: u32,
}

impl<'a> Chunks<'a> {
    pub(super) fn new(payload: &'a [u8], payload_len: u32) -> Self {
        Self { rest: payload, cut: payload_len.saturating_sub(payload.len() as u32) }
    }

    fn read(&mut self) -> Option<Chunk<'a>> {
        let (&[kind, flags, high, low], _) = self.rest.split_first_chunk()?;
        let len = usize::from(u16::from_be_bytes([high, low]));
        let captured = len.min(self.rest.len());
        let cut = len - captured;
        if len < 4 || cut > self.cut as usize {
            return None;
        }
        let (chunk, rest) = self.rest.split_at(captured);
        // The last one's padding may be missing.
        self.rest = rest.get(len.next_multiple_of(4) - len..).unwrap_or_default();
        let body = &chunk[4..];
        let word = |at: usize| body.get(at..)?.first_chunk().map(|b| u32::from_be_bytes(*b));
        let half = |at: usize| body.get(at..)?.first_chunk().map(|b| u16::from_be_bytes(*b));
        let reflected = flags & 1 == 1;
        Some(match kind {
            0 => {
                let bytes = body.get(12..)?;
                if bytes.is_empty() {
                    // No user data: who gets that, aborts. Where it was cut off there is nothing to deliver either.
                    return None;
                }
                let place = Place {
                    stream: half(4)?,
                    ssn: half(6)?,
                    begins: flags & 2 != 0,
                    ends: flags & 1 != 0,
                    unordered: flags & 4 != 0,
                    cut: cut as u32,
                };
                Chunk::Data { tsn: word(0)?, place, bytes }
            }
            1 | 2 => Chunk::Init { answer: kind == 2, tag: word(0)?, tsn: word(12)? },
            3 => Chunk::Sack { cumulative: word(0)? },
            6 => Chunk::Abort { reflected },
            7 => Chunk::Shutdown { cumulative: word(0)? },
            8 => Chunk::ShutdownAck,
            14 => Chunk::ShutdownComplete { reflected },
            130 => Chunk::Reconfig,
            _ => Chunk::Other,
        })
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Result<Chunk<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let chunk = self.read();
        if chunk.is_none() {
            self.rest = &[];
        }
        Some(chunk.ok_or(Malformed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(flags: u8, len: u16, bytes: &[u8]) -> Vec<u8> {
        let head = [&[0, flags][..], &len.to_be_bytes(), &[0, 0, 0, 7, 0, 3, 0, 9, 0, 0, 0, 0]].concat();
        [&head, bytes].concat()
    }

    #[test]
    fn chunks_are_read_as_the_rfc_draws_them() {
        let place = Place { stream: 3, ssn: 9, begins: true, ends: true, unordered: false, cut: 0 };
        let hello = Chunk::Data { tsn: 7, place, bytes: b"hello" };
        let (hello_bytes, padded) = (data(3, 21, b"hello"), data(3, 21, b"hello\0\0\0"));
        let sack = [3, 0, 0, 16, 0, 0, 0, 5, 0, 0, 0, 9, 0, 0, 0, 0];
        let init = [&[1, 0, 0, 20][..], &[0, 0, 0, 1], &[0; 4], &[0, 1, 0, 1], &[0, 0, 0, 4]].concat();
        let middle =
            Chunk::Data { tsn: 7, place: Place { begins: false, ends: false, ..place }, bytes: b"h" };
        let urgent = Chunk::Data { tsn: 7, place: Place { unordered: true, ..place }, bytes: b"h" };
        type Row<'a> = (&'a str, Vec<u8>, Vec<Result<Chunk<'a>, Malformed>>);
        let rows: Vec<Row<'_>> = vec![
            ("nothing", vec![], vec![]),
            ("data without its padding", hello_bytes.clone(), vec![Ok(hello)]),
            ("data with it", padded.clone(), vec![Ok(hello)]),
            ("two", [padded.clone(), hello_bytes.clone()].concat(), vec![Ok(hello), Ok(hello)]),
            ("a middle", data(0, 17, b"h"), vec![Ok(middle)]),
            ("unordered", data(7, 17, b"h"), vec![Ok(urgent)]),
            ("no user data", data(3, 16, b""), vec![Err(Malformed)]),
            ("data with half a header", data(3, 15, b"")[..15].to_vec(), vec![Err(Malformed)]),
            ("length 0", vec![9, 0, 0, 0, 9, 0, 0, 4], vec![Err(Malformed)]),
            ("length 1", vec![9, 0, 0, 1], vec![Err(Malformed)]),
            ("beyond the packet", data(3, 22, b"hello"), vec![Err(Malformed)]),
            ("half a header", [&padded[..], &[0, 0]].concat(), vec![Ok(hello), Err(Malformed)]),
            ("sack", sack.to_vec(), vec![Ok(Chunk::Sack { cumulative: 5 })]),
            ("half a sack", vec![3, 0, 0, 6, 0, 0], vec![Err(Malformed)]),
            ("init", init.clone(), vec![Ok(Chunk::Init { answer: false, tag: 1, tsn: 4 })]),
            ("shutdown", vec![7, 0, 0, 8, 0, 0, 0, 2], vec![Ok(Chunk::Shutdown { cumulative: 2 })]),
            ("abort", vec![6, 1, 0, 4], vec![Ok(Chunk::Abort { reflected: true })]),
            ("unknown", vec![77, 1, 0, 5, 9, 0, 0, 0], vec![Ok(Chunk::Other)]),
        ];
        for (name, bytes, want) in rows {
            let got: Vec<_> = Chunks::new(&bytes, bytes.len() as u32).collect();
            assert_eq!(got, want, "{name}");
        }
    }

    #[test]
    fn a_snap_length_cuts_the_last_chunk() {
        let bytes = data(3, 26, b"hello");
        let cut = |wire| Chunks::new(&bytes, wire).collect::<Vec<_>>();
        let place = Place { stream: 3, ssn: 9, begins: true, ends: true, unordered: false, cut: 5 };
        assert_eq!(cut(26), [Ok(Chunk::Data { tsn: 7, place, bytes: b"hello" })]);
        assert_eq!(cut(25), [Err(Malformed)], "the packet itself is too short");
        for len in 0..bytes.len() {
            let _ = Chunks::new(&bytes[..len], 26).count();
        }
    }
}
