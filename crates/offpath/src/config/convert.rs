//! From the file's sections to what the crates want.

use offpath_enforce::{BlastRadius, PlannerConfig};
use offpath_packet::{DecoderLimits, DuplicateSearch};
use offpath_protocol::facts::FactsConfig;
use offpath_protocol::{DecryptLimits, KeyLimits, OutsideConfig, ProtocolConfig, ProtocolLimits, QuicLimits};
use offpath_score::{EntityCaps, LoginRule, OutcomeRule, Policy, Scope, ScoreConfig, Scorer, Signal};
use offpath_stream::StreamLimits;
use offpath_types::{BodyHint, IdentityKey};

use super::error::Text;
use super::sections::DuplicatesMode;
use super::{BodySays, Config, ConfigError, JoinBy, OutcomeSection, nets};
use crate::inventory::InventoryLimits;
use crate::join::JoinConfig;
use crate::worker::{SHARDS, Worker};

const MS: u64 = 1_000_000;

impl Config {
    /// Checks what types alone cannot.
    pub(super) fn check(&self, file: Text<'_>) -> Result<(), ConfigError> {
        let range = |key: &str, value: u64, low: u64, high: u64| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(ConfigError::value(file, key, value, &format!("must be from {low} to {high}")))
            }
        };
        range("capture.workers", self.capture.workers as u64, 1, SHARDS as u64)?;
        range("capture.snaplen_bytes", u64::from(self.capture.snaplen_bytes), 64, 1 << 20)?;
        range("capture.ring_mib", u64::from(self.capture.ring_mib), 1, 4095)?;
        range("capture.receive_buffer_mib", u64::from(self.capture.receive_buffer_mib), 1, 1024)?;
        range("capture.poll_ms", u64::from(self.capture.poll_ms), 1, 1000)?;
        for name in &self.capture.listen {
            if let Err(want) = crate::sources::listener(name) {
                return Err(ConfigError::value(file, "capture.listen", name, want));
            }
        }
        if let Some(name) =
            self.capture.pcap_over_ip.iter().find(|n| crate::sources::tcp_address(n).is_none())
        {
            let want = "a pcap-over-IP server is written tcp://HOST:PORT";
            return Err(ConfigError::value(file, "capture.pcap_over_ip", name, want));
        }
        range("decode.duplicates_window_ms", self.decode.duplicates_window_ms, 1, 1000)?;
        range("decode.tunnel_depth_max", u64::from(self.decode.tunnel_depth_max), 1, 32)?;
        range("stream.flows_max", u64::from(self.stream.flows_max), SHARDS as u64, 1 << 30)?;
        for (key, value) in [
            ("stream.embryonic_idle_secs", self.stream.embryonic_idle_secs),
            ("stream.established_idle_secs", self.stream.established_idle_secs),
            ("stream.half_closed_idle_secs", self.stream.half_closed_idle_secs),
            ("stream.closing_idle_secs", self.stream.closing_idle_secs),
        ] {
            range(key, u64::from(value), 1, 86_400 * 30)?;
        }
        for (key, value) in [
            ("stream.window_ahead_max", self.stream.window_ahead_max),
            ("stream.ack_ahead_max", self.stream.ack_ahead_max),
        ] {
            range(key, u64::from(value), 1 << 16, 1 << 30)?;
        }
        range("stream.reset_behind_max", u64::from(self.stream.reset_behind_max), 0, 1 << 30)?;
        range("http.sniff_bytes_max", self.http.sniff_bytes_max as u64, 16, 1 << 20)?;
        range("http.search_line_bytes_max", self.http.search_line_bytes_max as u64, 64, 1 << 20)?;
        range("http.head_bytes_max", self.http.head_bytes_max as u64, 256, 16 << 20)?;
        range("http.headers_max", self.http.headers_max as u64, 1, 256)?;
        range("http.body_inspect_bytes_max", self.http.body_inspect_bytes_max as u64, 0, 1 << 30)?;
        for (key, list) in [
            ("identity.user_fields", &self.identity.user_fields),
            ("identity.password_fields", &self.identity.password_fields),
        ] {
            if let Err((at, error)) = offpath_protocol::facts::check_fields(list) {
                return Err(ConfigError::value(file, key, format!("{:?}", list[at]), &error.to_string()));
            }
        }
        let one = |name: &'static str, value: &Option<String>| (name, value.clone().into_iter().collect());
        let lists: [(_, Vec<String>); 5] = [
            one("client.header", &self.client.header),
            one("join.client_port_header", &self.join.client_port_header),
            one("join.ja4_header", &self.join.ja4_header),
            one("join.ja3_header", &self.join.ja3_header),
            ("identity.session_headers", self.identity.session_headers.clone()),
        ];
        // RFC 9110 §5.6.2.
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        for (key, names) in &lists {
            if let Some(name) = names.iter().find(|name| name.is_empty() || !name.chars().all(is_token)) {
                let want = "no header can be called that: letters, digits and !#$%&'*+-.^_`|~ only";
                return Err(ConfigError::value(file, key, format!("{name:?}"), want));
            }
        }
        range("http.text_bytes_max", self.http.text_bytes_max as u64, 64, 1 << 20)?;
        range("inventory.endpoints_max", self.inventory.endpoints_max as u64, 1, 1 << 20)?;
        range(
            "inventory.parameters_per_endpoint_max",
            self.inventory.parameters_per_endpoint_max as u64,
            1,
            1 << 16,
        )?;
        range("inventory.names_per_request_max", self.inventory.names_per_request_max as u64, 1, 1 << 16)?;
        range("decryption.wait_ms", self.decryption.wait_ms, 0, 600_000)?;
        range("decryption.keys_max", self.decryption.keys_max as u64, 1, 1 << 24)?;
        range("decryption.keys_keep_secs", u64::from(self.decryption.keys_keep_secs), 1, 86_400)?;
        range("score.risk_confidence", u64::from(self.score.risk_confidence), 0, 100)?;
        range("score.explain_confidence", u64::from(self.score.explain_confidence), 0, 100)?;
        for (key, value) in [
            ("score.prior", self.score.prior),
            ("score.failure_ratio_prior", self.score.failure_ratio_prior),
            ("score.cell_error_rate", self.score.cell_error_rate),
        ] {
            if !(value > 0.0 && value < 1.0) {
                return Err(ConfigError::value(file, key, value, "must lie between 0 and 1, both excluded"));
            }
        }
        for (name, weight) in &self.score.weights {
            if !Signal::ALL.iter().any(|signal| signal.name() == name) {
                let near =
                    Signal::ALL.iter().map(|s| s.name()).min_by_key(|s| strsim::damerau_levenshtein(s, name));
                let want = format!("no signal has this name; did you mean `{}`?", near.unwrap_or_default());
                return Err(ConfigError::value(file, &format!("score.weights.{name}"), weight, &want));
            }
            if !(0.0..=10.0).contains(weight) {
                return Err(ConfigError::value(
                    file,
                    &format!("score.weights.{name}"),
                    weight,
                    "must be from 0 to 10",
                ));
            }
        }
        range("join.window_secs", u64::from(self.join.window_secs), 1, 86_400)?;
        range("join.handshakes_max", self.join.handshakes_max as u64, 1, 1 << 24)?;
        if self.join.by.contains(&JoinBy::Header) && self.join.client_port_header.is_none() {
            return Err(ConfigError::value(file, "join.by", "header", "needs join.client_port_header"));
        }
        self.check_policies(file)?;
        self.check_webhooks(file)
    }

    fn check_policies(&self, file: Text<'_>) -> Result<(), ConfigError> {
        for (i, policy) in self.policy.iter().enumerate() {
            let key = format!("policy[{i}]");
            if policy.name.is_empty() || policy.name.len() > 128 {
                return Err(ConfigError::value(file, &format!("{key}.name"), &policy.name, "1 to 128 bytes"));
            }
            if self.policy[..i].iter().any(|p| p.name == policy.name) {
                return Err(ConfigError::value(
                    file,
                    &format!("{key}.name"),
                    &policy.name,
                    "is the name of two policies",
                ));
            }
            if policy.scope.as_ref().is_some_and(Vec::is_empty) {
                return Err(ConfigError::value(
                    file,
                    &format!("{key}.scope"),
                    "[]",
                    "name at least one entity, or leave it out",
                ));
            }
            if policy.ttl_secs == 0 {
                return Err(ConfigError::value(file, &format!("{key}.ttl_secs"), 0, "must be at least 1"));
            }
        }
        Ok(())
    }

    fn check_webhooks(&self, file: Text<'_>) -> Result<(), ConfigError> {
        for (i, hook) in self.webhook.iter().enumerate() {
            let key = |name: &str| format!("webhook[{i}].{name}");
            if self.webhook[..i].iter().any(|w| w.name == hook.name) {
                return Err(ConfigError::value(
                    file,
                    &key("name"),
                    &hook.name,
                    "is the name of two webhooks",
                ));
            }
            if !hook.url.starts_with("http://") && !hook.url.starts_with("https://") {
                return Err(ConfigError::value(
                    file,
                    &key("url"),
                    super::error::mask(&hook.url),
                    "must start with http:// or https://",
                ));
            }
            let authority =
                hook.url.split("://").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default();
            if authority.contains('@') {
                return Err(ConfigError::value(
                    file,
                    &key("url"),
                    "…@…",
                    "must carry no user or password: it is shown in reports, and webhooks are signed",
                ));
            }
            if hook.secret.is_none() && hook.secret_file.is_none() {
                return Err(ConfigError::value(
                    file,
                    &key("secret_file"),
                    "absent",
                    "webhooks are signed: set it, or `secret`",
                ));
            }
            if hook.confidence_min > 100 {
                return Err(ConfigError::value(
                    file,
                    &key("confidence_min"),
                    hook.confidence_min,
                    "must be from 0 to 100",
                ));
            }
        }
        if !(0.0..=1.0).contains(&self.delivery.jitter) {
            return Err(ConfigError::value(
                file,
                "delivery.jitter",
                self.delivery.jitter,
                "must be from 0 to 1",
            ));
        }
        Ok(())
    }

    /// Returns the number of workers: the command line's, or the file's.
    pub(crate) fn workers(&self, argument: Option<u8>) -> usize {
        argument.map_or(self.capture.workers, usize::from).clamp(1, SHARDS)
    }

    /// Returns the limits of decoding.
    pub(crate) fn decoder_limits(&self, key: &IdentityKey) -> DecoderLimits {
        let d = &self.decode;
        DecoderLimits {
            tunnel_depth_max: d.tunnel_depth_max,
            defrag_bytes_max: d.defrag_bytes_max,
            defrag_datagrams_max: d.defrag_datagrams_max,
            defrag_timeout_secs: d.defrag_timeout_secs,
            vlan_in_key: d.vlan_in_key,
            erspan_in_key: d.erspan_in_key,
            duplicates: match d.duplicates {
                DuplicatesMode::Off => DuplicateSearch::Off,
                DuplicatesMode::Auto => DuplicateSearch::Auto,
                DuplicatesMode::On => DuplicateSearch::On,
            },
            duplicates_window_nanos: d.duplicates_window_ms * MS,
            seed: key.seed(b"duplicates"),
        }
    }

    /// Makes worker `index` of `workers` of a replay.
    pub(crate) fn worker(&self, index: usize, workers: usize, key: &IdentityKey) -> Worker {
        Worker::new(index, workers, &self.stream_limits(SHARDS), &self.protocol_config(SHARDS), key)
    }

    /// Makes the worker of one of `lanes` live lanes.
    pub(crate) fn worker_of_lane(&self, lanes: usize, key: &IdentityKey) -> Worker {
        Worker::sole(&self.stream_limits(lanes), &self.protocol_config(lanes), key)
    }

    fn stream_limits(&self, tables: usize) -> StreamLimits {
        let (s, n) = (&self.stream, tables.max(1) as u32);
        StreamLimits {
            flows_max: (s.flows_max / n).max(1),
            embryonic_flows_max: (s.embryonic_flows_max / n).max(1),
            closed_flows_max: (s.closed_flows_max / n).max(1),
            held_bytes_per_direction_max: s.held_bytes_per_direction_max,
            held_segments_per_direction_max: s.held_segments_per_direction_max,
            held_bytes_max: (s.held_bytes_max / u64::from(n)).max(1),
            // Rare beside TCP: shares of its limits.
            sctp_associations_max: (s.flows_max / 128 / n).max(1),
            sctp_streams_max: StreamLimits::default().sctp_streams_max,
            sctp_held_bytes_max: (s.held_bytes_max / 8 / u64::from(n)).max(1),
            hole_acked_nanos: s.hole_acked_ms.saturating_mul(MS),
            hole_acked_min_nanos: s.hole_acked_min_ms.saturating_mul(MS),
            hole_acked_segments: s.hole_acked_segments,
            hole_age_nanos: s.hole_age_ms.saturating_mul(MS),
            hole_stalled_age_nanos: s.hole_stalled_age_ms.saturating_mul(MS),
            reset_linger_nanos: s.reset_linger_ms.saturating_mul(MS),
            window_ahead_max: s.window_ahead_max,
            ack_ahead_max: s.ack_ahead_max,
            reset_behind_max: s.reset_behind_max,
            embryonic_idle_secs: s.embryonic_idle_secs,
            established_idle_secs: s.established_idle_secs,
            half_closed_idle_secs: s.half_closed_idle_secs,
            closing_idle_secs: s.closing_idle_secs,
        }
    }

    fn protocol_config(&self, parsers: usize) -> ProtocolConfig {
        let (h, id) = (&self.http, &self.identity);
        let share = |total: usize| (total / parsers.max(1)).max(1);
        ProtocolConfig {
            limits: ProtocolLimits {
                head_bytes_max: h.head_bytes_max,
                headers_max: h.headers_max,
                open_transactions_per_flow_max: h.open_transactions_per_flow_max.max(1),
                open_transactions_max: share(h.open_transactions_max),
                early_response_bytes_max: h.early_response_bytes_max,
                early_response_nanos_max: h.early_response_ms.saturating_mul(MS),
                sniff_bytes_max: h.sniff_bytes_max,
                search_bytes_max: h.search_bytes_max,
                search_line_bytes_max: h.search_line_bytes_max,
                chunk_line_bytes_max: h.chunk_line_bytes_max,
                http2_streams_max: h.http2_streams_max,
                http2_list_bytes_max: h.http2_list_bytes_max,
                http2_table_bytes_max: h.http2_table_bytes_max,
                http2_block_bytes_max: h.http2_block_bytes_max,
                http2_block_frames_max: h.http2_block_frames_max,
                http2_resets_max: h.http2_resets_max,
                http2_useless_max: h.http2_useless_max,
                held_bytes_max: share(h.held_bytes_max),
            },
            proxy_protocol: nets(&self.client.trusted_proxies),
            facts: FactsConfig {
                trusted_proxies: nets(&self.client.trusted_proxies),
                client_header: self.client.header.clone(),
                session_cookies: id.session_cookies.clone(),
                session_headers: id.session_headers.clone(),
                user_fields: id.user_fields.clone(),
                password_fields: id.password_fields.clone(),
                body_inspect_bytes_max: h.body_inspect_bytes_max,
                outline_names_max: if self.inventory.wanted {
                    self.inventory.names_per_request_max
                } else {
                    0
                },
                text_bytes_max: h.text_bytes_max,
            },
            outside: {
                let j = &self.join;
                let port = j.client_port_header.clone().filter(|_| j.by.contains(&JoinBy::Header));
                OutsideConfig {
                    proxy_protocol: j.by.contains(&JoinBy::ProxyProtocol),
                    client_port_header: port,
                    ja4_header: j.ja4_header.clone(),
                    ja3_header: j.ja3_header.clone(),
                }
            },
            decryption: {
                let d = &self.decryption;
                DecryptLimits {
                    wait_nanos: if d.live { d.wait_ms * MS } else { 0 },
                    wait_connection_bytes_max: d.wait_connection_bytes_max,
                    wait_bytes_max: share(d.wait_bytes_max),
                }
            },
            quic: {
                let d = QuicLimits::default();
                QuicLimits { flows_max: share(d.flows_max), held_bytes_max: share(d.held_bytes_max), ..d }
            },
        }
    }

    /// Returns the limits of what a worker keeps of key logs that grow.
    pub(crate) fn live_key_limits(&self) -> KeyLimits {
        let d = &self.decryption;
        KeyLimits { connections_max: d.keys_max, keep_nanos: Some(u64::from(d.keys_keep_secs) * 1000 * MS) }
    }

    /// Returns how handshakes are joined to transactions.
    pub(crate) fn join_config(&self) -> JoinConfig {
        let j = &self.join;
        JoinConfig {
            enabled: !j.by.is_empty(),
            by_address: j.by.contains(&JoinBy::Address),
            window_nanos: u64::from(j.window_secs) * 1000 * MS,
            handshakes_max: j.handshakes_max,
        }
    }

    /// Returns the limits of the inventory.
    pub(crate) fn inventory_limits(&self) -> InventoryLimits {
        InventoryLimits {
            endpoints_max: self.inventory.endpoints_max,
            parameters_per_endpoint_max: self.inventory.parameters_per_endpoint_max,
        }
    }

    /// Returns the settings of scoring.
    pub(crate) fn score_config(&self) -> ScoreConfig {
        let (s, e) = (&self.score, &self.score.entities_max);
        ScoreConfig {
            entities_max: EntityCaps {
                ip: e.ip,
                prefix: e.prefix,
                session: e.session,
                user: e.user,
                fingerprint: e.fingerprint,
                endpoint: e.endpoint,
                cell: e.cell,
                password: e.password,
            },
            logins: self
                .login
                .iter()
                .map(|l| LoginRule {
                    method: l.method.clone(),
                    path: l.path.clone(),
                    success: outcome(&l.success),
                    failure: outcome(&l.failure),
                })
                .collect(),
            logins_learned: s.logins_learned,
            distinct_window_secs: s.distinct_window_secs,
            prior: s.prior,
            failure_ratio_prior: s.failure_ratio_prior,
            failure_ratio_prior_weight: s.failure_ratio_prior_weight,
            cell_error_rate: s.cell_error_rate,
            risk_confidence: s.risk_confidence,
            risk_failures: s.risk_failures,
            weights: s.weights.iter().map(|(name, weight)| (name.clone(), *weight)).collect(),
            explain_confidence: s.explain_confidence,
        }
    }

    /// Returns the policies: the file's, or the built-in ones where it has none.
    pub(crate) fn policies(&self) -> Vec<Policy> {
        if self.policy.is_empty() {
            return Scorer::default_policies();
        }
        self.policy
            .iter()
            .map(|p| Policy {
                name: p.name.clone(),
                condition: p.when.condition.clone(),
                action: p.action.0,
                scope: match &p.scope {
                    Some(kinds) => Scope::Fixed(kinds.iter().map(|k| k.0).collect()),
                    None => Scope::Auto,
                },
                ttl_secs: p.ttl_secs,
            })
            .collect()
    }

    /// Returns the settings of planning; `seed` spreads load in its tables.
    pub(crate) fn planner_config(&self, seed: u64) -> PlannerConfig {
        let (e, b) = (&self.enforce, &self.enforce.blast_radius);
        PlannerConfig {
            dry_run: e.dry_run,
            allow: nets(&e.allow),
            own_proxies: e.own_proxies.iter().chain(&self.client.trusted_proxies).map(|n| n.0).collect(),
            policies: self.policies().into_iter().map(|p| p.name).collect(),
            new_blocks_per_minute_max: e.new_blocks_per_minute_max,
            blast_radius: BlastRadius {
                well_behaved_clients_max: b.well_behaved_clients_max,
                window_secs: b.window_secs,
                well_behaved_below: b.well_behaved_below,
                suspect_from: b.suspect_from,
                values_max: b.values_max,
            },
            ttl_max_secs: e.ttl_max_secs,
            evidence_max: e.evidence_max,
            active_max: e.active_max,
            seed,
        }
    }
}

fn outcome(section: &OutcomeSection) -> OutcomeRule {
    OutcomeRule {
        statuses: section.status.iter().map(|s| *s..=*s).collect(),
        redirect_contains: section.redirect_contains.clone(),
        sets_cookie: section.sets_cookie,
        body_hint: section.body.map(|b| match b {
            BodySays::Success => BodyHint::Success,
            BodySays::Failure => BodyHint::Failure,
        }),
    }
}
