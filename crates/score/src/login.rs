//! Which transactions are login attempts, and how they ended.

use offpath_types::{Anomaly, BodyHint, LoginOutcome, RedirectClass, Timestamp, Transaction};

use crate::config::{LoginRule, ScoreConfig};
use crate::math::exp_neg;
use crate::summary::OutcomeSource;

/// How long the baseline of an endpoint remembers: six hours, so that a working day sets it.
pub(crate) const BASELINE_SECS: f32 = 6.0 * 3600.0;

/// Silent 2xx answers to one refusal by status up to which they let in: people are refused once in fifty attempts
/// at least.
const SILENT_PER_REFUSAL: u32 = 50;
/// The same where those whom this endpoint lets in are mostly told so: silence needs a better witness then.
const SILENT_PER_REFUSAL_TOLD: u32 = 5;
/// Clients whose last lesson is remembered of an endpoint.
const PUPILS: usize = 8;

/// What is learned of one endpoint's logins.
#[derive(Debug)]
pub(crate) struct LoginEndpoint {
    pub(crate) configured: bool,
    /// Passwords were sent here.
    pub(crate) passwords: u64,
    /// Clients that sent a body without a password, and with one; each once until others did.
    clients: [u32; 2],
    pupils: [u64; PUPILS],
    next_pupil: usize,
    pub(crate) attempts: u64,
    pub(crate) successes: u64,
    pub(crate) failures: u64,
    pub(crate) unknown: u64,
    /// How often an outcome was read from each source: `[success, failure]`.
    sources: [[u64; SOURCES.len()]; 2],
    /// Responses that refuse by a status which says nothing else (401, 422).
    refused_by_status: u32,
    /// Redirects that lead away from the login.
    redirected_away: u32,
    /// 2xx responses whose body said nothing, without and with a cookie.
    plain: [u32; 2],
    /// 2xx responses whose body said that it lets in, and that it refuses.
    hinted: [u32; 2],
    /// 2xx responses to people that said nothing and set no cookie, and their responses that tell of success: by a
    /// redirect, a body or a cookie.
    people: [u32; 2],
    /// Unsuspicious attempts that failed, and all of them, fading.
    base_failures: f32,
    base_attempts: f32,
    base_last: Timestamp,
    /// Unsuspicious successes, and those without a page before, fading with the above.
    good: f32,
    good_without_page: f32,
    pub(crate) surge: Surge,
}

const SOURCES: [OutcomeSource; 7] = [
    OutcomeSource::Configured,
    OutcomeSource::Body,
    OutcomeSource::Status,
    OutcomeSource::Redirect,
    OutcomeSource::FormShownAgain,
    OutcomeSource::Cookie,
    OutcomeSource::Unknown,
];

impl LoginEndpoint {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            configured: false,
            passwords: 0,
            clients: [0; 2],
            pupils: [0; PUPILS],
            next_pupil: 0,
            attempts: 0,
            successes: 0,
            failures: 0,
            unknown: 0,
            sources: [[0; SOURCES.len()]; 2],
            refused_by_status: 0,
            redirected_away: 0,
            plain: [0; 2],
            hinted: [0; 2],
            people: [0; 2],
            base_failures: 0.0,
            base_attempts: 0.0,
            base_last: now,
            good: 0.0,
            good_without_page: 0.0,
            surge: Surge::new(now),
        }
    }

    /// Learns from a POST whether clients send passwords here; `client` is a hash of the sender.
    ///
    /// Bodies that were not read teach nothing, and neither does what one client sends again and again: otherwise
    /// an attacker who hides passwords would make the endpoint forget that it takes them.
    pub(crate) fn sent(&mut self, tx: &Transaction, client: u64) {
        let with = tx.login.password.is_some();
        if !with && !is_read(tx) {
            return;
        }
        let pupil = client << 1 | u64::from(with);
        if !self.pupils.contains(&pupil) {
            self.pupils[self.next_pupil] = pupil;
            self.next_pupil = (self.next_pupil + 1) % PUPILS;
            let count = &mut self.clients[usize::from(with)];
            *count = count.saturating_add(1);
        }
    }

    /// Tells whether POSTs in which no password was seen are logins here.
    ///
    /// An endpoint that takes passwords now and then is no login. Of bodies that were read, most attempts must carry
    /// one; of bodies that could not be read, it takes two thirds of the clients whose bodies could.
    pub(crate) fn takes_passwords(&self, read: bool) -> bool {
        let [without, with] = self.clients.map(u64::from);
        let mostly = if read { self.passwords * 2 > self.attempts } else { without * 2 <= with + 2 };
        self.passwords >= 3 && mostly
    }

    /// Concludes how an attempt ended, counts it, and learns from it.
    ///
    /// Order: the operator's rule; 4xx; redirects; what the body says; then the 2xx that are left, by what this
    /// endpoint has shown before. 5xx and missing responses tell nothing.
    pub(crate) fn conclude(&mut self, tx: &Transaction, rule: Option<&LoginRule>) -> LoginOutcome {
        let (outcome, source) = match rule.and_then(|r| configured(tx, r)) {
            Some(outcome) => (outcome, OutcomeSource::Configured),
            None => self.learned(tx),
        };
        self.configured |= rule.is_some();
        self.passwords += u64::from(tx.login.password.is_some());
        self.attempts += 1;
        let slot = SOURCES.iter().position(|s| *s == source).unwrap_or(SOURCES.len() - 1);
        match outcome {
            LoginOutcome::Success => {
                self.successes += 1;
                self.sources[0][slot] += 1;
            }
            LoginOutcome::Failure => {
                self.failures += 1;
                self.sources[1][slot] += 1;
            }
            LoginOutcome::Unknown => self.unknown += 1,
        }
        outcome
    }

    fn learned(&mut self, tx: &Transaction) -> (LoginOutcome, OutcomeSource) {
        use LoginOutcome::{Failure, Success, Unknown};
        let Some(status) = tx.status else { return (Unknown, OutcomeSource::Unknown) };
        let hint = tx.login.body_hint;
        match status {
            400..=499 => {
                // The others may have come from a firewall, a rate limit, a check of the form or of its token.
                if matches!(status, 401 | 422) {
                    self.refused_by_status = self.refused_by_status.saturating_add(1);
                }
                return (Failure, OutcomeSource::Status);
            }
            300..=399 => match tx.login.redirect {
                RedirectClass::SamePath | RedirectClass::LoginLike => {
                    return (Failure, OutcomeSource::Redirect);
                }
                RedirectClass::Elsewhere if query_refuses(tx.text.get(tx.location)) => {
                    return (Failure, OutcomeSource::Redirect);
                }
                RedirectClass::Elsewhere => {
                    self.redirected_away = self.redirected_away.saturating_add(1);
                    return (Success, OutcomeSource::Redirect);
                }
                RedirectClass::None => return (Unknown, OutcomeSource::Unknown),
            },
            200..=299 => {}
            _ => return (Unknown, OutcomeSource::Unknown),
        }
        let [accepts, refuses] = &mut self.hinted;
        match hint {
            BodyHint::Success => {
                *accepts = accepts.saturating_add(1);
                return (Success, OutcomeSource::Body);
            }
            BodyHint::Failure => {
                *refuses = refuses.saturating_add(1);
                return (Failure, OutcomeSource::Body);
            }
            BodyHint::None => {}
        }
        let cookie = tx.login.sets_cookie;
        let seen = &mut self.plain[usize::from(cookie)];
        *seen = seen.saturating_add(1);
        if self.refuses_by_status(cookie) {
            return (Success, OutcomeSource::Status); // it refuses by 4xx, so 2xx lets in
        }
        if self.redirected_away > 0 {
            return (Failure, OutcomeSource::FormShownAgain); // it lets in by redirect
        }
        if let Some(outcome) = self.silence(tx) {
            return (outcome, OutcomeSource::Body);
        }
        if cookie {
            return (Success, OutcomeSource::Cookie);
        }
        if self.plain[1] > 0 {
            return (Failure, OutcomeSource::Cookie); // others got one
        }
        (Unknown, OutcomeSource::Unknown)
    }

    /// Tells whether this endpoint refuses by 4xx so often that a 2xx which says nothing lets in.
    fn refuses_by_status(&self, cookie: bool) -> bool {
        let [untold, told] = self.people;
        let silent = self.plain[0].saturating_add(if cookie { self.plain[1] } else { 0 });
        let each = if told > untold { SILENT_PER_REFUSAL_TOLD } else { SILENT_PER_REFUSAL };
        self.refused_by_status > 0 && silent <= self.refused_by_status.saturating_mul(each)
    }

    /// Learns from an attempt of an unsuspicious client how this endpoint answers people.
    pub(crate) fn learn_answer(&mut self, tx: &Transaction) {
        let told = match tx.status {
            Some(200..=299) => {
                tx.login.body_hint == BodyHint::Success
                    || tx.login.sets_cookie && tx.login.body_hint == BodyHint::None
            }
            Some(300..=399) => tx.login.redirect == RedirectClass::Elsewhere,
            _ => return,
        };
        let silent = matches!(tx.status, Some(200..=299)) && tx.login.body_hint == BodyHint::None;
        if told || silent {
            let count = &mut self.people[usize::from(told)];
            *count = count.saturating_add(1);
        }
    }

    /// Concludes from a body that says nothing, where other bodies of this endpoint do.
    ///
    /// A page that answers a posted form with a page may be either end: only what the endpoint has shown tells.
    fn silence(&self, tx: &Transaction) -> Option<LoginOutcome> {
        let [accepts, refuses] = self.hinted;
        // A body that was not read whole may have said it in the part that is missing.
        let unread = [
            Anomaly::ResponseGap,
            Anomaly::ResponseTruncated,
            Anomaly::BodyCapped,
            Anomaly::BodyDecodeFailed,
        ];
        if unread.into_iter().any(|a| tx.anomalies.contains(a)) {
            return None;
        }
        if accepts > 0 && refuses == 0 {
            return Some(LoginOutcome::Failure);
        }
        // Three bodies that let in are a habit: where both ends speak, silence is neither. And people are
        // refused once in fifty attempts at least: a lone error message (a malformed request) proves nothing
        // of the many silent answers beside it.
        let silent = self.plain[0].saturating_add(self.plain[1]);
        (refuses > 0 && accepts < 3 && silent / 50 <= refuses).then_some(LoginOutcome::Success)
    }

    /// Returns where successes (0) or failures (1) were mostly read from.
    pub(crate) fn source(&self, which: usize) -> OutcomeSource {
        let counts = &self.sources[which];
        let mut best = (0, OutcomeSource::Unknown);
        for (n, source) in counts.iter().zip(SOURCES) {
            if *n > best.0 {
                best = (*n, source);
            }
        }
        best.1
    }

    /// Returns the failure ratio of unsuspicious clients, smoothed by the prior; 0.02..=0.5.
    pub(crate) fn baseline(&self, config: &ScoreConfig) -> f64 {
        let weight = config.failure_ratio_prior_weight;
        let failures = f64::from(self.base_failures) + weight * config.failure_ratio_prior;
        (failures / (f64::from(self.base_attempts) + weight)).clamp(0.02, 0.5)
    }

    /// Returns the share of unsuspicious successes that loaded no page before; prior 0.3, weighing 10.
    pub(crate) fn without_page(&self) -> f64 {
        (f64::from(self.good_without_page) + 3.0) / (f64::from(self.good) + 10.0)
    }

    /// Learns from an attempt that turned out unsuspicious.
    pub(crate) fn learn(&mut self, now: Timestamp, failed: bool, page_before: bool) {
        let k = exp_neg(now.nanos_since(self.base_last) as f32 * 1e-9 / BASELINE_SECS);
        self.base_last = self.base_last.max(now);
        for count in
            [&mut self.base_failures, &mut self.base_attempts, &mut self.good, &mut self.good_without_page]
        {
            *count *= k;
        }
        self.base_attempts += 1.0;
        if failed {
            self.base_failures += 1.0;
        } else {
            self.good += 1.0;
            self.good_without_page += if page_before { 0.0 } else { 1.0 };
        }
    }
}

/// Tells whether the query or fragment of a redirect says that the login failed: `/?login=failed`.
///
/// A parameter counts by its name or its value, unless it is switched off (`error=0`) or holds an address to
/// return to. Cost: the length of the Location, which is capped, times the number of words.
fn query_refuses(location: &[u8]) -> bool {
    const WORDS: [&[u8]; 6] = [b"fail", b"error", b"invalid", b"denied", b"incorrect", b"wrong"];
    const OFF: [&[u8]; 6] = [b"", b"0", b"false", b"no", b"none", b"null"];
    let Some(start) = location.iter().position(|b| matches!(b, b'?' | b'#')) else { return false };
    let says = |text: &[u8]| says_any(text, &WORDS);
    location[start + 1..].split(|b| matches!(b, b'&' | b';' | b'?' | b'#')).any(|parameter| {
        let Some(equals) = parameter.iter().position(|b| *b == b'=') else {
            return !parameter.contains(&b'/') && says(parameter);
        };
        let (name, value) = (&parameter[..equals], &parameter[equals + 1..]);
        let address = value.contains(&b'/') || value.windows(3).any(|w| w.eq_ignore_ascii_case(b"%2f"));
        !address && !OFF.iter().any(|off| value.eq_ignore_ascii_case(off)) && (says(name) || says(value))
    })
}

/// Tells whether `text` contains one of `words`, which are not empty, in any case.
fn says_any(text: &[u8], words: &[&[u8]]) -> bool {
    words.iter().any(|word| text.windows(word.len()).any(|w| w.eq_ignore_ascii_case(word)))
}

fn configured(tx: &Transaction, rule: &LoginRule) -> Option<LoginOutcome> {
    let status = tx.status?;
    if rule.success.holds(tx, status) {
        return Some(LoginOutcome::Success);
    }
    if rule.failure.holds(tx, status) {
        return Some(LoginOutcome::Failure);
    }
    match (rule.success.is_empty(), rule.failure.is_empty()) {
        (true, true) => None,
        (false, true) => Some(LoginOutcome::Failure),
        (true, false) => Some(LoginOutcome::Success),
        (false, false) => Some(LoginOutcome::Unknown),
    }
}

/// Tells whether `tx` tries to log in; `known` is set where its endpoint has been sent passwords before.
pub(crate) fn is_attempt(tx: &Transaction, known: bool) -> bool {
    let method = tx.text.get(tx.method);
    if method != b"POST" && method != b"PUT" {
        // Basic authorization accompanies every request; only its refusals are news.
        return tx.login.password.is_some() && tx.status == Some(401);
    }
    let candidate =
        tx.login.password.is_some() || (tx.login.path_looks_like_login && tx.user.is_some()) || known;
    candidate && !tx.login.path_sets_password
}

/// Tells whether what the client sent was read to its end, so that a password in it would have been seen.
pub(crate) fn is_read(tx: &Transaction) -> bool {
    let lost =
        [Anomaly::RequestGap, Anomaly::RequestTruncated, Anomaly::BodyCapped, Anomaly::BodyDecodeFailed];
    (tx.login.body_read || tx.request_body_bytes == 0) && !lost.into_iter().any(|a| tx.anomalies.contains(a))
}

/// A sequential test for events that come faster than their own history: Poisson CUSUM (Lucas 1985).
///
/// Each event adds ln 3, each expected event takes 2: the drift that separates a rate of three times the
/// baseline from the baseline. The baseline is the rate over the last hour, at least ten minutes old, and
/// stands still while the sum is high.
#[derive(Debug)]
pub(crate) struct Surge {
    first: Timestamp,
    last: Timestamp,
    events: f32,
    sum: f32,
}

impl Surge {
    pub(crate) const fn new(now: Timestamp) -> Self {
        Self { first: now, last: now, events: 0.0, sum: 0.0 }
    }

    /// Counts an event; returns how far the sum is over `threshold` (1 is at it).
    pub(crate) fn observe(&mut self, now: Timestamp, threshold: f32) -> f64 {
        let secs = now.nanos_since(self.last) as f32 * 1e-9;
        let age = self.last.nanos_since(self.first) as f32 * 1e-9;
        self.last = self.last.max(now);
        let expected = self.events / (3600.0 * (1.0 - exp_neg(age / 3600.0))).max(1.0);
        if age < 600.0 {
            self.events = self.events * exp_neg(secs / 3600.0) + 1.0;
            return 0.0;
        }
        self.sum = (self.sum + 3.0f32.ln() - 2.0 * expected * secs).clamp(0.0, 2.0 * threshold);
        if self.sum < threshold / 2.0 {
            self.events = self.events * exp_neg(secs / 3600.0) + 1.0;
        }
        f64::from(self.sum / threshold)
    }
}

#[cfg(test)]
mod tests {
    use offpath_types::{FlowInfo, FlowKey, Host, Peer, TunnelId};

    use super::*;
    use crate::OutcomeRule;

    fn tx(
        status: Option<u16>,
        redirect: RedirectClass,
        cookie: bool,
        hint: BodyHint,
        html: bool,
    ) -> Transaction {
        let peer = |last, port| Peer { host: Host::from_v4([192, 0, 2, last]), port };
        let (key, client_side) = FlowKey::new(peer(1, 40_000), peer(2, 80), TunnelId(0));
        let flow = FlowInfo {
            key,
            client_side,
            opened: Timestamp::ZERO,
            midstream: false,
            envelope: Default::default(),
        };
        let mut tx = Transaction::new(flow, 1, 0, Timestamp::from_parts(5, 0));
        tx.method = tx.text.push(b"POST");
        tx.path = tx.text.push(b"/login");
        tx.location = tx.text.push(b"/home/denied");
        tx.response_content_type = tx.text.push(if html { b"text/html" } else { b"application/json" });
        tx.status = status;
        tx.login.redirect = redirect;
        tx.login.sets_cookie = cookie;
        tx.login.body_hint = hint;
        tx
    }

    use BodyHint as B;
    use LoginOutcome::{Failure, Success, Unknown};
    use RedirectClass as R;

    #[test]
    fn attempts() {
        let (no, yes) = (false, true);
        for (method, path, password, user, loginlike, known, status, want) in [
            ("POST", "/login", yes, yes, yes, no, 401, yes),
            ("PUT", "/session", yes, no, no, no, 200, yes),
            ("POST", "/login", no, yes, yes, no, 200, yes), // a first step that asks for the user only
            ("POST", "/login", no, no, yes, no, 200, no),
            ("POST", "/search", no, yes, no, no, 200, no),
            ("POST", "/enter", no, no, no, yes, 400, yes),
            ("POST", "/presets/register/api/login", yes, yes, yes, no, 200, yes), // the path's class is given
            ("DELETE", "/login", no, yes, yes, yes, 200, no),
            ("GET", "/private", yes, yes, no, no, 401, yes), // Basic authorization
            ("GET", "/private", yes, yes, no, no, 200, no),
        ] {
            let mut tx = tx(Some(status), R::None, false, B::None, false);
            let id = offpath_types::IdentityHash([7; 16]);
            tx.method = tx.text.push(method.as_bytes());
            tx.path = tx.text.push(path.as_bytes());
            tx.login.password = password.then_some(id);
            tx.user = user.then_some(id);
            tx.login.path_looks_like_login = loginlike;
            assert_eq!(is_attempt(&tx, known), want, "{method} {path} {status}");
            tx.login.path_sets_password = true;
            assert_eq!(is_attempt(&tx, known), want && method == "GET", "{method} {path} {status}, set");
        }
    }

    #[test]
    fn outcomes_without_history() {
        for (name, tx, want, source) in [
            ("no response", tx(None, R::None, false, B::None, false), Unknown, OutcomeSource::Unknown),
            ("5xx", tx(Some(502), R::None, false, B::None, true), Unknown, OutcomeSource::Unknown),
            ("401", tx(Some(401), R::None, false, B::None, false), Failure, OutcomeSource::Status),
            ("429", tx(Some(429), R::None, true, B::None, false), Failure, OutcomeSource::Status),
            ("back", tx(Some(302), R::SamePath, true, B::None, true), Failure, OutcomeSource::Redirect),
            ("to login", tx(Some(303), R::LoginLike, false, B::None, true), Failure, OutcomeSource::Redirect),
            ("away", tx(Some(302), R::Elsewhere, false, B::None, true), Success, OutcomeSource::Redirect),
            ("304", tx(Some(304), R::None, false, B::None, true), Unknown, OutcomeSource::Unknown),
            ("says no", tx(Some(200), R::None, true, B::Failure, false), Failure, OutcomeSource::Body),
            ("says yes", tx(Some(200), R::None, false, B::Success, false), Success, OutcomeSource::Body),
            ("cookie", tx(Some(200), R::None, true, B::None, false), Success, OutcomeSource::Cookie),
            ("page", tx(Some(200), R::None, false, B::None, true), Unknown, OutcomeSource::Unknown),
            ("plain", tx(Some(204), R::None, false, B::None, false), Unknown, OutcomeSource::Unknown),
        ] {
            let mut endpoint = LoginEndpoint::new(Timestamp::ZERO);
            assert_eq!(endpoint.conclude(&tx, None), want, "{name}");
            if want != Unknown {
                assert_eq!(endpoint.source(usize::from(want == Failure)), source, "{name}");
            }
            assert_eq!(endpoint.attempts, endpoint.successes + endpoint.failures + endpoint.unknown);
        }
    }

    #[test]
    fn outcomes_with_history() {
        let plain = || tx(Some(200), R::None, false, B::None, false);
        for (name, first, then, want) in [
            ("refuses by status", tx(Some(401), R::None, false, B::None, false), plain(), Success),
            ("refuses by 422", tx(Some(422), R::None, false, B::None, false), plain(), Success),
            ("firewall", tx(Some(403), R::None, false, B::None, false), plain(), Unknown),
            ("rate limit", tx(Some(429), R::None, false, B::None, false), plain(), Unknown),
            ("bad request", tx(Some(400), R::None, false, B::None, false), plain(), Unknown),
            ("bad method", tx(Some(405), R::None, false, B::None, false), plain(), Unknown),
            ("too large", tx(Some(413), R::None, false, B::None, false), plain(), Unknown),
            ("bad type", tx(Some(415), R::None, false, B::None, false), plain(), Unknown),
            ("redirects in", tx(Some(302), R::Elsewhere, true, B::None, false), plain(), Failure),
            ("sets a cookie", tx(Some(200), R::None, true, B::None, false), plain(), Failure),
            (
                "redirects in, cookie on the form too",
                tx(Some(302), R::Elsewhere, true, B::None, false),
                tx(Some(200), R::None, true, B::None, true),
                Failure,
            ),
        ] {
            let mut endpoint = LoginEndpoint::new(Timestamp::ZERO);
            endpoint.conclude(&first, None);
            assert_eq!(endpoint.conclude(&then, None), want, "{name}");
        }
    }

    #[test]
    fn where_some_bodies_speak_the_silent_ones_mean_the_opposite() {
        let page = |hint| tx(Some(200), R::None, false, hint, true);
        let mut cut = page(B::None);
        cut.anomalies.insert(Anomaly::ResponseTruncated);
        let silent = || page(B::None);
        for (name, history, then, want) in [
            ("refusals speak", vec![(1, page(B::Failure))], silent(), Success),
            ("welcomes speak", vec![(1, page(B::Success))], silent(), Failure),
            ("both speak", vec![(3, page(B::Success)), (1, page(B::Failure))], silent(), Unknown),
            ("a chance welcome", vec![(1, page(B::Success)), (1, page(B::Failure))], silent(), Success),
            ("cut off", vec![(1, page(B::Failure))], cut, Unknown),
            ("one message among many", vec![(1, page(B::Failure)), (200, silent())], silent(), Unknown),
            (
                "refusals with a cookie",
                vec![(1, tx(Some(200), R::None, true, B::Failure, true))],
                silent(),
                Success,
            ),
            (
                "lets in by redirect",
                vec![(1, tx(Some(302), R::Elsewhere, false, B::None, false)), (1, page(B::Failure))],
                silent(),
                Failure,
            ),
        ] {
            let mut endpoint = LoginEndpoint::new(Timestamp::ZERO);
            for (times, response) in &history {
                for _ in 0..*times {
                    endpoint.conclude(response, None);
                }
            }
            assert_eq!(endpoint.conclude(&then, None), want, "{name}");
        }
    }

    #[test]
    fn one_refusal_by_status_does_not_make_silence_a_success() {
        let answer = |status, cookie| tx(Some(status), R::None, cookie, B::None, false);
        let away = || tx(Some(302), R::Elsewhere, true, B::None, false);
        let welcome = || tx(Some(200), R::None, false, B::Success, false);
        // What people get, what somebody gets once, how many silent ones then follow, and what the last one is.
        for (name, people, odd, silent, want) in [
            ("cookie, 429", vec![(20, answer(200, true))], answer(429, false), 1, Failure),
            ("cookie, 403", vec![(20, answer(200, true))], answer(403, false), 60, Failure),
            ("cookie, 401", vec![(20, answer(200, true))], answer(401, false), 6, Failure),
            ("cookie, 422", vec![(20, answer(200, true))], answer(422, false), 60, Failure),
            ("redirect, 401", vec![(20, away())], answer(401, false), 6, Failure),
            ("welcome, 401", vec![(20, welcome())], answer(401, false), 6, Failure),
            ("silent both ways, 401", vec![(20, answer(200, false))], answer(401, false), 60, Unknown),
            (
                "refuses by 401, cookie where there was none",
                vec![(20, answer(401, false)), (60, answer(200, true))],
                answer(401, false),
                60,
                Success,
            ),
            (
                "refuses by 401, cookie now and then",
                vec![(20, answer(401, false)), (600, answer(200, false)), (60, answer(200, true))],
                answer(401, false),
                60,
                Success,
            ),
        ] {
            let mut endpoint = LoginEndpoint::new(Timestamp::ZERO);
            for (times, response) in &people {
                for _ in 0..*times {
                    endpoint.conclude(response, None);
                    endpoint.learn_answer(response);
                }
            }
            assert_eq!(endpoint.conclude(&odd, None), Failure, "{name}");
            let last = (0..silent).map(|_| endpoint.conclude(&answer(200, false), None)).last();
            assert_eq!(last, Some(want), "{name}");
        }
    }

    #[test]
    fn hidden_and_repeated_bodies_do_not_unlearn_an_endpoint() {
        let send = |read: bool, password: bool| {
            let mut tx = tx(Some(200), R::None, false, B::None, false);
            tx.request_body_bytes = 30;
            tx.login.body_read = read;
            tx.login.password = password.then_some(offpath_types::IdentityHash([7; 16]));
            tx
        };
        // Clients that sent a password, requests after them, from how many clients, read or not.
        for (name, people, requests, clients, read, want) in [
            ("nobody yet", 2, 0, 1, true, false),
            ("people", 20, 0, 1, true, true),
            ("hidden by one", 20, 1000, 1, false, true),
            ("hidden by many", 20, 1000, 1000, false, true),
            ("without, by one", 3, 1000, 1, true, true),
            ("without, by seven", 20, 1000, 7, true, true),
            ("without, by many", 20, 100, 100, true, false),
        ] {
            let mut endpoint = LoginEndpoint::new(Timestamp::ZERO);
            for client in 0..people {
                let tx = send(true, true);
                endpoint.sent(&tx, client);
                endpoint.conclude(&tx, None);
            }
            for n in 0..requests {
                let tx = send(read, false);
                endpoint.sent(&tx, 1_000_000 + n % clients);
                if is_attempt(&tx, endpoint.takes_passwords(is_read(&tx))) {
                    endpoint.conclude(&tx, None);
                }
            }
            assert_eq!(endpoint.takes_passwords(false), want, "{name}");
        }
        for anomaly in [Anomaly::RequestGap, Anomaly::BodyCapped, Anomaly::BodyDecodeFailed] {
            let mut tx = send(true, false);
            assert!(is_read(&tx));
            tx.anomalies.insert(anomaly);
            assert!(!is_read(&tx), "{anomaly:?}");
        }
    }

    #[test]
    fn queries_of_redirects_that_refuse() {
        for (location, want) in [
            ("/", false),
            ("/?login=failed", true),
            ("/?login=ok", false),
            ("/?error", true),
            ("/?a=1&Error=2", true),
            ("https://shop.test/home?error=access_denied&state=x", true),
            ("/#/start?wrong=password", true),
            ("/?error=0", false),
            ("/?error=&x=1", false),
            ("/?next=/errors/list", false),
            ("/?next=%2Ferrors", false),
            ("/error", false), // a path is the redirect class's matter
            ("?", false),
            ("", false),
        ] {
            assert_eq!(query_refuses(location.as_bytes()), want, "{location}");
            let mut away = tx(Some(302), R::Elsewhere, false, B::None, false);
            away.location = away.text.push(location.as_bytes());
            let outcome = LoginEndpoint::new(Timestamp::ZERO).conclude(&away, None);
            assert_eq!(outcome == Failure, want, "{location}");
        }
    }

    #[test]
    fn a_configured_rule_wins() {
        let only = |success: OutcomeRule, failure: OutcomeRule| LoginRule {
            path: "/log*".into(),
            success,
            failure,
            ..LoginRule::default()
        };
        let statuses = |s: u16| OutcomeRule { statuses: vec![s..=s], ..OutcomeRule::default() };
        let denied = OutcomeRule { redirect_contains: Some("denied".into()), ..OutcomeRule::default() };
        let none = OutcomeRule::default;
        let away = || tx(Some(302), R::Elsewhere, true, B::None, false);
        for (name, rule, tx, want) in [
            ("failure only, holds", only(none(), denied.clone()), away(), Failure),
            (
                "failure only, else success",
                only(none(), denied),
                tx(Some(401), R::None, false, B::None, false),
                Success,
            ),
            ("success only, else failure", only(statuses(204), none()), away(), Failure),
            ("both, neither holds", only(statuses(204), statuses(403)), away(), Unknown),
            ("nothing set: learned", only(none(), none()), away(), Success),
        ] {
            assert!(rule.applies(b"POST", b"/login") && !rule.applies(b"GET", b"/login"));
            assert_eq!(LoginEndpoint::new(Timestamp::ZERO).conclude(&tx, Some(&rule)), want, "{name}");
        }
    }

    #[test]
    fn surges_are_found_and_steady_rates_are_none() {
        let start = Timestamp::from_parts(1000, 0);
        let mut surge = Surge::new(start);
        let mut now = start;
        for _ in 0..400 {
            now = now.plus_secs(10);
            assert!(surge.observe(now, 11.5) < 1.0);
        }
        let mut needed = 0;
        while surge.observe(now, 11.5) < 1.0 {
            now = now.plus_nanos(1_000_000_000); // ten times as fast
            needed += 1;
        }
        assert!((8..25).contains(&needed), "{needed}");
    }
}
