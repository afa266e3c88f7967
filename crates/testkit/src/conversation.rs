//! TCP conversations as lists of packets that tests may then lose, swap, repeat and cut.
//!
//! A [`Conversation`] keeps both ends' sequence numbers and a clock; each call adds packets. The packets
//! are IP packets: [`write_pcap`] puts them into frames of any [`Link`].

use std::io::{self, Write};
use std::net::SocketAddr;

use offpath_types::{Direction, Timestamp};

use crate::dialogue::{Dialogue, DialogueError, Turn};
use crate::packet_builder::{Link, Tcp, flags};
use crate::pcap_file::{PcapFormat, PcapWriter};

/// One IP packet of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// When it was captured.
    pub time: Timestamp,
    /// Which way it went.
    pub direction: Direction,
    /// From the IP header on.
    pub bytes: Vec<u8>,
}

/// Both ends of one TCP connection.
#[derive(Clone, Debug)]
pub struct Conversation {
    ends: [SocketAddr; 2],
    /// Next sequence number of what is sent to the server, and to the client.
    next: [u32; 2],
    mss: usize,
    step_nanos: u64,
    auto_ack: bool,
    now: Timestamp,
    packets: Vec<Packet>,
}

impl Conversation {
    /// Makes a connection that starts at `start`, with an MSS of 1448 bytes, 100 µs between packets,
    /// initial sequence numbers 1000 (client) and 5000 (server), and a receiver that acknowledges.
    pub const fn new(client: SocketAddr, server: SocketAddr, start: Timestamp) -> Self {
        Self {
            ends: [client, server],
            next: [1000, 5000],
            mss: 1448,
            step_nanos: 100_000,
            auto_ack: true,
            now: start,
            packets: Vec::new(),
        }
    }

    /// Sets the next sequence numbers of client and server: before the handshake, the initial ones.
    pub const fn sequence_numbers(&mut self, client: u32, server: u32) -> &mut Self {
        self.next = [client, server];
        self
    }

    /// Sets how many payload bytes a segment carries; at least 1.
    pub const fn mss(&mut self, mss: usize) -> &mut Self {
        self.mss = if mss == 0 { 1 } else { mss };
        self
    }

    /// Sets the time between packets.
    pub const fn step_nanos(&mut self, nanos: u64) -> &mut Self {
        self.step_nanos = nanos;
        self
    }

    /// Sets whether the receiver acknowledges every second segment and the last of each [`send`].
    ///
    /// [`send`]: Conversation::send
    pub const fn auto_ack(&mut self, on: bool) -> &mut Self {
        self.auto_ack = on;
        self
    }

    /// Lets time pass.
    pub const fn wait(&mut self, nanos: u64) -> &mut Self {
        self.now = self.now.plus_nanos(nanos);
        self
    }

    /// Adds SYN, SYN+ACK and ACK.
    pub fn handshake(&mut self) -> &mut Self {
        let mss = &[2, 4, 5, 180, 1, 1, 4, 2];
        self.push(Direction::ToServer, flags::SYN, mss, &[]);
        self.next[0] = self.next[0].wrapping_add(1);
        self.push(Direction::ToClient, flags::SYN | flags::ACK, mss, &[]);
        self.next[1] = self.next[1].wrapping_add(1);
        self.ack(Direction::ToServer)
    }

    /// Sends `bytes` in segments of at most the MSS.
    pub fn send(&mut self, direction: Direction, bytes: &[u8]) -> &mut Self {
        let mut chunks = bytes.chunks(self.mss).enumerate().peekable();
        while let Some((i, chunk)) = chunks.next() {
            let last = chunks.peek().is_none();
            let push = if last { flags::PSH } else { 0 };
            self.push(direction, flags::ACK | push, &[], chunk);
            let slot = &mut self.next[direction.index()];
            *slot = slot.wrapping_add(chunk.len() as u32);
            if self.auto_ack && (last || i % 2 == 1) {
                self.ack(direction.flip());
            }
        }
        self
    }

    /// Sends `len` bytes that the capture misses: only the sequence number moves.
    pub const fn skip(&mut self, direction: Direction, len: u32) -> &mut Self {
        let slot = &mut self.next[direction.index()];
        *slot = slot.wrapping_add(len);
        self
    }

    /// Sends an empty ACK of everything received.
    pub fn ack(&mut self, direction: Direction) -> &mut Self {
        self.push(direction, flags::ACK, &[], &[]);
        self
    }

    /// Sends FIN.
    pub fn fin(&mut self, direction: Direction) -> &mut Self {
        self.push(direction, flags::FIN | flags::ACK, &[], &[]);
        self.skip(direction, 1)
    }

    /// Sends RST.
    pub fn rst(&mut self, direction: Direction) -> &mut Self {
        self.push(direction, flags::RST | flags::ACK, &[], &[]);
        self
    }

    /// Closes from both sides, the client first.
    pub fn close(&mut self) -> &mut Self {
        self.fin(Direction::ToServer).fin(Direction::ToClient).ack(Direction::ToServer)
    }

    /// Sends a segment whose sequence number is `offset` from the next one, without moving anything:
    /// retransmissions, overlaps, keep-alives.
    pub fn stray(&mut self, direction: Direction, offset: i32, flags: u8, payload: &[u8]) -> &mut Self {
        let real = self.next[direction.index()];
        self.next[direction.index()] = real.wrapping_add_signed(offset);
        self.push(direction, flags, &[], payload);
        self.next[direction.index()] = real;
        self
    }

    /// Plays a dialogue, 1 ms between turns.
    pub fn play(&mut self, dialogue: &Dialogue) -> &mut Self {
        for turn in &dialogue.turns {
            match turn {
                Turn::Data { direction, bytes } => self.send(*direction, bytes),
                Turn::Gap { direction, len } => self.skip(*direction, *len),
            };
            self.wait(1_000_000);
        }
        self
    }

    /// Parses and plays a script (see [`crate::dialogue`]).
    pub fn script(&mut self, script: &str) -> Result<&mut Self, DialogueError> {
        Ok(self.play(&Dialogue::parse(script)?))
    }

    /// Returns the time that the next packet gets.
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// Returns the packets so far.
    pub fn packets(&self) -> &[Packet] {
        &self.packets
    }

    /// Ends the conversation and returns its packets.
    pub fn into_packets(self) -> Vec<Packet> {
        self.packets
    }

    fn push(&mut self, direction: Direction, bits: u8, options: &[u8], payload: &[u8]) {
        let (from, to) = (direction.index(), direction.flip().index());
        let ack = if bits & flags::ACK == 0 { 0 } else { self.next[to] };
        let bytes = Tcp::new(self.ends[from], self.ends[to])
            .seq(self.next[from])
            .ack(ack)
            .flags(bits)
            .options(options)
            .payload(payload)
            .packet();
        self.packets.push(Packet { time: self.now, direction, bytes });
        self.now = self.now.plus_nanos(self.step_nanos);
    }
}

/// Puts conversations together in time order; packets of the same time keep the order of the lists.
pub fn merge(conversations: Vec<Vec<Packet>>) -> Vec<Packet> {
    let mut all: Vec<Packet> = conversations.into_iter().flatten().collect();
    all.sort_by_key(|p| p.time);
    all
}

/// Gives the packets new times, `step_nanos` apart from the first one's on, so that a changed order looks
/// as a capture would show it.
pub fn retime(packets: &mut [Packet], step_nanos: u64) {
    let Some(start) = packets.first().map(|p| p.time) else { return };
    for (i, packet) in packets.iter_mut().enumerate() {
        packet.time = start.plus_nanos(i as u64 * step_nanos);
    }
}

/// Writes the packets as a nanosecond pcap of `link` frames.
pub fn write_pcap<W: Write>(out: W, link: Link, packets: &[Packet]) -> io::Result<W> {
    let mut writer = PcapWriter::new(out, PcapFormat::new(link.number()))?;
    for packet in packets {
        writer.write(packet.time, &link.wrap(&packet.bytes))?;
    }
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation() -> Conversation {
        let (client, server) = ("10.0.0.1:40000".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
        Conversation::new(client, server, Timestamp::from_parts(1, 0))
    }

    fn seq_ack(packet: &Packet) -> (u32, u32) {
        let word = |at: usize| u32::from_be_bytes(packet.bytes[at..at + 4].try_into().unwrap());
        (word(24), word(28))
    }

    #[test]
    fn sequence_numbers_follow_the_bytes() {
        let mut c = conversation();
        c.handshake()
            .mss(4)
            .send(Direction::ToServer, b"abcdefghij")
            .send(Direction::ToClient, b"xy")
            .close();
        let got: Vec<_> = c.packets().iter().map(seq_ack).collect();
        let want = [
            (1000, 0),
            (5000, 1001),
            (1001, 5001),
            (1001, 5001),
            (1005, 5001),
            (5001, 1009),
            (1009, 5001),
            (5001, 1011),
            (5001, 1011),
            (1011, 5003),
            (1011, 5003),
            (5003, 1012),
            (1012, 5004),
        ];
        assert_eq!(got, want);
        assert!(c.packets().is_sorted_by_key(|p| p.time));
    }

    #[test]
    fn strays_do_not_move_the_conversation_and_numbers_wrap() {
        let mut c = conversation();
        c.sequence_numbers(u32::MAX - 1, 9).auto_ack(false);
        c.send(Direction::ToServer, b"abcd").stray(Direction::ToServer, -4, flags::ACK, b"abcd");
        c.send(Direction::ToServer, b"e");
        let got: Vec<_> = c.packets().iter().map(|p| seq_ack(p).0).collect();
        assert_eq!(got, [u32::MAX - 1, u32::MAX - 1, 2]);
    }

    #[test]
    fn merged_conversations_are_in_time_order() {
        let mut a = conversation();
        a.handshake();
        let mut b = conversation();
        b.wait(150_000).handshake();
        let all = merge(vec![a.into_packets(), b.into_packets()]);
        assert_eq!(all.len(), 6);
        assert!(all.is_sorted_by_key(|p| p.time));
    }
}
