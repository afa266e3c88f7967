//! The fields of one header block on their way to a head.

use std::ops::Range;

use offpath_types::{Anomalies, Anomaly};
use smallvec::SmallVec;

use crate::head::Header;

/// A head's fields, as [`crate::facts`] reads them.
pub(super) type Headers<'a> = SmallVec<[Header<'a>; 48]>;

/// Pseudo-header fields (RFC 9113 §8.3, RFC 8441 §4), as bits.
const METHOD: u8 = 1;
const PATH: u8 = 1 << 1;
const SCHEME: u8 = 1 << 2;
const AUTHORITY: u8 = 1 << 3;
const STATUS: u8 = 1 << 4;
const PROTOCOL: u8 = 1 << 5;

/// The fields of a block: one per worker, emptied for each block.
#[derive(Default)]
pub(crate) struct Fields {
    bytes: Vec<u8>,
    regular: Vec<(Range<u32>, Range<u32>)>,
    cookies: Vec<Range<u32>>,
    method: Option<Range<u32>>,
    path: Option<Range<u32>>,
    authority: Option<Range<u32>>,
    /// Pseudo-header fields there are, their values known or not.
    pseudo: u8,
    /// Their first letters, in wire order: `mpsa` for Firefox, `masp` for Chrome.
    pub(super) pseudo_order: SmallVec<[u8; 6]>,
    pub(super) status: Option<u16>,
    pub(super) content_length: Option<u64>,
    pub(super) grpc_status: Option<u32>,
    pub(super) is_grpc: bool,
    pub(super) unresolved: u32,
    /// Fields are missing: the head is over a limit, or its block could not be decoded.
    pub(super) is_cut: bool,
    pub(super) anomalies: Anomalies,
}

impl Fields {
    /// Takes the next field; `None`: what it is, is not known.
    pub(super) fn push(
        &mut self,
        name: Option<&[u8]>,
        value: Option<&[u8]>,
        headers_max: usize,
        keeps: impl Fn(&[u8]) -> bool,
    ) {
        self.unresolved += u32::from(name.is_none() || value.is_none());
        let Some(name) = name else { return };
        if let [b':', pseudo @ ..] = name {
            return self.push_pseudo(pseudo, value);
        }
        let Some(value) = value else { return };
        self.check(name, value);
        match name {
            b"cookie" => {
                let at = self.keep(value);
                return self.cookies.push(at);
            }
            b"content-length" => self.content_length = number(value),
            b"grpc-status" => self.grpc_status = number(value).and_then(|n| u32::try_from(n).ok()),
            b"content-type" => self.is_grpc |= value.starts_with(b"application/grpc"),
            b"host" => {
                let same = self.authority.clone().is_some_and(|a| self.text(&a) == value);
                if same {
                    return;
                }
            }
            b"transfer-encoding" => self.anomalies.insert(Anomaly::TransferEncodingInvalid),
            _ => {}
        }
        if self.regular.len() >= headers_max {
            self.anomalies.insert(Anomaly::HeaderCountExceeded);
            if !keeps(name) {
                return;
            }
        }
        let name = self.keep(name);
        let value = self.keep(value);
        self.regular.push((name, value));
    }

    fn push_pseudo(&mut self, name: &[u8], value: Option<&[u8]>) {
        let bit = match name {
            b"method" => METHOD,
            b"path" => PATH,
            b"scheme" => SCHEME,
            b"authority" => AUTHORITY,
            b"status" => STATUS,
            b"protocol" => PROTOCOL,
            _ => 0,
        };
        if bit == 0 || self.pseudo & bit != 0 || !self.regular.is_empty() || !self.cookies.is_empty() {
            self.anomalies.insert(Anomaly::PseudoHeaderInvalid);
            if bit == 0 || self.pseudo & bit != 0 {
                return;
            }
        }
        self.pseudo |= bit;
        self.pseudo_order.push(name[0]);
        let Some(value) = value else { return };
        self.check(b"", value);
        match bit {
            METHOD => self.method = Some(self.keep(value)),
            PATH => self.path = Some(self.keep(value)),
            AUTHORITY => self.authority = Some(self.keep(value)),
            STATUS => {
                self.status = number(value).and_then(|s| u16::try_from(s).ok()).filter(|_| value.len() == 3);
                if self.status.is_none() {
                    self.anomalies.insert(Anomaly::StatusLineInvalid);
                }
            }
            _ => {}
        }
    }

    /// What HTTP/1 could not carry as it is: the raw material of smuggling through a gateway.
    fn check(&mut self, name: &[u8], value: &[u8]) {
        if name.iter().any(|b| b.is_ascii_uppercase() || *b <= b' ' || matches!(b, b':' | 0x7f..)) {
            self.anomalies.insert(Anomaly::HeaderNameInvalid);
        }
        if value.iter().any(|b| matches!(b, 0 | b'\r' | b'\n')) {
            self.anomalies.insert(Anomaly::ControlCharacter);
        }
    }

    /// Joins cookie crumbs (RFC 9113 §8.2.3) once all fields are in.
    pub(super) fn end(&mut self) {
        let crumbs = std::mem::take(&mut self.cookies);
        let at = match &crumbs[..] {
            [] => return,
            [one] => one.clone(),
            crumbs => {
                let start = self.bytes.len();
                for (i, crumb) in crumbs.iter().enumerate() {
                    if i > 0 {
                        self.bytes.extend_from_slice(b"; ");
                    }
                    self.bytes.extend_from_within(crumb.start as usize..crumb.end as usize);
                }
                start as u32..self.bytes.len() as u32
            }
        };
        let name = self.keep(b"cookie");
        self.regular.push((name, at));
        self.cookies = crumbs;
    }

    /// Tells whether this is a request's head, a response's, or neither (trailers, or all of it unknown).
    pub(super) fn is_request(&self) -> Option<bool> {
        match (self.pseudo & STATUS != 0, self.pseudo & (METHOD | PATH | SCHEME | AUTHORITY) != 0) {
            (true, false) => Some(false),
            (false, true) => Some(true),
            _ => None,
        }
    }

    pub(super) fn has_status(&self) -> bool {
        self.pseudo & STATUS != 0
    }

    /// An extended CONNECT: WebSocket and its like over HTTP/2.
    pub(super) fn has_protocol(&self) -> bool {
        self.pseudo & PROTOCOL != 0
    }

    pub(super) fn method(&self) -> &[u8] {
        self.method.as_ref().map_or(b"", |r| self.text(r))
    }

    pub(super) fn path_known(&self) -> bool {
        self.path.is_some()
    }

    /// The target: the path, or the authority of a CONNECT.
    pub(super) fn target(&self) -> &[u8] {
        match (&self.path, &self.authority) {
            (Some(path), _) => self.text(path),
            (None, Some(authority)) if self.method() == b"CONNECT" => self.text(authority),
            _ => b"",
        }
    }

    /// Tells whether a request lacks what each must have (RFC 9113 §8.3.1).
    pub(super) fn request_lacks(&self) -> bool {
        let plain_connect = self.method() == b"CONNECT" && !self.has_protocol();
        let needed = if plain_connect { METHOD | AUTHORITY } else { METHOD | PATH | SCHEME };
        self.unresolved == 0 && !self.is_cut && self.pseudo & needed != needed
    }

    /// Returns the fields as a head of HTTP/1 would have them: the authority is the first, as Host.
    pub(super) fn headers(&self) -> Headers<'_> {
        let host = self.authority.iter().map(|a| Header { name: b"host", value: self.text(a) });
        let regular = self.regular.iter().map(|(n, v)| Header { name: self.text(n), value: self.text(v) });
        host.chain(regular).collect()
    }

    fn keep(&mut self, text: &[u8]) -> Range<u32> {
        // The list is capped far below 4 GiB.
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(text);
        start..self.bytes.len() as u32
    }

    fn text(&self, range: &Range<u32>) -> &[u8] {
        self.bytes.get(range.start as usize..range.end as usize).unwrap_or_default()
    }

    /// Empties it for the next block; keeps the room.
    pub(super) fn clear(&mut self) {
        let Self { mut bytes, mut regular, mut cookies, .. } = std::mem::take(self);
        bytes.clear();
        regular.clear();
        cookies.clear();
        *self = Self { bytes, regular, cookies, ..Self::default() };
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}
