//! What tests, benchmarks and demos need: frames, conversations, impairments, traffic with known truth,
//! golden captures, and a shop to attack.
//!
//! For development only: nothing that ships depends on this crate. It shares no code with the decoders
//! that it tests, so that a mistake in one cannot hide in the other. Everything is made from a seed:
//! the same arguments write the same bytes.
#![forbid(unsafe_code)]

pub mod captures;
pub mod conversation;
pub mod dialogue;
pub mod flood;
pub mod golden;
pub mod http2;
pub mod impair;
pub mod measure;
pub mod packet_builder;
pub mod pcap_file;
pub mod plot;
pub mod rng;
pub mod shop;
pub mod traffic;

pub use conversation::{Conversation, Packet};
pub use dialogue::{Dialogue, Turn};
pub use packet_builder::{Link, Tcp};
pub use pcap_file::{PcapFormat, PcapNgWriter, PcapReader, PcapWriter, Record};
pub use rng::Rng;
