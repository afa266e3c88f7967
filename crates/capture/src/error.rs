//! What can go wrong on our side of the wire, and damage found in files.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a source can't be opened, or ended early.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A file can't be opened or its first bytes can't be read.
    #[error("cannot read {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is no capture.
    #[error(
        "{} {found}; expected a pcap, pcapng or snoop capture, plain or compressed with gzip or zstd",
        path.display()
    )]
    NotACapture {
        /// The file.
        path: PathBuf,
        /// What it is instead: `is empty`, `looks like text`, …
        found: String,
    },
    /// A pattern can't be read.
    #[error("bad pattern {pattern}: {message}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        message: String,
    },
    /// A pattern or directory has no capture, or nothing was named.
    #[error("no capture file found in: {what}")]
    NoFiles {
        /// What was searched.
        what: String,
    },
    /// More files overlap in time than may be open at once.
    #[error(
        "more than {max} capture files overlap in time at {}: merge them first (mergecap) or raise the limit",
        path.display()
    )]
    TooManyOverlap {
        /// The file that was one too many.
        path: PathBuf,
        /// How many may be open.
        max: usize,
    },
    /// There is no such interface.
    #[error("no interface {interface}; there are: {available}")]
    NoInterface {
        /// The interface asked for.
        interface: String,
        /// Those that exist.
        available: String,
    },
    /// A mirror's datagrams can't be listened for.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Address and port.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The process may not capture.
    #[error(
        "not permitted to capture on {interface}: run as root, or give the binary the capability \
         (setcap cap_net_raw,cap_net_admin=ep): {message}"
    )]
    NotPermitted {
        /// The interface.
        interface: String,
        /// What libpcap said.
        message: String,
    },
    /// The capture filter is wrong.
    #[error("bad capture filter `{filter}`: {message} (syntax: man pcap-filter)")]
    Filter {
        /// The filter.
        filter: String,
        /// What libpcap said.
        message: String,
    },
    /// An option of a live capture is out of range.
    #[error("live capture on {interface}: {option} is {value}, allowed is {allowed}")]
    Option {
        /// The interface.
        interface: String,
        /// The option.
        option: &'static str,
        /// What was given.
        value: u64,
        /// The range.
        allowed: &'static str,
    },
    /// The kernel refused the fanout group.
    #[error("cannot join fanout group {group} on {interface}: {source}")]
    Fanout {
        /// The interface.
        interface: String,
        /// The group.
        group: u16,
        /// Why.
        source: io::Error,
    },
    /// libpcap failed.
    #[error("capture on {interface} failed: {message}")]
    Live {
        /// The interface.
        interface: String,
        /// What libpcap said.
        message: String,
    },
}

/// Why privileges could not be given up; the process should stop.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// There is no such user.
    #[error("no user {user} to run as")]
    NoUser {
        /// The name.
        user: String,
    },
    /// Only root can become another user.
    #[error("cannot become user {user}: the process runs as uid {uid}, not as root")]
    NotRoot {
        /// The name.
        user: String,
        /// Who the process is.
        uid: u32,
    },
    /// A call failed.
    #[error("cannot drop privileges: {call}: {source}")]
    Call {
        /// The system call.
        call: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The calls succeeded and yet privileges are left or can be had again.
    #[error("privileges were not given up: {what}")]
    StillPrivileged {
        /// What is left.
        what: &'static str,
    },
}

/// One kind of damage in a capture file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The file ends within a record or block.
    Cut {
        /// Bytes that the record needs; a lower bound where its header itself is cut.
        needed: u64,
        /// Bytes that are there.
        available: u64,
    },
    /// A record claims more bytes than a frame can have in this file.
    RecordTooLong {
        /// What it claims.
        len: u32,
        /// The most that is believed.
        limit: u32,
    },
    /// A block's or record's total length can't be right.
    LengthInvalid {
        /// What it claims.
        len: u32,
    },
    /// The two lengths of a pcapng block differ.
    LengthsDiffer {
        /// The one at the start.
        first: u32,
        /// The one at the end.
        second: u32,
    },
    /// A frame claims more bytes than its block has.
    FrameOverrunsBlock {
        /// What it claims.
        len: u32,
    },
    /// A frame names an interface that was not described.
    InterfaceUnknown {
        /// The interface.
        interface: u32,
    },
    /// A section is of a version that is not known; its frames are not read.
    SectionVersionUnknown {
        /// The major version; 1 is known.
        major: u16,
    },
    /// A section has more interfaces than are believed.
    TooManyInterfaces,
    /// A section header, interface description or secrets block can't be read.
    BlockInvalid {
        /// Type of the block.
        block_type: u32,
    },
    /// The compressed data is cut or corrupt.
    Compression(io::ErrorKind),
    /// The file could not be read to its end.
    ReadFailed(io::ErrorKind),
    /// The file is no capture, or could not be opened, while others could.
    NotReadable,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Cut { needed, available } => {
                write!(f, "the file ends within a record ({available} of at least {needed} bytes)")
            }
            Self::RecordTooLong { len, limit } => {
                write!(f, "a record claims {len} bytes, the most believed is {limit}")
            }
            Self::LengthInvalid { len } => write!(f, "a block or record claims a total length of {len}"),
            Self::LengthsDiffer { first, second } => {
                write!(f, "a block claims {first} bytes at its start and {second} at its end")
            }
            Self::FrameOverrunsBlock { len } => {
                write!(f, "a frame claims {len} bytes, more than its block has")
            }
            Self::InterfaceUnknown { interface } => {
                write!(f, "a frame names interface {interface}, which was not described")
            }
            Self::SectionVersionUnknown { major } => {
                write!(f, "a section has version {major}, only 1 is known")
            }
            Self::TooManyInterfaces => f.write_str("a section describes too many interfaces"),
            Self::BlockInvalid { block_type } => write!(f, "a block of type {block_type:#x} can't be read"),
            Self::Compression(kind) => write!(f, "the compressed data is cut or corrupt ({kind})"),
            Self::ReadFailed(kind) => write!(f, "reading failed ({kind})"),
            Self::NotReadable => f.write_str("the file is no capture or can't be opened"),
        }
    }
}

/// One damaged place in a capture file. What could be read around it was delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileProblem {
    /// The file; `-` is standard input.
    pub path: PathBuf,
    /// Where, in bytes from the start of the capture (after decompression).
    pub offset: u64,
    /// What.
    pub what: Damage,
    /// Bytes that were skipped until reading went on; `None` where the rest of the file was given up.
    pub skipped: Option<u64>,
    /// More for people, where there is more to say.
    pub detail: Option<String>,
}

impl FileProblem {
    pub(crate) fn unreadable(path: &Path, error: &SourceError) -> Self {
        Self {
            path: path.to_path_buf(),
            offset: 0,
            what: Damage::NotReadable,
            skipped: None,
            detail: Some(error.to_string()),
        }
    }
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(detail) = &self.detail {
            return f.write_str(detail);
        }
        write!(f, "{}: at byte {}: {}; ", self.path.display(), self.offset, self.what)?;
        match self.skipped {
            Some(n) => write!(f, "{n} bytes skipped"),
            None => f.write_str("the rest of the file was given up"),
        }
    }
}
