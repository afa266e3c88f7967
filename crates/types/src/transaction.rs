//! A request with its response: the unit that is scored.

use std::sync::Arc;

use crate::{
    EntityKey, EntityKind, FlowInfo, Host, IdentityHash, Outline, Span, TextArena, Timestamp, TlsFacts,
};

/// The HTTP version of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HttpVersion {
    /// HTTP/0.9: no version on the request line.
    V09,
    /// HTTP/1.0.
    V10,
    /// HTTP/1.1.
    #[default]
    V11,
    /// HTTP/2.
    V2,
}

impl HttpVersion {
    /// Returns the ECS form: `0.9`, `1.0`, `1.1`, `2`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V09 => "0.9",
            Self::V10 => "1.0",
            Self::V11 => "1.1",
            Self::V2 => "2",
        }
    }
}

macro_rules! anomalies {
    ($($(#[$meta:meta])* $variant:ident = $name:literal),* $(,)?) => {
        /// Traffic that breaks a rule but is still analysed. Named by what the peer (or the capture) did.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Anomaly { $($(#[$meta])* $variant),* }

        impl Anomaly {
            /// Every anomaly, in record order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Returns the name used in records.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }
    };
}

anomalies! {
    /// The capture missed bytes of the request.
    RequestGap = "request_gap",
    /// The capture missed bytes of the response.
    ResponseGap = "response_gap",
    /// The request ended before its framing said so.
    RequestTruncated = "request_truncated",
    /// The response ended before its framing said so.
    ResponseTruncated = "response_truncated",
    /// A response without a request.
    RequestMissing = "request_missing",
    /// A request without a response.
    ResponseMissing = "response_missing",
    /// The flow was joined in the middle.
    Midstream = "midstream",
    /// The response started before its request was complete.
    ResponseEarly = "response_early",
    /// The request came as TLS 1.3 0-RTT data, which an attacker may replay (RFC 8446 §8).
    EarlyData = "early_data",
    /// A head longer than the limit; what fitted was used.
    HeadTooLong = "head_too_long",
    /// More header fields than the limit.
    HeaderCountExceeded = "header_count_exceeded",
    /// Lines end in a bare LF (RFC 9112 §2.2).
    BareLf = "bare_lf",
    /// A CR that no LF follows.
    BareCr = "bare_cr",
    /// A header value continued on the next line (RFC 9112 §5.2).
    ObsFold = "obs_fold",
    /// White space between field name and colon (RFC 9112 §5.1).
    SpaceBeforeColon = "space_before_colon",
    /// A field name with characters that are no token.
    HeaderNameInvalid = "header_name_invalid",
    /// White space at an end of a field's value, where HTTP/2 allows none (RFC 9113 §8.2.1).
    HeaderValuePadded = "header_value_padded",
    /// A NUL or another control character in a head.
    ControlCharacter = "control_character",
    /// A header line without a colon.
    HeaderLineInvalid = "header_line_invalid",
    /// The request line is not three words.
    RequestLineInvalid = "request_line_invalid",
    /// The method is no token or an unknown one.
    MethodUnknown = "method_unknown",
    /// The target, or in HTTP/2 a part of it, has characters that RFC 3986 forbids there.
    TargetInvalid = "target_invalid",
    /// The version is none that is known.
    VersionInvalid = "version_invalid",
    /// The status line is malformed.
    StatusLineInvalid = "status_line_invalid",
    /// A request of HTTP/0.9 shape.
    Http09 = "http_09",
    /// Several Content-Length values that differ (RFC 9112 §6.3).
    ContentLengthConflict = "content_length_conflict",
    /// Several equal Content-Length values.
    ContentLengthRepeated = "content_length_repeated",
    /// A Content-Length that is no number.
    ContentLengthInvalid = "content_length_invalid",
    /// Content-Length beside Transfer-Encoding: the shape of request smuggling (RFC 9112 §6.1).
    LengthAndTransferEncoding = "length_and_transfer_encoding",
    /// A Transfer-Encoding that is unknown, repeated, or where chunked is not last.
    TransferEncodingInvalid = "transfer_encoding_invalid",
    /// Transfer-Encoding written so that parsers disagree (white space, case tricks, quoting, obs-fold).
    TransferEncodingObfuscated = "transfer_encoding_obfuscated",
    /// Transfer-Encoding in HTTP/1.0.
    TransferEncodingInHttp10 = "transfer_encoding_in_http10",
    /// A chunk size that is no hexadecimal number or overflows.
    ChunkSizeInvalid = "chunk_size_invalid",
    /// A chunk that does not end in CRLF.
    ChunkEndInvalid = "chunk_end_invalid",
    /// A body where the method or the status forbids one.
    BodyUnexpected = "body_unexpected",
    /// No Host in HTTP/1.1 (RFC 9112 §3.2).
    HostMissing = "host_missing",
    /// Several Host fields, or one that differs from an absolute target.
    HostConflict = "host_conflict",
    /// Bytes between messages that are no message.
    JunkBetweenMessages = "junk_between_messages",
    /// The connection switched protocols.
    Upgraded = "upgraded",
    /// The connection became a tunnel (CONNECT).
    Tunnelled = "tunnelled",
    /// Who the client of a trusted proxy is could not be told: the last hop that can be told was used, or what
    /// X-Forwarded-For says where Forwarded says something else.
    ForwardedInvalid = "forwarded_invalid",
    /// The same body field twice with different values.
    BodyFieldRepeated = "body_field_repeated",
    /// The body is longer than what is looked into, or it or the query has more fields than are looked at.
    BodyCapped = "body_capped",
    /// The body could not be decoded as its Content-Encoding or Content-Type says.
    BodyDecodeFailed = "body_decode_failed",
    /// Too many requests were open on the flow; the oldest was given up.
    PipelineOverflow = "pipeline_overflow",
    /// The pairing of request and response was re-established after a gap.
    Repaired = "repaired",
    /// Overlapping TCP segments carried different bytes.
    OverlapConflict = "overlap_conflict",
    /// A field of the head is not known: it refers to an HTTP/2 header table whose filling was not seen.
    HeaderUnresolved = "header_unresolved",
    /// An HTTP/2 header block could not be decoded: malformed, over a limit, or with a part missing.
    HeaderBlockLost = "header_block_lost",
    /// Pseudo-header fields that are missing, empty, repeated, unknown or out of place (RFC 9113 §8.3).
    PseudoHeaderInvalid = "pseudo_header_invalid",
    /// A field of HTTP/1 that is about the connection, in HTTP/2, which forbids it (RFC 9113 §8.2.2).
    ConnectionField = "connection_field",
    /// A second head on an HTTP/2 stream after which the message goes on: no trailers (RFC 9113 §8.1).
    TrailersInvalid = "trailers_invalid",
    /// One side reset the HTTP/2 stream.
    StreamReset = "stream_reset",
    /// The client takes back requests in masses (CVE-2023-44487).
    RapidReset = "rapid_reset",
    /// The peer sends frames that carry nothing in masses.
    FrameFlood = "frame_flood",
    /// The server sent the response unasked: the request is its promise.
    Pushed = "pushed",
    /// A text (target, User-Agent, Referer, Location …) was longer than what is kept; its beginning was.
    TextCapped = "text_capped",
}

const _: () = assert!(Anomaly::ALL.len() <= 64);

/// A set of anomalies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Anomalies(u64);

impl Anomalies {
    /// Adds one.
    pub fn insert(&mut self, anomaly: Anomaly) {
        self.0 |= 1 << anomaly as u8;
    }

    /// Adds all of `other`.
    pub fn extend(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Tells whether `anomaly` is in the set.
    pub const fn contains(self, anomaly: Anomaly) -> bool {
        self.0 & (1 << anomaly as u8) != 0
    }

    /// Tells whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many.
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Yields the members in record order.
    pub fn iter(self) -> impl Iterator<Item = Anomaly> {
        Anomaly::ALL.iter().copied().filter(move |a| self.contains(*a))
    }
}

/// What the User-Agent claims to be, as far as the header set can contradict it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StackClass {
    /// No User-Agent, or none that is known.
    #[default]
    Unknown,
    /// Chrome, Edge, Opera and other Chromium browsers.
    Chromium,
    /// Firefox.
    Firefox,
    /// Safari.
    Safari,
    /// A command-line tool or HTTP library (curl, python-requests, Go-http-client …).
    Library,
    /// A crawler that says so.
    Crawler,
    /// A native mobile application (okhttp, CFNetwork, Dalvik).
    App,
}

/// Where a redirect leads, relative to a login.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RedirectClass {
    /// No redirect.
    #[default]
    None,
    /// Back to the same path.
    SamePath,
    /// To a path that looks like a login or error page (`login`, `signin`, `error`, `denied` …).
    LoginLike,
    /// Anywhere else.
    Elsewhere,
}

/// What a response body says of success, from well-known JSON fields and markers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BodyHint {
    /// Nothing found.
    #[default]
    None,
    /// `"success": true`, a token field, `"authenticated": true` …
    Success,
    /// `"success": false`, an error field, "invalid password" …
    Failure,
}

/// When a response came, where that was the server's choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pace {
    /// As soon as it could.
    #[default]
    AtOnce,
    /// It was held back until there was something to say, or too long: a long poll.
    Held,
    /// It is an event stream; the transaction ends with its head.
    Streamed,
}

impl Pace {
    /// Returns the name used in records, where there is something to say.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::AtOnce => None,
            Self::Held => Some("held"),
            Self::Streamed => Some("streamed"),
        }
    }
}

/// What a transaction shows of a login attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoginFacts {
    /// The request body (or Basic authorization) carries a password.
    pub password: Option<IdentityHash>,
    /// The path looks like a login (`/login`, `/signin`, `/oauth/token`, `/session` …).
    pub path_looks_like_login: bool,
    /// A POST or PUT to a path where a password is chosen, not proven: registration, reset.
    pub path_sets_password: bool,
    /// The request body was read to its end, whether or not it holds a password.
    pub body_read: bool,
    /// The response sets a cookie.
    pub sets_cookie: bool,
    /// Where the response redirects.
    pub redirect: RedirectClass,
    /// What the response body says.
    pub body_hint: BodyHint,
}

/// A request with its response.
///
/// All texts live in `text`; spans are [`Span::ABSENT`] where there is none. `None` in `status` means
/// no response was seen; an absent `method` means no request was seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Transaction {
    /// The flow it ran on; its `client` is the TCP peer, not the client behind a proxy.
    pub flow: FlowInfo,
    /// Hash of the flow's key and start; the same on every machine and run.
    pub flow_id: u64,
    /// Number on its flow, from 0. `flow_id` and `index` make the id.
    pub index: u32,
    /// SHA-1 of the Community ID (v1, seed 0).
    pub community_id: [u8; 20],
    /// First byte of the request (of the response where there is no request).
    pub started: Timestamp,
    /// Last byte seen of the transaction.
    pub ended: Timestamp,
    /// Packet time at which it was handed on: orders the output together with the flow and `index`.
    pub emitted: Timestamp,
    /// All texts.
    pub text: TextArena,
    /// Request method as sent.
    pub method: Span,
    /// Request target as sent.
    pub target: Span,
    /// Path of the target: without query, scheme and authority; as sent, not decoded.
    pub path: Span,
    /// Host of the absolute target or Host field, without port.
    pub domain: Span,
    /// User-Agent as sent.
    pub user_agent: Span,
    /// Referer as sent.
    pub referrer: Span,
    /// Content type of the request, without parameters.
    pub request_content_type: Span,
    /// Content type of the response, without parameters.
    pub response_content_type: Span,
    /// Location of the response.
    pub location: Span,
    /// Method and path template: `POST /orders/{id}`.
    pub endpoint: Span,
    /// Hash of `endpoint`'s text.
    pub endpoint_hash: u64,
    /// Version of the request (of the response where there is no request).
    pub version: HttpVersion,
    /// Status of the final response.
    pub status: Option<u16>,
    /// Interim (1xx) responses before it.
    pub interim_responses: u16,
    /// Request body bytes after dechunking, before decompression.
    pub request_body_bytes: u64,
    /// Response body bytes after dechunking, before decompression.
    pub response_body_bytes: u64,
    /// Both messages were seen whole; of an event stream, the request and the head.
    pub complete: bool,
    /// When the response came.
    pub pace: Pace,
    /// What was odd.
    pub anomalies: Anomalies,
    /// The client, after trusted proxies.
    pub client: Host,
    /// The client address came from a header or PROXY protocol, not from the IP header.
    pub client_forwarded: bool,
    /// Hashed session cookie, bearer token or API key.
    pub session: Option<IdentityHash>,
    /// Hashed user name, from the login body or Basic authorization.
    pub user: Option<IdentityHash>,
    /// Fingerprint of the client's stack: header order and set, version.
    pub fingerprint: u64,
    /// What the User-Agent claims.
    pub stack_claimed: StackClass,
    /// The header set contradicts `stack_claimed`.
    pub stack_contradicted: bool,
    /// The request looks like a page load or navigation (Accept: text/html, GET) rather than an API call.
    pub navigation: bool,
    /// What it shows of a login.
    pub login: LoginFacts,
    /// Names and kinds of the request's parameters, where an inventory is wanted.
    pub outline: Option<Box<Outline>>,
    /// What the TLS handshake around it showed, where it was seen here or joined from elsewhere.
    pub tls: Option<Arc<TlsFacts>>,
    /// What only some protocols have.
    pub rare: Option<Box<RareFacts>>,
}

/// What only some protocols have: behind one pointer, so that the rest does not pay for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RareFacts {
    /// HTTP/2 stream.
    pub stream: Option<u32>,
    /// The remote procedure that was called.
    pub rpc: Option<RpcFacts>,
}

/// A call of gRPC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RpcFacts {
    /// Full name of the service, with its package.
    pub service: Span,
    /// Name of the method.
    pub method: Span,
    /// The `grpc-status`, once it was seen.
    pub status: Option<u32>,
}

impl Transaction {
    /// Makes an empty transaction that started at `started` on `flow`.
    pub fn new(flow: FlowInfo, flow_id: u64, index: u32, started: Timestamp) -> Self {
        Self {
            flow,
            flow_id,
            index,
            community_id: [0; 20],
            started,
            ended: started,
            emitted: started,
            text: TextArena::default(),
            method: Span::ABSENT,
            target: Span::ABSENT,
            path: Span::ABSENT,
            domain: Span::ABSENT,
            user_agent: Span::ABSENT,
            referrer: Span::ABSENT,
            request_content_type: Span::ABSENT,
            response_content_type: Span::ABSENT,
            location: Span::ABSENT,
            endpoint: Span::ABSENT,
            endpoint_hash: 0,
            version: HttpVersion::V11,
            status: None,
            interim_responses: 0,
            request_body_bytes: 0,
            response_body_bytes: 0,
            complete: false,
            pace: Pace::AtOnce,
            anomalies: Anomalies::default(),
            client: flow.client().host,
            client_forwarded: false,
            session: None,
            user: None,
            fingerprint: 0,
            stack_claimed: StackClass::Unknown,
            stack_contradicted: false,
            navigation: false,
            login: LoginFacts::default(),
            outline: None,
            tls: None,
            rare: None,
        }
    }

    /// Adds what a TLS handshake showed. The stable part of the client's JA4 goes into `fingerprint`, once.
    pub fn attach_tls(&mut self, facts: Arc<TlsFacts>) {
        let had = self.tls.as_ref().is_some_and(|tls| tls.ja4.is_some());
        if let Some(ja4) = facts.ja4
            && self.fingerprint != 0
            && !had
        {
            self.fingerprint = (self.fingerprint.rotate_left(29) ^ ja4.stable_hash())
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .max(1);
        }
        self.tls = Some(facts);
    }

    /// Returns the id used in records and decisions: 24 hex digits, the same in every run.
    pub fn id(&self) -> String {
        format!("{:016x}{:08x}", self.flow_id, self.index)
    }

    /// Returns the total order in which transactions are scored and written: time handed on, then flow,
    /// then index. Independent of workers and runs.
    pub fn order(&self) -> (Timestamp, crate::FlowKey, Timestamp, u32) {
        (self.emitted, self.flow.key, self.flow.opened, self.index)
    }

    /// Returns the entity of `kind` that this transaction belongs to, where it has one.
    pub fn entity(&self, kind: EntityKind) -> Option<EntityKey> {
        match kind {
            EntityKind::Ip => Some(EntityKey::Ip(self.client)),
            EntityKind::Prefix => Some(EntityKey::Prefix(self.client.prefix())),
            EntityKind::Session => self.session.map(EntityKey::Session),
            EntityKind::User => self.user.map(EntityKey::User),
            EntityKind::Fingerprint => {
                (self.fingerprint != 0).then_some(EntityKey::Fingerprint(self.fingerprint))
            }
            EntityKind::Endpoint => {
                (!self.endpoint.is_empty()).then_some(EntityKey::Endpoint(self.endpoint_hash))
            }
        }
    }

    /// Returns the text of the entity of `kind`, as records write it and decisions match it: `192.0.2.7`,
    /// `192.0.2.0/24`, 32 or 16 hex digits, `POST /login`.
    pub fn entity_text(&self, kind: EntityKind) -> Option<String> {
        Some(match self.entity(kind)? {
            EntityKey::Endpoint(_) => String::from_utf8_lossy(self.text.get(self.endpoint)).into_owned(),
            key => key.to_string(),
        })
    }

    /// Tells whether a request was seen.
    pub fn has_request(&self) -> bool {
        !self.method.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anomaly_sets_iterate_in_record_order_and_names_are_unique() {
        let mut set = Anomalies::default();
        set.insert(Anomaly::OverlapConflict);
        set.insert(Anomaly::BareLf);
        set.insert(Anomaly::BareLf);
        assert_eq!(set.iter().collect::<Vec<_>>(), [Anomaly::BareLf, Anomaly::OverlapConflict]);
        let mut names: Vec<_> = Anomaly::ALL.iter().map(|a| a.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Anomaly::ALL.len());
    }
}
