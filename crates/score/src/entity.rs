//! What is remembered of one entity.

use offpath_types::{EntityKind, Timestamp};

use crate::distinct::Distinct;
use crate::math::exp_neg_each;

/// Horizons of decayed counts, in seconds, with the suffix that conditions use.
pub(crate) const HORIZONS: [(f32, &str); 4] = [(10.0, "10s"), (60.0, "1m"), (600.0, "10m"), (3600.0, "1h")];
/// Number of the horizon of 10 s.
#[cfg(test)]
pub(crate) const H10S: usize = 0;
/// Number of the horizon of 1 min.
pub(crate) const H1M: usize = 1;
/// Number of the horizon of 10 min.
pub(crate) const H10M: usize = 2;
/// Number of the horizon of 1 h.
pub(crate) const H1H: usize = 3;

/// Counts that fade: one per horizon, each event weighing e^(−age/horizon). At a steady rate it is the
/// number of events per horizon.
pub(crate) type Counts = [f32; 4];

/// Returns the factors by which counts fade in `nanos`.
pub(crate) fn fade(nanos: u64) -> Counts {
    let secs = nanos as f32 * 1e-9;
    exp_neg_each(HORIZONS.map(|(horizon, _)| secs / horizon))
}

pub(crate) fn scale(counts: &mut Counts, by: &Counts) {
    for (c, k) in counts.iter_mut().zip(by) {
        *c *= k;
    }
}

pub(crate) fn bump(counts: &mut Counts) {
    for c in counts {
        *c += 1.0;
    }
}

/// No login state.
pub(crate) const NONE: u32 = u32::MAX;

/// Activity of one entity; [`LoginState`] joins it at its first login attempt.
#[derive(Debug)]
pub(crate) struct Entity {
    pub(crate) last: Timestamp,
    pub(crate) requests: Counts,
    /// Pages and other GETs that are no static assets, over an hour.
    pub(crate) pages: f32,
    /// Static assets, over an hour.
    pub(crate) assets: f32,
    pub(crate) timing: Timing,
    pub(crate) total: u32,
    pub(crate) confident: u32,
    /// Number in the slab of login states, or [`NONE`].
    pub(crate) login: u32,
    pub(crate) peak: u8,
}

impl Entity {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            last: now,
            requests: [0.0; 4],
            pages: 0.0,
            assets: 0.0,
            timing: Timing::default(),
            total: 0,
            confident: 0,
            login: NONE,
            peak: 0,
        }
    }

    /// Counts one request at `now`, not earlier than the one before.
    pub(crate) fn request(&mut self, now: Timestamp, what: RequestKind) {
        let k = fade(now.nanos_since(self.last));
        self.last = now;
        scale(&mut self.requests, &k);
        bump(&mut self.requests);
        self.pages *= k[H1H];
        self.assets *= k[H1H];
        self.total = self.total.saturating_add(1);
        match what {
            RequestKind::Asset => self.assets += 1.0,
            RequestKind::Page => {
                self.pages += 1.0;
                self.timing.tick(now);
            }
            RequestKind::Call => self.timing.tick(now),
            RequestKind::Login | RequestKind::Waiting => {}
        }
    }
}

/// What a request is to the client's rhythm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestKind {
    /// A script, style sheet, image, font …
    Asset,
    /// A GET that is none: a page or an API read.
    Page,
    /// Anything else that is no login.
    Call,
    /// A login attempt.
    Login,
    /// A long poll or an event stream: when it ends is the server's choice.
    Waiting,
}

/// Mean and variance of the intervals between requests, the last 32 or so weighing most.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timing {
    last: Timestamp,
    mean: f32,
    var: f32,
    n: u32,
}

impl Timing {
    fn tick(&mut self, now: Timestamp) {
        if self.last != Timestamp::ZERO {
            let secs = now.nanos_since(self.last) as f32 * 1e-9;
            self.n = self.n.saturating_add(1);
            let alpha = 1.0 / self.n.min(32) as f32;
            let delta = secs - self.mean;
            self.mean += alpha * delta;
            self.var = (1.0 - alpha) * (self.var + alpha * delta * delta);
        }
        self.last = now;
    }

    /// Returns mean (seconds) and coefficient of variation, once 20 intervals were seen.
    pub(crate) fn rhythm(&self) -> Option<(f64, f64)> {
        (self.n >= 20 && self.mean > 0.0)
            .then(|| (f64::from(self.mean), f64::from(self.var).sqrt() / f64::from(self.mean)))
    }
}

/// What is remembered of an entity's login attempts.
#[derive(Debug)]
pub(crate) struct LoginState {
    pub(crate) last: Timestamp,
    pub(crate) attempts: Counts,
    pub(crate) failures: Counts,
    pub(crate) successes: Counts,
    /// Failures that tried something new: one and the same user and password again is no guess.
    pub(crate) guesses: Counts,
    /// Attempts whose outcome nothing tells, over an hour.
    pub(crate) untold: f32,
    /// Of an `ip` and a `user`: what was refused lately.
    pub(crate) refused: Refused,
    /// Users tried; of a `user`: addresses that tried.
    pub(crate) peers: Distinct,
    /// Users refused; of a `user`: addresses refused.
    pub(crate) peers_failed: Distinct,
    /// Of an `ip`: users refused at first and let in later, as people are.
    pub(crate) let_in: Distinct,
    /// Addresses refused (not kept for `ip` and `user`).
    pub(crate) ips_failed: Distinct,
    /// Failure ratio of people on the endpoint tried last.
    pub(crate) baseline: f32,
    /// Of a `fingerprint`: share of automated attempts in its hottest cell, and when that was found.
    pub(crate) cell_share: f32,
    pub(crate) cell_share_at: Timestamp,
    /// Of a `fingerprint`: unsuspicious successes, and those of them without a page before, fading in 6 h.
    pub(crate) good: f32,
    pub(crate) good_without_page: f32,
    /// Of a `user`: address and stack of the last unsuspicious success.
    pub(crate) good_ip: u64,
    pub(crate) good_fingerprint: u64,
}

impl LoginState {
    pub(crate) const fn new(now: Timestamp) -> Self {
        Self {
            last: now,
            attempts: [0.0; 4],
            failures: [0.0; 4],
            successes: [0.0; 4],
            guesses: [0.0; 4],
            untold: 0.0,
            refused: Refused::new(),
            peers: Distinct::new(),
            peers_failed: Distinct::new(),
            let_in: Distinct::new(),
            ips_failed: Distinct::new(),
            baseline: 0.09,
            cell_share: 0.0,
            cell_share_at: Timestamp::ZERO,
            good: 0.0,
            good_without_page: 0.0,
            good_ip: 0,
            good_fingerprint: 0,
        }
    }

    /// Lets counts and sets fade to `now`.
    pub(crate) fn refresh(&mut self, now: Timestamp, epoch: u32) {
        let nanos = now.nanos_since(self.last);
        if nanos > 0 {
            let k = fade(nanos);
            scale(&mut self.attempts, &k);
            scale(&mut self.failures, &k);
            scale(&mut self.successes, &k);
            scale(&mut self.guesses, &k);
            self.untold *= k[H1H];
            self.last = now;
        }
        self.peers.count(epoch);
        self.peers_failed.count(epoch);
        self.let_in.count(epoch);
        self.ips_failed.count(epoch);
    }
}

/// The last 8 different guesses (user and password) or users that were refused, as 32 bits each. A client or
/// an account that is attacked sees new ones all the time; a forgotten job repeats its one or two for ever.
#[derive(Debug)]
pub(crate) struct Refused {
    guesses: [u32; 8],
    next: u8,
}

impl Refused {
    pub(crate) const fn new() -> Self {
        Self { guesses: [0; 8], next: 0 }
    }

    /// Tells whether `guess`, which is never 0, is among them.
    pub(crate) fn contains(&self, guess: u32) -> bool {
        self.guesses.contains(&guess)
    }

    /// Adds one, in place of the oldest.
    pub(crate) fn insert(&mut self, guess: u32) {
        if !self.contains(guess) {
            self.guesses[usize::from(self.next & 7)] = guess;
            self.next = self.next.wrapping_add(1);
        }
    }
}

/// Login states of all tables, by number; freed ones are used again.
#[derive(Debug, Default)]
pub(crate) struct LoginStates {
    states: Vec<LoginState>,
    free: Vec<u32>,
}

impl LoginStates {
    /// Returns the login state of `entity`, making it where there is none.
    pub(crate) fn of(&mut self, entity: &mut Entity, now: Timestamp) -> &mut LoginState {
        if entity.login == NONE {
            entity.login = match self.free.pop() {
                Some(at) => {
                    self.states[at as usize] = LoginState::new(now);
                    at
                }
                None => {
                    self.states.push(LoginState::new(now));
                    (self.states.len() - 1) as u32
                }
            };
        }
        &mut self.states[entity.login as usize]
    }

    pub(crate) fn get(&self, entity: &Entity) -> Option<&LoginState> {
        self.states.get(entity.login as usize)
    }

    pub(crate) fn get_mut(&mut self, entity: &Entity) -> Option<&mut LoginState> {
        self.states.get_mut(entity.login as usize)
    }

    /// Takes back the login state of an evicted entity.
    pub(crate) fn release(&mut self, entity: &Entity) {
        if let Some(state) = self.states.get_mut(entity.login as usize) {
            *state = LoginState::new(Timestamp::ZERO); // frees its sketches
            self.free.push(entity.login);
        }
    }

    #[cfg(test)]
    pub(crate) fn live(&self) -> usize {
        self.states.len() - self.free.len()
    }
}

/// One number that conditions can read of an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fact {
    Requests(u8),
    Logins(u8),
    LoginFailures(u8),
    LoginSuccesses(u8),
    Users,
    UsersFailed,
    Ips,
    IpsFailed,
}

impl Fact {
    pub(crate) fn read(self, entity: &Entity, login: Option<&LoginState>) -> f64 {
        let counts = |pick: fn(&LoginState) -> &Counts, h: u8| {
            login.map_or(0.0, |l| f64::from(pick(l).get(usize::from(h)).copied().unwrap_or_default()))
        };
        match self {
            Self::Requests(h) => f64::from(entity.requests.get(usize::from(h)).copied().unwrap_or_default()),
            Self::Logins(h) => counts(|l| &l.attempts, h),
            Self::LoginFailures(h) => counts(|l| &l.failures, h),
            Self::LoginSuccesses(h) => counts(|l| &l.successes, h),
            // Of a `user`, peers are addresses.
            Self::Users | Self::Ips => login.map_or(0.0, |l| l.peers.last_count()),
            Self::UsersFailed => login.map_or(0.0, |l| l.peers_failed.last_count()),
            Self::IpsFailed => login.map_or(0.0, |l| l.ips_failed.last_count().max(0.0)),
        }
    }
}

const COUNT_FACTS: [(&str, Fact); 16] = [
    ("requests_10s", Fact::Requests(0)),
    ("requests_1m", Fact::Requests(1)),
    ("requests_10m", Fact::Requests(2)),
    ("requests_1h", Fact::Requests(3)),
    ("logins_10s", Fact::Logins(0)),
    ("logins_1m", Fact::Logins(1)),
    ("logins_10m", Fact::Logins(2)),
    ("logins_1h", Fact::Logins(3)),
    ("login_failures_10s", Fact::LoginFailures(0)),
    ("login_failures_1m", Fact::LoginFailures(1)),
    ("login_failures_10m", Fact::LoginFailures(2)),
    ("login_failures_1h", Fact::LoginFailures(3)),
    ("login_successes_10s", Fact::LoginSuccesses(0)),
    ("login_successes_1m", Fact::LoginSuccesses(1)),
    ("login_successes_10m", Fact::LoginSuccesses(2)),
    ("login_successes_1h", Fact::LoginSuccesses(3)),
];
const CLIENT_FACTS: [(&str, Fact); 2] =
    [("distinct_users", Fact::Users), ("distinct_users_failed", Fact::UsersFailed)];
const GROUP_FACTS: [(&str, Fact); 3] = [
    ("distinct_users", Fact::Users),
    ("distinct_users_failed", Fact::UsersFailed),
    ("distinct_ips_failed", Fact::IpsFailed),
];
/// Of a `user`, the refused peers are addresses.
const USER_FACTS: [(&str, Fact); 2] =
    [("distinct_ips", Fact::Ips), ("distinct_ips_failed", Fact::UsersFailed)];

/// Yields the names and facts of a kind of entity.
pub(crate) fn facts_of(kind: EntityKind) -> impl Iterator<Item = (&'static str, Fact)> {
    let sets: &'static [(&'static str, Fact)] = match kind {
        EntityKind::Ip => &CLIENT_FACTS,
        EntityKind::User => &USER_FACTS,
        EntityKind::Prefix | EntityKind::Session | EntityKind::Fingerprint | EntityKind::Endpoint => {
            &GROUP_FACTS
        }
    };
    COUNT_FACTS.iter().chain(sets).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_eight_guesses_are_known() {
        let mut refused = Refused::new();
        for guess in 1..=20 {
            assert!(!refused.contains(guess));
            refused.insert(guess);
            refused.insert(guess);
        }
        assert_eq!(
            (1..=20).filter(|g| refused.contains(*g)).collect::<Vec<_>>(),
            (13..=20).collect::<Vec<_>>()
        );
    }

    #[test]
    fn counts_fade_by_their_horizon() {
        let t = Timestamp::from_parts(1000, 0);
        let mut e = Entity::new(t);
        for i in 0..600 {
            e.request(t.plus_nanos(i * 100_000_000), RequestKind::Call); // 10 per second for a minute
        }
        assert!((95.0..105.0).contains(&e.requests[H10S]), "{:?}", e.requests);
        assert!((370.0..390.0).contains(&e.requests[H1M]), "{:?}", e.requests); // 600·(1−1/e)
        let (mean, cv) = e.timing.rhythm().unwrap();
        assert!((mean - 0.1).abs() < 1e-3 && cv < 0.01, "{mean} {cv}");
        e.request(t.plus_secs(7200), RequestKind::Asset);
        assert_eq!((e.requests[H10S], e.assets), (1.0, 1.0));
    }

    #[test]
    fn long_polls_have_no_rhythm() {
        let t = Timestamp::from_parts(1000, 0);
        let mut e = Entity::new(t);
        (0..40).for_each(|i| e.request(t.plus_secs(30 * i), RequestKind::Waiting));
        assert!(e.timing.rhythm().is_none());
        assert_eq!((e.pages, e.assets), (0.0, 0.0));
    }

    #[test]
    fn bursts_are_not_regular() {
        let t = Timestamp::from_parts(1000, 0);
        let mut timing = Timing::default();
        for i in 0..30u64 {
            timing.tick(t.plus_nanos(i / 5 * 20_000_000_000 + i % 5 * 30_000_000));
        }
        assert!(timing.rhythm().unwrap().1 > 1.0);
    }

    #[test]
    fn login_states_are_used_again() {
        let mut states = LoginStates::default();
        let (mut a, mut b) = (Entity::new(Timestamp::ZERO), Entity::new(Timestamp::ZERO));
        states.of(&mut a, Timestamp::ZERO).attempts[0] = 5.0;
        states.release(&a);
        assert_eq!(states.of(&mut b, Timestamp::ZERO).attempts[0], 0.0);
        assert_eq!((a.login, b.login, states.live()), (0, 0, 1));
    }
}
