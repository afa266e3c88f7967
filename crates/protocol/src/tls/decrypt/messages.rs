//! Handshake messages: put together, and what the ones that matter say.

use offpath_types::Direction;

use super::exchange::Exchange;
use super::half::Phase;
use super::{Connection, Early, Env, Handshake, MESSAGE_BYTES_MAX, Stop, TRANSCRIPT_BYTES_MAX, Turn, Why};
use crate::tls::keys::{Name, Random};
use crate::tls::record::Opener;
use crate::tls::schedule::{Suite, next_secret};

/// Puts the handshake messages of one direction together.
#[derive(Default)]
pub(super) struct Messages {
    pub(super) buf: Vec<u8>,
    /// Bytes of a message that nobody wants, still to come.
    pub(super) skip: usize,
    /// Bytes were lost: nothing can be found until keys change.
    pub(super) broken: bool,
    /// All messages since a hello, as long as they may be needed.
    pub(super) transcript: Option<Vec<u8>>,
}

pub(in crate::tls) const CLIENT_HELLO: u8 = 1;
pub(in crate::tls) const SERVER_HELLO: u8 = 2;
pub(in crate::tls) const END_OF_EARLY_DATA: u8 = 5;
pub(in crate::tls) const ENCRYPTED_EXTENSIONS: u8 = 8;
const SERVER_HELLO_DONE: u8 = 14;
const CLIENT_KEY_EXCHANGE: u8 = 16;
pub(in crate::tls) const FINISHED: u8 = 20;
pub(in crate::tls) const KEY_UPDATE: u8 = 24;

impl Messages {
    pub(super) fn is_empty(&self) -> bool {
        self.buf.is_empty() && self.skip == 0
    }

    /// Bytes of the message in progress, and of those that are kept.
    pub(super) fn held(&self) -> usize {
        self.buf.len() + self.transcript.as_ref().map_or(0, Vec::len)
    }

    /// Keeps all messages from this one on, the one that was taken last.
    fn keep_from(&mut self, kind: u8, body: &[u8]) {
        let [_, a, b, c] = (body.len() as u32).to_be_bytes();
        self.transcript = Some(Vec::new());
        self.keep(&[kind, a, b, c]);
        self.keep(body);
    }

    fn keep(&mut self, bytes: &[u8]) {
        if let Some(kept) = &mut self.transcript {
            if kept.len() + bytes.len() > TRANSCRIPT_BYTES_MAX {
                self.transcript = None;
            } else {
                kept.extend_from_slice(bytes);
            }
        }
    }

    /// Takes bytes off `content` and returns the message that they complete; its body is empty where nobody wants it.
    pub(super) fn next(&mut self, content: &mut &[u8]) -> Option<(u8, Vec<u8>)> {
        let before = *content;
        let message = self.step(content);
        self.keep(&before[..before.len() - content.len()]);
        message
    }

    fn step(&mut self, content: &mut &[u8]) -> Option<(u8, Vec<u8>)> {
        loop {
            let skipped = self.skip.min(content.len());
            *content = &content[skipped..];
            self.skip -= skipped;
            if self.broken || content.is_empty() {
                return None;
            }
            let header = 4usize.saturating_sub(self.buf.len()).min(content.len());
            self.buf.extend_from_slice(&content[..header]);
            *content = &content[header..];
            let [kind, a, b, c, ..] = self.buf[..] else { return None };
            let len = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            let wanted =
                matches!(kind, CLIENT_HELLO | SERVER_HELLO | ENCRYPTED_EXTENSIONS | CLIENT_KEY_EXCHANGE);
            if !wanted || len > MESSAGE_BYTES_MAX {
                self.buf.clear();
                self.skip = len;
                if wanted {
                    continue;
                }
                let now = len.min(content.len());
                *content = &content[now..];
                self.skip -= now;
                return Some((kind, Vec::new()));
            }
            let more = (4 + len - self.buf.len()).min(content.len());
            self.buf.extend_from_slice(&content[..more]);
            *content = &content[more..];
            if self.buf.len() < 4 + len {
                return None;
            }
            let mut body = std::mem::take(&mut self.buf);
            body.drain(..4);
            return Some((kind, body));
        }
    }
}

impl Connection {
    /// Reads handshake messages in `content` of the buffer.
    pub(super) fn messages(
        &mut self,
        env: &mut Env<'_>,
        dir: Direction,
        content: std::ops::Range<usize>,
    ) -> Result<Turn, Stop> {
        let half = &mut self.halves[dir.index()];
        // Hellos and tickets: rare and small.
        let bytes = half.buf[content].to_vec();
        let mut rest = &bytes[..];
        let mut turn = Turn::Next;
        while let Some((kind, body)) = self.halves[dir.index()].messages.next(&mut rest) {
            if self.message(env, dir, kind, &body)? {
                turn = Turn::Unlocked;
            }
            // It is the last in its record (RFC 8446 §5.1): what follows would be under other keys.
            if kind == KEY_UPDATE && self.tls13 == Some(true) {
                break;
            }
        }
        Ok(turn)
    }

    /// Does what a handshake message says; true where it may unlock the other direction.
    pub(super) fn message(
        &mut self,
        env: &mut Env<'_>,
        dir: Direction,
        kind: u8,
        body: &[u8],
    ) -> Result<bool, Stop> {
        let malformed = Stop::GivenUp(Why::Malformed);
        match kind {
            CLIENT_HELLO => {
                if self.client.is_some_and(|c| c != dir) {
                    return Err(malformed);
                }
                let Some(hello) = ClientHello::parse(body) else { return Err(malformed) };
                self.client = Some(dir);
                self.retrying = false;
                self.secrets = None;
                let early =
                    if hello.early_data && self.tls13.is_none() { Early::Open } else { Early::NotOffered };
                self.handshake = Some(Handshake {
                    client_random: hello.random,
                    server_random: None,
                    suite: None,
                    encrypt_then_mac: false,
                    early,
                    exchange: Exchange::new(4 + body.len()),
                });
                if env.wait || env.keys.has_encrypted() {
                    self.halves[dir.index()].messages.keep_from(kind, body);
                } else if !env.keys.knows(&Name::Client(hello.random)) {
                    return Err(Stop::GivenUp(Why::NoSecrets));
                }
                Ok(true)
            }
            SERVER_HELLO => {
                let Some(client) = self.client.filter(|c| *c != dir) else { return Err(malformed) };
                let Some(hello) = ServerHello::parse(body) else { return Err(malformed) };
                let tls13 = match hello.version {
                    0x0304 => true,
                    0x0303 => false,
                    _ => return Err(Stop::GivenUp(Why::Unsupported)),
                };
                if self.tls13.is_some_and(|before| before != tls13) {
                    return Err(malformed);
                }
                let suite = Suite::of(hello.suite, tls13).filter(|_| hello.compression == 0);
                let Some(suite) = suite else { return Err(Stop::GivenUp(Why::Unsupported)) };
                self.tls13 = Some(tls13);
                let Some(handshake) = &mut self.handshake else { return Err(malformed) };
                if !env.wait && !suite.rsa && !env.keys.knows(&Name::Client(handshake.client_random)) {
                    return Err(Stop::GivenUp(Why::NoSecrets));
                }
                if !suite.rsa || !hello.extended_master_secret {
                    self.halves.iter_mut().for_each(|half| half.messages.transcript = None);
                    handshake.exchange.forget();
                } else if self.halves[client.index()].messages.transcript.is_some()
                    || handshake.exchange.has_client()
                {
                    self.halves[dir.index()].messages.keep_from(kind, body);
                }
                if hello.random == RETRY {
                    handshake.early = Early::NotOffered;
                    self.retrying = true;
                    return Ok(true);
                }
                handshake.server_random = Some(hello.random);
                handshake.suite = Some(suite);
                handshake.encrypt_then_mac = hello.encrypt_then_mac;
                handshake.exchange.extended = hello.extended_master_secret;
                if tls13 {
                    let offered = handshake.early != Early::NotOffered;
                    self.halves[dir.index()].enter(Phase::Handshake);
                    let first = if offered { Phase::Early } else { Phase::Handshake };
                    self.halves[client.index()].enter(first);
                } else {
                    handshake.early = Early::NotOffered;
                }
                Ok(true)
            }
            SERVER_HELLO_DONE if self.tls13 == Some(false) && self.client == Some(dir.flip()) => {
                let kept = self.halves[dir.index()].messages.transcript.take();
                if let Some(handshake) = &mut self.handshake {
                    handshake.exchange.server(kept);
                }
                Ok(true)
            }
            CLIENT_KEY_EXCHANGE if self.tls13 != Some(true) && self.client == Some(dir) => {
                let kept = self.halves[dir.index()].messages.transcript.take();
                if let Some(handshake) = &mut self.handshake {
                    handshake.exchange.client(body, kept);
                }
                Ok(true)
            }
            ENCRYPTED_EXTENSIONS if self.tls13 == Some(true) => {
                if let Some(handshake) = &mut self.handshake
                    && handshake.early == Early::Open
                {
                    let taken = extension(Fields(body).vector(2).unwrap_or_default(), EARLY_DATA).is_some();
                    handshake.early = if taken { Early::Taken } else { Early::Refused };
                }
                Ok(true)
            }
            END_OF_EARLY_DATA if self.halves[dir.index()].phase == Phase::Early => {
                self.halves[dir.index()].enter(Phase::Handshake);
                Ok(false)
            }
            FINISHED if self.halves[dir.index()].phase == Phase::Handshake => {
                self.halves[dir.index()].enter(Phase::Traffic);
                self.server_told(dir, Phase::Traffic);
                Ok(true)
            }
            KEY_UPDATE if self.tls13 == Some(true) => {
                let suite = self.handshake.as_ref().and_then(|h| h.suite);
                let half = &mut self.halves[dir.index()];
                let (Some(suite), Some(secret)) = (suite, &half.secret) else { return Ok(false) };
                let next = next_secret(suite.hash, secret);
                half.opener = Opener::tls13(suite, &next).map(Box::new);
                half.secret = Some(next);
                half.seq = 0;
                env.counters.rekeyed_total += 1;
                Ok(false)
            }
            _ => Ok(false),
        }
    }
}

/// Of a ServerHello that is a HelloRetryRequest (RFC 8446 §4.1.3).
pub(in crate::tls) const RETRY: Random = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2,
    0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];
pub(super) const ENCRYPT_THEN_MAC: u16 = 22;
pub(super) const EXTENDED_MASTER_SECRET: u16 = 23;
pub(super) const EARLY_DATA: u16 = 42;
pub(super) const SUPPORTED_VERSIONS: u16 = 43;

/// Takes fields off the start of a message.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn number(&mut self, len: usize) -> Option<usize> {
        Some(self.take(len)?.iter().fold(0, |n, b| n << 8 | usize::from(*b)))
    }

    /// Takes a vector whose length stands before it in `len` bytes.
    pub(super) fn vector(&mut self, len: usize) -> Option<&'a [u8]> {
        let count = self.number(len)?;
        self.take(count)
    }
}

/// Finds an extension in a list of them.
pub(super) fn extension(list: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut fields = Fields(list);
    loop {
        let kind = fields.number(2)?;
        let data = fields.vector(2)?;
        if kind == usize::from(wanted) {
            return Some(data);
        }
    }
}

pub(super) struct ClientHello {
    pub(super) random: Random,
    pub(super) early_data: bool,
}

impl ClientHello {
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        fields.take(2)?;
        let random = fields.take(32)?.try_into().ok()?;
        fields.vector(1)?;
        fields.vector(2)?;
        fields.vector(1)?;
        let list = fields.vector(2).unwrap_or_default();
        Some(Self { random, early_data: extension(list, EARLY_DATA).is_some() })
    }
}

pub(super) struct ServerHello {
    pub(super) version: u16,
    pub(super) random: Random,
    pub(super) suite: u16,
    pub(super) compression: u8,
    pub(super) encrypt_then_mac: bool,
    pub(super) extended_master_secret: bool,
}

impl ServerHello {
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let legacy = fields.number(2)? as u16;
        let random = fields.take(32)?.try_into().ok()?;
        fields.vector(1)?;
        let suite = fields.number(2)? as u16;
        let compression = fields.number(1)? as u8;
        let list = fields.vector(2).unwrap_or_default();
        let selected =
            extension(list, SUPPORTED_VERSIONS).and_then(|v| Some(u16::from_be_bytes(v.try_into().ok()?)));
        Some(Self {
            version: selected.unwrap_or(legacy),
            random,
            suite,
            compression,
            encrypt_then_mac: extension(list, ENCRYPT_THEN_MAC).is_some(),
            extended_master_secret: extension(list, EXTENDED_MASTER_SECRET).is_some(),
        })
    }
}
