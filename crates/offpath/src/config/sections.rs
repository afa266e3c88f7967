//! The sections of the configuration file. Every key has a default; `docs/reference/configuration.md` lists them.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use offpath_types::{Action, EntityKind};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::When;

/// `[capture]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CaptureSection {
    /// Interfaces of `attach`, where the command line names none.
    pub(crate) interfaces: Vec<String>,
    /// Listeners of `attach`, where the command line names no source.
    pub(crate) listen: Vec<String>,
    /// Servers of `attach`, where the command line names no source.
    pub(crate) pcap_over_ip: Vec<String>,
    /// The sources carry the two directions of one network.
    pub(crate) split_tap: bool,
    /// Workers: in all for `replay`, per interface for `attach`.
    pub(crate) workers: usize,
    /// BPF filter.
    pub(crate) filter: Option<String>,
    /// Bytes captured of each frame.
    pub(crate) snaplen_bytes: u32,
    /// Kernel ring per worker.
    pub(crate) ring_mib: u32,
    /// Receive buffer per worker of a listener.
    pub(crate) receive_buffer_mib: u32,
    /// Put interfaces into promiscuous mode.
    pub(crate) promiscuous: bool,
    /// Longest wait for a frame before timers run.
    pub(crate) poll_ms: u32,
    /// User to become once the sockets are open; empty: stay who we are.
    pub(crate) user: String,
}

impl Default for CaptureSection {
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            listen: Vec::new(),
            pcap_over_ip: Vec::new(),
            split_tap: false,
            receive_buffer_mib: 64,
            workers: 1,
            filter: None,
            snaplen_bytes: 262_144,
            ring_mib: 64,
            promiscuous: true,
            poll_ms: 10,
            user: "nobody".into(),
        }
    }
}

/// `[decode]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DecodeSection {
    /// Tunnels, tags and labels within each other.
    pub(crate) tunnel_depth_max: u8,
    /// Bytes of fragments held.
    pub(crate) defrag_bytes_max: usize,
    /// Datagrams being put together.
    pub(crate) defrag_datagrams_max: usize,
    /// Packet time after which an unfinished datagram is given up.
    pub(crate) defrag_timeout_secs: u32,
    /// Keep flows of different VLANs apart.
    pub(crate) vlan_in_key: bool,
    /// Leave out packets that were captured twice.
    pub(crate) duplicates: DuplicatesMode,
    /// Packet time within which an equal packet is a copy.
    pub(crate) duplicates_window_ms: u64,
    /// Keep flows of different ERSPAN sessions apart.
    pub(crate) erspan_in_key: bool,
}

impl Default for DecodeSection {
    fn default() -> Self {
        let d = offpath_packet::DecoderLimits::default();
        Self {
            tunnel_depth_max: d.tunnel_depth_max,
            defrag_bytes_max: d.defrag_bytes_max,
            defrag_datagrams_max: d.defrag_datagrams_max,
            defrag_timeout_secs: d.defrag_timeout_secs,
            vlan_in_key: d.vlan_in_key,
            duplicates: DuplicatesMode::Auto,
            duplicates_window_ms: d.duplicates_window_nanos / 1_000_000,
            erspan_in_key: d.erspan_in_key,
        }
    }
}

/// When packets that were captured twice are searched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DuplicatesMode {
    Off,
    Auto,
    On,
}

/// `[client]`
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ClientSection {
    /// Networks whose forwarding headers (and PROXY protocol) are believed.
    pub(crate) trusted_proxies: Vec<Network>,
    /// Header that names the client, believed only from a trusted proxy.
    pub(crate) header: Option<String>,
}

/// `[join]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct JoinSection {
    /// How a transaction names the client of the handshake outside; empty: nothing is joined.
    pub(crate) by: Vec<JoinBy>,
    /// Header in which the terminator passes on the client's port, or address and port.
    pub(crate) client_port_header: Option<String>,
    /// Header in which the terminator passes on the JA4 that it saw.
    pub(crate) ja4_header: Option<String>,
    /// Header in which the terminator passes on the JA3 that it saw.
    pub(crate) ja3_header: Option<String>,
    /// Packet time without use after which a handshake is forgotten.
    pub(crate) window_secs: u32,
    /// Handshakes remembered.
    pub(crate) handshakes_max: usize,
}

impl Default for JoinSection {
    fn default() -> Self {
        Self {
            by: Vec::new(),
            client_port_header: None,
            ja4_header: None,
            ja3_header: None,
            window_secs: 900,
            handshakes_max: 100_000,
        }
    }
}

/// What names the client of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum JoinBy {
    /// A header that the terminator sets: `client_port_header`.
    Header,
    /// The PROXY protocol.
    ProxyProtocol,
    /// The address and port of the flow inside, where the terminator keeps them.
    Address,
}

/// `[decryption]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DecryptionSection {
    /// There is a key log that grows: the command line or `keylog` names one.
    #[serde(skip)]
    pub(crate) live: bool,
    /// Key logs of `attach`, where the command line names none: files, or `unix://PATH`.
    pub(crate) keylog: Vec<PathBuf>,
    /// Packet time that a connection waits for a secret.
    pub(crate) wait_ms: u64,
    /// Bytes that one connection holds meanwhile.
    pub(crate) wait_connection_bytes_max: usize,
    /// Bytes that all connections hold meanwhile.
    pub(crate) wait_bytes_max: usize,
    /// Connections whose secrets are kept.
    pub(crate) keys_max: usize,
    /// Packet time that secrets wait for their connection.
    pub(crate) keys_keep_secs: u32,
}

impl Default for DecryptionSection {
    fn default() -> Self {
        let d = offpath_protocol::DecryptLimits::default();
        Self {
            live: false,
            keylog: Vec::new(),
            wait_ms: 5000,
            wait_connection_bytes_max: d.wait_connection_bytes_max,
            wait_bytes_max: d.wait_bytes_max,
            keys_max: offpath_protocol::KeyLimits::default().connections_max,
            keys_keep_secs: 300,
        }
    }
}

/// `[identity]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct IdentitySection {
    /// File with the key of the identity hashes; made at first use.
    pub(crate) key_file: Option<PathBuf>,
    /// Cookies that are sessions; where none is there, session-like names are tried.
    pub(crate) session_cookies: Vec<String>,
    /// Headers whose value is a session.
    pub(crate) session_headers: Vec<String>,
    /// Body and query fields that name the user; JSON pointers begin with `/`.
    pub(crate) user_fields: Vec<String>,
    /// Body and query fields that hold a password; JSON pointers begin with `/`.
    pub(crate) password_fields: Vec<String>,
}

impl Default for IdentitySection {
    fn default() -> Self {
        let d = offpath_protocol::facts::FactsConfig::default();
        Self {
            key_file: None,
            session_cookies: d.session_cookies,
            session_headers: d.session_headers,
            user_fields: d.user_fields,
            password_fields: d.password_fields,
        }
    }
}

/// `[score.entities_max]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EntitiesMax {
    pub(crate) ip: u32,
    pub(crate) prefix: u32,
    pub(crate) session: u32,
    pub(crate) user: u32,
    pub(crate) fingerprint: u32,
    pub(crate) endpoint: u32,
    pub(crate) cell: u32,
    pub(crate) password: u32,
}

impl Default for EntitiesMax {
    fn default() -> Self {
        let d = offpath_score::EntityCaps::default();
        Self {
            ip: d.ip,
            prefix: d.prefix,
            session: d.session,
            user: d.user,
            fingerprint: d.fingerprint,
            endpoint: d.endpoint,
            cell: d.cell,
            password: d.password,
        }
    }
}

/// `[score]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ScoreSection {
    /// Find login endpoints from traffic.
    pub(crate) logins_learned: bool,
    /// Half of the memory of "distinct users" and the like.
    pub(crate) distinct_window_secs: u32,
    /// Share of automated abuse among all transactions before anything is known.
    pub(crate) prior: f64,
    /// Failure ratio expected of people on a login endpoint without history.
    pub(crate) failure_ratio_prior: f64,
    /// Attempts that this expectation weighs as much as.
    pub(crate) failure_ratio_prior_weight: f64,
    /// False-alarm rate of one cell's sequential test.
    pub(crate) cell_error_rate: f64,
    /// Confidence from which a successful login puts the account at risk.
    pub(crate) risk_confidence: u8,
    /// Refused guesses on one account after which a success puts it at risk; the same password again is none.
    pub(crate) risk_failures: u32,
    /// Verdicts below this confidence list no signals.
    pub(crate) explain_confidence: u8,
    /// Multiplies every signal's points, by name; 0 turns one off.
    pub(crate) weights: std::collections::BTreeMap<String, f64>,
    /// Entities remembered, by kind.
    pub(crate) entities_max: EntitiesMax,
}

impl Default for ScoreSection {
    fn default() -> Self {
        let d = offpath_score::ScoreConfig::default();
        Self {
            logins_learned: d.logins_learned,
            distinct_window_secs: d.distinct_window_secs,
            prior: d.prior,
            failure_ratio_prior: d.failure_ratio_prior,
            failure_ratio_prior_weight: d.failure_ratio_prior_weight,
            cell_error_rate: d.cell_error_rate,
            risk_confidence: d.risk_confidence,
            risk_failures: d.risk_failures,
            explain_confidence: d.explain_confidence,
            weights: d.weights.into_iter().collect(),
            entities_max: EntitiesMax::default(),
        }
    }
}

/// `[[login]]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoginSection {
    /// Request method; absent: POST and PUT.
    pub(crate) method: Option<String>,
    /// Path; `*` stands for any run of characters.
    pub(crate) path: String,
    /// Responses that let the user in.
    #[serde(default)]
    pub(crate) success: OutcomeSection,
    /// Responses that refuse the user.
    #[serde(default)]
    pub(crate) failure: OutcomeSection,
}

/// `[login.success]`, `[login.failure]`
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct OutcomeSection {
    /// Status codes.
    pub(crate) status: Vec<u16>,
    /// The Location contains this text.
    pub(crate) redirect_contains: Option<String>,
    /// The response sets a cookie, or sets none.
    pub(crate) sets_cookie: Option<bool>,
    /// What the body says: `success` or `failure`.
    pub(crate) body: Option<BodySays>,
}

/// What a body says of a login.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BodySays {
    Success,
    Failure,
}

/// `[[policy]]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PolicySection {
    /// Name, as decisions record it.
    pub(crate) name: String,
    /// Condition.
    pub(crate) when: When,
    /// What it asks for.
    pub(crate) action: ActionName,
    /// Entities that the match names; absent: the narrowest that carries the evidence.
    pub(crate) scope: Option<Vec<KindName>>,
    /// How long it holds.
    #[serde(default = "default_ttl")]
    pub(crate) ttl_secs: u32,
}

fn default_ttl() -> u32 {
    600
}

/// An action by its name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ActionName(pub(crate) Action);

const ACTIONS: [Action; 6] =
    [Action::Block, Action::Challenge, Action::Tag, Action::Review, Action::Notify, Action::Allow];

impl<'de> Deserialize<'de> for ActionName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        by_name(deserializer, "action", &ACTIONS, Action::name).map(Self)
    }
}

impl Serialize for ActionName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.name())
    }
}

/// An entity kind by its name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KindName(pub(crate) EntityKind);

impl<'de> Deserialize<'de> for KindName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        by_name(deserializer, "entity", &EntityKind::ALL, EntityKind::name).map(Self)
    }
}

impl Serialize for KindName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.name())
    }
}

fn by_name<'de, D: Deserializer<'de>, T: Copy>(
    deserializer: D,
    what: &str,
    all: &[T],
    name: fn(T) -> &'static str,
) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    all.iter().copied().find(|item| name(*item) == text).ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|item| format!("`{}`", name(*item))).collect();
        serde::de::Error::custom(format!("unknown {what} `{text}`, expected one of {}", names.join(", ")))
    })
}

/// A network (`10.0.0.0/8`), or one address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Network(pub(crate) IpNet);

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        net.map(|net| Self(net.trunc())).map_err(|_| {
            serde::de::Error::custom(format!(
                "`{text}` is no address and no network like 10.0.0.0/8 or 2001:db8::/32"
            ))
        })
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Returns the networks of a list.
pub(crate) fn nets(list: &[Network]) -> Vec<IpNet> {
    list.iter().map(|n| n.0).collect()
}

/// A secret that is never printed.
#[derive(Clone)]
pub(crate) struct Secret(zeroize::Zeroizing<String>);

impl Secret {
    /// Returns the secret.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(zeroize::Zeroizing::new(text)))
    }
}

/// `[http]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HttpSection {
    /// Longest head that is kept.
    pub(crate) head_bytes_max: usize,
    /// Header fields kept of one head, at most 256.
    pub(crate) headers_max: usize,
    /// Requests waiting for their response on one flow.
    pub(crate) open_transactions_per_flow_max: usize,
    /// Requests waiting for their response over all flows.
    pub(crate) open_transactions_max: usize,
    /// Response bytes of one flow held back until their request arrives.
    pub(crate) early_response_bytes_max: usize,
    /// How long they are held.
    pub(crate) early_response_ms: u64,
    /// First bytes of a direction within which a start line with an unregistered method must end.
    pub(crate) sniff_bytes_max: usize,
    /// Bytes searched for a message start on a flow that was never recognised as HTTP.
    pub(crate) search_bytes_max: u64,
    /// Longest request line found that way.
    pub(crate) search_line_bytes_max: usize,
    /// Longest chunk-size line.
    pub(crate) chunk_line_bytes_max: u32,
    /// HTTP/2 streams open on one flow.
    pub(crate) http2_streams_max: usize,
    /// Field bytes kept of one HTTP/2 head.
    pub(crate) http2_list_bytes_max: u32,
    /// Header table kept of one HTTP/2 direction.
    pub(crate) http2_table_bytes_max: u32,
    /// Longest HTTP/2 header block, compressed.
    pub(crate) http2_block_bytes_max: usize,
    /// Frames of one HTTP/2 header block.
    pub(crate) http2_block_frames_max: u32,
    /// Requests that an HTTP/2 client may take back at once before they are answered.
    pub(crate) http2_resets_max: u32,
    /// HTTP/2 frames of one direction that may carry nothing, at once.
    pub(crate) http2_useless_max: u32,
    /// Bytes held by all flows (unfinished heads, held responses).
    pub(crate) held_bytes_max: usize,
    /// How much of a body is looked into, after decompression.
    pub(crate) body_inspect_bytes_max: usize,
    /// How much is kept of each text of a transaction.
    pub(crate) text_bytes_max: usize,
}

impl Default for HttpSection {
    fn default() -> Self {
        let (l, f) =
            (offpath_protocol::ProtocolLimits::default(), offpath_protocol::facts::FactsConfig::default());
        Self {
            head_bytes_max: l.head_bytes_max,
            headers_max: l.headers_max,
            open_transactions_per_flow_max: l.open_transactions_per_flow_max,
            open_transactions_max: l.open_transactions_max,
            early_response_bytes_max: l.early_response_bytes_max,
            early_response_ms: l.early_response_nanos_max / 1_000_000,
            sniff_bytes_max: l.sniff_bytes_max,
            search_bytes_max: l.search_bytes_max,
            search_line_bytes_max: l.search_line_bytes_max,
            chunk_line_bytes_max: l.chunk_line_bytes_max,
            http2_streams_max: l.http2_streams_max,
            http2_list_bytes_max: l.http2_list_bytes_max,
            http2_table_bytes_max: l.http2_table_bytes_max,
            http2_block_bytes_max: l.http2_block_bytes_max,
            http2_block_frames_max: l.http2_block_frames_max,
            http2_resets_max: l.http2_resets_max,
            http2_useless_max: l.http2_useless_max,
            held_bytes_max: l.held_bytes_max,
            body_inspect_bytes_max: f.body_inspect_bytes_max,
            text_bytes_max: f.text_bytes_max,
        }
    }
}

/// `[enforce.blast_radius]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BlastRadiusSection {
    /// Well-behaved clients that may share a match, 0 to 8; one more and a narrower match is sought.
    pub(crate) well_behaved_clients_max: u32,
    /// How far back a client counts.
    pub(crate) window_secs: u32,
    /// Transactions rated below this speak for a client.
    pub(crate) well_behaved_below: u8,
    /// A transaction rated at least this silences its client for a window.
    pub(crate) suspect_from: u8,
    /// Values remembered.
    pub(crate) values_max: usize,
}

impl Default for BlastRadiusSection {
    fn default() -> Self {
        let d = offpath_enforce::BlastRadius::default();
        Self {
            well_behaved_clients_max: d.well_behaved_clients_max,
            window_secs: d.window_secs,
            well_behaved_below: d.well_behaved_below,
            suspect_from: d.suspect_from,
            values_max: d.values_max,
        }
    }
}

/// `[enforce]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EnforceSection {
    /// Only rehearse: decisions say so and nobody acts on them.
    pub(crate) dry_run: bool,
    /// Addresses that no decision is ever made about.
    pub(crate) allow: Vec<Network>,
    /// Own proxies, load balancers and monitors: as `allow`.
    pub(crate) own_proxies: Vec<Network>,
    /// New blocks and challenges per minute.
    pub(crate) new_blocks_per_minute_max: u32,
    /// The longest time that a decision holds.
    pub(crate) ttl_max_secs: u32,
    /// Transactions named as evidence in one decision.
    pub(crate) evidence_max: usize,
    /// Blocks and challenges in force at a time.
    pub(crate) active_max: usize,
    /// How much harm to people a block may do.
    pub(crate) blast_radius: BlastRadiusSection,
}

impl Default for EnforceSection {
    fn default() -> Self {
        let d = offpath_enforce::PlannerConfig::default();
        Self {
            dry_run: d.dry_run,
            allow: d.allow.into_iter().map(Network).collect(),
            own_proxies: d.own_proxies.into_iter().map(Network).collect(),
            new_blocks_per_minute_max: d.new_blocks_per_minute_max,
            ttl_max_secs: d.ttl_max_secs,
            evidence_max: d.evidence_max,
            active_max: d.active_max,
            blast_radius: BlastRadiusSection::default(),
        }
    }
}

/// `[stream]`: limits of the whole process; flow tables share them evenly.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StreamSection {
    /// Flows open at once.
    pub(crate) flows_max: u32,
    /// Flows open at once of which only a handshake was seen.
    pub(crate) embryonic_flows_max: u32,
    /// Closed flows remembered, to tell their stragglers from new flows.
    pub(crate) closed_flows_max: u32,
    /// Bytes held behind holes, all flows.
    pub(crate) held_bytes_max: u64,
    /// Bytes that one direction holds behind a hole.
    pub(crate) held_bytes_per_direction_max: u32,
    /// Segments that one direction holds behind a hole.
    pub(crate) held_segments_per_direction_max: u32,
    /// How long an acknowledged hole waits for bytes that the mirror reordered.
    pub(crate) hole_acked_ms: u64,
    /// How long an acknowledged hole waits at least.
    pub(crate) hole_acked_min_ms: u64,
    /// Further segments of the flow after which it waits no longer than that.
    pub(crate) hole_acked_segments: u8,
    /// How long an unacknowledged hole waits.
    pub(crate) hole_age_ms: u64,
    /// How long a hole waits while the receiver is seen asking for it.
    pub(crate) hole_stalled_age_ms: u64,
    /// How long holes may still fill after a RST.
    pub(crate) reset_linger_ms: u64,
    /// Furthest believable segment after the next expected byte, in bytes.
    pub(crate) window_ahead_max: u32,
    /// Furthest believable acknowledgement after the next expected byte, in bytes.
    pub(crate) ack_ahead_max: u32,
    /// Furthest believable RST before the next expected byte, in bytes.
    pub(crate) reset_behind_max: u32,
    /// Idle time after which a flow expires that is only a handshake.
    pub(crate) embryonic_idle_secs: u32,
    /// Idle time after which an established flow expires.
    pub(crate) established_idle_secs: u32,
    /// Idle time after which a flow expires of which one side has finished.
    pub(crate) half_closed_idle_secs: u32,
    /// Idle time after which a flow expires of which both sides have finished.
    pub(crate) closing_idle_secs: u32,
}

impl Default for StreamSection {
    fn default() -> Self {
        let (d, shards) = (offpath_stream::StreamLimits::default(), crate::worker::SHARDS as u32);
        Self {
            flows_max: d.flows_max * shards,
            embryonic_flows_max: d.embryonic_flows_max * shards,
            closed_flows_max: d.closed_flows_max * shards,
            held_bytes_max: d.held_bytes_max * u64::from(shards),
            held_bytes_per_direction_max: d.held_bytes_per_direction_max,
            held_segments_per_direction_max: d.held_segments_per_direction_max,
            hole_acked_ms: d.hole_acked_nanos / 1_000_000,
            hole_acked_min_ms: d.hole_acked_min_nanos / 1_000_000,
            hole_acked_segments: d.hole_acked_segments,
            hole_age_ms: d.hole_age_nanos / 1_000_000,
            hole_stalled_age_ms: d.hole_stalled_age_nanos / 1_000_000,
            reset_linger_ms: d.reset_linger_nanos / 1_000_000,
            window_ahead_max: d.window_ahead_max,
            ack_ahead_max: d.ack_ahead_max,
            reset_behind_max: d.reset_behind_max,
            embryonic_idle_secs: d.embryonic_idle_secs,
            established_idle_secs: d.established_idle_secs,
            half_closed_idle_secs: d.half_closed_idle_secs,
            closing_idle_secs: d.closing_idle_secs,
        }
    }
}

/// `[[webhook]]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhookSection {
    /// Names it in statistics and in the outbox.
    pub(crate) name: String,
    /// Where to POST.
    pub(crate) url: String,
    /// Signing secret, `whsec_…`; better kept in `secret_file`.
    #[serde(skip_serializing)]
    pub(crate) secret: Option<Secret>,
    /// File with signing secrets, one `whsec_…` a line; all of them sign (rotation).
    pub(crate) secret_file: Option<PathBuf>,
    /// How long one attempt may take.
    #[serde(default = "default_timeout_ms")]
    pub(crate) timeout_ms: u64,
    /// Decisions with these actions are sent; absent: all.
    #[serde(default)]
    pub(crate) actions: Vec<ActionName>,
    /// Decisions of lower confidence are not sent.
    #[serde(default)]
    pub(crate) confidence_min: u8,
    /// Also send rehearsals.
    #[serde(default)]
    pub(crate) deliver_dry_run: bool,
    /// Also send accounts at risk and alarms.
    #[serde(default = "yes")]
    pub(crate) other_events: bool,
    /// Requests under way at a time.
    #[serde(default = "default_in_flight")]
    pub(crate) max_in_flight: usize,
}

fn default_timeout_ms() -> u64 {
    10_000
}

fn default_in_flight() -> usize {
    8
}

fn yes() -> bool {
    true
}

/// `[delivery]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DeliverySection {
    /// The outbox's file; absent: `outbox.redb` beside the identity key's default place.
    pub(crate) outbox_file: Option<PathBuf>,
    /// Keep the outbox in memory only: what is not delivered is lost with the process.
    pub(crate) memory_only: bool,
    /// Events waiting for the outbox.
    pub(crate) queue_max: usize,
    /// Webhooks per target held in memory.
    pub(crate) held_max: usize,
    /// Webhooks per target waiting on disk.
    pub(crate) outbox_rows_max: u64,
    /// Wait after the first failure; doubles with each.
    pub(crate) retry_first_ms: u64,
    /// Longest wait.
    pub(crate) retry_max_ms: u64,
    /// A webhook older than this is parked.
    pub(crate) give_up_after_secs: u64,
    /// Share of each wait that is random, 0 to 1.
    pub(crate) jitter: f64,
    /// Longest wait for deliveries at the end of a run.
    pub(crate) drain_secs: u64,
}

impl Default for DeliverySection {
    fn default() -> Self {
        let d = offpath_enforce::DeliveryConfig::default();
        Self {
            outbox_file: None,
            memory_only: false,
            queue_max: d.queue_max,
            held_max: d.held_max,
            outbox_rows_max: d.outbox_rows_max,
            retry_first_ms: d.retry.first_ms,
            retry_max_ms: d.retry.max_ms,
            give_up_after_secs: d.retry.give_up_after_secs,
            jitter: d.retry.jitter,
            drain_secs: 10,
        }
    }
}

/// `[inventory]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct InventorySection {
    /// One is made: the command line asks for it.
    #[serde(skip)]
    pub(crate) wanted: bool,
    /// Endpoints remembered.
    pub(crate) endpoints_max: usize,
    /// Parameters and body fields remembered of one endpoint.
    pub(crate) parameters_per_endpoint_max: usize,
    /// Names taken of one request.
    pub(crate) names_per_request_max: usize,
}

impl Default for InventorySection {
    fn default() -> Self {
        Self {
            wanted: false,
            endpoints_max: 5000,
            parameters_per_endpoint_max: 500,
            names_per_request_max: 256,
        }
    }
}

/// `[receive]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ReceiveSection {
    /// Address to listen on.
    pub(crate) listen: String,
    /// Where decisions are applied, as `--to` takes it.
    pub(crate) to: Vec<String>,
    /// File with the webhook secrets, one `whsec_…` a line.
    pub(crate) secret_file: Option<PathBuf>,
    /// File that keeps what is in force over restarts.
    pub(crate) state_file: Option<PathBuf>,
    /// Addresses that no decision is ever applied to.
    pub(crate) allow: Vec<Network>,
    /// Oldest and youngest believable signature, around now.
    pub(crate) tolerance_secs: u64,
    /// The longest time that a decision is kept in force.
    pub(crate) ttl_max_secs: u64,
    /// The widest IPv4 prefix that may be blocked, as a length.
    pub(crate) prefix_v4_min: u8,
    /// The widest IPv6 prefix that may be blocked, as a length.
    pub(crate) prefix_v6_min: u8,
    /// Decisions in force at a time.
    pub(crate) blocks_max: usize,
    /// Bytes of one webhook.
    pub(crate) body_bytes_max: usize,
    /// Connections at a time.
    pub(crate) connections_max: usize,
    /// How often HAProxy is compared with the state.
    pub(crate) reconcile_ms: u64,
    /// File with the token that listing and undoing need from other hosts; absent: this host only.
    pub(crate) admin_token_file: Option<PathBuf>,
}

impl ReceiveSection {
    /// Returns the path of what is in force, whether or not this run keeps it.
    pub(crate) fn state_path(&self) -> PathBuf {
        self.state_file.clone().unwrap_or_else(|| crate::identity::state_dir().join("receiver.redb"))
    }
}

impl Default for ReceiveSection {
    fn default() -> Self {
        let d = offpath_enforce::receiver::ReceiverConfig::default();
        Self {
            listen: d.listen.to_string(),
            to: Vec::new(),
            secret_file: None,
            state_file: None,
            allow: Vec::new(),
            tolerance_secs: d.tolerance_secs,
            ttl_max_secs: d.ttl_max_secs,
            prefix_v4_min: d.prefix_v4_min,
            prefix_v6_min: d.prefix_v6_min,
            blocks_max: d.blocks_max,
            body_bytes_max: d.body_bytes_max,
            connections_max: d.connections_max,
            reconcile_ms: d.reconcile_ms,
            admin_token_file: None,
        }
    }
}
