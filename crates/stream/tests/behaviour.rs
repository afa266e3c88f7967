//! What the table does with the traffic that mirrors and peers produce, case by case.

mod common;

use common::{CLIENT, SERVER, Scene, ms};
use offpath_packet::TcpFlags;
use offpath_stream::StreamLimits;

#[test]
fn a_plain_connection() {
    let mut s = Scene::new();
    s.handshake(1000, 5000);
    assert_eq!(s.told(), "", "nothing is told before the first byte");
    s.send(CLIENT, 1001, 5001, b"GET");
    s.send(SERVER, 5001, 1004, b"200");
    s.fin(CLIENT, 1004, 5004);
    s.fin(SERVER, 5004, 1005);
    assert_eq!(s.told(), "open >0:GET@0 <0:200@3 >Fin <Fin close");
    assert_eq!(s.table.flows_open(), 0);
    assert_eq!(s.counters().flows_closed_fin_total, 1);
}

#[test]
fn order_is_restored() {
    type Step = (u8, u32, u32, &'static [u8]);
    let rows: &[(&str, &[Step], &str)] = &[
        ("swapped", &[(CLIENT, 4, 1, b"def"), (CLIENT, 1, 1, b"abc")], ">0:abc@0 >3:def@0"),
        ("seen twice", &[(CLIENT, 1, 1, b"abc"), (CLIENT, 1, 1, b"abc")], ">0:abc@0"),
        (
            "held twice",
            &[(CLIENT, 4, 1, b"d"), (CLIENT, 4, 1, b"d"), (CLIENT, 1, 1, b"abc")],
            ">0:abc@0 >3:d@0",
        ),
        ("overlap", &[(CLIENT, 1, 1, b"abc"), (CLIENT, 2, 1, b"bcde")], ">0:abc@0 >3:de@0"),
        (
            "keep-alive",
            &[(CLIENT, 1, 1, b"abc"), (CLIENT, 3, 1, b"x"), (CLIENT, 4, 1, b"d")],
            ">0:abc@0 >3:d@0",
        ),
        ("keep-alive before the first byte", &[(CLIENT, 0, 1, b"x"), (CLIENT, 1, 1, b"a")], ">0:a@0"),
        ("window probe", &[(CLIENT, 1, 1, b"a"), (CLIENT, 1, 1, b"abc")], ">0:a@0 >1:bc@0"),
        (
            "first copy wins",
            &[(CLIENT, 3, 1, b"CD"), (CLIENT, 1, 1, b"abcdef")],
            "conflict >0:ab@0 >2:CD@0 >4:ef@0",
        ),
        ("answer first", &[(SERVER, 1, 4, b"200"), (CLIENT, 1, 1, b"GET")], "<0:200@3 >0:GET@0"),
        (
            "held bytes keep their own acknowledgement",
            &[(SERVER, 1, 1, b"aa"), (CLIENT, 4, 3, b"d"), (CLIENT, 1, 1, b"abc")],
            "<0:aa@0 >0:abc@0 >3:d@2",
        ),
    ];
    for (name, steps, want) in rows {
        for base in [0, u32::MAX - 2, u32::MAX / 2] {
            let mut s = Scene::new();
            s.handshake(base, base.wrapping_add(77));
            for (who, seq, ack, bytes) in *steps {
                let (own, peer) = if *who == CLIENT { (0, 77) } else { (77, 0) };
                s.send(*who, base.wrapping_add(seq + own), base.wrapping_add(ack + peer), bytes);
            }
            assert_eq!(s.told(), format!("open {want}"), "{name}, base {base}");
            s.finish();
        }
    }
}

#[test]
fn a_differing_second_copy_is_flagged() {
    let mut s = Scene::new();
    s.handshake(0, 0);
    s.send(CLIENT, 1, 1, b"a");
    s.send(CLIENT, 3, 1, b"cd");
    s.send(CLIENT, 3, 1, b"cX");
    assert_eq!(s.told(), "open >0:a@0 conflict");
    assert_eq!(s.counters().overlap_conflict_bytes_total, 1);
    // Before the flow's first byte was delivered, the sink is told as soon as there is a state.
    let mut s = Scene::new();
    s.handshake(0, 0);
    s.send(CLIENT, 3, 1, b"cd");
    s.send(CLIENT, 3, 1, b"cX");
    assert_eq!(s.told(), "");
    s.send(CLIENT, 1, 1, b"ab");
    assert!(s.told().starts_with("open conflict >0:ab@0"), "{}", s.told());
    assert_eq!(s.counters().overlap_conflict_bytes_total, 1);
}

#[test]
fn holes_are_given_up() {
    // Acknowledged and three segments more: at once after 2 ms.
    let mut s = Scene::new();
    s.handshake(0, 0);
    s.send(CLIENT, 4, 1, b"def");
    s.ack(SERVER, 1, 7);
    for n in 0..3 {
        assert_eq!(s.told(), "", "after {n}");
        s.wait(ms(1));
        s.ack(SERVER, 1, 7);
    }
    assert_eq!(s.told(), "open >gap0+3 >3:def@0");

    // Acknowledged, and nothing more: 100 ms.
    let mut s = Scene::new();
    s.handshake(0, 0);
    s.send(CLIENT, 4, 1, b"def");
    s.ack(SERVER, 1, 7);
    s.idle(ms(90));
    assert_eq!(s.told(), "");
    s.idle(ms(60));
    assert_eq!(s.told(), "open >gap0+3 >3:def@0");

    // A whole message lost: only the answer shows it.
    let mut s = Scene::new();
    s.handshake(0, 0);
    s.send(SERVER, 1, 101, b"200");
    s.idle(ms(150));
    assert_eq!(s.told(), "open <0:200@100 >gap0+100");

    // Its other half comes late, but in time.
    let mut s = Scene::new();
    s.handshake(0, 0);
    s.send(SERVER, 1, 4, b"200");
    s.idle(ms(90));
    s.send(CLIENT, 1, 1, b"GET");
    s.idle(ms(5000));
    assert_eq!(s.told(), "open <0:200@3 >0:GET@0");

    // One direction only: 2 s.
    let mut s = Scene::new();
    s.handshake(0, 0);
    s.send(CLIENT, 4, 1, b"def");
    s.idle(ms(1900));
    assert_eq!(s.told(), "");
    s.idle(ms(200));
    assert_eq!(s.told(), "open >gap0+3 >3:def@0");
    s.send(CLIENT, 1, 1, b"abc");
    assert_eq!(s.told(), "");
    assert_eq!(s.counters().bytes_dropped_late_total, 3);

    // The receiver asks for it: a retransmission will come, 15 s.
    let mut s = Scene::new();
    s.handshake(0, 0);
    s.send(CLIENT, 4, 1, b"def");
    s.ack(SERVER, 1, 1);
    s.idle(ms(12_000));
    s.send(CLIENT, 1, 1, b"abc");
    assert_eq!(s.told(), "open >0:abc@0 >3:def@0");
}

#[test]
fn a_stalled_receiver_waits_for_every_hole() {
    let mut s = Scene::new();
    s.handshake(0, 0);
    s.send(CLIENT, 3, 1, b"c");
    s.ack(SERVER, 1, 1);
    s.send(CLIENT, 5, 1, b"e");
    s.idle(ms(8_000));
    s.send(CLIENT, 1, 1, b"ab");
    s.idle(ms(100));
    s.send(CLIENT, 4, 1, b"d");
    assert_eq!(s.told(), "open >0:ab@0 >2:c@0 >3:d@0 >4:e@0");
}

#[test]
fn bytes_that_the_receiver_never_takes_hide_nothing() {
    // One byte far ahead, a FIN, or as much as a direction may hold; the server goes on where it was.
    for (name, far, dropped) in [("byte", 1, 1), ("FIN", 0, 0), ("more than is held", 3_000_000, 3_000_000)] {
        let mut s = Scene::new();
        s.handshake(0, 0);
        s.send(CLIENT, 1, 1, b"a");
        s.ack(SERVER, 1, 2);
        if far == 0 {
            s.fin(CLIENT, 100_000, 1);
        }
        for n in 0..(far as u32).div_ceil(1000) {
            s.send(CLIENT, 100_000 + n * 1000, 1, &vec![b'x'; far.min(1000)]);
            s.ack(SERVER, 1, 2);
        }
        s.ack(SERVER, 1, 2);
        // It goes on for longer than a hole waits, and rests for longer than that.
        for n in 0..10u32 {
            s.idle(ms(4_000));
            s.send(CLIENT, 2 + n, 1, b"b");
            s.ack(SERVER, 1, 3 + n);
        }
        s.idle(ms(40_000));
        s.send(CLIENT, 12, 1, b"c");
        let told: Vec<String> = (0..10).map(|n| format!(">{}:b@0", n + 1)).collect();
        assert_eq!(s.told(), format!("open >0:a@0 {} >11:c@0", told.join(" ")), "{name}");
        assert_eq!(s.counters().bytes_dropped_unacknowledged_total, dropped, "{name}");
    }
}

#[test]
fn a_lost_fin_is_no_gap() {
    let mut s = Scene::new();
    s.handshake(0, 0);
    s.send(CLIENT, 1, 1, b"GET");
    s.send(SERVER, 1, 5, b"200");
    s.fin(SERVER, 4, 5);
    s.idle(ms(4_000));
    assert_eq!(s.told(), "open >0:GET@0 <0:200@4 <Fin");
    s.idle(ms(4_000));
    assert_eq!(s.told(), ">Expired close");
}

#[test]
fn ends() {
    // FIN before data.
    let mut s = Scene::new();
    s.handshake(0, 0);
    s.fin(CLIENT, 4, 1);
    s.send(CLIENT, 1, 1, b"abc");
    assert_eq!(s.told(), "open >0:abc@0");
    // Half-closed: the other side goes on.
    s.send(SERVER, 1, 5, b"x");
    assert_eq!(s.told(), ">Fin <0:x@3");
    s.send(CLIENT, 5, 2, b"zz");
    assert_eq!(s.told(), "");
    assert_eq!(s.counters().bytes_dropped_after_close_total, 2);

    // RST in order ends both at once; overtaking data on the mirror, it waits for them.
    let mut s = Scene::new();
    s.handshake(0, 0);
    s.send(CLIENT, 1, 1, b"abc");
    s.rst(CLIENT, 4, 1);
    assert_eq!(s.told(), "open >0:abc@0 >Rst <Rst close");
    let mut s = Scene::new();
    s.handshake(0, 0);
    s.send(CLIENT, 1, 1, b"abc");
    s.rst(SERVER, 4, 4);
    assert_eq!(s.told(), "open >0:abc@0 >Rst");
    s.send(SERVER, 1, 4, b"200");
    assert_eq!(s.told(), "<0:200@3 <Rst close");
    let mut s = Scene::new();
    s.handshake(0, 0);
    s.send(CLIENT, 1, 1, b"abc");
    s.rst(SERVER, 4, 4);
    s.idle(ms(150));
    assert_eq!(s.told(), "open >0:abc@0 >Rst <Rst close");

    // A RST far off is not believed; one whose sender goes on is taken back.
    let mut s = Scene::new();
    s.handshake(0, 0);
    s.send(CLIENT, 1, 1, b"abc");
    s.rst(CLIENT, 0x4000_0000, 1);
    s.rst(CLIENT, 4, 1);
    assert_eq!(s.told(), "open >0:abc@0 >Rst <Rst close");
    s.send(CLIENT, 4, 1, b"def");
    s.send(SERVER, 1, 7, b"200");
    assert_eq!(s.told(), "open* >0:def@0 <0:200@3");
    assert_eq!((s.counters().resets_out_of_window_total, s.counters().flows_revived_total), (1, 1));

    // Retransmissions after the close open nothing.
    let mut s = Scene::new();
    s.handshake(0, 0);
    s.send(CLIENT, 1, 1, b"abc");
    s.fin(CLIENT, 4, 1);
    s.fin(SERVER, 1, 5);
    s.send(CLIENT, 1, 1, b"abc");
    s.ack(CLIENT, 5, 2);
    assert_eq!(s.told(), "open >0:abc@0 >Fin <Fin close");
    assert_eq!(s.counters().bytes_duplicate_total, 3);
}

#[test]
fn handshakes() {
    // Data on the SYN, taken by the server.
    let mut s = Scene::new();
    s.segment(CLIENT, 0, None, TcpFlags::SYN, b"GET");
    s.segment(SERVER, 50, Some(4), TcpFlags::SYN, b"");
    assert_eq!(s.told(), "");
    s.ack(CLIENT, 4, 51);
    assert_eq!(s.told(), "open >0:GET@");
    // ... and refused: sent again.
    let mut s = Scene::new();
    s.segment(CLIENT, 0, None, TcpFlags::SYN, b"BAD");
    s.segment(SERVER, 50, Some(1), TcpFlags::SYN, b"");
    s.send(CLIENT, 1, 51, b"GET");
    assert_eq!(s.told(), "open >0:GET@0");
    assert_eq!(s.counters().bytes_dropped_syn_payload_total, 3);

    // Simultaneous open.
    let mut s = Scene::new();
    s.segment(CLIENT, 10, None, TcpFlags::SYN, b"");
    s.segment(SERVER, 20, None, TcpFlags::SYN, b"");
    s.segment(CLIENT, 10, Some(21), TcpFlags::SYN, b"");
    s.segment(SERVER, 20, Some(11), TcpFlags::SYN, b"");
    s.send(CLIENT, 11, 21, b"a");
    s.send(SERVER, 21, 12, b"b");
    assert_eq!(s.told(), "open >0:a@0 <0:b@1");

    // Another ISN before the answer: the server says which it took.
    let mut s = Scene::new();
    s.segment(CLIENT, 10, None, TcpFlags::SYN, b"");
    s.segment(CLIENT, 900, None, TcpFlags::SYN, b"");
    s.segment(SERVER, 20, Some(11), TcpFlags::SYN, b"");
    s.send(CLIENT, 12, 21, b"a");
    s.send(CLIENT, 11, 21, b"x");
    assert_eq!(s.told(), "open >0:x@0 >1:a@0");

    // SYN lost, SYN+ACK seen.
    let mut s = Scene::new();
    s.segment(SERVER, 20, Some(11), TcpFlags::SYN, b"");
    s.send(CLIENT, 11, 21, b"a");
    assert_eq!(s.told(), "open >0:a@0");

    // A connection refused.
    let mut s = Scene::new();
    s.segment(CLIENT, 10, None, TcpFlags::SYN, b"");
    s.rst(SERVER, 0, 11);
    assert_eq!(s.counters().flows_closed_rst_total, 1);
    assert_eq!(s.told(), "");
}

#[test]
fn reuse_of_the_five_tuple() {
    // A forged SYN inside a live connection changes nothing.
    let mut s = Scene::new();
    s.handshake(0, 0);
    s.send(CLIENT, 1, 1, b"a");
    s.segment(CLIENT, 0x5000_0000, None, TcpFlags::SYN, b"");
    s.send(CLIENT, 2, 1, b"b");
    assert_eq!(s.told(), "open >0:a@0 >1:b@0");
    // The SYN+ACK confirms it.
    s.segment(SERVER, 7_000, Some(0x5000_0001), TcpFlags::SYN, b"");
    assert_eq!(s.told(), ">Reused <Reused close");
    s.send(CLIENT, 0x5000_0001, 7_001, b"new");
    assert_eq!(s.told(), "open >0:new@0");

    // Nor do a SYN and data behind it: where the server is seen, it has to agree.
    let mut s = Scene::new();
    s.handshake(0, 0);
    s.send(CLIENT, 1, 1, b"a");
    s.segment(CLIENT, 777_776, None, TcpFlags::SYN, b"");
    s.send(CLIENT, 777_777, 1, b"?");
    s.ack(SERVER, 1, 2);
    s.send(CLIENT, 2, 1, b"b");
    s.ack(SERVER, 1, 3);
    assert_eq!(s.told(), "open >0:a@0 >1:b@0");
    // Its SYN+ACK lost: it acknowledges what only the new connection can have sent.
    let mut s = Scene::new();
    s.handshake(0, 0);
    s.send(CLIENT, 1, 1, b"a");
    s.ack(SERVER, 1, 2);
    s.segment(CLIENT, 0x5000_0000, None, TcpFlags::SYN, b"");
    s.send(CLIENT, 0x5000_0001, 7_001, b"new");
    s.ack(SERVER, 7_001, 0x5000_0004);
    s.send(SERVER, 7_001, 0x5000_0004, b"200");
    s.send(CLIENT, 0x5000_0004, 7_004, b"more");
    assert_eq!(s.told(), "open >0:a@0 >Reused <gap0+7000 <Reused close");
    s.idle(ms(3_000));
    assert_eq!(s.told(), "open <0:200@3 >gap0+3 >3:more@3", "the SYN+ACK might have come");

    // One direction only: the client's data confirms it.
    let mut s = Scene::new();
    s.segment(CLIENT, 0, None, TcpFlags::SYN, b"");
    s.send(CLIENT, 1, 1, b"a");
    s.segment(CLIENT, 9_000, None, TcpFlags::SYN, b"");
    s.send(CLIENT, 9_001, 1, b"new");
    assert_eq!(s.told(), "open >0:a@0 >Reused <Reused close open >0:new@0");

    // After the close a SYN is enough.
    let mut s = Scene::new();
    s.handshake(0, 0);
    s.send(CLIENT, 1, 1, b"a");
    s.fin(CLIENT, 2, 1);
    s.fin(SERVER, 1, 3);
    s.handshake(10, 10);
    s.send(CLIENT, 11, 11, b"b");
    assert_eq!(s.told(), "open >0:a@0 >Fin <Fin close open >0:b@0");
}

#[test]
fn joined_midstream() {
    let mut s = Scene::new();
    s.send(SERVER, 5_000, 900, b"tail");
    s.send(CLIENT, 900, 5_004, b"GET");
    s.send(SERVER, 5_004, 903, b"200");
    assert_eq!(s.told(), "open* <0:tail@0 >0:GET@4 <4:200@3", "the lower port is the server's");
    s.send(SERVER, 4_990, 900, b"0123456789old!");
    assert_eq!(s.counters().bytes_dropped_before_base_total, 10);
    assert_eq!(s.counters().bytes_duplicate_total, 4);

    // The acknowledgement tells where the other side's bytes should begin.
    let mut s = Scene::new();
    s.send(CLIENT, 900, 5_000, b"GET");
    s.send(SERVER, 5_003, 903, b"body");
    s.send(SERVER, 5_000, 903, b"200");
    assert_eq!(s.told(), "open* >0:GET@0 <0:200@3 <3:body@3");
    // ... unless they are older than it.
    let mut s = Scene::new();
    s.send(CLIENT, 900, 5_000, b"GET");
    s.send(SERVER, 4_990, 900, b"older");
    assert_eq!(s.told(), "open* >0:GET@0 <0:older@0");

    // Control segments alone open nothing.
    let mut s = Scene::new();
    s.ack(CLIENT, 1, 1);
    s.rst(CLIENT, 1, 1);
    s.fin(CLIENT, 1, 1);
    assert_eq!((s.table.flows_open(), s.counters().segments_stray_total), (0, 3));
}

#[test]
fn one_direction_only() {
    let mut s = Scene::new();
    s.segment(SERVER, 0, Some(100), TcpFlags::SYN, b"");
    s.send(SERVER, 1, 200, b"200 ok");
    s.send(SERVER, 7, 300, b"200 ok");
    s.idle(ms(300));
    assert_eq!(s.told(), "open <0:200 ok@100 <6:200 ok@200 >gap0+100 >gap100+100");
}

#[test]
fn snap_cut_bytes_are_a_gap_at_once() {
    let mut s = Scene::new();
    s.handshake(0, 0);
    s.cut(CLIENT, 1, 1, b"abc", 100);
    s.cut(CLIENT, 201, 1, b"ghi", 100);
    s.cut(CLIENT, 101, 1, b"def", 100);
    s.cut(CLIENT, 301, 1, b"", 10);
    assert_eq!(s.told(), "open >0:abc@0 >gap3+97 >100:def@0 >gap103+97 >200:ghi@0 >gap203+97 >gap300+10");
    assert_eq!(s.counters().snap_cut_bytes_total, 301);
}

#[test]
fn far_segments() {
    // Blind injection is dropped, whoever repeats it, while the other side does not agree.
    let mut s = Scene::new();
    s.handshake(0, 0);
    s.send(CLIENT, 1, 1, b"a");
    s.ack(SERVER, 1, 2);
    for n in 0..9 {
        s.send(CLIENT, 0x3000_0000 + n, 1, b"!");
    }
    s.send(CLIENT, 2, 1, b"b");
    assert_eq!(s.told(), "open >0:a@0 >1:b@0");
    assert_eq!(s.counters().bytes_dropped_out_of_window_total, 9);

    // A mirror that lost 100 MB: the receiver's acknowledgements say so.
    let mut s = Scene::new();
    s.handshake(0, 0);
    s.send(SERVER, 1, 1, b"a");
    s.ack(CLIENT, 1, 100_000_000);
    s.send(SERVER, 100_000_000, 1, b"b");
    s.idle(ms(150));
    assert_eq!(s.told(), "open <0:a@0 <gap1+99999998 <99999999:b@0");

    // One direction only: three consecutive segments.
    let mut s = Scene::new();
    s.segment(SERVER, 0, Some(1), TcpFlags::SYN, b"");
    s.send(SERVER, 1, 1, b"a");
    for n in 0..4 {
        s.send(SERVER, 100_000_000 + n, 1, b"b");
    }
    s.idle(ms(3_000));
    assert_eq!(s.told(), "open <0:a@0 <gap1+100000000 <100000001:b@0 <100000002:b@0");
    assert_eq!(s.counters().bytes_dropped_out_of_window_total, 2);

    // Another connection, its handshake lost.
    let mut s = Scene::new();
    s.handshake(0, 0);
    s.send(CLIENT, 1, 1, b"a");
    s.send(SERVER, 1, 2, b"b");
    for n in 0..4 {
        s.send(CLIENT, 0x7000_0000 + n, 0x6000_0000, b"c");
        s.ack(SERVER, 0x6000_0000, 0x7000_0001 + n);
    }
    assert_eq!(s.told(), "open >0:a@0 <0:b@1 >Reused <Reused close open* >0:c@0 >1:c@0");
}

#[test]
fn hold_limits_give_up_holes_not_bytes() {
    let limits = StreamLimits { held_segments_per_direction_max: 2, ..StreamLimits::default() };
    let mut s = Scene::with(limits);
    s.handshake(0, 0);
    for seq in [3, 5, 7] {
        s.send(CLIENT, seq, 1, b"x");
    }
    assert_eq!(s.told(), "open >gap0+2 >2:x@0");
    assert_eq!(s.counters().holes_direction_full_total, 1);
    s.finish();
    assert_eq!(s.told(), ">gap3+1 >4:x@0 >gap5+1 >6:x@0 >CaptureEnd <CaptureEnd close");

    let limits = StreamLimits { held_bytes_max: 140, ..StreamLimits::default() };
    let mut s = Scene::with(limits);
    s.handshake(0, 0);
    for seq in [3, 5, 7] {
        s.send(CLIENT, seq, 1, b"x");
    }
    assert_eq!(s.told(), "open >gap0+2 >2:x@0");
    assert_eq!(s.counters().holes_table_full_total, 1);
}

#[test]
fn a_sink_without_use_for_the_bytes() {
    let mut s = Scene::new();
    s.sink.tired_after = 3;
    s.handshake(0, 0);
    s.send(CLIENT, 5, 1, b"efg");
    s.send(CLIENT, 1, 1, b"abcd");
    s.send(CLIENT, 20, 1, b"hij");
    s.fin(CLIENT, 23, 1);
    s.ack(SERVER, 1, 29);
    assert_eq!((s.told().as_str(), s.counters().fins_contradicted_total), ("open >0:abcd@0", 1));
    s.fin(CLIENT, 29, 1);
    s.ack(SERVER, 1, 30);
    assert_eq!(s.told(), ">Fin");
    assert_eq!((s.counters().bytes_bypassed_total, s.table.held_bytes()), (6, 0));
}

#[test]
fn expiry_is_on_packet_time() {
    let mut s = Scene::new();
    s.handshake(0, 0);
    s.send(CLIENT, 1, 1, b"a");
    s.idle(ms(299_000));
    assert_eq!(s.told(), "open >0:a@0");
    s.idle(ms(3_000));
    assert_eq!(s.told(), ">Expired <Expired close");
    assert_eq!(s.sink.closed_at.map(|t| t.as_nanos()), Some(s.started.plus_secs(300).as_nanos()));

    // Noticed by the flow's own next segment only.
    let mut s = Scene::new();
    s.handshake(0, 0);
    s.send(CLIENT, 1, 1, b"a");
    s.wait(ms(300_000));
    s.send(CLIENT, 2, 1, b"b");
    assert_eq!(s.told(), "open >0:a@0 >Expired <Expired close open* >0:b@0");

    // Embryonic flows go sooner, and untold.
    let mut s = Scene::new();
    s.segment(CLIENT, 0, None, TcpFlags::SYN, b"");
    assert_eq!(s.table.flows_open(), 1);
    s.idle(ms(12_000));
    assert_eq!((s.table.flows_open(), s.counters().flows_closed_expired_total), (0, 1));
}

#[test]
fn eviction_spares_what_is_worth_most() {
    let limits = StreamLimits { flows_max: 4, embryonic_flows_max: 2, ..StreamLimits::default() };
    let mut s = Scene::with(limits);
    s.handshake(0, 0);
    s.send(CLIENT, 1, 1, b"a");
    s.send(SERVER, 1, 2, b"b");
    assert_eq!(s.told(), "open >0:a@0 <0:b@1");
    // A SYN flood.
    for port in 1..1000 {
        s.client_port = port;
        s.segment(CLIENT, 0, None, TcpFlags::SYN, b"");
    }
    assert_eq!(s.table.flows_open(), 3);
    assert_eq!(s.counters().flows_closed_evicted_embryonic_total, 997);
    // A flood of data from one side only; those opened last stay.
    for port in 1000..1100 {
        s.wait(ms(2_000));
        s.client_port = port;
        s.send(CLIENT, 0, 0, b"z");
    }
    s.told();
    assert_eq!((s.table.flows_open(), s.counters().flows_closed_evicted_total), (4, 0));
    s.client_port = 50_000;
    s.send(CLIENT, 2, 2, b"alive");
    assert_eq!(s.told(), ">1:alive@1");
    // Full of proven flows, a SYN is not followed.
    for port in 2000..2003 {
        s.client_port = port;
        s.handshake(0, 0);
        s.send(CLIENT, 1, 1, b"a");
        s.send(SERVER, 1, 2, b"b");
    }
    s.client_port = 3000;
    s.segment(CLIENT, 0, None, TcpFlags::SYN, b"");
    assert_eq!(s.counters().syns_refused_total, 7, "nor are the SYNs and SYN+ACKs of the three before");
    s.send(CLIENT, 1, 1, b"data");
    assert_eq!(s.counters().flows_closed_evicted_total, 1, "data is worth an eviction");
}

#[test]
fn closed_flows_are_remembered_within_a_limit() {
    for (closed_flows_max, forgotten) in [(0, 3), (2, 1), (3, 0)] {
        let mut s = Scene::with(StreamLimits { closed_flows_max, ..StreamLimits::default() });
        for port in 1..=3 {
            s.client_port = port;
            s.handshake(0, 0);
            s.send(CLIENT, 1, 1, b"a");
            s.fin(CLIENT, 2, 1);
            s.fin(SERVER, 1, 3);
        }
        s.told();
        assert_eq!(s.counters().closed_flows_forgotten_total, forgotten, "{closed_flows_max}");
        // A straggler of the first: a duplicate where that is remembered, else taken for a flow joined midway.
        s.client_port = 1;
        s.send(CLIENT, 1, 1, b"a");
        assert_eq!(s.told().is_empty(), forgotten == 0, "{closed_flows_max}");
    }
}

#[test]
fn descending_tiny_segments_take_linear_time() {
    let mut s =
        Scene::with(StreamLimits { held_segments_per_direction_max: 1 << 20, ..StreamLimits::default() });
    s.sink.silent = true;
    s.handshake(0, 0);
    // 200,000 inserts at the front of a sorted vector would move 10^12 bytes.
    for seq in (2..200_000u32).rev() {
        s.send(CLIENT, seq, 1, b"x");
    }
    s.send(CLIENT, 1, 1, b"x");
    assert_eq!(s.counters().bytes_delivered_total, 199_999);
    assert_eq!(s.counters().gaps_total, 0);
}

#[test]
fn holes_that_end_with_their_flow_are_counted() {
    // A RST overtook what was missing, and nothing filled it in time.
    let mut s = Scene::new();
    s.handshake(0, 0);
    s.send(CLIENT, 4, 1, b"def");
    s.rst(CLIENT, 7, 1);
    s.idle(ms(90));
    assert_eq!(s.counters().holes_reset_total, 0);
    s.idle(ms(60));
    assert_eq!((s.counters().holes_reset_total, s.counters().gaps_total), (1, 1), "{}", s.told());

    // The capture ends before two holes have waited long enough.
    let mut s = Scene::new();
    s.handshake(0, 0);
    s.send(CLIENT, 4, 1, b"def");
    s.send(CLIENT, 10, 1, b"jkl");
    s.finish();
    assert_eq!((s.counters().holes_ended_total, s.counters().gaps_total), (2, 2), "{}", s.told());
    assert_eq!(s.counters().holes_reset_total + s.counters().holes_old_total, 0);
}

#[test]
fn a_fin_that_the_server_never_takes_hides_nothing() {
    let begin = || {
        let mut s = Scene::new();
        s.handshake(0, 0);
        s.send(CLIENT, 1, 1, b"a");
        s.ack(SERVER, 1, 2);
        s
    };
    // The client goes on where the FIN stood, at once or later.
    for pause in [0, 30_000] {
        let mut s = begin();
        s.fin(CLIENT, 2, 1);
        s.idle(ms(pause));
        s.send(CLIENT, 2, 1, b"b");
        s.send(SERVER, 1, 3, b"x");
        assert_eq!(s.told(), "open >0:a@0 >1:b@0 <0:x@2");
        assert_eq!(s.counters().fins_contradicted_total, 1);
        s.fin(CLIENT, 3, 2);
        s.ack(SERVER, 2, 4);
        assert_eq!(s.told(), ">Fin");
    }
    // What it sent was lost, and the server acknowledges it.
    let mut s = begin();
    s.fin(CLIENT, 2, 1);
    s.send(SERVER, 1, 5, b"x");
    s.idle(ms(150));
    s.send(CLIENT, 5, 2, b"c");
    assert_eq!(s.told(), "open >0:a@0 <0:x@4 >gap1+3 >4:c@1");
    assert_eq!(s.counters().fins_contradicted_total, 1);
    // The same behind a hole.
    let mut s = begin();
    s.fin(CLIENT, 4, 1);
    s.send(SERVER, 1, 9, b"x");
    s.idle(ms(150));
    s.send(CLIENT, 9, 2, b"c");
    assert_eq!(s.told(), "open >0:a@0 <0:x@8 >gap1+7 >8:c@1");

    // What it acknowledged before counts as well.
    let mut s = begin();
    s.ack(SERVER, 1, 5);
    s.fin(CLIENT, 3, 1);
    s.idle(ms(150));
    s.send(CLIENT, 5, 1, b"c");
    assert_eq!(s.told(), "open >0:a@0 >gap1+3 >4:c@0");

    // The server's word ends it, whichever comes first, and also where it ends without that.
    let mut s = begin();
    s.fin(CLIENT, 2, 1);
    assert_eq!(s.told(), "open >0:a@0");
    s.ack(SERVER, 1, 3);
    assert_eq!(s.told(), ">Fin");
    s.send(CLIENT, 2, 1, b"made up");
    assert_eq!((s.told(), s.counters().bytes_dropped_after_close_total), (String::new(), 7));
    let mut s = begin();
    s.ack(SERVER, 1, 3);
    s.fin(CLIENT, 2, 1);
    assert_eq!(s.told(), "open >0:a@0 >Fin");
    let mut s = begin();
    s.ack(SERVER, 1, 5);
    s.fin(CLIENT, 4, 1);
    s.send(CLIENT, 2, 1, b"bc");
    assert_eq!(s.told(), "open >0:a@0 >1:bc@0 >Fin");
    let mut s = begin();
    s.ack(SERVER, 1, 5);
    s.send(CLIENT, 2, 1, b"bc");
    s.fin(CLIENT, 4, 1);
    assert_eq!(s.told(), "open >0:a@0 >1:bc@0 >Fin");
    let mut s = begin();
    s.fin(CLIENT, 2, 1);
    s.fin(SERVER, 1, 2);
    assert_eq!(s.told(), "open >0:a@0 <Fin >Fin close");
    assert_eq!(s.counters().flows_closed_fin_total, 1);
    let mut s = begin();
    s.fin(CLIENT, 2, 1);
    s.rst(CLIENT, 3, 1);
    assert_eq!(s.told(), "open >0:a@0 >Fin <Rst close");
    // Nothing more comes.
    let mut s = begin();
    s.fin(CLIENT, 2, 1);
    s.idle(ms(61_500));
    assert_eq!(s.told(), "open >0:a@0 >Fin <Expired close");

    // Where the server is not seen, the FIN is believed until the client goes on.
    let mut s = Scene::new();
    s.segment(CLIENT, 0, None, TcpFlags::SYN, b"");
    s.send(CLIENT, 1, 1, b"a");
    s.fin(CLIENT, 2, 1);
    assert_eq!(s.told(), "open >0:a@0 >Fin");
    s.client_port = 50_000;
    s.send(CLIENT, 2, 1, b"b");
    assert_eq!(s.told(), "<Reused close open* >0:b@0");
    assert_eq!(s.counters().flows_revived_total, 1);
    s.finish();
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_hides_no_answer() {
    // Before the server's first byte or after it; the answer takes its time.
    for (name, first) in [("before", false), ("after", true)] {
        let mut s = Scene::new();
        s.handshake(0, 0);
        s.send(CLIENT, 1, 1, b"GET");
        let at = if first { 4 } else { 1 };
        if first {
            s.send(SERVER, 1, 4, b"200");
        }
        s.ack(CLIENT, 4, 1_000_000);
        s.ack(SERVER, at, 4);
        s.idle(ms(20_000));
        for n in 0..4 {
            s.send(SERVER, at + n, 4, b"x");
            s.ack(CLIENT, 4, 1_000_000);
            s.idle(ms(4_000));
        }
        let head = if first { "<0:200@3 " } else { "" };
        let answers: Vec<_> = (0..4).map(|n| format!("<{}:x@3", at - 1 + n)).collect();
        assert_eq!(s.told(), format!("open >0:GET@0 {head}{}", answers.join(" ")), "{name}");
        // What is lost meanwhile is a gap up to what came, and no further.
        s.send(SERVER, at + 7, 4, b"y");
        s.idle(ms(150));
        s.send(SERVER, at + 8, 4, b"z");
        let lost = format!("<gap{}+3 <{}:y@3 <{}:z@3", at + 3, at + 6, at + 7);
        assert_eq!(s.told(), lost, "{name}");
        assert_eq!(s.counters().bytes_dropped_late_total, 0);
        s.fin(SERVER, at + 9, 4);
        assert_eq!(s.told(), "<Fin");
    }
    // What the client acknowledged and nothing came for is told at the end of the flow, or of its client.
    let mut s = Scene::new();
    s.handshake(0, 0);
    s.send(CLIENT, 1, 1, b"GET");
    s.ack(SERVER, 1, 4);
    s.ack(CLIENT, 4, 101);
    s.idle(ms(1_000));
    assert_eq!(s.told(), "open >0:GET@0");
    s.rst(CLIENT, 4, 101);
    s.idle(ms(150));
    assert_eq!(s.told(), ">Rst <gap0+100 <Rst close");
    let mut s = Scene::new();
    s.handshake(0, 0);
    s.send(CLIENT, 1, 1, b"GET");
    s.ack(CLIENT, 4, 101);
    s.finish();
    assert_eq!(s.told(), "open >0:GET@0 >CaptureEnd <gap0+100 <CaptureEnd close");
}

/// Who, sequence number, acknowledgement, flags, bytes.
type Frame = (u8, u32, Option<u32>, TcpFlags, &'static [u8]);

/// A connection of three exchanges.
const EXCHANGES: [Frame; 18] = [
    (CLIENT, 99, None, TcpFlags::SYN, b""),
    (SERVER, 499, Some(100), TcpFlags::SYN, b""),
    (CLIENT, 100, Some(500), TcpFlags::ACK, b""),
    (CLIENT, 100, Some(500), TcpFlags::PSH, b"GET0"),
    (SERVER, 500, Some(104), TcpFlags::ACK, b""),
    (SERVER, 500, Some(104), TcpFlags::PSH, b"200"),
    (CLIENT, 104, Some(503), TcpFlags::ACK, b""),
    (CLIENT, 104, Some(503), TcpFlags::PSH, b"GET01"),
    (SERVER, 503, Some(109), TcpFlags::ACK, b""),
    (SERVER, 503, Some(109), TcpFlags::PSH, b"2001"),
    (CLIENT, 109, Some(507), TcpFlags::ACK, b""),
    (CLIENT, 109, Some(507), TcpFlags::PSH, b"GET012"),
    (SERVER, 507, Some(115), TcpFlags::ACK, b""),
    (SERVER, 507, Some(115), TcpFlags::PSH, b"20012"),
    (CLIENT, 115, Some(512), TcpFlags::ACK, b""),
    (CLIENT, 115, Some(512), TcpFlags::FIN, b""),
    (SERVER, 512, Some(116), TcpFlags::FIN, b""),
    (CLIENT, 116, Some(513), TcpFlags::ACK, b""),
];

/// Puts frame `n` of [`EXCHANGES`], with sequence numbers moved by `bases`.
fn put(s: &mut Scene, n: usize, bases: [u32; 2]) {
    let (who, seq, ack, flags, bytes) = EXCHANGES[n];
    let (own, peer) = (bases[who as usize], bases[1 - who as usize]);
    s.wait(ms(1) / 20);
    s.segment(who, seq.wrapping_add(own), ack.map(|ack| ack.wrapping_add(peer)), flags, bytes);
}

/// Returns what was told of one direction, in its order.
fn of_direction(told: &str, arrow: char) -> String {
    let parts: Vec<_> = told.split(' ').filter(|part| part.starts_with(arrow)).collect();
    parts.join(" ")
}

#[test]
fn any_frame_after_the_syn_may_be_moved_anywhere() {
    let bases = [0u32.wrapping_sub(102), 0u32.wrapping_sub(505)];
    for bases in [[0, 0], bases] {
        for from in 1..EXCHANGES.len() {
            for to in 1..EXCHANGES.len() {
                let mut order: Vec<usize> = (0..EXCHANGES.len()).filter(|n| *n != from).collect();
                order.insert(to, from);
                let mut s = Scene::new();
                for n in &order {
                    put(&mut s, *n, bases);
                }
                s.idle(ms(200));
                let told = s.told();
                let name = format!("frame {from} at {to}: {told}");
                let client: String = told.chars().filter(|c| *c != '*').collect();
                assert_eq!(client.matches("open").count(), 1, "{name}");
                let acks = |line: String| {
                    line.split(' ').map(|p| p.split('@').next().unwrap().to_owned() + " ").collect::<String>()
                };
                assert_eq!(acks(of_direction(&told, '>')), ">0:GET0 >4:GET01 >9:GET012 >Fin ", "{name}");
                assert_eq!(acks(of_direction(&told, '<')), "<0:200 <3:2001 <7:20012 <Fin ", "{name}");
                assert_eq!(s.counters().bytes_dropped(), 0, "{name}");
                s.finish();
            }
        }
    }
}

#[test]
fn early_bytes_of_a_server_wait_until_it_is_known_where_it_begins() {
    let begin = || {
        let mut s = Scene::new();
        s.segment(CLIENT, 0, None, TcpFlags::SYN, b"");
        s.send(SERVER, 104, 4, b"two");
        assert_eq!(s.told(), "");
        s
    };
    // The SYN+ACK tells; what is missing before is a hole as ever.
    let mut s = begin();
    s.segment(SERVER, 100, Some(1), TcpFlags::SYN, b"");
    s.send(CLIENT, 1, 101, b"GET");
    s.send(SERVER, 101, 4, b"one");
    assert_eq!(s.told(), "open >0:GET@0 <0:one@3 <3:two@3");
    let mut s = begin();
    s.segment(SERVER, 100, Some(1), TcpFlags::SYN, b"");
    s.send(CLIENT, 1, 101, b"GET");
    s.ack(CLIENT, 4, 107);
    s.idle(ms(150));
    assert_eq!(s.told(), "open >0:GET@0 <gap0+3 <3:two@3");
    // What the client acknowledges first tells, where the SYN+ACK was lost; what it acknowledges later does not.
    let mut s = begin();
    s.ack(CLIENT, 1, 101);
    s.send(SERVER, 101, 4, b"one");
    assert_eq!(s.told(), "open <0:one@3 <3:two@3");
    let mut s = begin();
    s.ack(CLIENT, 4, 104);
    s.segment(SERVER, 100, Some(1), TcpFlags::SYN, b"");
    s.send(SERVER, 101, 4, b"one");
    assert_eq!(s.told(), "open <0:one@3 <3:two@3");
    // Nothing tells: its time is over, its flow, or its sender.
    let mut s = begin();
    s.idle(ms(90));
    assert_eq!(s.told(), "");
    s.idle(ms(60));
    assert_eq!(s.told(), "open <0:two@3 >gap0+3");
    let mut s = begin();
    s.finish();
    assert!(s.told().starts_with("open"), "it is not lost");
    assert_eq!(s.counters().bytes_delivered_total, 3);
    let mut s = begin();
    s.rst(SERVER, 107, 4);
    assert_eq!(s.told(), "open <0:two@3 <Rst");
    // It begins before what is there, or amid it, or elsewhere altogether.
    for (isn, want, dropped) in [(105, "<0:o@3 <1:!@3", (2, 0)), (0x4000_0000, "", (0, 3))] {
        let mut s = begin();
        s.segment(SERVER, isn, Some(1), TcpFlags::SYN, b"");
        s.send(SERVER, 107, 4, b"!");
        let told = s.told();
        assert_eq!(of_direction(&told, '<'), want);
        let counters = s.counters();
        assert_eq!(
            (counters.bytes_dropped_before_base_total, counters.bytes_dropped_out_of_window_total),
            dropped
        );
        s.finish();
    }
    // Bytes are held within the limits.
    let mut s = Scene::with(StreamLimits { held_bytes_per_direction_max: 8, ..StreamLimits::default() });
    s.segment(CLIENT, 0, None, TcpFlags::SYN, b"");
    s.send(SERVER, 104, 4, b"12345");
    s.send(SERVER, 109, 4, b"6789");
    assert_eq!(s.told(), "open <0:12345@3 <5:6789@3");
    let mut s = Scene::with(StreamLimits { held_bytes_max: 100, ..StreamLimits::default() });
    s.segment(CLIENT, 0, None, TcpFlags::SYN, b"");
    s.send(SERVER, 104, 4, b"12345");
    s.send(SERVER, 109, 4, b"6789");
    assert_eq!(s.told(), "open >gap0+3 <0:12345@3 <5:6789@3");
    s.finish();
}

#[test]
fn late_copies_of_a_closed_connection_open_nothing() {
    let bases = [0, 0u32.wrapping_sub(505)];
    let connection = |by_reset: bool| {
        let mut s = Scene::new();
        for n in 0..15 {
            put(&mut s, n, bases);
        }
        if by_reset {
            s.rst(CLIENT, 115, 512u32.wrapping_add(bases[1]));
        } else {
            (15..18).for_each(|n| put(&mut s, n, bases));
        }
        let told = s.told();
        assert!(told.ends_with("close"), "{told}");
        s
    };
    // All of it, or from each frame on, after a while.
    for by_reset in [false, true] {
        for wait in [0, 3, 500] {
            for from in 0..EXCHANGES.len() {
                let mut s = connection(by_reset);
                let (flows, delivered) =
                    (s.counters().flows_opened_total, s.counters().bytes_delivered_total);
                s.wait(ms(wait));
                (from..EXCHANGES.len()).for_each(|n| put(&mut s, n, bases));
                let name = format!("reset {by_reset}, {wait} ms, from {from}");
                assert_eq!((s.told(), s.counters().flows_opened_total), (String::new(), flows), "{name}");
                assert_eq!(s.counters().bytes_delivered_total, delivered, "{name}");
                s.finish();
            }
        }
    }
    // After a second, the SYN opens a flow; it may be another connection.
    let mut s = connection(false);
    s.wait(ms(1_100));
    (0..EXCHANGES.len()).for_each(|n| put(&mut s, n, bases));
    assert!(s.told().starts_with("open >0:GET0"));
    // So does any other SYN, and the server's word that it took one.
    let mut s = connection(false);
    s.handshake(50, 60);
    s.send(CLIENT, 51, 61, b"b");
    assert_eq!(s.told(), "open >0:b@0");
    let mut s = connection(false);
    s.handshake(99, 7_000);
    s.send(CLIENT, 100, 7_001, b"b");
    assert_eq!(s.told(), "open >0:b@0", "a client can use its numbers again, not its server's");
    let mut s = connection(false);
    s.segment(CLIENT, 99, None, TcpFlags::SYN, b"");
    s.send(CLIENT, 100, 0x4000_0000, b"b");
    assert_eq!(s.told(), "open* >0:b@0", "the same where the SYN+ACK is lost");
    // Where the server is not seen, nobody can tell, and nothing may hide.
    let mut s = Scene::new();
    s.segment(CLIENT, 0, None, TcpFlags::SYN, b"");
    s.send(CLIENT, 1, 1, b"a");
    s.rst(CLIENT, 2, 1);
    s.segment(CLIENT, 0, None, TcpFlags::SYN, b"");
    s.send(CLIENT, 1, 1, b"b");
    assert_eq!(s.told(), "open >0:a@0 >Rst <Rst close open >0:b@0");
}

#[test]
fn the_books_balance_whatever_comes_before_the_answer() {
    // `Scene` asserts the balance after each segment, and at the end that nothing is held.
    for seed in 1u32..400 {
        let mut x = seed.wrapping_mul(0x9e37_79b9) | 1;
        let mut draw = move |n: u32| {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            (x >> 8) % n
        };
        let bases = [0u32.wrapping_sub(draw(200)), 0u32.wrapping_sub(draw(200))];
        let mut s = Scene::with(StreamLimits {
            held_bytes_per_direction_max: 60,
            held_segments_per_direction_max: 6,
            held_bytes_max: 900,
            ..StreamLimits::default()
        });
        s.segment(CLIENT, bases[0].wrapping_sub(1), None, TcpFlags::SYN, b"");
        for _ in 0..40 {
            let who = if draw(3) == 0 { CLIENT } else { SERVER };
            let far = [0, 0, 0, 0, 0, 0, 0, 8 << 20, 16 << 20, 1 << 30][draw(10) as usize];
            let far = if draw(2) == 0 { far } else { 0u32.wrapping_sub(far) };
            let seq = bases[who as usize].wrapping_add(draw(120)).wrapping_add(far).wrapping_sub(draw(9));
            let ack = bases[1 - who as usize].wrapping_add(draw(120));
            let bytes = &[b'x'; 40][..draw(40) as usize];
            match draw(24) {
                0 => s.segment(SERVER, bases[1].wrapping_sub(1), Some(bases[0]), TcpFlags::SYN, b""),
                1 => s.fin(who, seq, ack),
                2 if draw(3) == 0 => s.rst(who, seq, ack),
                3 => s.segment(who, seq, Some(ack), TcpFlags::FIN, bytes),
                4 => s.cut(who, seq, ack, bytes, 50),
                5 => s.ack(CLIENT, bases[0], bases[1]),
                6 => s.idle(ms(u64::from(draw(150)))),
                7 => s.segment(CLIENT, bases[0].wrapping_sub(1), None, TcpFlags::SYN, bytes),
                _ => s.send(who, seq, ack, bytes),
            }
            s.wait(u64::from(draw(200)) * 1_000);
        }
        s.finish();
    }
}
