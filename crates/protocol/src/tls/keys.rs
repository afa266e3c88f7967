//! TLS secrets: the NSS key log format, and a bounded store of what it told.
//!
//! In:  bytes of a key log (`SSLKEYLOGFILE`), cut anywhere. Out: [`KeyLine`]s, for a [`KeyStore`] that connections
//! ask by client random, or by what the client sent as its encrypted premaster secret. Secrets are wiped when they are
//! dropped and never printed.
//! Format: `LABEL <client random, 64 hex digits> <secret, hex>`, a line each (draft-ietf-tls-keylogfile), and NSS's
//! `RSA <first 8 bytes of the encrypted premaster secret, 16 hex digits> <premaster secret, 96 hex digits>`.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use offpath_types::Timestamp;
use zeroize::{Zeroize, Zeroizing};

/// Longest line that is read: the longest known one has 31 + 64 + 96 characters. Longer ones are passed over.
const LINE_BYTES_MAX: usize = 512;
/// Longest secret: TLS 1.2 master secrets and secrets of SHA-384 suites.
const SECRET_BYTES_MAX: usize = 48;

/// What a client sent as random.
pub(crate) type Random = [u8; 32];

/// What secrets are known by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Name {
    Client(Random),
    /// The first bytes of the premaster secret as it was encrypted with the server's RSA key.
    Encrypted([u8; 8]),
}

/// A secret that a connection waits for.
pub(crate) type Want = (Name, Label);

/// A secret of up to 48 bytes, wiped when dropped. On the heap, so that moving one leaves no copy behind.
#[derive(Clone)]
pub(crate) struct Secret(Zeroizing<Box<[u8]>>);

impl Secret {
    /// Copies `bytes`; what is over 48 bytes is left out.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes[..bytes.len().min(SECRET_BYTES_MAX)].into()))
    }

    /// Returns the bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What a secret is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Label {
    /// TLS 1.2: the master secret (`CLIENT_RANDOM`).
    Master,
    /// TLS 1.2, RSA key exchange: what the master secret is made of (`RSA`).
    Premaster,
    /// TLS 1.3: 0-RTT data.
    ClientEarly,
    ClientHandshake,
    ServerHandshake,
    ClientTraffic,
    ServerTraffic,
}

const LABELS: usize = 7;

impl Label {
    fn parse(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"CLIENT_RANDOM" => Self::Master,
            b"RSA" => Self::Premaster,
            b"CLIENT_EARLY_TRAFFIC_SECRET" => Self::ClientEarly,
            b"CLIENT_HANDSHAKE_TRAFFIC_SECRET" => Self::ClientHandshake,
            b"SERVER_HANDSHAKE_TRAFFIC_SECRET" => Self::ServerHandshake,
            b"CLIENT_TRAFFIC_SECRET_0" => Self::ClientTraffic,
            b"SERVER_TRAFFIC_SECRET_0" => Self::ServerTraffic,
            _ => return None,
        })
    }
}

/// One usable line of a key log.
#[derive(Clone)]
pub struct KeyLine {
    name: Name,
    label: Label,
    secret: Secret,
}

impl KeyLine {
    /// The secret that it tells.
    pub(super) fn told(&self) -> Want {
        (self.name, self.label)
    }
}

impl std::fmt::Debug for KeyLine {
    /// Tells the kind only.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyLine({:?})", self.label)
    }
}

offpath_types::counters! {
    /// What key logs held. `lines_total` = `lines_used_total` + `lines_unused_total` + `lines_invalid_total`.
    pub struct KeyLogCounters {
        /// Lines that were not empty and no comment.
        lines_total,
        /// Lines with a secret that can be used.
        lines_used_total,
        /// Lines of a kind that is not needed (exporter secrets, QUIC).
        lines_unused_total,
        /// Lines that are none of a key log, or longer than any.
        lines_invalid_total,
        /// Connections of a log read before the first packet whose secrets were dropped to make room for later ones.
        connections_evicted_total,
    }
}

/// Reads a key log that comes in pieces.
#[derive(Default)]
pub struct KeyLogParser {
    /// The line that has not ended.
    line: Zeroizing<Vec<u8>>,
    /// It has grown too long: the rest is passed over.
    long: bool,
    counters: KeyLogCounters,
}

impl KeyLogParser {
    /// Takes the next bytes; appends the lines that they complete to `out`.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<KeyLine>) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let (line, rest) = bytes.split_at(end);
            bytes = &rest[1..];
            if self.line.is_empty() && !self.long && line.len() <= LINE_BYTES_MAX {
                self.counters.line(line, out);
                continue;
            }
            self.keep(line);
            self.finish(out);
        }
        self.keep(bytes);
    }

    /// Ends the log: a last line needs no line end.
    pub fn finish(&mut self, out: &mut Vec<KeyLine>) {
        let mut line = std::mem::take(&mut *self.line);
        if std::mem::take(&mut self.long) {
            self.counters.lines_total += 1;
            self.counters.lines_invalid_total += 1;
        } else {
            self.counters.line(&line, out);
        }
        line.zeroize();
    }

    /// Returns the counts so far.
    pub fn counters(&self) -> &KeyLogCounters {
        &self.counters
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.line.len() + bytes.len() > LINE_BYTES_MAX {
            self.long = true;
            self.line.zeroize();
        } else if !self.long && !bytes.is_empty() {
            // No growth that would leave a copy behind.
            let more = LINE_BYTES_MAX - self.line.len();
            self.line.reserve_exact(more);
            self.line.extend_from_slice(bytes);
        }
    }
}

impl KeyLogCounters {
    fn line(&mut self, line: &[u8], out: &mut Vec<KeyLine>) {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            return;
        }
        self.lines_total += 1;
        let mut words = line.split(|b| *b == b' ');
        let (Some(kind), Some(name), Some(secret), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            self.lines_invalid_total += 1;
            return;
        };
        let Some(label) = Label::parse(kind) else {
            let other = kind.iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b'_');
            *if other { &mut self.lines_unused_total } else { &mut self.lines_invalid_total } += 1;
            return;
        };
        let name = match label {
            Label::Premaster => unhex_all(name).map(Name::Encrypted),
            _ => unhex_all(name).map(Name::Client),
        };
        let fits = match label {
            Label::Master | Label::Premaster => secret.len() == 96,
            _ => secret.len() == 64 || secret.len() == 96,
        };
        let mut bytes = Zeroizing::new([0; SECRET_BYTES_MAX]);
        let Some(name) = name.filter(|_| fits && unhex(secret, &mut bytes[..secret.len() / 2])) else {
            self.lines_invalid_total += 1;
            return;
        };
        self.lines_used_total += 1;
        let secret = Secret::new(&bytes[..secret.len() / 2]);
        out.push(KeyLine { name, label, secret });
    }
}

/// Reads exactly as many `digits` as an array takes.
fn unhex_all<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut out = [0; N];
    (digits.len() == 2 * N && unhex(digits, &mut out)).then_some(out)
}

/// Reads `digits`, two for each byte of `out`; false where they are no hexadecimal digits.
fn unhex(digits: &[u8], out: &mut [u8]) -> bool {
    let value = |d: u8| (d as char).to_digit(16).map(|v| v as u8);
    digits.chunks_exact(2).zip(out).all(|(pair, byte)| match (value(pair[0]), value(pair[1])) {
        (Some(high), Some(low)) => {
            *byte = high << 4 | low;
            true
        }
        _ => false,
    })
}

/// The secrets of one connection, as far as they are known.
#[derive(Clone, Default)]
pub(crate) struct Secrets([Option<Secret>; LABELS]);

impl Secrets {
    pub(crate) fn get(&self, label: Label) -> Option<&Secret> {
        self.0[label as usize].as_ref()
    }

    pub(crate) fn set(&mut self, label: Label, secret: Secret) {
        self.0[label as usize] = Some(secret);
    }

    /// Adds what `other` knows.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, more) in self.0.iter_mut().zip(&other.0) {
            if let Some(more) = more {
                *mine = Some(more.clone());
            }
        }
    }
}

/// Bounds of a [`KeyStore`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyLimits {
    /// Connections whose secrets are kept, about 400 bytes each. Past it: the oldest are evicted.
    pub connections_max: usize,
    /// How long secrets wait for their connection, nanoseconds of packet time. Past it, and soon after their
    /// connection has no more need of them: they are wiped. `None` (of what a file holds): kept to the end.
    pub keep_nanos: Option<u64>,
}

impl Default for KeyLimits {
    fn default() -> Self {
        Self { connections_max: 100_000, keep_nanos: None }
    }
}

/// How long secrets are kept after a connection was done with them: a mirror may show the connection twice.
const SERVED_NANOS: u64 = 1_000_000_000;

/// What is known of one connection.
struct Known {
    secrets: Secrets,
    /// Tells it from an earlier one of the same name.
    serial: u64,
    /// It stands in `KeyStore::served`.
    served: bool,
}

/// Entries of a [`KeyStore`] in the order in which their time comes; some may be gone.
type Order = VecDeque<(Timestamp, Name, u64)>;

/// Secrets by what names them.
///
/// Two layers: what was known before the first packet (shared, never changes), and what has come since.
// Invariants: `order` holds every entry of `late`, the oldest first, with the time it came; `encrypted` of them are
// premaster secrets.
#[derive(Default)]
pub struct KeyStore {
    fixed: Option<Arc<KeyStore>>,
    late: HashMap<Name, Known>,
    encrypted: usize,
    order: Order,
    /// Entries that a connection is done with, with the time of that.
    served: Order,
    serial: u64,
    limits: KeyLimits,
    counts: StoreCounts,
}

/// What became of the connections that a [`KeyStore`] knew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StoreCounts {
    pub(crate) known: u64,
    pub(crate) used: u64,
    pub(crate) expired: u64,
    pub(crate) evicted: u64,
}

impl KeyStore {
    /// Makes an empty store.
    pub fn new(limits: KeyLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Makes an empty store over what is known from the start.
    pub fn over(fixed: Arc<KeyStore>, limits: KeyLimits) -> Self {
        Self { fixed: Some(fixed), limits, ..Self::default() }
    }

    /// Adds a line that came at `now`.
    pub fn add(&mut self, line: &KeyLine, now: Timestamp) {
        let KeyLine { name, label, secret } = line;
        let known = self.late.entry(*name).or_insert_with(|| {
            self.serial += 1;
            self.counts.known += 1;
            self.encrypted += usize::from(matches!(name, Name::Encrypted(_)));
            self.order.push_back((now, *name, self.serial));
            Known { secrets: Secrets::default(), serial: self.serial, served: false }
        });
        known.secrets.set(*label, secret.clone());
        while self.late.len() > self.limits.connections_max.max(1)
            && let Some((_, oldest, serial)) = self.order.pop_front()
        {
            self.counts.evicted += u64::from(self.wipe(&oldest, serial));
        }
    }

    /// Wipes what is too old, or no longer needed.
    pub(crate) fn advance(&mut self, now: Timestamp) {
        let Some(keep) = self.limits.keep_nanos else { return };
        // What came before the first packet came now.
        for (since, ..) in self.order.iter_mut().take_while(|(since, ..)| *since == Timestamp::ZERO) {
            *since = now;
        }
        while let Some((since, name, serial)) = self.served.front().copied()
            && now.nanos_since(since) >= SERVED_NANOS
        {
            self.served.pop_front();
            self.counts.used += u64::from(self.wipe(&name, serial));
        }
        while let Some((since, name, serial)) = self.order.front().copied()
            && (now.nanos_since(since) >= keep || !self.holds(&name, serial))
        {
            self.order.pop_front();
            self.counts.expired += u64::from(self.wipe(&name, serial));
        }
        // What was used long before it would have expired leaves its place in the order behind.
        if self.order.len() > 2 * self.late.len() + 64 {
            let late = &self.late;
            self.order.retain(|(_, name, serial)| late.get(name).is_some_and(|k| k.serial == *serial));
        }
    }

    /// Notes that a connection needs its secrets no more.
    pub(crate) fn served(&mut self, name: &Name, now: Timestamp) {
        if self.limits.keep_nanos.is_some()
            && let Some(known) = self.late.get_mut(name)
            && !std::mem::replace(&mut known.served, true)
        {
            self.served.push_back((now, *name, known.serial));
        }
    }

    fn holds(&self, name: &Name, serial: u64) -> bool {
        self.late.get(name).is_some_and(|known| known.serial == serial)
    }

    fn wipe(&mut self, name: &Name, serial: u64) -> bool {
        let wiped = self.holds(name, serial) && self.late.remove(name).is_some();
        self.encrypted -= usize::from(wiped && matches!(name, Name::Encrypted(_)));
        wiped
    }

    /// Returns what is known by this name.
    pub(crate) fn get(&self, name: &Name) -> Secrets {
        let mut found = match self.fixed.as_deref() {
            Some(fixed) => fixed.get(name),
            None => Secrets::default(),
        };
        if let Some(known) = self.late.get(name) {
            found.merge(&known.secrets);
        }
        found
    }

    /// Tells whether anything is known by this name.
    pub(crate) fn knows(&self, name: &Name) -> bool {
        self.late.contains_key(name) || self.fixed.as_deref().is_some_and(|f| f.knows(name))
    }

    /// Tells whether there are premaster secrets, whose connections are known late in their handshake only.
    pub(crate) fn has_encrypted(&self) -> bool {
        self.encrypted > 0 || self.fixed.as_deref().is_some_and(KeyStore::has_encrypted)
    }

    /// Returns how many connections were evicted to make room.
    pub fn evicted(&self) -> u64 {
        self.counts.evicted
    }

    /// Returns what became of connections, and how many are known now: of secrets that are wiped with their connection.
    pub(crate) fn counts(&self) -> (StoreCounts, u64) {
        match self.limits.keep_nanos {
            Some(_) => (self.counts, self.late.len() as u64),
            None => Default::default(),
        }
    }

    /// Returns how many connections have secrets here.
    pub fn len(&self) -> usize {
        self.late.len() + self.fixed.as_deref().map_or(0, KeyStore::len)
    }

    /// Tells whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Reads `data` as a key log, whole and in pieces, and checks what must hold for any bytes.
#[doc(hidden)]
pub fn fuzz_keylog(data: &[u8]) {
    let Some((first, log)) = data.split_first() else { return };
    let run = |piece: usize| {
        let (mut parser, mut lines) = (KeyLogParser::default(), Vec::new());
        log.chunks(piece).for_each(|bytes| parser.push(bytes, &mut lines));
        parser.finish(&mut lines);
        let c = *parser.counters();
        assert_eq!(c.lines_total, c.lines_used_total + c.lines_unused_total + c.lines_invalid_total);
        assert_eq!(c.lines_used_total, lines.len() as u64);
        assert!(parser.line.is_empty());
        (c, lines)
    };
    let (whole, lines) = run(usize::MAX);
    let (cut, same) = run(usize::from(*first) + 1);
    assert_eq!(whole, cut);
    assert!(
        lines.iter().zip(&same).all(|(a, b)| a.told() == b.told() && a.secret.bytes() == b.secret.bytes())
    );
    let mut store = KeyStore::new(KeyLimits { connections_max: 3, keep_nanos: Some(50) });
    for (now, line) in (0..).step_by(10).map(Timestamp::from_nanos).zip(&lines) {
        store.add(line, now);
        assert!(store.knows(&line.name) && store.len() <= 3);
        if let Name::Client([first, ..]) | Name::Encrypted([first, ..]) = line.name
            && first & 1 == 1
        {
            store.served(&line.name, now);
        }
        store.advance(now);
        assert!(store.late.iter().all(|(r, k)| store.order.iter().any(|o| o.1 == *r && o.2 == k.serial)));
        let encrypted = store.late.keys().filter(|name| matches!(name, Name::Encrypted(_))).count();
        assert_eq!((store.encrypted, store.has_encrypted()), (encrypted, encrypted > 0));
        let (c, held) = store.counts();
        assert_eq!(c.known, c.used + c.expired + c.evicted + held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(label: &str, random: u8, secret_len: usize) -> String {
        format!("{label} {} {}\n", format!("{random:02x}").repeat(32), "ab".repeat(secret_len))
    }

    fn named(random: u8) -> Name {
        Name::Client([random; 32])
    }

    fn parse(log: &str) -> (Vec<KeyLine>, KeyLogCounters) {
        let (mut parser, mut lines) = (KeyLogParser::default(), Vec::new());
        parser.push(log.as_bytes(), &mut lines);
        parser.finish(&mut lines);
        (lines, *parser.counters())
    }

    #[test]
    fn lines_are_read_or_counted() {
        let long = "A".repeat(LINE_BYTES_MAX + 1);
        let cases = [
            ("master", line("CLIENT_RANDOM", 1, 48), [1, 0, 0]),
            ("a master secret has 48 bytes", line("CLIENT_RANDOM", 1, 32), [0, 0, 1]),
            ("traffic, SHA-256", line("CLIENT_TRAFFIC_SECRET_0", 1, 32), [1, 0, 0]),
            ("traffic, SHA-384", line("SERVER_TRAFFIC_SECRET_0", 1, 48), [1, 0, 0]),
            ("a secret of another length", line("SERVER_TRAFFIC_SECRET_0", 1, 33), [0, 0, 1]),
            ("exporter", line("EXPORTER_SECRET", 1, 32), [0, 1, 0]),
            ("RSA", format!("RSA {} {}", "ab".repeat(8), "ab".repeat(48)), [1, 0, 0]),
            ("RSA by a random", line("RSA", 1, 48), [0, 0, 1]),
            ("a premaster secret of another length", format!("RSA {0} {0}", "ab".repeat(8)), [0, 0, 1]),
            (
                "a random of 8 bytes",
                format!("CLIENT_RANDOM {} {}", "ab".repeat(8), "ab".repeat(48)),
                [0, 0, 1],
            ),
            ("comment and empty lines", "# Comment\n\n  \r\n".into(), [0, 0, 0]),
            ("CRLF and no line end", line("CLIENT_RANDOM", 1, 48).replace('\n', "\r"), [1, 0, 0]),
            ("lower case label", line("client_random", 1, 48), [0, 0, 1]),
            ("no hex", line("CLIENT_RANDOM", 1, 48).replace("ab", "xy"), [0, 0, 1]),
            ("four words", line("CLIENT_RANDOM", 1, 48).replace('\n', " x\n"), [0, 0, 1]),
            ("one word", "CLIENT_RANDOM\n".into(), [0, 0, 1]),
            ("too long", long, [0, 0, 1]),
        ];
        for (name, log, [used, unused, invalid]) in cases {
            let (lines, c) = parse(&log);
            let want = (used, unused, invalid);
            assert_eq!((c.lines_used_total, c.lines_unused_total, c.lines_invalid_total), want, "{name}");
            assert_eq!(lines.len() as u64, used, "{name}");
        }
    }

    #[test]
    fn any_cut_gives_the_same_lines() {
        let log =
            [line("CLIENT_RANDOM", 1, 48), "#\n".into(), line("CLIENT_TRAFFIC_SECRET_0", 2, 32)].concat();
        for piece in 1..log.len() {
            fuzz_keylog(&[&[(piece % 256) as u8][..], log.as_bytes()].concat());
        }
        for piece in 1..40 {
            let (mut parser, mut lines) = (KeyLogParser::default(), Vec::new());
            log.as_bytes().chunks(piece).for_each(|b| parser.push(b, &mut lines));
            assert_eq!(lines.len(), 2, "pieces of {piece}");
            assert!((lines[0].name, lines[1].name) == (named(1), named(2)));
        }
    }

    #[test]
    fn the_store_is_bounded_and_the_oldest_goes() {
        let mut store = KeyStore::new(KeyLimits { connections_max: 2, keep_nanos: None });
        for random in [1, 2, 1, 3] {
            parse(&line("CLIENT_RANDOM", random, 48)).0.iter().for_each(|l| store.add(l, Timestamp::ZERO));
        }
        assert_eq!(
            (store.knows(&named(1)), store.knows(&named(2)), store.knows(&named(3))),
            (false, true, true)
        );
        assert_eq!((store.len(), store.evicted()), (2, 1));
    }

    #[test]
    fn secrets_of_a_live_log_are_wiped_when_used_up_or_too_old() {
        let mut store = KeyStore::new(KeyLimits { connections_max: 9, keep_nanos: Some(60_000_000_000) });
        let at = |secs: u64| Timestamp::from_parts(1000 + secs, 0);
        let tell = |store: &mut KeyStore, random, time| {
            parse(&line("CLIENT_RANDOM", random, 48)).0.iter().for_each(|l| store.add(l, time));
        };
        tell(&mut store, 1, Timestamp::ZERO);
        tell(&mut store, 2, Timestamp::ZERO);
        store.advance(at(0));
        tell(&mut store, 3, at(30));
        let known = |store: &KeyStore| [1, 2, 3].map(|random| store.knows(&named(random)));
        store.served(&named(1), at(30));
        store.served(&named(1), at(31));
        store.advance(at(30));
        assert_eq!(known(&store), [true; 3], "a copy of the connection may need them, too");
        store.advance(at(31));
        assert_eq!(known(&store), [false, true, true]);
        // The same connection again is another entry.
        tell(&mut store, 1, at(31));
        store.advance(at(40));
        assert_eq!(known(&store), [true; 3]);
        store.advance(at(60));
        assert_eq!(known(&store), [true, false, true], "what came before the first packet came with it");
        store.advance(at(91));
        let (c, held) = store.counts();
        assert_eq!(((c.known, c.used, c.expired, c.evicted), held), ((4, 1, 3, 0), 0));
        assert_eq!((store.order.len(), store.served.len()), (0, 0));
    }

    #[test]
    fn what_a_file_holds_lies_under_what_comes_later() {
        let mut fixed = KeyStore::new(KeyLimits::default());
        let lines = [line("CLIENT_TRAFFIC_SECRET_0", 1, 32), line("SERVER_TRAFFIC_SECRET_0", 1, 32)].concat();
        parse(&lines).0.into_iter().for_each(|l| fixed.add(&l, Timestamp::ZERO));
        let mut store = KeyStore::over(Arc::new(fixed), KeyLimits::default());
        for l in parse(&line("CLIENT_HANDSHAKE_TRAFFIC_SECRET", 1, 32)).0 {
            store.add(&l, Timestamp::ZERO);
        }
        let found = store.get(&named(1));
        assert!(found.get(Label::ClientTraffic).is_some() && found.get(Label::ClientHandshake).is_some());
        assert!(found.get(Label::Master).is_none());
        assert!(store.knows(&named(1)) && !store.knows(&named(2)));
    }

    #[test]
    fn nothing_prints_a_secret() {
        let (lines, _) = parse(&line("CLIENT_RANDOM", 1, 48));
        assert_eq!(format!("{lines:?}"), "[KeyLine(Master)]");
    }
}
