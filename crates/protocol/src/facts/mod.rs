//! What a head and a body mean: from parsed heads and body bytes to the fields of a `Transaction`.
//!
//! In:  heads as framing found them, body bytes after dechunking. Out: texts, client, session, user,
//! fingerprint, endpoint and login facts in the transaction.
//!
//! Secrets (session values, tokens, passwords, user names in bodies) leave only as keyed hashes; the buffers in here that
//! held them are wiped. Secret parameters in targets, Referer and Location are replaced by `REDACTED`:
//! `url.original` equals the target as sent except for those values (which ones: see [`FactsConfig`] and
//! `target::redact` and `target::hide_segments`).
//!
//! Limits: every text is cut at [`FactsConfig::text_bytes_max`] and marked `text_capped`; 256 cookies and
//! 32 forwarding hops per head. Marked `body_capped`: [`FactsConfig::body_inspect_bytes_max`] of a body, 64 KiB of one
//! that is coded and 200 times its length, 16 user fields and 16 password fields, 128 levels of JSON, 4 KiB of a
//! part's head, 16 KiB of a GraphQL document.

mod body;
mod charset;
mod client;
mod client_print;
mod coding;
mod config;
mod endpoint;
mod field;
mod fields;
mod form;
mod graphql;
mod hash;
mod hint;
mod json;
mod memo;
mod multipart;
mod names;
mod outline;
mod pointer;
mod secret;
mod session;
mod shape;
mod stack;
mod target;

pub use body::BodyTap;
pub(crate) use client_print::ClientPrint;
pub use config::FactsConfig;
pub use pointer::{FieldError, check_fields};

use offpath_types::{
    Anomaly, HttpVersion, IdentityKey, Pace, RedirectClass, Span, TextArena, Timestamp, Transaction,
};

use crate::head::{Header, RequestHead, ResponseHead};
use crate::kept::Kept;

use body::{Format, Readable, Reading};
use client::{TrustedNets, Walk};
use coding::{Codings, Decoded};
use endpoint::PathWords;
use field::Field;
use fields::{Collector, Fields, Found, Kind, hash_user};
use hash::StableHash;
use memo::Memo;
use outline::Outliner;
use secret::SecretBuf;
use session::{BestCookie, Credentials, SESSION_BYTES_MAX, credentials};
use stack::{Claims, Habits, Print};
use target::Param;

offpath_types::counters! {
    /// What was found in heads and bodies.
    ///
    /// Balance: `body_taps == bodies_read + bodies_unrecognised + bodies_empty`, plus the taps that the caller
    /// still holds or has dropped; `body_bytes == body_bytes_taken + body_bytes_over_cap + body_bytes_after_gap`;
    /// `bodies_coded == decoded + over_cap + over_ratio + broken`, each of `bodies_coded`.
    pub struct FactsCounters {
        /// Request heads read.
        facts_request_heads_total,
        /// Response heads read.
        facts_response_heads_total,
        /// Requests whose client was taken from a header of a trusted proxy.
        facts_clients_forwarded_total,
        /// Requests whose forwarding header could not be parsed on the way.
        facts_forwarded_invalid_total,
        /// Requests with a session.
        facts_sessions_total,
        /// Requests with more cookies than are looked at.
        facts_cookies_capped_total,
        /// Texts that were cut.
        facts_texts_capped_total,
        /// Texts in which a secret was replaced.
        facts_texts_redacted_total,
        /// Bodies that a tap was made for.
        facts_body_taps_total,
        /// Request bodies without a tap because of their type.
        facts_bodies_type_unread_total,
        /// Responses without a tap because of their coding: one that is not known, or more than four.
        facts_bodies_coding_unread_total,
        /// Tapped bodies that were read.
        facts_bodies_read_total,
        /// Tapped bodies that turned out to be nothing that has fields.
        facts_bodies_unrecognised_total,
        /// Tapped bodies without a byte, or of which none was taken.
        facts_bodies_empty_total,
        /// Tapped bodies of which nothing was kept (to decode them, for an outline, as GraphQL documents) because of
        /// `held_bytes_max`.
        facts_bodies_held_full_total,
        /// Bodies that could not be decoded as their headers say.
        facts_bodies_decode_failed_total,
        /// Body bytes handed in.
        facts_body_bytes_total,
        /// Body bytes looked into; of coded bodies, kept for decoding.
        facts_body_bytes_taken_total,
        /// Body bytes beyond what is looked into.
        facts_body_bytes_over_cap_total,
        /// Body bytes after a gap.
        facts_body_bytes_after_gap_total,
        /// Coded bodies (gzip, deflate, br, zstd) of which at least a byte was kept.
        facts_bodies_coded_total,
        /// Of those, decoded to their end.
        facts_bodies_coded_decoded_total,
        /// Of those, longer than what is looked into.
        facts_bodies_coded_over_cap_total,
        /// Of those, larger than any text gets, in the end or between two codings: a decompression bomb.
        facts_bodies_coded_over_ratio_total,
        /// Of those, cut off or broken.
        facts_bodies_coded_broken_total,
        /// Bytes that came out of coded bodies and were looked into.
        facts_body_bytes_decoded_total,
        /// Requests with a GraphQL operation.
        facts_graphql_total,
        /// Bodies and targets with more fields, or user or password fields, than are looked at (`body_capped`).
        facts_credentials_capped_total,
        /// Request bodies or queries with a password.
        facts_passwords_total,
    }
}

/// Longest method that is kept.
const METHOD_BYTES_MAX: usize = 64;
/// Longest content type that is kept.
const TYPE_BYTES_MAX: usize = 128;
/// Room that is reserved for the response's texts.
const RESPONSE_TEXT_BYTES: usize = 64;
/// Parameters of a query that are looked at for a GraphQL operation.
const GRAPHQL_PARAMETERS_MAX: usize = 32;
/// Taps that are kept for reuse.
const SPARE_TAPS_MAX: usize = 16;

/// Turns heads and bodies into facts about transactions. One per worker.
pub struct Facts {
    names: Names,
    key: IdentityKey,
    text_bytes_max: usize,
    body_bytes_max: usize,
    scratch: SecretBuf,
    spare: SecretBuf,
    /// What a query holds.
    found: Found,
    /// Redacted texts and the endpoint on their way into the transaction.
    target: Vec<u8>,
    referrer: Vec<u8>,
    path: Vec<u8>,
    endpoint: Vec<u8>,
    #[expect(clippy::vec_box, reason = "taps are handed out boxed: a pending one costs its owner one word")]
    spare_taps: Vec<Box<BodyTap>>,
    claims: Claims,
    paths: Memo<PathFacts>,
    /// Referers in which nothing is to be hidden.
    open_referrers: Memo<()>,
    outliner: Outliner,
    /// What the open transactions of the shard keep.
    pub(crate) kept: Kept,
    counters: FactsCounters,
}

/// What a path says, where nothing in it is to be hidden and it has no parameters.
#[derive(Clone, Copy)]
struct PathFacts {
    endpoint_hash: u64,
    login: bool,
    sets_password: bool,
    endpoint_len: u8,
    endpoint: [u8; PathFacts::ENDPOINT_BYTES_MAX],
}

impl PathFacts {
    /// Longest endpoint that is kept; that of a longer path rarely comes again.
    const ENDPOINT_BYTES_MAX: usize = 144;

    fn endpoint(&self) -> &[u8] {
        self.endpoint.get(..usize::from(self.endpoint_len)).unwrap_or_default()
    }
}

impl Default for PathFacts {
    fn default() -> Self {
        Self {
            endpoint_hash: 0,
            login: false,
            sets_password: false,
            endpoint_len: 0,
            endpoint: [0; Self::ENDPOINT_BYTES_MAX],
        }
    }
}

/// The configuration, ready for matching.
struct Names {
    trusted: TrustedNets,
    client_header: Option<Box<[u8]>>,
    /// The one of X-Forwarded-For and Forwarded that is walked, where the configuration says which.
    client_chain: Option<Field>,
    session_cookies: Vec<Box<[u8]>>,
    session_headers: Vec<Box<[u8]>>,
    /// Bit n: some configured session or client header is n bytes long.
    header_lengths: u64,
    authorization_rank: Option<usize>,
    fields: Fields,
}

/// What one pass over the headers found.
#[derive(Default)]
struct Seen<'a> {
    hosts: usize,
    host: Option<&'a [u8]>,
    referer: Option<&'a [u8]>,
    content_type: Option<&'a [u8]>,
    content_codings: Codings,
    transfer_codings: Codings,
    /// How many Content-Type there are.
    types: usize,
    cookie: BestCookie<'a>,
    authorization: Option<&'a [u8]>,
    session_header: Option<(usize, &'a [u8])>,
    client_header: Option<&'a [u8]>,
    x_forwarded_for: bool,
    forwarded: bool,
    sec_fetch_mode: Option<&'a [u8]>,
    habits: Habits<'a>,
}

impl Facts {
    /// Makes an extractor. `key` hashes identities.
    pub fn new(config: FactsConfig, key: IdentityKey) -> Self {
        let bytes = |list: &[String]| list.iter().map(|n| n.as_bytes().into()).collect::<Vec<Box<[u8]>>>();
        let session_headers = bytes(&config.session_headers);
        let client_header = config.client_header.as_deref().map(|n| Box::from(n.as_bytes()));
        let header_lengths =
            session_headers.iter().chain(&client_header).fold(0, |bits, n| bits | 1u64 << (n.len() & 63));
        Self {
            names: Names {
                trusted: TrustedNets::new(&config.trusted_proxies),
                client_chain: client_header
                    .as_deref()
                    .map(Field::of)
                    .filter(|f| matches!(f, Field::XForwardedFor | Field::Forwarded)),
                client_header,
                session_cookies: bytes(&config.session_cookies),
                authorization_rank: session_headers
                    .iter()
                    .position(|n| n.eq_ignore_ascii_case(b"authorization")),
                session_headers,
                header_lengths,
                fields: Fields::new(&config.user_fields, &config.password_fields),
            },
            key,
            text_bytes_max: config.text_bytes_max,
            body_bytes_max: config.body_inspect_bytes_max,
            scratch: SecretBuf::default(),
            spare: SecretBuf::default(),
            found: Found::default(),
            target: Vec::new(),
            referrer: Vec::new(),
            path: Vec::new(),
            endpoint: Vec::new(),
            spare_taps: Vec::new(),
            claims: Claims::new(),
            paths: Memo::new(),
            open_referrers: Memo::new(),
            outliner: Outliner::new(config.outline_names_max),
            kept: Kept::of(usize::MAX),
            counters: FactsCounters::default(),
        }
    }

    /// Fills `tx` from a request head; returns a tap where the body is worth looking into.
    ///
    /// `tx.client` is the TCP or PROXY-protocol peer on entry and the client on return. At most one
    /// allocation (the texts), and none where `tx.text` has the room.
    pub fn request_head(&mut self, head: &RequestHead<'_>, tx: &mut Transaction) -> Option<Box<BodyTap>> {
        self.counters.facts_request_heads_total += 1;
        let mut print = Print::new(head.version);
        let mut seen = self.names.read_headers(head.headers, &mut print);
        tx.fingerprint = print.finish();

        let parts = target::split(head.target, head.method == b"CONNECT");
        self.client(head.headers, &seen, tx);
        self.request_texts(head, &parts, &seen, tx);
        self.identities(&seen, tx);

        let claim = self.claims.of(seen.habits.user_agent);
        seen.habits.special |= head.method == b"OPTIONS";
        tx.stack_claimed = claim.class;
        tx.stack_contradicted = stack::contradicts(claim, &seen.habits);
        tx.navigation = head.method == b"GET"
            && match seen.sec_fetch_mode {
                Some(mode) => mode.eq_ignore_ascii_case(b"navigate"),
                None => seen.habits.accept.is_some_and(|a| stack::contains_ignore_case(a, b"text/html")),
            };
        if self.outliner.wanted() {
            self.outliner.head(head, parts.query, &self.names, tx);
        }

        if head.method == b"GET" && !parts.query.is_empty() && graphql::is_path(parts.path) {
            self.graphql_query(parts.query, tx);
        }
        if !matches!(head.method, b"POST" | b"PUT" | b"PATCH") || head.says_empty {
            return None;
        }
        seen.content_codings.append(&seen.transfer_codings);
        if seen.types > 1 {
            seen.content_type = readable_type(head.headers, seen.content_codings);
        }
        self.tap(seen.content_type, seen.content_codings, false, graphql::is_path(parts.path))
    }

    /// Fills `tx` from the final response head; returns a tap where the body may tell a login's outcome.
    pub fn response_head(&mut self, head: &ResponseHead<'_>, tx: &mut Transaction) -> Option<Box<BodyTap>> {
        self.counters.facts_response_heads_total += 1;
        let (mut location, mut content_type) = (None, None);
        let (mut codings, mut transfer_codings) = (Codings::default(), Codings::default());
        for h in head.headers {
            match Field::of(h.name) {
                Field::Location => location = location.or(Some(h.value)),
                Field::ContentType => content_type = content_type.or(Some(h.value)),
                Field::ContentEncoding => codings.note(h.value),
                Field::Volatile if is_transfer_encoding(h.name) => transfer_codings.note(h.value),
                Field::SetCookie if !tx.login.sets_cookie => {
                    let cookies = &self.names.session_cookies;
                    if let Some(value) = session::session_set(h.value, cookies, year(tx.ended)) {
                        // A session that is only renewed says nothing of a login.
                        tx.login.sets_cookie = tx.session != Some(self.hash_session(value));
                    }
                }
                _ => {}
            }
        }
        let body_empty = matches!(head.status, 204 | 304 | 100..=199) || head.says_empty;
        if let Some(location) = location {
            self.capped(location, self.text_bytes_max, tx);
            self.redact_plain(location);
            if matches!(head.status, 300..=303 | 305..=308) {
                // Both are redacted, so that the same path is still the same.
                tx.login.redirect = redirect_class(&self.target, tx.text.get(tx.path));
            }
            tx.location = tx.text.push(&self.target);
        }
        if let Some(content_type) = content_type {
            let media = body::media_type(content_type);
            // HTML §9.2.5.
            if media.eq_ignore_ascii_case(b"text/event-stream") && !body_empty {
                tx.pace = Pace::Streamed;
            }
            tx.response_content_type = self.push(media, TYPE_BYTES_MAX, tx);
        }
        let login = tx.login.password.is_some() || (tx.login.path_looks_like_login && is_post(tx));
        if !login || body_empty || matches!(head.status, 300..=399) {
            return None;
        }
        codings.append(&transfer_codings);
        self.tap(content_type, codings, true, false)
    }

    /// Takes body bytes (after dechunking) in order, in pieces of any size.
    pub fn body(&mut self, tap: &mut BodyTap, bytes: &[u8]) {
        let Self { names, key, scratch, spare, kept, .. } = self;
        let pushed = tap.push(bytes, &mut Reading { key, fields: &names.fields, scratch, spare, kept });
        self.counters.facts_bodies_held_full_total += u64::from(pushed.became_full);
        self.counters.facts_body_bytes_total += bytes.len() as u64;
        self.counters.facts_body_bytes_taken_total += pushed.taken as u64;
        self.counters.facts_body_bytes_over_cap_total += pushed.over_cap as u64;
        self.counters.facts_body_bytes_after_gap_total += pushed.after_gap as u64;
    }

    /// Tells that body bytes are missing here; what follows is not looked into.
    pub fn body_gap(&mut self, tap: &mut BodyTap) {
        tap.gap();
    }

    /// Ends a request body: fills in user and password, if it has any, and its GraphQL operation.
    ///
    /// Where the body broke off, set `RequestTruncated` or `RequestGap` before, so that a field that was cut
    /// in two is not taken for a whole one.
    pub fn request_body_end(&mut self, mut tap: Box<BodyTap>, tx: &mut Transaction) {
        let cut =
            tx.anomalies.contains(Anomaly::RequestTruncated) || tx.anomalies.contains(Anomaly::RequestGap);
        if let Some(format) = self.finish(&mut tap, cut, tx) {
            let found = tap.found();
            let (user, password) = (found.user(), found.password());
            let (repeated, capped) = (found.repeated(), found.capped());
            if self.outliner.wanted() {
                let (text, boundary, whole) = tap.outlined();
                self.outliner.body(format, text, boundary, whole && !capped, tx);
            }
            if repeated {
                tx.anomalies.insert(Anomaly::BodyFieldRepeated);
            }
            if capped {
                tx.anomalies.insert(Anomaly::BodyCapped);
                self.counters.facts_credentials_capped_total += 1;
            }
            let unread = [Anomaly::BodyCapped, Anomaly::BodyDecodeFailed];
            tx.login.body_read = !cut && !unread.iter().any(|a| tx.anomalies.contains(*a));
            let words = PathWords::of(tx.text.get(tx.path));
            if password.is_some() {
                self.counters.facts_passwords_total += 1;
                tx.login.password = password;
                tx.user = user.or(tx.user);
            } else if words.login || words.account {
                tx.user = tx.user.or(user);
            }
            self.graphql_endpoint(&tap.found().graphql, false, tx);
        }
        self.recycle(tap);
    }

    /// Ends a response body: fills in what it hints at.
    pub fn response_body_end(&mut self, mut tap: Box<BodyTap>, tx: &mut Transaction) {
        let cut =
            tx.anomalies.contains(Anomaly::ResponseTruncated) || tx.anomalies.contains(Anomaly::ResponseGap);
        if self.finish(&mut tap, cut, tx).is_some() {
            tx.login.body_hint = tap.hint();
        }
        self.recycle(tap);
    }

    /// Drops the tap of a body that nobody asks about any more.
    pub(crate) fn discard(&mut self, tap: Option<Box<BodyTap>>) {
        if let Some(mut tap) = tap {
            self.uncount(&mut tap);
        }
    }

    /// Returns the counts so far.
    pub fn counters(&self) -> &FactsCounters {
        &self.counters
    }

    /// Tells whether a field of a request is kept where there are more than the limit: what says who the client is.
    pub(crate) fn keeps_past_limit(&self, name: &[u8]) -> bool {
        matches!(
            Field::of(name),
            Field::XForwardedFor
                | Field::Forwarded
                | Field::Host
                | Field::UserAgent
                | Field::Cookie
                | Field::Authorization
                | Field::ContentType
                | Field::ContentEncoding
        ) || (self.names.header_lengths & (1 << (name.len() & 63)) != 0
            && (self.names.client_header.iter().chain(&self.names.session_headers))
                .any(|n| n.eq_ignore_ascii_case(name)))
    }
}

impl Facts {
    /// Finds the client behind trusted proxies.
    fn client(&mut self, headers: &[Header<'_>], seen: &Seen<'_>, tx: &mut Transaction) {
        let Names { trusted, client_chain, .. } = &self.names;
        if !trusted.contains(tx.client) {
            return;
        }
        let lines = |field| headers.iter().rev().filter(move |h| Field::of(h.name) == field).map(|h| h.value);
        let x_forwarded_for =
            || client::walk_x_forwarded_for(trusted, tx.client, lines(Field::XForwardedFor));
        let forwarded = || client::walk_forwarded(trusted, tx.client, lines(Field::Forwarded));
        let walk = if tx.anomalies.contains(Anomaly::HeadTooLong)
            || tx.anomalies.contains(Anomaly::HeaderUnresolved)
        {
            // What the proxy wrote may be in the part that was not kept, or not known.
            Walk { client: tx.client, invalid: true }
        } else if let Some(value) = seen.client_header {
            match client::parse_address(value) {
                Some(client) => Walk { client, invalid: false },
                None => Walk { client: tx.client, invalid: true },
            }
        } else {
            match (
                seen.x_forwarded_for && *client_chain != Some(Field::Forwarded),
                seen.forwarded && *client_chain != Some(Field::XForwardedFor),
            ) {
                (true, true) => client::agreed(tx.client, x_forwarded_for(), forwarded()),
                (true, false) => x_forwarded_for(),
                (false, true) => forwarded(),
                (false, false) => return,
            }
        };
        if walk.invalid {
            tx.anomalies.insert(Anomaly::ForwardedInvalid);
            self.counters.facts_forwarded_invalid_total += 1;
        }
        if walk.client != tx.client {
            tx.client = walk.client;
            tx.client_forwarded = true;
            self.counters.facts_clients_forwarded_total += 1;
        }
    }

    /// Fills in all texts with one reservation, and what the query says of user, password and session.
    fn request_texts(
        &mut self,
        head: &RequestHead<'_>,
        parts: &target::Parts<'_>,
        seen: &Seen<'_>,
        tx: &mut Transaction,
    ) {
        let max = self.text_bytes_max;
        let target_kept = self.capped(head.target, max, tx);
        let path = &parts.path[..parts.path.len().min(max)];
        // The method is part of the endpoint; a name of 8 bytes or more is `OTHER` in it.
        let method = method_word(head.method);
        let known = self.paths.find(method, parts.path);
        let plain = known.is_ok();
        let place = match known {
            Ok(facts) => {
                self.endpoint.clear();
                self.endpoint.extend_from_slice(facts.endpoint());
                tx.endpoint_hash = facts.endpoint_hash;
                tx.login.path_looks_like_login = facts.login;
                tx.login.path_sets_password = facts.sets_password;
                None
            }
            Err(place) => place,
        };
        let hide = !plain && self.path_facts(head.method, parts.path, path, method, place, tx);

        // Read before it is cut: a password may be behind the user name that is kept.
        let whole = head.target;
        let target = if hide || (!plain || whole.len() > path.len()) && target::may_hold_secrets(whole) {
            self.target.clear();
            self.read_target(whole, tx);
            if hide {
                target::hide_segments(&mut self.target);
            }
            self.counters.facts_texts_redacted_total += u64::from(self.target != whole);
            self.target.truncate(max);
            &*self.target
        } else {
            target_kept
        };
        let Fields { users, passwords, .. } = &self.names.fields;
        let stored_path = if hide || !plain && target::may_hold_secrets(parts.path) {
            self.path.clear();
            target::redact(parts.path, users, passwords, &mut self.path, |_, _, _| ());
            if hide {
                target::hide_segments(&mut self.path);
            }
            self.path.truncate(max);
            &*self.path
        } else {
            path
        };
        let referrer = seen.referer.unwrap_or_default();
        let referrer_kept = &referrer[..referrer.len().min(max)];
        let known = if referrer.len() > max { Err(None) } else { self.open_referrers.find(0, referrer) };
        let stored_referrer = match known {
            Ok(()) => referrer_kept,
            Err(place) => {
                if target::may_hold_secrets(referrer) || target::has_secret_segments(referrer) {
                    self.referrer.clear();
                    target::redact(referrer, users, passwords, &mut self.referrer, |_, _, _| ());
                    target::hide_segments(&mut self.referrer);
                    self.counters.facts_texts_redacted_total += u64::from(self.referrer != referrer);
                    self.referrer.truncate(max);
                    &*self.referrer
                } else {
                    if let Some(place) = place {
                        self.open_referrers.keep(place, 0, referrer_kept, ());
                    }
                    referrer_kept
                }
            }
        };

        let mut host_buf = [0; target::HOST_BYTES_MAX];
        let host = host(parts, seen, head.version, &mut host_buf, tx);
        let method = &head.method[..head.method.len().min(METHOD_BYTES_MAX)];
        let agent = seen.habits.user_agent;
        let agent_kept = &agent[..agent.len().min(max)];
        let media = body::media_type(seen.content_type.unwrap_or_default());
        let media_kept = &media[..media.len().min(TYPE_BYTES_MAX)];
        let cut =
            [(head.method, method), (referrer, referrer_kept), (agent, agent_kept), (media, media_kept)];
        for (whole, kept) in cut {
            if kept.len() < whole.len() {
                tx.anomalies.insert(Anomaly::TextCapped);
                self.counters.facts_texts_capped_total += 1;
            }
        }

        let texts = [
            (&mut tx.method, method),
            (&mut tx.target, target),
            (&mut tx.path, stored_path),
            (&mut tx.domain, host),
            (&mut tx.user_agent, agent_kept),
            (&mut tx.referrer, stored_referrer),
            (&mut tx.request_content_type, media_kept),
            (&mut tx.endpoint, &*self.endpoint),
        ];
        tx.text.reserve(texts.iter().map(|(_, t)| t.len()).sum::<usize>() + RESPONSE_TEXT_BYTES);
        for (span, text) in texts {
            *span = push_present(&mut tx.text, text);
        }
    }

    /// Finds the endpoint of `method` and `path` (`whole` as far as it is kept); returns whether a segment is to be
    /// hidden. Where nothing is and nothing may be, the answer is kept at `place`.
    fn path_facts(
        &mut self,
        method: &[u8],
        whole: &[u8],
        path: &[u8],
        context: u64,
        place: Option<memo::Place>,
        tx: &mut Transaction,
    ) -> bool {
        self.endpoint.clear();
        let shaped = endpoint::write(method, path, &mut self.endpoint);
        let mut endpoint_hash = StableHash::new(u64::from_le_bytes(*b"endpoint"));
        endpoint_hash.write(&self.endpoint);
        tx.endpoint_hash = endpoint_hash.finish();
        let login = PathWords::of(whole).login;
        tx.login.path_looks_like_login = login;
        // Nobody asks it of other methods.
        let asked = matches!(method, b"POST" | b"PUT") && !login;
        tx.login.path_sets_password = asked && endpoint::sets_password(whole);
        // What a segment hides has a placeholder.
        let hide = (shaped || whole.len() > path.len()) && target::has_secret_segments(whole);
        if let Some(place) = place
            && !hide
            && whole.len() == path.len()
            && self.endpoint.len() <= PathFacts::ENDPOINT_BYTES_MAX
            && !path.iter().any(|c| matches!(c, b';' | b'@'))
            && shape::find_unit(path, |c| c == b'=').is_none()
        {
            let mut facts = PathFacts {
                endpoint_hash: tx.endpoint_hash,
                login,
                sets_password: tx.login.path_sets_password,
                endpoint_len: self.endpoint.len() as u8,
                ..PathFacts::default()
            };
            facts.endpoint[..self.endpoint.len()].copy_from_slice(&self.endpoint);
            self.paths.keep(place, context, path, facts);
        }
        hide
    }

    /// Redacts `target` into `self.target` and takes its credentials.
    fn read_target(&mut self, target: &[u8], tx: &mut Transaction) {
        let Fields { users, passwords, .. } = &self.names.fields;
        self.found.reset(false);
        let mut found = Collector {
            key: &self.key,
            fields: &self.names.fields,
            scratch: &mut self.scratch,
            spare: &mut self.spare,
            found: &mut self.found,
        };
        let mut caller = None;
        target::redact(target, users, passwords, &mut self.target, |param, name, value| match param {
            Param::User(rank) => found.add_encoded(Kind::User, rank, name, value),
            Param::Password(rank) => found.add_encoded(Kind::Password, rank, name, value),
            Param::Caller => caller = caller.or(Some(value)),
        });
        let (user, password) = (self.found.user(), self.found.password());
        if self.found.capped() {
            tx.anomalies.insert(Anomaly::BodyCapped);
            self.counters.facts_credentials_capped_total += 1;
        }
        if password.is_some() {
            self.counters.facts_passwords_total += 1;
            tx.login.password = password;
            tx.user = user;
        } else if user.is_some() {
            let words = PathWords::of(target::split_reference(target).path);
            tx.user = user.filter(|_| words.login || words.account);
        }
        if let Some(value) = caller {
            self.scratch.clear();
            secret::form_decode(&value[..value.len().min(SESSION_BYTES_MAX)], &mut self.scratch);
            tx.session = Some(self.key.hash(b"session", self.scratch.bytes()));
            self.scratch.clear();
        }
    }

    /// Fills in session and user from cookies and authorization.
    fn identities(&mut self, seen: &Seen<'_>, tx: &mut Transaction) {
        let mut header = seen.session_header;
        match seen.authorization.map(credentials) {
            Some(Credentials::Token(token)) => {
                if let Some(rank) = self.names.authorization_rank
                    && header.is_none_or(|(other, _)| rank < other)
                {
                    header = Some((rank, token));
                }
            }
            Some(Credentials::Basic(text)) => self.basic(text, tx),
            Some(Credentials::DigestUser(user)) => tx.user = tx.user.or(hash_user(&self.key, user)),
            Some(Credentials::Other) | None => {}
        }
        if let Some(value) = seen.cookie.value().or(header.map(|(_, value)| value)) {
            tx.session = Some(self.hash_session(value));
        }
        self.counters.facts_sessions_total += u64::from(tx.session.is_some());
        self.counters.facts_cookies_capped_total += u64::from(seen.cookie.capped());
    }

    /// Takes user and password of Basic authorization (RFC 7617), unless the query had a password.
    fn basic(&mut self, text: &[u8], tx: &mut Transaction) {
        self.scratch.clear();
        let decoded = secret::base64(&text[..text.len().min(SESSION_BYTES_MAX)], &mut self.scratch);
        if decoded
            && tx.login.password.is_none()
            && let Some(colon) = memchr::memchr(b':', self.scratch.bytes())
        {
            let (user, password) = (&self.scratch.bytes()[..colon], &self.scratch.bytes()[colon + 1..]);
            tx.user = hash_user(&self.key, user).or(tx.user);
            tx.login.password = (!password.is_empty()).then(|| self.key.hash(b"password", password));
        }
        self.scratch.clear();
    }

    fn hash_session(&self, value: &[u8]) -> offpath_types::IdentityHash {
        self.key.hash(b"session", &value[..value.len().min(SESSION_BYTES_MAX)])
    }

    /// Cuts `text` and says so.
    fn capped<'a>(&mut self, text: &'a [u8], max: usize, tx: &mut Transaction) -> &'a [u8] {
        if text.len() <= max {
            return text;
        }
        tx.anomalies.insert(Anomaly::TextCapped);
        self.counters.facts_texts_capped_total += 1;
        &text[..max]
    }

    fn push(&mut self, text: &[u8], max: usize, tx: &mut Transaction) -> Span {
        let text = self.capped(text, max, tx);
        push_present(&mut tx.text, text)
    }

    /// Redacts `text` into `self.target`.
    fn redact_plain(&mut self, text: &[u8]) {
        self.target.clear();
        let Fields { users, passwords, .. } = &self.names.fields;
        target::redact(text, users, passwords, &mut self.target, |_, _, _| ());
        target::hide_segments(&mut self.target);
        self.counters.facts_texts_redacted_total += u64::from(self.target != text);
        self.target.truncate(self.text_bytes_max);
    }

    fn tap(
        &mut self,
        content_type: Option<&[u8]>,
        codings: Codings,
        response: bool,
        graphql: bool,
    ) -> Option<Box<BodyTap>> {
        let what = body::readable(content_type, codings, response);
        match what {
            Readable::As(..) => {
                self.counters.facts_body_taps_total += 1;
                let mut tap = self.spare_taps.pop().unwrap_or_default();
                let keep = self.outliner.wanted() && !response;
                tap.begin(&what, response, graphql, keep, self.body_bytes_max);
                self.kept.add(size_of::<BodyTap>());
                Some(tap)
            }
            Readable::TypeUnread => {
                self.counters.facts_bodies_type_unread_total += u64::from(!response);
                None
            }
            Readable::CodingUnread => {
                self.counters.facts_bodies_coding_unread_total += 1;
                None
            }
        }
    }

    /// Ends a tap's body, which broke off where it is `cut`; returns what it was read as, if it was.
    fn finish(&mut self, tap: &mut BodyTap, cut: bool, tx: &mut Transaction) -> Option<Format> {
        self.uncount(tap);
        let Self { names, key, scratch, spare, .. } = self;
        // What comes out of a coded body is gone when this returns.
        let kept = &mut Kept::of(usize::MAX);
        let read = tap.finish(cut, &mut Reading { key, fields: &names.fields, scratch, spare, kept });
        let mut whole = !read.cut;
        let mut capped = tap.capped();
        let c = &mut self.counters;
        if let Some((decoded, bytes)) = read.decoded {
            c.facts_bodies_coded_total += 1;
            c.facts_body_bytes_decoded_total += bytes as u64;
            whole &= decoded == Decoded::Whole;
            capped |= matches!(decoded, Decoded::OverCap | Decoded::OverRatio);
            match decoded {
                Decoded::Whole => c.facts_bodies_coded_decoded_total += 1,
                Decoded::OverCap => c.facts_bodies_coded_over_cap_total += 1,
                Decoded::OverRatio => c.facts_bodies_coded_over_ratio_total += 1,
                Decoded::Broken => c.facts_bodies_coded_broken_total += 1,
            }
            if decoded == Decoded::Broken && !read.cut {
                self.decode_failed(tx);
            }
        }
        if capped {
            tx.anomalies.insert(Anomaly::BodyCapped);
        }
        let c = &mut self.counters;
        let Some(format) = read.format.filter(|_| read.any) else {
            // Of a response without a byte, and of one that is only white space, nothing can be said.
            c.facts_bodies_empty_total += u64::from(!read.any);
            c.facts_bodies_unrecognised_total += u64::from(read.any);
            return None;
        };
        c.facts_bodies_read_total += 1;
        let said = tap.said();
        let other = format != said && said != Format::Sniff && !tap.is_response();
        if whole && !tap.is_response() && (!read.sound || other) {
            self.decode_failed(tx);
        }
        Some(format)
    }

    /// Takes the operation of a GraphQL request by GET out of its query.
    fn graphql_query(&mut self, query: &[u8], tx: &mut Transaction) {
        self.found.reset(true);
        for pair in query.split(|c| *c == b'&').take(GRAPHQL_PARAMETERS_MAX) {
            let Some(equals) = memchr::memchr(b'=', pair) else { continue };
            let Some(member) = graphql::Member::of(&pair[..equals]) else { continue };
            let value = &pair[equals + 1..];
            let mut text = SecretBuf::default();
            secret::form_decode(&value[..value.len().min(graphql::DOCUMENT_BYTES_MAX)], &mut text);
            match member {
                graphql::Member::OperationName => self.found.graphql.operation_name(text.bytes()),
                graphql::Member::Persisted => self.found.graphql.persisted(),
                graphql::Member::Document => self.found.graphql.document(text.bytes(), |_, _| ()),
            }
        }
        let graphql = std::mem::take(&mut self.found.graphql);
        self.graphql_endpoint(&graphql, true, tx);
    }

    /// Adds the GraphQL operation, if there is one, to the endpoint.
    fn graphql_endpoint(&mut self, request: &graphql::Request, get: bool, tx: &mut Transaction) {
        if !request.any() {
            return;
        }
        self.endpoint.clear();
        if request.write(get, &mut self.endpoint) {
            self.counters.facts_graphql_total += 1;
            tx.endpoint = tx.text.append(tx.endpoint, &self.endpoint);
            tx.endpoint_hash = endpoint_hash(tx.text.get(tx.endpoint));
        }
    }

    fn decode_failed(&mut self, tx: &mut Transaction) {
        tx.anomalies.insert(Anomaly::BodyDecodeFailed);
        self.counters.facts_bodies_decode_failed_total += 1;
    }

    /// Takes a tap, and what it keeps, off the books.
    fn uncount(&mut self, tap: &mut BodyTap) {
        self.kept.remove(size_of::<BodyTap>() + tap.uncount());
    }

    /// Wipes a tap and keeps it for the next body.
    fn recycle(&mut self, mut tap: Box<BodyTap>) {
        tap.wipe();
        if self.spare_taps.len() < SPARE_TAPS_MAX {
            self.spare_taps.push(tap);
        }
    }
}

impl Names {
    /// Reads all headers once.
    fn read_headers<'a>(&self, headers: &[Header<'a>], print: &mut Print) -> Seen<'a> {
        let mut seen = Seen::default();
        for (number, h) in headers.iter().enumerate() {
            let field = Field::of(h.name);
            if matches!(field, Field::Proxy | Field::Volatile | Field::Other) && self.named(h, &mut seen) {
                continue;
            }
            print.add(field, h.name, h.value);
            match field {
                Field::Host => {
                    seen.habits.host_first |= number == 0;
                    seen.hosts += 1;
                    seen.host = seen.host.or(Some(h.value));
                }
                Field::UserAgent if seen.habits.user_agent.is_empty() => seen.habits.user_agent = h.value,
                Field::Accept => seen.habits.accept = seen.habits.accept.or(Some(h.value)),
                Field::AcceptEncoding => {
                    seen.habits.encoding_before_accept = seen.habits.accept.is_none();
                    seen.habits.accept_encoding = seen.habits.accept_encoding.or(Some(h.value));
                }
                Field::AcceptLanguage => seen.habits.accept_language = Some(h.value),
                Field::Cookie => seen.cookie.read(h.value, &self.session_cookies),
                Field::Referer => seen.referer = seen.referer.or(Some(h.value)),
                Field::ContentType => {
                    seen.content_type = seen.content_type.or(Some(h.value));
                    seen.types += 1;
                    // Browsers upload reports without Accept.
                    seen.habits.special |= h.value.starts_with(b"application/reports+json")
                        || h.value.starts_with(b"application/csp-report");
                }
                Field::ContentEncoding => seen.content_codings.note(h.value),
                Field::Volatile if is_transfer_encoding(h.name) => seen.transfer_codings.note(h.value),
                Field::Authorization => seen.authorization = seen.authorization.or(Some(h.value)),
                Field::XForwardedFor => (seen.x_forwarded_for, seen.habits.proxied) = (true, true),
                Field::Forwarded => (seen.forwarded, seen.habits.proxied) = (true, true),
                Field::XForwardedProto => {
                    seen.habits.proxied = true;
                    seen.habits.https |= h.value.eq_ignore_ascii_case(b"https");
                }
                Field::SecChUa => seen.habits.sec_ch_ua = Some(h.value),
                Field::SecFetchMode => {
                    seen.habits.sec_fetch = true;
                    seen.sec_fetch_mode = Some(h.value);
                }
                Field::Http2Settings => seen.habits.http2_settings = true,
                Field::Upgrade => seen.habits.special |= h.value.eq_ignore_ascii_case(b"websocket"),
                Field::Proxy => seen.habits.proxied |= proxy_made(h.name),
                _ => {}
            }
        }
        seen
    }

    /// Takes a header that the configuration names; returns whether it is one.
    fn named<'a>(&self, h: &Header<'a>, seen: &mut Seen<'a>) -> bool {
        if self.header_lengths & (1 << (h.name.len() & 63)) == 0 {
            return false;
        }
        if self.client_header.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(h.name)) {
            // The last one is nearest to us.
            seen.client_header = Some(h.value);
            return true;
        }
        let Some(rank) = self.session_headers.iter().position(|n| n.eq_ignore_ascii_case(h.name)) else {
            return false;
        };
        let value = h.value.trim_ascii();
        if !value.is_empty() && seen.session_header.is_none_or(|(best, _)| rank < best) {
            seen.session_header = Some((rank, value));
        }
        true
    }
}

/// Tells whether a field that proxies add is not one of a program's own `X-…`.
fn proxy_made(name: &[u8]) -> bool {
    const MADE: &[&str] =
        &["x-forwarded", "x-real-ip", "x-request-id", "x-amzn", "x-envoy", "x-original", "x-cluster"];
    let starts = |p: &str| name.get(..p.len()).is_some_and(|n| n.eq_ignore_ascii_case(p.as_bytes()));
    !starts("x-") || MADE.iter().any(|p| starts(p))
}

fn endpoint_hash(endpoint: &[u8]) -> u64 {
    let mut hash = StableHash::new(u64::from_le_bytes(*b"endpoint"));
    hash.write(endpoint);
    hash.finish()
}

/// Returns the first of several Content-Type that fields can be read by, else the first: servers differ in which they
/// take.
#[cold]
fn readable_type<'a>(headers: &[Header<'a>], codings: Codings) -> Option<&'a [u8]> {
    let types = || headers.iter().filter(|h| Field::of(h.name) == Field::ContentType).map(|h| h.value);
    types()
        .find(|t| matches!(body::readable(Some(t), codings, false), Readable::As(..)))
        .or_else(|| types().next())
}

fn is_transfer_encoding(name: &[u8]) -> bool {
    name.len() == 17 && name.eq_ignore_ascii_case(b"transfer-encoding")
}

fn push_present(arena: &mut TextArena, text: &[u8]) -> Span {
    if text.is_empty() { Span::ABSENT } else { arena.push(text) }
}

/// Returns the host a request is for, in lower case: an absolute target's beats the Host field's.
fn host<'b>(
    parts: &target::Parts<'_>,
    seen: &Seen<'_>,
    version: HttpVersion,
    buf: &'b mut [u8; target::HOST_BYTES_MAX],
    tx: &mut Transaction,
) -> &'b [u8] {
    if seen.hosts == 0 && version == HttpVersion::V11 {
        tx.anomalies.insert(Anomaly::HostMissing);
    }
    let field = seen.host.map(target::host_of);
    let target = parts.authority.map(target::host_of);
    let differs = matches!((field, target), (Some(f), Some(t)) if !f.eq_ignore_ascii_case(t));
    if seen.hosts > 1 || differs {
        tx.anomalies.insert(Anomaly::HostConflict);
    }
    let host = target.or(field).unwrap_or_default();
    if host.len() > buf.len() {
        tx.anomalies.insert(Anomaly::TextCapped);
    }
    let len = host.len().min(buf.len());
    buf[..len].copy_from_slice(&host[..len]);
    buf[..len].make_ascii_lowercase();
    &buf[..len]
}

/// Returns a method of up to 7 bytes as a word, filled up with zeros; all longer ones are the same.
fn method_word(method: &[u8]) -> u64 {
    if method.len() > 7 { u64::MAX } else { method.iter().rev().fold(0, |word, b| word << 8 | u64::from(*b)) }
}

fn is_post(tx: &Transaction) -> bool {
    matches!(tx.text.get(tx.method), b"POST" | b"PUT" | b"PATCH")
}

/// Returns the year of packet time, near enough to tell an expiry of the past.
fn year(time: Timestamp) -> u32 {
    // Mean Gregorian year in seconds.
    let years = time.as_nanos() / 1_000_000_000 / 31_556_952;
    1970 + years as u32
}

/// Classes a Location by its path, as seen from the request's `path`.
fn redirect_class(location: &[u8], path: &[u8]) -> RedirectClass {
    let parts = target::split_reference(location);
    let plain = |p: &'_ [u8]| p.len() - usize::from(p.len() > 1 && p.ends_with(b"/"));
    let to = parts.path;
    let same = if to.is_empty() {
        parts.authority.is_none()
    } else if to.starts_with(b"/") {
        to[..plain(to)] == path[..plain(path)]
    } else {
        // Relative to the request's last slash (RFC 3986 §5.2.3).
        let base = memchr::memrchr(b'/', path).map_or(0, |slash| slash + 1);
        to == &path[base..] || to.strip_prefix(b"./") == Some(&path[base..])
    };
    if same && !path.is_empty() {
        return RedirectClass::SamePath;
    }
    let words = PathWords::of(to);
    if words.login || words.error || says_error(parts.query) {
        RedirectClass::LoginLike
    } else {
        RedirectClass::Elsewhere
    }
}

/// Tells whether a query has a parameter like `error` (`/?error=1`, `/?login_error`).
fn says_error(query: &[u8]) -> bool {
    query.split(|c| *c == b'&').take(32).any(|pair| {
        let name = pair.split(|c| *c == b'=').next().unwrap_or_default();
        let reduced = names::Reduced::new(name, true);
        matches!(
            reduced.bytes(),
            b"error"
                | b"err"
                | b"errorcode"
                | b"failed"
                | b"fail"
                | b"failure"
                | b"loginerror"
                | b"loginfailed"
                | b"autherror"
        )
    })
}

/// Fuzz body: a request with `data` as its body, whole and in two pieces, must give the same facts.
///
/// Byte 0 chooses type and coding, byte 1 the cut.
#[doc(hidden)]
pub fn fuzz_body_fields(data: &[u8]) {
    use offpath_types::{FlowInfo, FlowKey, Peer, Side, TunnelId};
    const TYPES: [&[u8]; 7] = [
        b"application/json",
        b"application/x-www-form-urlencoded",
        b"multipart/form-data; boundary=B",
        b"text/plain",
        b"text/html",
        b"",
        b"application/graphql",
    ];
    const CODINGS: [&[u8]; 8] =
        [b"identity", b"gzip", b"deflate", b"br", b"zstd", b"gzip, br", b"deflate, zstd, gzip", b"compress"];
    let (Some(choice), Some(cut)) = (data.first(), data.get(1)) else { return };
    let bytes = &data[2..];
    let (key, client_side) = FlowKey::new(Peer::default(), Peer { port: 80, ..Peer::default() }, TunnelId(0));
    let flow = FlowInfo {
        key,
        client_side,
        opened: Timestamp::ZERO,
        midstream: client_side == Side::High,
        envelope: Default::default(),
    };
    let headers = [
        Header { name: b"Content-Type", value: TYPES[usize::from(*choice) % TYPES.len()] },
        Header { name: b"Content-Encoding", value: CODINGS[usize::from(*choice >> 4) % CODINGS.len()] },
    ];
    let mut facts = Facts::new(
        FactsConfig { body_inspect_bytes_max: 4096, outline_names_max: 16, ..FactsConfig::default() },
        IdentityKey::new([1; 32]),
    );
    let mut run = |pieces: [&[u8]; 2]| {
        let mut tx = Transaction::new(flow, 1, 0, Timestamp::ZERO);
        let head = RequestHead {
            method: b"POST",
            target: b"/login",
            version: HttpVersion::V11,
            headers: &headers,
            says_empty: false,
        };
        if let Some(mut tap) = facts.request_head(&head, &mut tx) {
            pieces.iter().for_each(|p| facts.body(&mut tap, p));
            facts.request_body_end(tap, &mut tx);
        }
        let head =
            ResponseHead { version: HttpVersion::V11, status: 200, headers: &headers, says_empty: false };
        if let Some(mut tap) = facts.response_head(&head, &mut tx) {
            pieces.iter().for_each(|p| facts.body(&mut tap, p));
            facts.response_body_end(tap, &mut tx);
        }
        tx
    };
    let at = usize::from(*cut).min(bytes.len());
    let (whole, pieces) = (run([bytes, b""]), run([&bytes[..at], &bytes[at..]]));
    assert!(whole == pieces, "a cut at {at} changes the facts");
    let c = facts.counters();
    assert_eq!(
        c.facts_body_taps_total,
        c.facts_bodies_read_total + c.facts_bodies_unrecognised_total + c.facts_bodies_empty_total
    );
}

#[cfg(test)]
mod tests;
