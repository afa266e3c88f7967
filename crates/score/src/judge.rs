//! The signals themselves: from what is remembered to points.
//!
//! Points are ten times log-odds. Thresholds are set so that what people do (a forgetful person failing
//! ten times, an office logging in at nine, a family behind one router) stays far below the 75 points that
//! make a confidence of 90; `tests/simulate.rs` holds them to it.

use offpath_types::EntityKind;

use crate::entity::{Entity, H1H, H1M, H10M, LoginState};
use crate::evidence::Evidence;
use crate::math::{logit, ramp, wilson_low};
use crate::signals::Signal;

/// Failure ratio of an attack's attempts: lists of leaked passwords hit on 0.1 % to 2 %, some on 10 %.
const ATTACK_RATIO: f64 = 0.85;
/// Highest share of automated attempts that a cell can prove.
const SHARE_MAX: f64 = 0.985;
/// Addresses that must fail before a prefix or a cell, and not its one loud client, is suspect.
const PREFIX_IPS_MIN: f64 = 3.0;
pub(crate) const CELL_IPS_MIN: f64 = 4.0;

/// Signals about one client alone.
pub(crate) const CLIENT: [Signal; 3] =
    [Signal::LoginFailureRate, Signal::LoginFailureRatio, Signal::DistinctUsers];
/// Signals that others gave: the client only resembles them, or aims at the same account.
pub(crate) const OTHERS: [Signal; 7] = [
    Signal::AccountHammered,
    Signal::DistinctAddresses,
    Signal::PasswordSprayed,
    Signal::LoginWithoutPage,
    Signal::CellFailureRatio,
    Signal::CellLoginSurge,
    Signal::FingerprintRare,
];

pub(crate) type Weights = [f64; Signal::COUNT];

/// Rates a client's login record, where it has one: address, session, then prefix.
pub(crate) fn client(ev: &mut Evidence, kind: EntityKind, login: &LoginState, w: &Weights) {
    let guesses = login.guesses.map(f64::from);
    if guesses[H1H] < 2.5 {
        return;
    }
    let wide = kind == EntityKind::Prefix;
    if wide && login.ips_failed.last_count() < PREFIX_IPS_MIN {
        return;
    }
    let successes = f64::from(login.successes[H1H]);
    // Users are what is independent: one person's five typos are one event. Without names, two failures
    // are taken for one user.
    let named = login.peers_failed.last_count();
    let users = if named > 0.0 { named } else { guesses[H1H] / 2.0 };
    // Who got in after a few failures was a person: an office whose passwords have expired.
    let left = (users - login.let_in.last_count()).max(0.0);
    let failures = guesses.map(|g| g * left / users);
    let users = left;
    let baseline = f64::from(login.baseline);
    // Groups of people differ: half as much again as the endpoint's own ratio is nothing special.
    let people = (1.5 * baseline).clamp(0.12, 0.5);
    let llr = users * (ATTACK_RATIO / people).ln() + successes * ((1.0 - ATTACK_RATIO) / (1.0 - people)).ln();
    let ratio = |bad: f64| bad / (bad + successes + 2.0);
    // How far the client's ratio lies above that of people, of what lies above it at all. Where nearly half of
    // everybody's attempts fail (an outage, a changed form), failing says nothing of a client any more.
    let telling = ramp(0.5 - baseline, 0.02, 0.12);
    let low = 2.0 * people / (1.0 + people);
    let gate = |bad: f64| telling * ramp(ratio(bad), low, low + 0.4 * (1.0 - low));
    let width = if wide { 2.0 } else { 1.0 };

    ev.set(
        Signal::LoginFailureRatio,
        kind,
        llr.max(0.0) * 5.5 / width,
        users / (users + successes),
        baseline,
        w,
    );
    let many = ramp(users, 3.0 * width, 12.0 * width.sqrt());
    ev.set(Signal::DistinctUsers, kind, gate(users) * many * 50.0, users, 3.0 * width, w);
    let fast = ramp(failures[H1M], 6.0 * width, 20.0 * width)
        .max(ramp(failures[H10M], 8.0 * width, 25.0 * width))
        .max(ramp(failures[H1H], 12.0 * width, 40.0 * width));
    ev.set(
        Signal::LoginFailureRate,
        kind,
        gate(failures[H1H]) * fast * 70.0,
        failures[H10M],
        (failures[H10M] + successes) * baseline,
        w,
    );
}

/// Attempts without an outcome below which they say nothing.
pub(crate) const UNTOLD_MIN: f32 = 8.0;

/// Rates an address whose attempts end nobody knows how: what speaks is that it tries one user after the other
/// and does nothing else. `browsing`: share of pages and assets among people's requests; where people too only
/// log in (a host of its own for it), that says nothing.
pub(crate) fn untold(ev: &mut Evidence, client: &Entity, login: &LoginState, browsing: f64, w: &Weights) {
    let attempts = f64::from(login.attempts[H1H]);
    let unread = ramp(f64::from(login.untold) / attempts.max(1.0), 0.5, 0.9);
    // An office, a shared proxy: every login there brings pages, scripts, calls.
    let others = (f64::from(client.requests[H1H]) - attempts).max(0.0) / attempts.max(1.0);
    let bare = (1.0 - ramp(others, 0.5, 1.5)) * ramp(browsing, 0.15, 0.35);
    let users = login.peers.last_count();
    let many = ramp(users, 8.0, 18.0).min(ramp(f64::from(login.attempts[H10M]), 8.0, 18.0));
    ev.set(Signal::DistinctUsers, EntityKind::Ip, unread * bare * many * 80.0, users, 8.0, w);
}

/// Rates attempts on one account. `own` is 1 where the client takes part in the failures, less where it
/// may be the account's owner.
pub(crate) fn account(ev: &mut Evidence, user: &LoginState, own: f64, w: &Weights) {
    let (short, long) = (f64::from(user.guesses[H10M]), f64::from(user.guesses[H1H]));
    let hammered = ramp(short, 9.0, 25.0).max(ramp(long, 14.0, 40.0));
    ev.set(Signal::AccountHammered, EntityKind::User, own * hammered * 60.0, long, 9.0, w);
    let addresses = user.peers_failed.last_count();
    ev.set(
        Signal::DistinctAddresses,
        EntityKind::User,
        own * ramp(addresses, 3.0, 10.0) * 35.0,
        addresses,
        3.0,
        w,
    );
}

/// Rates a password that `users` were refused for and that let `successes` in.
pub(crate) fn password(ev: &mut Evidence, users: f64, successes: f64, failed: bool, w: &Weights) {
    let gate = ramp(users / (users + successes + 1.0), 0.3, 0.7);
    let points = gate * ramp(users, 3.0, 10.0) * if failed { 75.0 } else { 35.0 };
    ev.set(Signal::PasswordSprayed, EntityKind::User, points, users, 3.0, w);
}

/// Returns the share of automated attempts in a cell with `failures` of `attempts`, a lower bound; the
/// observed ratio is a mixture of people at `baseline` and an attack.
pub(crate) fn cell_share(failures: f64, attempts: f64, baseline: f64) -> f64 {
    let attack = 0.95;
    ((wilson_low(failures, attempts) - baseline) / (attack - baseline)).clamp(0.0, SHARE_MAX)
}

/// Points that replace the prior by `share`.
pub(crate) fn share_points(share: f64, prior: f64) -> f64 {
    if share <= prior { 0.0 } else { (logit(share) - logit(prior)) * 10.0 }
}

/// Lets the attempt's end speak for or against what others made suspect.
pub(crate) fn outcome(ev: &mut Evidence, failed: bool, baseline: f64, w: &Weights) {
    let group = ev.points(&[Signal::CellFailureRatio]) + ev.points_on(&CLIENT, EntityKind::Prefix);
    if group > 10.0 {
        let points = if failed { 15.0 } else { -16.0f64.min(group) };
        ev.set(Signal::LoginOutcome, EntityKind::Endpoint, points, f64::from(u8::from(failed)), baseline, w);
    }
}

/// Weighs the client's own history against evidence that others gave; never against its own record.
/// `tried`: its attempts and the users it tried.
pub(crate) fn history(
    ev: &mut Evidence,
    client: &Entity,
    tried: (f64, f64),
    known_device: bool,
    w: &Weights,
) {
    let others = ev.points(&OTHERS) + ev.points_on(&CLIENT, EntityKind::Prefix);
    if others <= 0.0 {
        return;
    }
    let requests = f64::from(client.requests[H1H]);
    let (attempts, users) = tried;
    // Several attempts for one user are mostly a person's.
    let per_attempt = (requests - attempts).max(0.0) / (users + 0.25 * attempts + 1.0);
    let browsing = (ramp(per_attempt, 0.7, 5.0) * 30.0).min(others);
    ev.set(Signal::BrowsingHistory, EntityKind::Session, -browsing, per_attempt, 0.7, w);
    if known_device {
        ev.set(Signal::KnownDevice, EntityKind::User, -(30.0f64.min(others - browsing)), 1.0, 0.0, w);
    }
}

/// What is usual among unsuspicious clients that claim to be browsers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habits {
    /// Share of transactions whose header set contradicts the User-Agent.
    pub(crate) contradicted: f64,
    /// Pages among the requests.
    pub(crate) pages: f64,
    /// Assets per page.
    pub(crate) assets: f64,
}

/// Rates how fast, how evenly and how completely a client asks; `browser`: it claims to be one.
pub(crate) fn rhythm(
    ev: &mut Evidence,
    kind: EntityKind,
    entity: &Entity,
    browser: bool,
    contradicted: bool,
    habits: &Habits,
    w: &Weights,
) {
    let per_second = f64::from(entity.requests[H1M]) / 60.0;
    let (low, high) = if kind == EntityKind::Session { (5.0, 25.0) } else { (15.0, 75.0) };
    if per_second > low {
        ev.set(Signal::RequestRate, kind, ramp(per_second, low, high) * 25.0, per_second, low, w);
    }
    // A library that says so may be as regular as it likes: it is a partner's client, or nobody's secret.
    if !browser || entity.total < 20 {
        return;
    }
    let bare = f64::from(entity.assets) < 0.5;
    // A page polls its API evenly, so only a client that never loaded a page, or loads nothing but pages,
    // or lies about itself, is meant.
    let alone =
        bare && (entity.pages < 0.5 || f64::from(entity.pages) > 0.9 * f64::from(entity.requests[H1H]));
    if (alone || contradicted)
        && let Some((mean, cv)) = entity.timing.rhythm()
    {
        let points = ramp(0.25 - cv, 0.0, 0.1) * ramp(120.0 - mean, 0.0, 100.0) * 35.0;
        if points > 0.0 {
            ev.set(Signal::RequestRegularity, kind, points, cv, 1.0, w);
        }
    }
    if !bare {
        return;
    }
    let pages = f64::from(entity.pages);
    let lacking = if pages >= 1.0 {
        ramp(pages, 10.0, 30.0) * ramp(habits.assets, 0.2, 1.0)
    } else {
        ramp(f64::from(entity.requests[H1H]), 20.0, 40.0) * ramp(habits.pages, 0.01, 0.05)
    };
    if lacking > 0.0 {
        ev.set(Signal::PagesWithoutAssets, kind, lacking * 20.0, pages, habits.assets, w);
    }
}

/// Rates a User-Agent that the header set contradicts.
pub(crate) fn contradiction(ev: &mut Evidence, habits: &Habits, w: &Weights) {
    // Half of the bots that claim a browser are caught by it; of people, as many as traffic shows.
    let points = (0.5 / habits.contradicted.max(0.02)).ln() * 10.0;
    ev.set(Signal::StackContradicted, EntityKind::Fingerprint, points.max(0.0), 1.0, habits.contradicted, w);
}

#[cfg(test)]
mod tests {
    use offpath_types::Timestamp;

    use super::*;
    use crate::math::mix;

    const W: Weights = [1.0; Signal::COUNT];

    fn record(users: u32, failures: f32, successes: f32, baseline: f32) -> LoginState {
        let mut login = LoginState::new(Timestamp::ZERO);
        for user in 0..users {
            login.peers_failed.insert(mix(u128::from(user)), 0);
        }
        login.failures = [failures; 4];
        login.guesses = [failures; 4];
        login.successes = [successes; 4];
        login.baseline = baseline;
        login
    }

    #[test]
    fn clients_by_their_record() {
        for (name, users, failures, successes, baseline, least, most) in [
            ("two typos", 1, 2.0, 0.0, 0.09, 0, 0),
            ("forgetful, six", 1, 6.0, 0.0, 0.09, 0, 5),
            ("forgetful, ten at once", 1, 10.0, 0.0, 0.09, 0, 40),
            ("family", 3, 5.0, 6.0, 0.09, 0, 5),
            ("office", 10, 14.0, 190.0, 0.05, 0, 0),
            ("office, bad morning", 20, 30.0, 100.0, 0.05, 0, 5),
            ("everybody fails", 8, 8.0, 8.0, 0.5, 0, 10),
            ("list, seven users", 7, 7.0, 0.0, 0.09, 75, 100),
            ("list, twelve users", 12, 12.0, 0.0, 0.09, 98, 100),
            ("list with hits", 30, 30.0, 3.0, 0.09, 98, 100),
            ("one account, 25 times", 1, 25.0, 0.0, 0.09, 90, 100),
        ] {
            let mut ev = Evidence::new();
            client(&mut ev, EntityKind::Ip, &record(users, failures, successes, baseline), &W);
            let have = ev.confidence(0.005);
            assert!((least..=most).contains(&have), "{name}: {have} {:?}", ev.contributions());
        }
    }

    #[test]
    fn clients_whose_outcomes_nobody_knows() {
        for (name, users, attempts, told, others, browsing, least, most) in [
            ("one after the other", 20, 20.0, 0.0, 0.0, 0.5, 90, 100),
            ("with the form before", 30, 30.0, 0.0, 15.0, 0.5, 90, 100),
            ("a family", 6, 9.0, 0.0, 0.0, 0.5, 0, 5),
            ("one user", 1, 100.0, 0.0, 0.0, 0.5, 0, 0),
            ("an office", 300, 320.0, 0.0, 2000.0, 0.5, 0, 0),
            ("an office with a little browsing", 300, 320.0, 0.0, 500.0, 0.5, 0, 0),
            ("outcomes known", 40, 40.0, 40.0, 0.0, 0.5, 0, 0),
            ("everybody only logs in", 40, 40.0, 0.0, 0.0, 0.1, 0, 0),
        ] {
            let mut client = Entity::new(Timestamp::ZERO);
            client.requests = [attempts + others; 4];
            let mut login = LoginState::new(Timestamp::ZERO);
            for user in 0..users {
                login.peers.insert(mix(user), 0);
            }
            login.attempts = [attempts; 4];
            login.untold = attempts - told;
            let mut ev = Evidence::new();
            untold(&mut ev, &client, &login, browsing, &W);
            let have = ev.confidence(0.005);
            assert!((least..=most).contains(&have), "{name}: {have} {:?}", ev.contributions());
        }
    }

    #[test]
    fn clients_by_how_fast_they_ask() {
        let habits = Habits { contradicted: 0.02, pages: 0.1, assets: 4.0 };
        for (name, kind, per_second, want) in [
            ("a page and its assets", EntityKind::Session, 3.0, 0.0),
            ("a session", EntityKind::Session, 15.0, 12.5),
            ("a session, far beyond", EntityKind::Session, 200.0, 25.0),
            ("an office", EntityKind::Ip, 15.0, 0.0),
            ("an address", EntityKind::Ip, 45.0, 12.5),
        ] {
            let mut client = Entity::new(Timestamp::ZERO);
            client.requests = [per_second * 60.0; 4];
            let mut ev = Evidence::new();
            rhythm(&mut ev, kind, &client, false, false, &habits, &W);
            assert_eq!(ev.part(Signal::RequestRate).points, want, "{name}");
        }
    }

    #[test]
    fn shares_of_cells() {
        for (failures, attempts, low, high) in [
            (0.0, 0.0, 0.0, 0.0),
            (4.0, 40.0, 0.0, 0.01),
            (20.0, 20.0, 0.85, 0.95),
            (500.0, 505.0, 0.98, 0.985),
        ] {
            let share = cell_share(failures, attempts, 0.09);
            assert!((low..=high).contains(&share), "{failures}/{attempts}: {share}");
        }
    }

    #[test]
    fn history_outweighs_others_only() {
        let mut ev = Evidence::new();
        ev.set(Signal::CellFailureRatio, EntityKind::Fingerprint, 20.0, 0.5, 0.09, &W);
        let mut client = Entity::new(Timestamp::ZERO);
        client.requests = [50.0; 4];
        history(&mut ev, &client, (1.0, 1.0), true, &W);
        assert_eq!(ev.points(&[Signal::BrowsingHistory, Signal::KnownDevice]), -20.0);
        let mut own = Evidence::new();
        own.set(Signal::LoginFailureRate, EntityKind::Ip, 70.0, 30.0, 1.0, &W);
        history(&mut own, &client, (1.0, 1.0), true, &W);
        assert_eq!(own.points(&[Signal::BrowsingHistory]), 0.0);
    }
}
