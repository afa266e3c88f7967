//! The RSA key exchange of TLS 1.2: what its messages show, and the master secret that comes of it.
//!
//! ```text
//! client  [ ClientHello ]            …              [ (Certificate), ClientKeyExchange ]
//! server                  [ ServerHello … ServerHelloDone ]
//! ```
//! A key log may tell the premaster secret, by the first bytes of what the client sent it as. For an extended master
//! secret all of these messages are needed as well: both sides keep theirs until then, within
//! [`TRANSCRIPT_BYTES_MAX`](super::TRANSCRIPT_BYTES_MAX).
//! Read RFC 5246 §7.4.7.1 and §8.1, RFC 7627 §3 and §4 before changing this file.

use offpath_types::Direction;

use super::half::Place;
use super::messages::Fields;
use super::{Connection, Env, Handshake};
use crate::tls::keys::{Label, Name, Secret};
use crate::tls::schedule::{Seed, master_secret};

/// What was seen of the key exchange of a handshake.
#[derive(Default)]
pub(super) struct Exchange {
    /// The master secret is an extended one.
    pub(super) extended: bool,
    /// The client's message was seen.
    seen: bool,
    /// What names the premaster secret in a key log.
    name: Option<Name>,
    /// Length of the client's hello.
    hello_len: usize,
    /// Messages of the client up to its key exchange, if they were kept.
    client: Option<Vec<u8>>,
    /// Messages of the server up to its last before that, if they were kept.
    server: Option<Vec<u8>>,
}

impl Exchange {
    /// Starts with the client's hello, header included, of this length.
    pub(super) fn new(hello_len: usize) -> Self {
        Self { hello_len, ..Self::default() }
    }

    /// Takes the client's message, and what was kept of its messages with it.
    pub(super) fn client(&mut self, body: &[u8], transcript: Option<Vec<u8>>) {
        self.seen = true;
        self.client = transcript;
        let encrypted = Fields(body).vector(2).and_then(|encrypted| encrypted.first_chunk());
        self.name = encrypted.copied().map(Name::Encrypted);
    }

    /// Takes what was kept of the server's messages, now that all have come.
    pub(super) fn server(&mut self, transcript: Option<Vec<u8>>) {
        self.server = transcript;
    }

    /// Tells whether messages of the client are kept, or were.
    pub(super) fn has_client(&self) -> bool {
        self.client.is_some()
    }

    /// Bytes of messages.
    pub(super) fn held(&self) -> usize {
        self.client.as_ref().map_or(0, Vec::len) + self.server.as_ref().map_or(0, Vec::len)
    }

    /// Drops the messages.
    pub(super) fn forget(&mut self) {
        (self.client, self.server) = (None, None);
    }

    /// Returns what names the premaster secret, if that would be enough.
    pub(super) fn name(&self) -> Option<Name> {
        self.name.filter(|_| !self.extended || self.messages().is_some())
    }

    /// Returns the messages up to the client's key exchange, in their order.
    fn messages(&self) -> Option<[&[u8]; 3]> {
        let (hello, rest) = self.client.as_ref()?.split_at_checked(self.hello_len)?;
        Some([hello, self.server.as_ref()?, rest])
    }
}

impl Handshake {
    /// Derives the master secret from a premaster secret that is known by now.
    pub(super) fn master(&self, env: &Env<'_>) -> Option<Secret> {
        let suite = self.suite.filter(|suite| suite.rsa)?;
        let known = env.keys.get(&self.exchange.name()?);
        let premaster = known.get(Label::Premaster)?;
        let seed = if self.exchange.extended {
            Seed::Messages(self.exchange.messages()?)
        } else {
            Seed::Randoms(&self.client_random, self.server_random.as_ref()?)
        };
        Some(master_secret(suite.hash, premaster, seed))
    }
}

impl Connection {
    /// Tells whether the other direction may still show what is missing of an RSA key exchange before `dir` changes
    /// its keys.
    pub(super) fn exchange_may_come(&self, dir: Direction, client: Direction) -> bool {
        let Some(handshake) = self.handshake.as_ref().filter(|h| h.suite.is_some_and(|s| s.rsa)) else {
            return false;
        };
        let exchange = &handshake.exchange;
        let missing = if !exchange.seen {
            client
        } else if exchange.extended && exchange.client.is_some() && exchange.server.is_none() {
            client.flip()
        } else {
            return false;
        };
        let half = &self.halves[missing.index()];
        missing != dir && half.place == Place::Aligned && !half.messages.broken
    }
}
