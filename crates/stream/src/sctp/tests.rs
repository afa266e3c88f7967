use std::collections::BTreeMap;

use offpath_types::{Chunk as Piece, Direction, Envelope, FlowInfo, Host, Peer, TunnelId};

use super::*;

const CLIENT_TAG: u32 = 0xc0c0_c0c0;
const SERVER_TAG: u32 = 0x5e5e_5e5e;

/// What flows were given, as text: `<stream>><bytes>`, gaps as `[n]`, ends as `.`; replies with `<`.
#[derive(Default)]
struct Told(BTreeMap<(u16, usize, Timestamp, bool), String>);

impl StreamSink for Told {
    type Flow = ();

    fn open(&mut self, flow: &FlowInfo) {
        assert!(flow.key.stream().is_some(), "a flow is a stream");
    }

    fn chunk(&mut self, (): &mut (), flow: &FlowInfo, dir: Direction, piece: Piece<'_>, _: Timestamp) {
        let key = (flow.key.stream().unwrap(), dir.index(), flow.opened, flow.midstream);
        let text = self.0.entry(key).or_default();
        match piece {
            Piece::Data { bytes, .. } => text.push_str(std::str::from_utf8(bytes).unwrap()),
            Piece::Gap { len, .. } => text.push_str(&format!("[{len}]")),
            Piece::End { reason, .. } => text.push_str(&format!("|{reason:?}")),
        }
    }

    fn wants(&self, (): &(), _: Direction) -> bool {
        true
    }

    fn close(&mut self, (): (), _: &FlowInfo, _: Timestamp) {}
}

impl Told {
    /// Returns what was told, a line per flow and direction.
    fn lines(&self) -> Vec<String> {
        let line = |(&(stream, dir, _, midstream), text): (&(u16, usize, Timestamp, bool), &String)| {
            format!("{stream}{}{}{text}", if midstream { "~" } else { "" }, [">", "<"][dir])
        };
        self.0.iter().map(line).collect()
    }
}

fn limits() -> StreamLimits {
    StreamLimits { sctp_associations_max: 8, sctp_streams_max: 4, ..StreamLimits::default() }
}

struct Rig {
    sctp: SctpTable,
    table: FlowTable<Told>,
    told: Told,
    now: Timestamp,
    port: u16,
    frames: u64,
    bytes: u64,
}

impl Rig {
    fn new(limits: StreamLimits) -> Self {
        Self {
            sctp: SctpTable::new(limits.clone()),
            table: FlowTable::new(limits, 7),
            told: Told::default(),
            now: Timestamp::from_parts(1_000, 0),
            port: 40_000,
            frames: 0,
            bytes: 0,
        }
    }

    /// One millisecond later, a packet comes.
    fn packet(&mut self, from_client: bool, tag: u32, chunks: &[Vec<u8>]) -> &mut Self {
        self.now = self.now.plus_nanos(1_000_000);
        let peer = |last, port| Peer { host: Host::from_v4([192, 0, 2, last]), port };
        let (client, server) = (peer(9, self.port), peer(1, 80));
        let (src, dst) = if from_client { (client, server) } else { (server, client) };
        let (key, side) = FlowKey::new(src, dst, TunnelId(0));
        let payload = chunks.concat();
        let payload_len = payload.len() as u32;
        let (time, envelope) = (self.now, Envelope::NONE);
        let packet = SctpPacket { time, key, side, tag, payload: &payload, payload_len, envelope };
        self.sctp.packet(key.hash64(7), &packet, &mut self.table, &mut self.told);
        self.frames += 1;
        self.bytes += payload.len() as u64;
        self.check();
        self
    }

    fn client(&mut self, chunks: &[Vec<u8>]) -> &mut Self {
        self.packet(true, SERVER_TAG, chunks)
    }

    fn server(&mut self, chunks: &[Vec<u8>]) -> &mut Self {
        self.packet(false, CLIENT_TAG, chunks)
    }

    fn shake(&mut self) -> &mut Self {
        self.packet(true, 0, &[init(1, CLIENT_TAG, 100)])
            .packet(false, CLIENT_TAG, &[init(2, SERVER_TAG, 500)])
            .client(&[chunk(10, 0, b"cookie")])
            .server(&[chunk(11, 0, b"")])
    }

    fn wait(&mut self, nanos: u64) -> &mut Self {
        self.now = self.now.plus_nanos(nanos);
        self.sctp.advance(self.now, &mut self.table, &mut self.told);
        self.table.advance(self.now, &mut self.told);
        self.check();
        self
    }

    fn check(&self) {
        let (x, s) = (self.sctp.counters(), self.table.counters());
        assert!(x.is_balanced(), "{x:?}");
        assert!(s.is_balanced(self.table.held_bytes(), self.table.flows_open()), "{s:?}");
        assert_eq!((x.packets_total, x.packet_bytes_total), (self.frames, self.bytes));
        assert_eq!((s.segments_total, s.payload_bytes_total), (x.segments_total, x.bytes_passed_total));
        assert_eq!(s.segments_dropped_out_of_window_total + s.segments_held_total, 0, "always in order");
        let limits = &self.sctp.limits;
        assert!(self.sctp.held_cost <= limits.sctp_held_bytes_max);
        assert!(x.associations_held <= u64::from(limits.sctp_associations_max));
    }

    fn finish(&mut self) -> Vec<String> {
        self.sctp.finish(&mut self.table, &mut self.told);
        self.table.finish(&mut self.told);
        self.check();
        let x = self.sctp.counters();
        assert_eq!((x.chunks_held, x.bytes_held, x.associations_held, self.sctp.held_cost), (0, 0, 0, 0));
        self.told.lines()
    }

    fn counters(&self) -> SctpCounters {
        *self.sctp.counters()
    }
}

fn chunk(kind: u8, flags: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = [&[kind, flags][..], &(4 + body.len() as u16).to_be_bytes(), body].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn init(kind: u8, tag: u32, tsn: u32) -> Vec<u8> {
    chunk(kind, 0, &[&tag.to_be_bytes()[..], &[0, 1, 0, 0, 0, 16, 0, 16], &tsn.to_be_bytes()].concat())
}

/// Flags: 1 ends, 2 begins, 4 unordered.
fn data(tsn: u32, stream: u16, ssn: u16, flags: u8, bytes: &str) -> Vec<u8> {
    let head = [&tsn.to_be_bytes()[..], &stream.to_be_bytes(), &ssn.to_be_bytes(), &[0; 4]].concat();
    chunk(0, flags, &[&head, bytes.as_bytes()].concat())
}

fn sack(cumulative: u32) -> Vec<u8> {
    chunk(3, 0, &[&cumulative.to_be_bytes()[..], &[0, 1, 0, 0, 0, 0, 0, 0]].concat())
}

fn shutdown(cumulative: u32) -> Vec<u8> {
    chunk(7, 0, &cumulative.to_be_bytes())
}

const SECOND: u64 = 1_000_000_000;

#[test]
fn streams_are_flows_and_messages_bytes_of_them() {
    let mut rig = Rig::new(limits());
    rig.shake()
        .client(&[data(100, 0, 0, 3, "GET /"), data(101, 2, 0, 2, "PO")])
        .client(&[data(102, 2, 0, 0, "ST"), data(103, 2, 0, 1, " /")])
        .server(&[sack(103), data(500, 2, 0, 3, "no")])
        .server(&[data(501, 0, 0, 3, "yes"), data(502, 0, 1, 3, " sir")])
        .client(&[sack(502), shutdown(502)])
        .server(&[chunk(8, 0, b"")])
        .client(&[chunk(14, 0, b"")]);
    let c = rig.counters();
    assert_eq!(rig.finish(), ["0>GET /|Fin", "0<yes sir|Fin", "2>POST /|Fin", "2<no|Fin"]);
    assert_eq!((c.chunks_passed_total, c.streams_total, c.holes_total), (7, 2, 0));
    assert_eq!((rig.counters().associations_closed_total, rig.counters().associations_total), (1, 1));
}

#[test]
fn whatever_the_order_the_bytes_are_the_same() {
    // Four messages on two streams, one of them in three pieces; every order of the packets.
    let chunks = [
        data(100, 1, 0, 2, "a"),
        data(101, 1, 0, 0, "b"),
        data(102, 1, 0, 1, "c"),
        data(103, 0, 0, 3, "x"),
        data(104, 1, 1, 3, "d"),
    ];
    let mut order = [0, 1, 2, 3, 4];
    let mut tried = 0;
    permute(&mut order, 0, &mut |order| {
        let mut rig = Rig::new(limits());
        rig.shake();
        for &i in order {
            rig.client(std::slice::from_ref(&chunks[i]));
            // Each comes once more.
            rig.client(std::slice::from_ref(&chunks[i]));
        }
        assert_eq!(rig.counters().chunks_old_total, 5, "{order:?}");
        assert_eq!(rig.finish(), ["0>x|CaptureEnd", "0<|CaptureEnd", "1>abcd|CaptureEnd", "1<|CaptureEnd"]);
        tried += 1;
    });
    assert_eq!(tried, 120);
}

fn permute(items: &mut [usize; 5], at: usize, done: &mut impl FnMut(&[usize; 5])) {
    if at == items.len() {
        return done(items);
    }
    for i in at..items.len() {
        items.swap(at, i);
        permute(items, at + 1, done);
        items.swap(at, i);
    }
}

#[test]
fn what_is_lost_is_a_gap_of_its_stream_only() {
    // Streams 0 and 1; the middle of a message of stream 1 is lost, a whole one of stream 0 is, or nothing of 2.
    type Row<'a> = (&'a str, Vec<Vec<u8>>, &'a [&'a str]);
    let rows: [Row<'_>; 5] = [
        (
            "a middle",
            vec![data(100, 1, 0, 2, "abc"), data(102, 1, 0, 1, "ghi"), data(103, 0, 0, 3, "x")],
            &["0>x", "1>abc[3]ghi"],
        ),
        (
            "an end and a beginning",
            vec![data(100, 1, 0, 2, "abc"), data(103, 1, 1, 1, "ghi")],
            &["1>abc[6]ghi"],
        ),
        (
            "a message",
            vec![
                data(100, 0, 0, 3, "a"),
                data(101, 1, 0, 3, "x"),
                data(103, 0, 2, 3, "c"),
                data(104, 1, 1, 3, "y"),
            ],
            &["0>a[1]c", "1>xy"],
        ),
        ("the first message", vec![data(101, 0, 1, 3, "b")], &["0>[1]b"]),
        (
            "twice",
            vec![data(100, 0, 0, 2, "a"), data(102, 0, 0, 0, "c"), data(104, 0, 0, 1, "e")],
            &["0>a[1]c[1]e"],
        ),
    ];
    for (name, chunks, want) in rows {
        // Given up for its age, on evidence, by the sender, and at the end.
        for how in ["age", "acknowledged", "end"] {
            let mut rig = Rig::new(limits());
            rig.shake();
            for chunk in chunks.iter() {
                rig.client(std::slice::from_ref(chunk));
            }
            match how {
                "age" => {
                    rig.wait(4 * SECOND);
                }
                "acknowledged" => {
                    rig.server(&[sack(104)]);
                    for _ in 0..4 {
                        rig.server(&[chunk(4, 0, b"beat")]);
                    }
                }
                _ => {}
            }
            if how != "end" {
                assert_eq!(rig.counters().chunks_held, 0, "{name}, {how}");
            }
            let told = rig.finish();
            let up: Vec<_> =
                told.iter().filter(|l| l.contains('>')).map(|l| l.replace("|CaptureEnd", "")).collect();
            assert_eq!(up, want, "{name}, {how}");
        }
    }
}

#[test]
fn a_hole_waits_as_long_as_its_receiver_asks_and_what_is_behind_it_is_not_believed() {
    let mut rig = Rig::new(limits());
    rig.shake().client(&[data(100, 0, 0, 3, "a")]).client(&[data(102, 0, 1, 3, "GET /fake")]);
    rig.server(&[sack(100)]).wait(5 * SECOND);
    assert_eq!(rig.counters().chunks_held, 1, "the loss is on the network");
    rig.wait(20 * SECOND);
    assert_eq!(rig.counters().chunks_dropped_unacknowledged_total, 1);
    rig.client(&[data(101, 0, 1, 3, "b"), data(102, 0, 2, 3, "c")]);
    assert_eq!(rig.finish(), ["0>abc|CaptureEnd", "0<|CaptureEnd"]);
    assert_eq!(rig.counters().holes_total, 0);
}

#[test]
fn a_sender_that_contradicts_itself_is_read_as_its_receiver_does() {
    let mut rig = Rig::new(limits());
    rig.shake().client(&[data(100, 0, 1, 3, "second")]).client(&[
        data(101, 0, 0, 3, "first,"),
        data(102, 0, 1, 3, "again"),
        data(103, 0, 2, 1, "rest of nothing"),
    ]);
    let c = rig.counters();
    assert_eq!((c.chunks_dropped_order_total, c.chunks_held), (2, 0));
    // The message before it never comes.
    rig.client(&[data(104, 0, 4, 3, "late")]).wait(4 * SECOND);
    assert_eq!(rig.counters().chunks_held, 0);
    assert_eq!(rig.finish()[0], "0>first,second[15]late|CaptureEnd");
}

#[test]
fn unordered_messages_go_as_they_come() {
    let mut rig = Rig::new(limits());
    rig.shake().client(&[data(100, 0, 9, 7, "a"), data(101, 0, 0, 3, "b"), data(102, 0, 5, 7, "c")]);
    assert_eq!(rig.finish()[0], "0>abc|CaptureEnd");
}

#[test]
fn joined_in_the_middle_the_lower_port_is_the_server() {
    let mut rig = Rig::new(limits());
    rig.server(&[data(900, 3, 70, 1, "rest"), data(901, 3, 71, 3, "more")])
        .client(&[data(7, 3, 12, 3, "next")]);
    assert_eq!(rig.finish(), ["3~>next|CaptureEnd", "3~<restmore|CaptureEnd"]);
    assert_eq!(rig.counters().associations_midstream_total, 1);
}

#[test]
fn tags_tell_an_association_from_what_was_forged() {
    let mut rig = Rig::new(limits());
    rig.shake().client(&[data(100, 0, 0, 3, "a")]);
    rig.packet(true, 1, &[chunk(6, 0, b"")]).packet(false, 2, &[chunk(6, 0, b"")]);
    rig.packet(true, 1, &[chunk(6, 1, b"")]).packet(true, 3, &[data(101, 0, 1, 3, "forged")]);
    // A SHUTDOWN ACK that nobody asked for.
    rig.client(&[chunk(8, 0, b"")]);
    // A new INIT is not believed before the server shows that it took it.
    rig.packet(true, 0, &[init(1, 77, 1)]).packet(false, 77, &[init(2, 88, 2)]);
    rig.packet(true, 88, &[chunk(10, 0, b"made up")]);
    rig.client(&[data(101, 0, 1, 3, "b")]);
    assert_eq!(rig.counters().packets_wrong_tag_total, 5);
    // Nor a SHUTDOWN COMPLETE of whoever sent the SHUTDOWN itself.
    rig.client(&[shutdown(499), chunk(14, 0, b"")]).server(&[data(500, 0, 0, 3, "answer")]);
    // With its own tag, or the reflected one where who sends has none, it ends.
    rig.packet(true, CLIENT_TAG, &[chunk(6, 1, b"")]).client(&[data(102, 0, 2, 3, "c")]);
    assert_eq!(rig.counters().chunks_dropped_after_close_total, 1);
    assert_eq!(rig.finish(), ["0>ab|Rst", "0<answer|Rst"]);
}

#[test]
fn what_a_client_says_to_have_got_or_never_to_send_hides_nothing() {
    let mut rig = Rig::new(limits());
    rig.shake().client(&[data(100, 0, 0, 3, "GET /")]);
    // Its server has sent nothing yet, and has not been told of the gap.
    rig.client(&[sack(540), chunk(192, 0, &150u32.to_be_bytes())]);
    for _ in 0..5 {
        rig.client(&[chunk(4, 0, b"beat")]);
    }
    rig.wait(SECOND).server(&[data(500, 0, 0, 3, "secret")]).client(&[data(101, 0, 1, 3, " next")]);
    // What is seen behind a hole shows that it is one.
    rig.server(&[data(502, 0, 2, 3, "!")]).client(&[sack(560)]);
    for _ in 0..5 {
        rig.client(&[chunk(4, 0, b"beat")]);
    }
    assert_eq!(rig.finish(), ["0>GET / next|CaptureEnd", "0<secret[6]!|CaptureEnd"]);
}

#[test]
fn a_client_cannot_shake_off_an_association_that_was_joined_late() {
    let mut rig = Rig::new(limits());
    rig.server(&[data(900, 3, 70, 3, "answer")]).client(&[data(7, 3, 12, 3, "one")]);
    for _ in 0..5 {
        rig.packet(true, 1, &[sack(900)]);
    }
    rig.client(&[data(8, 3, 13, 3, "two")]);
    assert_eq!(rig.finish()[0], "3~>onetwo|CaptureEnd");
    assert_eq!(rig.counters().packets_wrong_tag_total, 5);
}

#[test]
fn a_new_association_takes_the_place_of_the_old_one() {
    let mut rig = Rig::new(limits());
    rig.shake().client(&[data(100, 0, 0, 3, "old")]);
    rig.packet(true, 0, &[init(1, 77, 10)]).packet(false, 77, &[init(2, 88, 20)]);
    rig.packet(true, 88, &[chunk(10, 0, b"cookie")]).packet(false, 77, &[chunk(11, 0, b"")]);
    rig.packet(true, 88, &[data(10, 0, 0, 3, "new")]).packet(false, 77, &[data(20, 0, 0, 3, "yes")]);
    assert_eq!(rig.finish(), ["0>old|Rst", "0>new|CaptureEnd", "0<|Rst", "0<yes|CaptureEnd"]);
    // After its end an INIT is enough; and where nobody saw one, three packets are.
    let mut rig = Rig::new(limits());
    rig.shake()
        .client(&[data(100, 0, 0, 3, "old"), chunk(6, 0, b"")])
        .shake()
        .client(&[data(100, 0, 0, 3, "new")]);
    assert_eq!(rig.finish()[1], "0>new|CaptureEnd");
    let mut rig = Rig::new(limits());
    rig.client(&[data(100, 0, 5, 3, "old")]);
    for i in 0..4 {
        rig.packet(true, 9, &[data(7 + i, 0, i as u16, 3, &i.to_string())]);
    }
    assert_eq!(rig.finish(), ["0~>old|Rst", "0~>23|CaptureEnd", "0~<|Rst", "0~<|CaptureEnd"]);
    assert_eq!(rig.counters().packets_wrong_tag_total, 2);
}

#[test]
fn every_limit_has_its_counter() {
    let small = StreamLimits {
        held_segments_per_direction_max: 3,
        sctp_held_bytes_max: 400,
        sctp_associations_max: 2,
        sctp_streams_max: 2,
        ..limits()
    };
    // Chunks per direction: the first hole goes.
    let mut rig = Rig::new(StreamLimits { sctp_held_bytes_max: 1 << 20, ..small.clone() });
    rig.shake();
    for i in 0..4 {
        rig.client(&[data(102 + 2 * i, 0, 1 + i as u16, 3, "x")]);
    }
    assert_eq!((rig.counters().holes_total, rig.counters().chunks_held), (1, 3));
    // Where the receiver asks, the last chunk does.
    rig.server(&[sack(102)]).client(&[data(112, 0, 9, 3, "x")]);
    assert_eq!((rig.counters().holes_total, rig.counters().chunks_dropped_unacknowledged_total), (1, 1));
    // Messages that wait for one that never comes.
    let mut rig = Rig::new(StreamLimits { sctp_held_bytes_max: 1 << 20, ..small.clone() });
    rig.shake();
    for i in 0..5 {
        rig.client(&[data(100 + i, 0, 1 + i as u16, 3, "x")]);
    }
    assert!(rig.counters().chunks_held <= 3);
    assert_eq!(rig.finish()[0].matches('x').count(), 5);
    // Bytes of the table, over associations.
    let mut rig = Rig::new(small.clone());
    for port in [40_000, 40_001] {
        rig.port = port;
        rig.shake().client(&[data(101, 0, 1, 3, &"y".repeat(200))]);
    }
    assert_eq!((rig.counters().holes_total, rig.counters().chunks_held), (1, 1));
    // Streams and associations.
    rig.client(&[data(102, 1, 0, 3, "one"), data(103, 2, 0, 3, "two")]);
    assert_eq!((rig.counters().streams_total, rig.counters().chunks_dropped_streams_full_total), (2, 1));
    rig.port = 40_002;
    rig.shake();
    assert_eq!(rig.counters().associations_evicted_total, 1);
    // Half-open ones go first.
    rig.port = 40_003;
    rig.packet(true, 0, &[init(1, 1, 1)]);
    rig.port = 40_004;
    rig.packet(true, 0, &[init(1, 1, 1)]);
    rig.port = 40_002;
    rig.client(&[data(100, 0, 0, 3, "still here")]);
    assert!(rig.finish().contains(&"0>still here|CaptureEnd".to_owned()));
    // Far ahead, where the other side can contradict and where it cannot.
    let mut rig = Rig::new(limits());
    rig.shake().server(&[sack(99)]);
    for i in 0..5 {
        rig.client(&[data(1 << 20 | i, 0, i as u16, 3, "far")]);
    }
    rig.server(&[sack(1 << 28)]);
    let c = rig.counters();
    assert_eq!((c.chunks_dropped_out_of_window_total, c.sacks_out_of_window_total), (5, 1));
    let mut rig = Rig::new(limits());
    rig.client(&[data(100, 0, 0, 3, "a")]);
    for i in 0..4 {
        rig.client(&[data(1 << 20 | i, 0, 9 + i as u16, 3, &i.to_string())]);
    }
    assert_eq!(rig.counters().chunks_dropped_out_of_window_total, 2);
    let told = rig.finish();
    assert!(told[0].starts_with("0~>a[") && told[0].ends_with("]23|CaptureEnd"), "{told:?}");
}

#[test]
fn silence_ends_associations_on_time() {
    let mut rig = Rig::new(limits());
    rig.packet(true, 0, &[init(1, 1, 1)]).wait(9 * SECOND);
    assert_eq!(rig.counters().associations_expired_total, 0);
    rig.wait(3 * SECOND);
    assert_eq!(rig.counters().associations_expired_total, 1);
    rig.shake().client(&[data(100, 0, 0, 3, "a")]).client(&[data(102, 0, 2, 3, "c")]);
    rig.wait(400 * SECOND);
    assert_eq!(rig.counters().associations_held, 0);
    assert_eq!(rig.finish(), ["0>a[1]c|Expired", "0<|Expired"]);
    // Packets of nobody.
    rig.client(&[sack(7)]).client(&[vec![0, 0, 0, 1]]).client(&[]);
    assert_eq!(rig.counters().packets_stray_total, 3);
}

#[test]
fn how_often_time_is_told_changes_nothing() {
    let run = |often: bool| {
        let mut rig = Rig::new(limits());
        rig.shake().client(&[data(101, 0, 0, 3, "b")]);
        for _ in 0..50 {
            if often {
                rig.wait(SECOND / 10);
            } else {
                rig.now = rig.now.plus_nanos(SECOND / 10);
            }
        }
        rig.client(&[data(100, 0, 0, 3, "a"), data(102, 0, 1, 3, "c")]);
        rig.finish()
    };
    assert_eq!(run(true), run(false));
    assert_eq!(run(true)[0], "0>bc|CaptureEnd");
}

#[test]
fn hostile_packets_cost_no_more_than_their_bytes() {
    // As many chunks as fit, each of them parked, held, or of another stream.
    for shape in 0..4u32 {
        let mut rig = Rig::new(StreamLimits { sctp_streams_max: 64, ..limits() });
        rig.shake();
        for round in 0..200u32 {
            let chunks: Vec<_> = (0..60)
                .map(|i| {
                    let n = round * 60 + i;
                    match shape {
                        0 => data(100 + n, 0, 30_000 - n as u16, 3, "x"),
                        1 => data(60_000 - n, 0, n as u16, 3, "x"),
                        2 => data(100 + n, n as u16, 0, 2, "x"),
                        _ => data(101 + 2 * n, (n % 64) as u16, n as u16, (n % 8) as u8, "x"),
                    }
                })
                .collect();
            rig.client(&chunks);
        }
        rig.finish();
    }
}
