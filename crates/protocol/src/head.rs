//! A parsed head, borrowed for the call: what framing hands to [`crate::facts`].

use offpath_types::HttpVersion;

/// One header field in wire order; obs-fold is unfolded, white space around the value is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Name as sent.
    pub name: &'a [u8],
    /// Value as sent.
    pub value: &'a [u8],
}

/// The head of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// Method as sent.
    pub method: &'a [u8],
    /// Target as sent.
    pub target: &'a [u8],
    /// Version.
    pub version: HttpVersion,
    /// Header fields in wire order.
    pub headers: &'a [Header<'a>],
    /// Its framing says that no body follows, whoever reads it.
    pub says_empty: bool,
}

/// The head of a response.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'a> {
    /// Version.
    pub version: HttpVersion,
    /// Status code.
    pub status: u16,
    /// Header fields in wire order.
    pub headers: &'a [Header<'a>],
    /// Its framing says that no body follows, whoever reads it.
    pub says_empty: bool,
}
