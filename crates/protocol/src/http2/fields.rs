//! The fields of one header block on their way to a head.

use std::ops::Range;

use offpath_types::{Anomalies, Anomaly};
use smallvec::SmallVec;

use crate::head::Header;
use crate::http1::{FramingFields, is_known_method, is_odd_in_target, is_token, trim_ows};

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
    /// What they say of the body's length, read as those of HTTP/1: a gateway may write them so.
    pub(super) framing: FramingFields,
    pub(super) grpc_status: Option<u32>,
    pub(super) is_grpc: bool,
    /// A request asks for a WebSocket connection (RFC 8441).
    pub(super) is_websocket: bool,
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
        let value = self.check(name, value);
        match name {
            b"cookie" => {
                let at = self.keep(value);
                return self.cookies.push(at);
            }
            b"grpc-status" => self.grpc_status = number(value).and_then(|n| u32::try_from(n).ok()),
            b"content-type" => self.is_grpc |= value.starts_with(b"application/grpc"),
            b"host" => {
                let same = self.authority.clone().is_some_and(|a| self.text(&a) == value);
                if same {
                    return;
                }
            }
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
        self.check_text(value);
        if value.is_empty() {
            self.anomalies.insert(Anomaly::PseudoHeaderInvalid);
        }
        match bit {
            METHOD => self.method = Some(self.keep_method(value)),
            PATH => self.path = Some(self.keep_path(value)),
            SCHEME => {
                let odd = |b: &u8| !b.is_ascii_alphanumeric() && !matches!(b, b'+' | b'-' | b'.');
                self.mark(value.iter().any(odd), Anomaly::TargetInvalid);
            }
            AUTHORITY => {
                let odd = |b: &u8| is_odd_in_target(*b) || matches!(b, b'/' | b'?' | b'@');
                self.mark(value.iter().any(odd), Anomaly::TargetInvalid);
                // A path or query behind it could hold anything, and is no host.
                let end = |b: &u8| matches!(b, b'/' | b'\\' | b'?' | b'#' | ..=b' ');
                self.authority = Some(self.keep(value.split(end).next().unwrap_or_default()));
            }
            PROTOCOL => self.is_websocket = value == b"websocket",
            STATUS => {
                self.status = number(value).and_then(|s| u16::try_from(s).ok()).filter(|_| value.len() == 3);
                // Nothing is switched in HTTP/2 (RFC 9113 §8.6).
                self.mark(!matches!(self.status, Some(100 | 102..)), Anomaly::StatusLineInvalid);
            }
            _ => {}
        }
    }

    fn mark(&mut self, odd: bool, anomaly: Anomaly) {
        if odd {
            self.anomalies.insert(anomaly);
        }
    }

    /// Keeps a method; of one that is no token what a gateway that writes it into a request line would pass on as such.
    fn keep_method(&mut self, value: &[u8]) -> Range<u32> {
        self.mark(!is_known_method(value), Anomaly::MethodUnknown);
        let from = value.iter().position(|b| is_token(*b)).unwrap_or(value.len());
        self.keep(value[from..].split(|b| !is_token(*b)).next().unwrap_or_default())
    }

    /// Keeps a path, up to a space as in HTTP/1: what follows may be a whole request.
    fn keep_path(&mut self, value: &[u8]) -> Range<u32> {
        let origin = value.is_empty() || value.starts_with(b"/") || value == b"*";
        self.mark(!origin || value.iter().any(|b| is_odd_in_target(*b)), Anomaly::TargetInvalid);
        let value = trim_ows(value);
        self.keep(value.split(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n')).next().unwrap_or_default())
    }

    /// Marks what HTTP/1 could not carry as it is, or not to the same end: the raw material of smuggling through a gateway.
    /// Returns the value without white space around it.
    fn check<'a>(&mut self, name: &[u8], value: &'a [u8]) -> &'a [u8] {
        let odd = |b: &u8| b.is_ascii_uppercase() || !is_token(*b);
        self.mark(name.is_empty() || name.iter().any(odd), Anomaly::HeaderNameInvalid);
        self.check_text(value);
        let trimmed = trim_ows(value);
        let padded = trimmed.len() < value.len();
        self.mark(padded, Anomaly::HeaderValuePadded);
        self.framing.note(name, trimmed, padded);
        let is = |forbidden: &str| name.eq_ignore_ascii_case(forbidden.as_bytes());
        match name.len() {
            2 => self.mark(is("te") && !trimmed.eq_ignore_ascii_case(b"trailers"), Anomaly::ConnectionField),
            7 => self.mark(is("upgrade"), Anomaly::ConnectionField),
            10 => self.mark(is("connection") || is("keep-alive"), Anomaly::ConnectionField),
            16 => self.mark(is("proxy-connection"), Anomaly::ConnectionField),
            17 => self.mark(is("transfer-encoding"), Anomaly::TransferEncodingInvalid),
            _ => {}
        }
        trimmed
    }

    fn check_text(&mut self, value: &[u8]) {
        let control = |b: &u8| matches!(b, 0..=8 | 10..=0x1f | 0x7f);
        self.mark(value.iter().any(control), Anomaly::ControlCharacter);
    }

    /// Marks what only the whole head shows, and joins cookie crumbs (RFC 9113 §8.2.3), once all fields are in.
    pub(super) fn end(&mut self) {
        self.framing.finish(false);
        self.anomalies.extend(self.framing.anomalies);
        self.mark(self.has_status() && self.pseudo != STATUS, Anomaly::PseudoHeaderInvalid);
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

    /// Pseudo-header fields, which trailers must not have (RFC 9113 §8.1).
    pub(super) fn has_pseudo(&self) -> bool {
        self.pseudo != 0
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
        self.path.as_ref().is_some_and(|path| !path.is_empty())
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
