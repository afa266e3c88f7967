//! The signals: their names, whom they are about, and how much each may give.

use offpath_types::EntityKind;

macro_rules! signals {
    ($($variant:ident, $name:literal, $entity:ident, $low:literal ..= $high:literal, $doc:literal;)*) => {
        /// One named observation. Names are stable: policies and records use them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Signal { $(#[doc = $doc] $variant),* }

        impl Signal {
            /// Every signal, in the order of this table.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Returns the name used in records and policies.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// Returns what is observed, in one sentence.
            pub const fn description(self) -> &'static str {
                match self { $(Self::$variant => $doc),* }
            }

            /// Returns the kind of entity that it is mostly observed on (a contribution names the one meant).
            pub const fn entity(self) -> EntityKind {
                match self { $(Self::$variant => EntityKind::$entity),* }
            }

            /// Returns the least and the most points that it gives, at weight 1. 10 points are a factor of
            /// e in the odds; from the prior of 0.5 %, 75 points make a confidence of 90.
            pub const fn range(self) -> (f64, f64) {
                match self { $(Self::$variant => ($low, $high)),* }
            }
        }
    };
}

signals! {
    LoginFailureRate, "login_failure_rate", Ip, 0.0 ..= 70.0,
        "Failed logins of one address, session or prefix per minute, ten minutes or hour, with few successes beside them; the same user and password again does not count.";
    LoginFailureRatio, "login_failure_ratio", Ip, 0.0 ..= 45.0,
        "Log-likelihood ratio of a client's refused users and successes: automated list against people at the endpoint's own failure ratio.";
    DistinctUsers, "distinct_users", Ip, 0.0 ..= 80.0,
        "Users that one address, session or prefix was refused for (at most 50 points); users that an address tried, where no outcome can be read and it does little but log in.";
    AccountHammered, "account_hammered", User, 0.0 ..= 60.0,
        "Failed logins on one account, from anywhere; the same password again does not count.";
    DistinctAddresses, "distinct_addresses", User, 0.0 ..= 35.0,
        "Addresses that one account refused.";
    PasswordSprayed, "password_sprayed", User, 0.0 ..= 75.0,
        "Users that one and the same password was refused for.";
    LoginWithoutPage, "login_without_page", Ip, 0.0 ..= 20.0,
        "A login from a client that loaded no page before, where successful logins on this endpoint and stack do.";
    CellFailureRatio, "cell_failure_ratio", Fingerprint, 0.0 ..= 100.0,
        "Share of automated attempts in the cell (client stack × login endpoint), once a sequential test found its failures off the baseline.";
    CellLoginSurge, "cell_login_surge", Fingerprint, 0.0 ..= 25.0,
        "Login attempts of a cell far above its own rate (sequential Poisson test), not ending in success.";
    LoginSurge, "login_surge", Endpoint, 0.0 ..= 10.0,
        "Login attempts of the whole endpoint far above its own rate, not ending in success.";
    FingerprintRare, "fingerprint_rare", Fingerprint, 0.0 ..= 15.0,
        "A client stack with a large share of the failed logins and next to none of the successful ones.";
    LoginOutcome, "login_outcome", Endpoint, -16.0 ..= 15.0,
        "How an attempt ended, where others like it (cell, prefix) are suspect: refusals fit, successes speak against.";
    RequestRate, "request_rate", Session, 0.0 ..= 25.0,
        "Requests per second of a session or an address, beyond what a person's browser does.";
    RequestRegularity, "request_regularity", Session, 0.0 ..= 35.0,
        "A claimed browser's page and API requests at even intervals (value: their coefficient of variation).";
    PagesWithoutAssets, "pages_without_assets", Ip, 0.0 ..= 20.0,
        "A claimed browser that loads pages or calls APIs but never the scripts, styles, images or pages that others load.";
    StackContradicted, "stack_contradicted", Fingerprint, 0.0 ..= 30.0,
        "The header set contradicts the User-Agent (baseline: share of unsuspicious transactions where it does).";
    BrowsingHistory, "browsing_history", Session, -30.0 ..= 0.0,
        "The client has done much else than log in; outweighs evidence that only others like it gave.";
    KnownDevice, "known_device", User, -30.0 ..= 0.0,
        "The user has logged in from this address with this stack before; outweighs evidence that others gave.";
}

impl Signal {
    pub(crate) const COUNT: usize = Self::ALL.len();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_snake_case() {
        let mut names: Vec<_> = Signal::ALL.iter().map(|s| s.name()).collect();
        assert!(names.iter().all(|n| n.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Signal::COUNT);
        for (i, signal) in Signal::ALL.iter().enumerate() {
            assert_eq!(*signal as usize, i);
            assert!(signal.description().ends_with('.'));
            assert!(signal.range().0 <= 0.0 && signal.range().1 >= 0.0);
        }
    }
}
