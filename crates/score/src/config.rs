//! What an operator can set.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use offpath_types::{BodyHint, RedirectClass, Transaction};

/// How many entities of each kind are remembered; beyond it the least useful one is evicted and counted.
///
/// An entity costs about 120 bytes, plus about 500 bytes once it has tried to log in, plus 560 bytes for
/// each of its sets that grew past 16 members. A cap of 0 is taken as 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntityCaps {
    /// Client addresses.
    pub ip: u32,
    /// Client prefixes.
    pub prefix: u32,
    /// Sessions.
    pub session: u32,
    /// Users.
    pub user: u32,
    /// Client stacks.
    pub fingerprint: u32,
    /// Endpoints.
    pub endpoint: u32,
    /// Cells: client stack × login endpoint.
    pub cell: u32,
    /// Password hashes under watch.
    pub password: u32,
}

impl Default for EntityCaps {
    fn default() -> Self {
        Self {
            ip: 500_000,
            prefix: 200_000,
            session: 500_000,
            user: 500_000,
            fingerprint: 16_384,
            endpoint: 16_384,
            cell: 32_768,
            password: 100_000,
        }
    }
}

/// When a response means one outcome. Every condition that is set must hold; with none set it never holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutcomeRule {
    /// Status codes; empty: any.
    pub statuses: Vec<RangeInclusive<u16>>,
    /// The Location contains this text.
    pub redirect_contains: Option<String>,
    /// The response sets a cookie, or sets none.
    pub sets_cookie: Option<bool>,
    /// What the body says.
    pub body_hint: Option<BodyHint>,
}

impl OutcomeRule {
    /// Tells whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }

    pub(crate) fn holds(&self, tx: &Transaction, status: u16) -> bool {
        !self.is_empty()
            && (self.statuses.is_empty() || self.statuses.iter().any(|r| r.contains(&status)))
            && self.redirect_contains.as_ref().is_none_or(|want| {
                tx.login.redirect != RedirectClass::None
                    && contains(tx.text.get(tx.location), want.as_bytes())
            })
            && self.sets_cookie.is_none_or(|want| want == tx.login.sets_cookie)
            && self.body_hint.is_none_or(|want| want == tx.login.body_hint)
    }
}

/// A login endpoint as the operator knows it; wins over what is learned.
///
/// A response is looked at by `success` first, then by `failure`. Where only one of them is set, every
/// other response is the opposite; where neither is set, outcomes are learned as on any endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoginRule {
    /// Request method; `None`: POST and PUT.
    pub method: Option<String>,
    /// Path as in the endpoint (decoded, resolved, without parameters), but without placeholders; `*` stands for
    /// any run of characters. A slash at the end makes no difference.
    pub path: String,
    /// Responses that let the user in.
    pub success: OutcomeRule,
    /// Responses that refuse the user.
    pub failure: OutcomeRule,
}

impl LoginRule {
    /// Tells whether it is about `method` and `path`, which is a [`normal_path`].
    pub(crate) fn applies(&self, method: &[u8], path: &[u8]) -> bool {
        let method_fits = match &self.method {
            Some(want) => want.as_bytes() == method,
            None => method == b"POST" || method == b"PUT",
        };
        let pattern = self.path.as_bytes();
        method_fits
            && (glob(pattern, path)
                || path.strip_suffix(b"/").is_some_and(|p| glob(pattern, p))
                || pattern.strip_suffix(b"/").is_some_and(|p| !p.is_empty() && glob(p, path)))
    }
}

/// Settings of a [`crate::Scorer`].
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreConfig {
    /// Caps of the entity tables.
    pub entities_max: EntityCaps,
    /// Login endpoints that the operator knows; the first that applies wins.
    pub logins: Vec<LoginRule>,
    /// Find login endpoints from traffic too (password fields, paths).
    pub logins_learned: bool,
    /// Half of the memory of "distinct users" and the like, in seconds: members are forgotten between one
    /// and two of these after they were last seen.
    pub distinct_window_secs: u32,
    /// Share of automated abuse among all transactions before anything is known; 0.005 is 1 in 200.
    pub prior: f64,
    /// Failure ratio expected of people on a login endpoint that has no history.
    pub failure_ratio_prior: f64,
    /// How many attempts that expectation weighs as much as.
    pub failure_ratio_prior_weight: f64,
    /// False-alarm rate of one cell's sequential test: chance that a cell whose people fail at the
    /// baseline ratio is ever called hot, per excursion (Lorden's bound for CUSUM).
    pub cell_error_rate: f64,
    /// Confidence from which a successful login puts the account at risk, 0..=100.
    pub risk_confidence: u8,
    /// Guesses refused on one account (decayed over an hour) after which a success puts it at risk, unless the
    /// client is one that the user has used before. The same password again is no guess.
    pub risk_failures: u32,
    /// Multiplies every signal's points, by name; a signal that is not listed has weight 1, 0 turns it off, and
    /// a name that no signal has does nothing.
    pub weights: Vec<(String, f64)>,
    /// Verdicts below this confidence, 0..=100, and verdicts of 0 list no contributions, unless a policy proposed
    /// something.
    pub explain_confidence: u8,
}

impl Default for ScoreConfig {
    fn default() -> Self {
        Self {
            entities_max: EntityCaps::default(),
            logins: Vec::new(),
            logins_learned: true,
            distinct_window_secs: 1800,
            prior: 0.005,
            failure_ratio_prior: 0.09,
            failure_ratio_prior_weight: 40.0,
            cell_error_rate: 1e-5,
            risk_confidence: 75,
            risk_failures: 12,
            weights: Vec::new(),
            explain_confidence: 10,
        }
    }
}

/// Tells whether `text` contains `part`; an empty part is in every text.
pub(crate) fn contains(text: &[u8], part: &[u8]) -> bool {
    part.is_empty() || text.windows(part.len()).any(|w| w == part)
}

/// Spells a path as endpoints do: unreserved characters decoded, empty and dot segments resolved, without
/// parameters. So a server that takes two spellings for one path has one rule for both.
pub(crate) fn normal_path(path: &[u8]) -> Cow<'_, [u8]> {
    let odd = |pair: &[u8]| matches!(pair, [b'/', b'/' | b'.'] | [b'%' | b';', _] | [_, b';']);
    if !path.starts_with(b"/") || !path.windows(2).any(odd) {
        return Cow::Borrowed(path);
    }
    let mut out = Vec::with_capacity(path.len());
    for segment in path.split(|c| *c == b'/') {
        let start = out.len();
        out.push(b'/');
        let mut rest = segment.split(|c| *c == b';').next().unwrap_or_default();
        while let [first, after @ ..] = rest {
            let decoded = match rest {
                [b'%', high, low, ..] => unreserved(*high, *low),
                _ => None,
            };
            out.push(decoded.unwrap_or(*first));
            rest = if decoded.is_some() { &rest[3..] } else { after };
        }
        match &out[start + 1..] {
            b"" | b"." => out.truncate(start),
            b".." => {
                out.truncate(start);
                out.truncate(out.iter().rposition(|c| *c == b'/').unwrap_or(0));
            }
            _ => {}
        }
    }
    if out.is_empty() || path.ends_with(b"/") {
        out.push(b'/');
    }
    Cow::Owned(out)
}

/// Decodes two hexadecimal digits, where that is a character that may stand for itself (RFC 3986 §6.2.2.2) or `@`.
fn unreserved(high: u8, low: u8) -> Option<u8> {
    let digit = |c: u8| char::from(c).to_digit(16);
    let byte = (digit(high)? << 4 | digit(low)?) as u8;
    (byte.is_ascii_alphanumeric() || b"-._~@".contains(&byte)).then_some(byte)
}

/// Matches `*` wildcards; O(pattern × text), both short and the pattern the operator's.
pub(crate) fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((sp, st)) => {
                    star = Some((sp, st + 1));
                    p = sp + 1;
                    t = st + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_spelt_as_endpoints_spell_them() {
        for (path, want) in [
            ("/login", "/login"),
            ("/", "/"),
            ("", ""),
            ("*", "*"),
            ("/users/", "/users/"),
            ("/login;register", "/login"),
            ("/login;", "/login"),
            ("/;x/login", "/login"),
            ("/register/../login", "/login"),
            ("/login/..;/forgot/../login", "/login"),
            ("/x/%72eset/../../login", "/login"),
            ("/%6cogin", "/login"),
            ("/%2e%2E/%2e/login", "/login"),
            ("//login", "/login"),
            ("/./login/.", "/login"),
            ("/../..", "/"),
            ("/login//", "/login/"),
            ("/a%2Fb/%4", "/a%2Fb/%4"),
            ("/.well-known/x", "/.well-known/x"),
        ] {
            assert_eq!(normal_path(path.as_bytes()), path_bytes(want), "{path}");
        }
        let long = format!("/{}login", "x/../".repeat(20_000));
        assert_eq!(normal_path(long.as_bytes()), path_bytes("/login"));
    }

    fn path_bytes(text: &str) -> Cow<'_, [u8]> {
        Cow::Borrowed(text.as_bytes())
    }

    #[test]
    fn a_login_rule_holds_for_every_spelling_of_its_path() {
        for (pattern, path, want) in [
            ("/login", "/login", true),
            ("/login", "/login/", true),
            ("/login/", "/login", true),
            ("/login", "/login;register", true),
            ("/login", "/register/../login", true),
            ("/login", "/%6cogin", true),
            ("/login", "//login", true),
            ("/login", "/login/../register", false),
            ("/admin/*", "/admin/../login", false),
            ("/admin/*", "/x/../admin/login", true),
            ("/", "/login", false),
            ("/", "/", true),
            ("/*", "/login", true),
        ] {
            let rule = LoginRule { path: pattern.into(), ..LoginRule::default() };
            assert_eq!(rule.applies(b"POST", &normal_path(path.as_bytes())), want, "{pattern} {path}");
        }
    }

    #[test]
    fn globs() {
        for (pattern, text, want) in [
            ("/login", "/login", true),
            ("/login", "/login2", false),
            ("/*/login", "/v1/login", true),
            ("/*/login", "/login", false),
            ("*", "", true),
            ("/a*b*c", "/axxbyyc", true),
            ("/a*b*c", "/axxbyy", false),
            ("", "", true),
            ("", "/", false),
            ("**a", "aaaa", true),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), want, "{pattern} {text}");
        }
    }
}
