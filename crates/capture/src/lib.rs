//! Where frames come from: capture files, live rings, memory.
//!
//! A [`PacketSource`] is pulled; each [`Frame`](offpath_types::Frame) is borrowed from the source's own
//! buffer and is valid until the next call, so nothing is allocated or copied per frame.
//!
//! - [`FileSource`]: pcap, pcapng and snoop, plain or in gzip or zstd, from files, globs, directories and
//!   standard input, merged in time order. Damage is reported as [`FileProblem`]s and read past.
//! - [`LiveSource`]: a ring of the kernel through libpcap, one of several workers of a fanout group.
//! - [`UdpSource`]: VXLAN and GENEVE datagrams that a mirror sends to a port of ours; needs no privilege.
//! - [`StreamSource`]: files that are still being written, and pcap-over-IP.
//! - [`MemorySource`], and [`FaultySource`] around any source: for tests, benches and fuzzing.
//! - [`drop_privileges`]: gives up root once the sockets are open.
//!
//! This is the only crate of Offpath where `unsafe` is allowed; all of it is in `sys.rs`.
#![deny(unsafe_code)]

mod buffer;
mod classic;
mod clock;
mod error;
mod faulty;
mod file;
mod followed;
mod growing;
mod input;
mod live;
mod memory;
mod ng;
mod paths;
mod privileges;
mod reader;
mod snoop;
mod source;
mod sys;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod udp;

pub use error::{Damage, FileProblem, PrivilegeError, SourceError};
pub use faulty::{FaultOptions, FaultySource};
#[doc(hidden)]
pub use file::fuzz_pcap_file;
pub use file::{FileOptions, FileSource};
pub use growing::{StreamOptions, StreamSource};
pub use live::{LiveOptions, LiveSource};
pub use memory::MemorySource;
pub use ng::Secrets;
pub use paths::input_files;
pub use privileges::{Privileges, drop_privileges};
pub use source::{CaptureCounters, PacketSource, Polled};
pub use udp::{UdpOptions, UdpSource};
