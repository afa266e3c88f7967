//! Which names of fields, parameters and cookies mean what.

use super::secret::percent;

/// A field name reduced to what telling names apart needs: its last component, in lower case, without
/// separators. `user[Pass_word]`, `login.password` and `ctl00$Password` all become `password`.
// Invariant: `len <= buf.len()`.
pub(super) struct Reduced {
    buf: [u8; Self::MAX],
    len: usize,
}

impl Reduced {
    /// Longest reduced name; of a longer one its end is kept, at least half of this.
    const MAX: usize = 48;

    /// Reduces `name`; `encoded` where it comes from a form or query (`%xx`, `+`).
    pub(super) fn new(name: &[u8], encoded: bool) -> Self {
        let name = name.strip_suffix(b"[]").unwrap_or(name);
        let mut out = Self { buf: [0; Self::MAX], len: 0 };
        let mut at = 0;
        // After a bracket that may turn out to be empty (`password%5B%5D`).
        let mut bracket = false;
        while let Some(&c) = name.get(at) {
            at += 1;
            let mut c = c;
            // However often it was encoded (`pass%2577ord`).
            while encoded
                && c == b'%'
                && let [high, low, ..] = name[at..]
                && let Some(byte) = percent(&[b'%', high, low])
            {
                c = byte;
                at += 2;
            }
            // A number is a place in a list: `password[0]` is `password0`.
            if bracket && c != b']' && !c.is_ascii_digit() {
                out.len = 0;
            }
            bracket = c == b'[';
            match c {
                b'.' | b':' | b'$' | b'/' => out.len = 0,
                // Some programs end a name at a NUL or pass over what cannot be seen.
                b'[' | b']' | b'_' | b'-' | b'+' | 0x7f | ..=b' ' => {}
                _ => {
                    if out.len == Self::MAX {
                        out.buf.copy_within(Self::MAX / 2.., 0);
                        out.len = Self::MAX / 2;
                    }
                    out.buf[out.len] = c.to_ascii_lowercase();
                    out.len += 1;
                }
            }
        }
        out
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.buf[..self.len]
    }
}

/// What programs put before a field's real name (`j_username`, `txtUserPassword`).
const PREFIXES: &[&[u8]] = &[
    b"account",
    b"auth",
    b"client",
    b"current",
    b"customer",
    b"field",
    b"form",
    b"frm",
    b"input",
    b"j",
    b"log",
    b"login",
    b"member",
    b"my",
    b"old",
    b"os",
    b"session",
    b"signin",
    b"tb",
    b"txt",
    b"user",
    b"wp",
    b"your",
];

/// A configured list of field names, ready to be matched against reduced names.
pub(super) struct FieldNames {
    names: Vec<Box<[u8]>>,
    /// Place in the configured list of each name: pointers stand between them.
    ranks: Vec<u16>,
    /// Bit `last_two(name)` of every name: most other names fail here.
    filter: [u64; 4],
}

impl FieldNames {
    /// Reduces and takes over the names of `list`; its order is the order of preference.
    pub(super) fn new(list: &[String]) -> Self {
        let mut out = Self { names: Vec::with_capacity(list.len()), ranks: Vec::new(), filter: [0; 4] };
        for (rank, name) in (0..=u16::MAX).zip(list) {
            if name.starts_with('/') {
                continue;
            }
            let reduced = Reduced::new(name.to_lowercase().as_bytes(), false);
            if !reduced.bytes().is_empty() {
                let bit = last_two(reduced.bytes());
                out.filter[usize::from(bit >> 6)] |= 1 << (bit & 63);
                out.names.push(reduced.bytes().into());
                out.ranks.push(rank);
            }
        }
        out
    }

    /// Returns the place in the list of the name that `reduced` is, behind at most two usual prefixes.
    pub(super) fn rank(&self, reduced: &[u8]) -> Option<u16> {
        if reduced.is_empty() {
            return None;
        }
        if !holds(&self.filter, last_two(reduced)) {
            return None;
        }
        let exact = self.names.iter().position(|n| **n == *reduced);
        let found = exact.or_else(|| {
            self.names
                .iter()
                .position(|n| n.len() >= 4 && reduced.strip_suffix(&**n).is_some_and(usual_prefix))
        });
        found.map(|at| self.ranks[at])
    }
}

const fn last_two(name: &[u8]) -> u8 {
    match name {
        [.., a, b] => a.wrapping_mul(31) ^ *b,
        [b] => *b,
        [] => 0,
    }
}

/// Adds bit `last_two(name)` of every name in `list`.
const fn with_endings(mut filter: [u64; 4], list: &[&[u8]]) -> [u64; 4] {
    let mut at = 0;
    while at < list.len() {
        let bit = last_two(list[at]);
        filter[(bit >> 6) as usize] |= 1 << (bit & 63);
        at += 1;
    }
    filter
}

fn holds(filter: &[u64; 4], bit: u8) -> bool {
    filter[usize::from(bit >> 6)] & (1 << (bit & 63)) != 0
}

/// Tells whether [`FieldNames::rank`] of either list or [`secrecy`] may have something to say of an encoded
/// `name`. Cheap, from its last two letters; most parameters end here. True is a "maybe".
pub(super) fn may_matter(name: &[u8], users: &FieldNames, passwords: &FieldNames) -> bool {
    let [.., a, b] = name else { return true };
    // The reduced name ends in the same two letters, unless they belong to a percent-encoding.
    let encoded = name.iter().rev().skip(2).take(8).any(|c| *c == b'%');
    if encoded || !a.is_ascii_alphanumeric() || !b.is_ascii_alphanumeric() {
        return true;
    }
    let bit = last_two(&[a.to_ascii_lowercase(), b.to_ascii_lowercase()]);
    if holds(&users.filter, bit) || holds(&passwords.filter, bit) || holds(&SECRET_FILTER, bit) {
        return true;
    }
    // `password1`, `password_confirmation`; what is before the number ends in no digit, so this ends at once.
    if b.is_ascii_digit() {
        let stem = name.len() - name.iter().rev().take_while(|c| c.is_ascii_digit()).count();
        return may_matter(&name[..stem], users, passwords);
    }
    holds(&AGAIN_FILTER, bit)
}

/// What is put behind the name of a field that wants the same once more, reduced.
const AGAIN: &[&[u8]] = &[
    b"again",
    b"check",
    b"confirm",
    b"confirmation",
    b"confirmed",
    b"repeat",
    b"retype",
    b"verification",
    b"verify",
];
/// What is put before the name of a password that is not the one in use, or that wants it once more.
// A longer one before a shorter one that it begins with.
const OTHER_PREFIXES: &[&[u8]] = &[
    b"again",
    b"confirmation",
    b"confirm",
    b"new",
    b"orig",
    b"previous",
    b"repeat",
    b"retype",
    b"re",
    b"verify",
];

/// Bit `last_two(name)` of [`AGAIN`].
const AGAIN_FILTER: [u64; 4] = with_endings([0; 4], AGAIN);

/// Takes numbers and words like `confirmation` off the end of a reduced name, as far as something is left.
fn stem(mut reduced: &[u8]) -> &[u8] {
    loop {
        let digits = reduced.iter().rev().take_while(|c| c.is_ascii_digit()).count();
        let shorter = &reduced[..reduced.len() - digits];
        let shorter = AGAIN
            .iter()
            .filter_map(|word| shorter.strip_suffix(*word))
            .min_by_key(|rest| rest.len())
            .unwrap_or(shorter);
        if shorter.is_empty() || shorter.len() == reduced.len() {
            return reduced;
        }
        reduced = shorter;
    }
}

/// Tells what to do with the value of a parameter: like [`secrecy`], and what is a variation of a name is like it
/// (`password2`, `pwd_confirm`, `new_pass`, `token2`).
pub(super) fn secrecy_like(reduced: &[u8], passwords: &FieldNames) -> Secrecy {
    let known = secrecy(reduced);
    if known != Secrecy::Open {
        return known;
    }
    if is_other_password(reduced, passwords) {
        return Secrecy::Secret;
    }
    let stem = stem(reduced);
    if stem.len() < reduced.len() { secrecy(stem) } else { known }
}

/// Tells whether a reduced name is a variation of a password's: one more, or one that is not in use yet.
pub(super) fn is_other_password(reduced: &[u8], passwords: &FieldNames) -> bool {
    let stem = stem(reduced);
    let mut bare = stem;
    while let Some(rest) = OTHER_PREFIXES.iter().find_map(|p| bare.strip_prefix(*p)) {
        bare = rest;
    }
    stem.ends_with(b"password") || passwords.rank(stem).is_some() || passwords.rank(bare).is_some()
}

fn usual_prefix(text: &[u8]) -> bool {
    PREFIXES
        .iter()
        .any(|p| text.strip_prefix(*p).is_some_and(|rest| rest.is_empty() || PREFIXES.contains(&rest)))
}

/// What redaction does with the value of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Secrecy {
    /// Kept.
    Open,
    /// Replaced.
    Secret,
    /// Replaced where it is at least [`SESSION_VALUE_BYTES_MIN`] long: `sid=159106` is an article, no session.
    SecretIfLong,
    /// Replaced where it is at least [`CODE_VALUE_BYTES_MIN`] long: `code=DE` is a country, `state=open` no OAuth.
    SecretIfVeryLong,
}

impl Secrecy {
    /// Tells whether a value of `len` bytes is replaced.
    pub(super) fn covers(self, len: usize) -> bool {
        match self {
            Self::Open => false,
            Self::Secret => len > 0,
            Self::SecretIfLong => len >= SESSION_VALUE_BYTES_MIN,
            Self::SecretIfVeryLong => len >= CODE_VALUE_BYTES_MIN,
        }
    }
}

/// Shortest value that a session-like parameter is redacted for.
const SESSION_VALUE_BYTES_MIN: usize = 8;
/// Shortest value that a parameter with a name of many meanings is redacted for.
const CODE_VALUE_BYTES_MIN: usize = 16;

/// Sorted, for the binary search.
const SECRET_NAMES: &[&[u8]] = &[
    b"accountnumber",
    b"apikey",
    b"assertion",
    b"auth",
    b"authcode",
    b"authkey",
    b"authorization",
    b"authorizationcode",
    b"bearer",
    b"cardcvc",
    b"cardcvv",
    b"cardno",
    b"cardnumber",
    b"ccn",
    b"ccnum",
    b"ccnumber",
    b"codeverifier",
    b"creditcard",
    b"creditcardnumber",
    b"cvc",
    b"cvv",
    b"cvv2",
    b"iban",
    b"jwt",
    b"mfacode",
    b"oauthverifier",
    b"otp",
    b"otpcode",
    b"pan",
    b"pin",
    b"pincode",
    b"samlresponse",
    b"smscode",
    b"socialsecuritynumber",
    b"ssn",
    b"totp",
    b"totpcode",
    b"xamzcredential",
    b"xamzsignature",
    b"xgoogcredential",
    b"xgoogsignature",
];

/// Names with many meanings, of which one is a secret, sorted.
const CODE_NAMES: &[&[u8]] = &[b"code", b"credential", b"devicecode", b"hmac", b"key", b"sig", b"state"];

/// Endings of names that [`secrecy`] looks for.
const SECRET_ENDINGS: &[&[u8]] = &[
    b"token",
    b"secret",
    b"password",
    b"apikey",
    b"accesskey",
    b"privatekey",
    b"secretkey",
    b"sid",
    b"session",
    b"sessid",
    b"sessionid",
    b"sessionkey",
    b"signature",
    b"ticket",
];

/// Bit `last_two(name)` of every name that [`secrecy`] does not call open.
const SECRET_FILTER: [u64; 4] =
    with_endings(with_endings(with_endings([0; 4], SECRET_NAMES), SECRET_ENDINGS), CODE_NAMES);

/// Beginnings of names that end in `token` and only say where a list goes on.
const PAGE_TOKENS: &[&[u8]] =
    &[b"continuation", b"cursor", b"next", b"page", b"prev", b"resume", b"start", b"sync"];

/// Tells what to do with the value of a parameter that is no configured password field.
pub(super) fn secrecy(reduced: &[u8]) -> Secrecy {
    if reduced.len() < 3 {
        return Secrecy::Open;
    }
    let ends = |suffix: &[u8]| reduced.ends_with(suffix);
    let secret = SECRET_NAMES.binary_search(&reduced).is_ok()
        || (ends(b"token") && !PAGE_TOKENS.iter().any(|p| reduced.starts_with(p)))
        || ends(b"secret")
        || ends(b"password")
        || ends(b"apikey")
        || ends(b"accesskey")
        || ends(b"privatekey")
        || ends(b"secretkey");
    if secret {
        Secrecy::Secret
    } else if reduced == b"sid"
        || reduced == b"session"
        || reduced == b"ticket"
        || ends(b"sessid")
        || ends(b"sessionid")
        || ends(b"sessionkey")
    {
        Secrecy::SecretIfLong
    } else if CODE_NAMES.binary_search(&reduced).is_ok() || ends(b"signature") {
        Secrecy::SecretIfVeryLong
    } else {
        Secrecy::Open
    }
}

/// Tells whether a secret parameter also serves as the caller's identity: an API key or access token.
pub(super) fn identifies_caller(reduced: &[u8]) -> bool {
    matches!(reduced, b"apikey" | b"accesstoken" | b"authtoken" | b"sid" | b"session")
        || reduced.ends_with(b"sessid")
        || reduced.ends_with(b"sessionid")
}

/// Longest cookie name that is tried.
const COOKIE_NAME_BYTES_MAX: usize = 64;

/// Beginnings, after leading underscores, of cookies that count visits for somebody else.
const FOREIGN_COOKIES: &[&[u8]] = &[
    b"ai_",
    b"ajs_",
    b"amp_",
    b"cf_",
    b"fbp",
    b"fbsr",
    b"ga",
    b"gcl",
    b"gid",
    b"hj",
    b"hssc",
    b"incap",
    b"intercom",
    b"mp_",
    b"optanon",
    b"pk_",
    b"px",
    b"utm",
    b"visid",
];

/// Tells whether a cookie's name says that it is a session.
///
/// Yes: `sid`, `connect.sid`, everything with `sess` in it, `…token`, `auth…`, `…auth`, `…jwt`,
/// `wordpress_logged_in_…`. No: CSRF tokens and the session counters of analytics products.
pub(super) fn session_like_cookie(name: &[u8]) -> bool {
    if name.len() < 3 || name.len() > COOKIE_NAME_BYTES_MAX {
        return false;
    }
    let mut buf = [0; COOKIE_NAME_BYTES_MAX];
    let lower = &mut buf[..name.len()];
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    let lower = &*lower;
    let body = lower.strip_prefix(b"__host-").or(lower.strip_prefix(b"__secure-")).unwrap_or(lower);
    let stem = body.trim_ascii_start();
    let stem = &stem[stem.iter().take_while(|c| **c == b'_').count()..];
    let has = |word: &[u8]| stem.windows(word.len()).any(|w| w == word);
    let yes = match stem.strip_suffix(b"sid") {
        Some(before) => before.last().is_none_or(|c| !c.is_ascii_alphabetic()),
        None => false,
    } || has(b"sess")
        || stem.ends_with(b"token")
        || stem.ends_with(b"jwt")
        || stem.ends_with(b"auth")
        || (stem.starts_with(b"auth") && !stem.starts_with(b"author"))
        || stem.starts_with(b"wordpress_logged_in");
    yes && !has(b"csrf") && !has(b"xsrf") && !FOREIGN_COOKIES.iter().any(|p| stem.starts_with(p))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> FieldNames {
        FieldNames::new(&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn tables_are_sorted() {
        assert!(SECRET_NAMES.is_sorted() && CODE_NAMES.is_sorted());
    }

    #[test]
    fn the_filter_passes_every_name_that_matters() {
        let (users, passwords) = (list(&["user", "e-mail"]), list(&["password", "pwd", "пароль"]));
        let known = SECRET_NAMES.iter().chain(SECRET_ENDINGS).chain(CODE_NAMES).map(|n| n.to_vec());
        let spelled = [
            "pwd%5B%5D",
            "passwor%2564",
            "passwo%2572d",
            "p%2577%2564",
            "User",
            "user[e_mail]",
            "pass%77ord",
            "passwor%64",
            "passwo%72d",
            "pwd[]",
            "p-w-d",
            "x.pwd",
        ];
        let spelled = spelled.iter().map(|n| n.as_bytes().to_vec());
        for name in known.chain(spelled) {
            for name in [name.clone(), name.to_ascii_uppercase(), [b"my_", &*name].concat()] {
                let reduced = Reduced::new(&name, true);
                let matters = users.rank(reduced.bytes()).is_some()
                    || passwords.rank(reduced.bytes()).is_some()
                    || secrecy(reduced.bytes()) != Secrecy::Open;
                assert!(!matters || may_matter(&name, &users, &passwords), "{}", name.escape_ascii());
            }
        }
        assert!(!may_matter(b"page", &users, &passwords));
    }

    #[test]
    fn field_names() {
        let names = list(&["password", "Passwd", "kennwort", "heslo", "mot_de_passe", "пароль"]);
        for (name, encoded, want) in [
            ("password", false, Some(0)),
            ("PassWord", false, Some(0)),
            ("user[password]", false, Some(0)),
            ("user%5Bpassword%5D", true, Some(0)),
            ("password%5B%5D", true, Some(0)),
            ("user[password][]", false, Some(0)),
            ("pass%2577ord", true, Some(0)),
            ("pass%252577ord", true, Some(0)),
            ("pass%77ord", true, Some(0)),
            ("login.password", false, Some(0)),
            ("ctl00$Main$txtPassword", false, Some(0)),
            ("j_password", false, Some(0)),
            ("txtUserPassword", false, Some(0)),
            ("user_passwd[]", false, Some(1)),
            ("mot-de-passe", false, Some(4)),
            ("пароль", false, Some(5)),
            ("new_password", false, None),
            ("passwordHint", false, None),
            ("show_password", false, None),
            ("confirmPassword", false, None),
            ("", false, None),
            ("[]", false, None),
        ] {
            assert_eq!(names.rank(Reduced::new(name.as_bytes(), encoded).bytes()), want, "{name}");
        }
        assert_eq!(names.rank(Reduced::new(&[b'x'; 5000], false).bytes()), None);
    }

    #[test]
    fn variations_of_names_are_like_them() {
        let (users, passwords) = (list(&["user"]), list(&["password", "pass", "pwd", "passwd"]));
        for (name, want) in [
            ("password1", Secrecy::Secret),
            ("password_2", Secrecy::Secret),
            ("password[0]", Secrecy::Secret),
            ("password%5B10%5D", Secrecy::Secret),
            ("new_password2", Secrecy::Secret),
            ("passwordConfirm", Secrecy::Secret),
            ("password_confirmation", Secrecy::Secret),
            ("user[password_confirmation]", Secrecy::Secret),
            ("PasswordConfirm2", Secrecy::Secret),
            ("passwordAgain", Secrecy::Secret),
            ("password_verify", Secrecy::Secret),
            ("pwd_repeat", Secrecy::Secret),
            ("new_pass", Secrecy::Secret),
            ("confirm_new_pwd", Secrecy::Secret),
            ("pass1", Secrecy::Secret),
            ("pwd1", Secrecy::Secret),
            ("passwd2", Secrecy::Secret),
            ("token2", Secrecy::Secret),
            ("api_key2", Secrecy::Secret),
            ("PHPSESSID2", Secrecy::SecretIfLong),
            ("utf8", Secrecy::Open),
            ("page2", Secrecy::Open),
            ("confirm", Secrecy::Open),
            ("verify", Secrecy::Open),
            ("confirm1", Secrecy::Open),
            ("compass", Secrecy::Open),
            ("12", Secrecy::Open),
            ("", Secrecy::Open),
        ] {
            let reduced = Reduced::new(name.as_bytes(), true);
            assert_eq!(secrecy_like(reduced.bytes(), &passwords), want, "{name}");
            assert!(want == Secrecy::Open || may_matter(name.as_bytes(), &users, &passwords), "{name}");
        }
        for (name, want) in
            [("password2", true), ("repeat_pwd", true), ("new_pass", true), ("token2", false), ("pin", false)]
        {
            let reduced = Reduced::new(name.as_bytes(), true);
            assert_eq!(is_other_password(reduced.bytes(), &passwords), want, "{name}");
        }
        let long = [&[b'a'; 5000][..], b"pass_Word"].concat();
        assert_eq!(secrecy_like(Reduced::new(&long, true).bytes(), &passwords), Secrecy::Secret);
    }

    #[test]
    fn secrecies() {
        for (name, want) in [
            ("token", Secrecy::Secret),
            ("access_token", Secrecy::Secret),
            ("X-Amz-Security-Token", Secrecy::Secret),
            ("pageToken", Secrecy::Open),
            ("next_token", Secrecy::Open),
            ("api_key", Secrecy::Secret),
            ("client_secret", Secrecy::Secret),
            ("new_password", Secrecy::Secret),
            ("card[number]", Secrecy::Open),
            ("card_number", Secrecy::Secret),
            ("cvv", Secrecy::Secret),
            ("PHPSESSID", Secrecy::SecretIfLong),
            ("sid", Secrecy::SecretIfLong),
            ("ticket", Secrecy::SecretIfLong),
            ("code", Secrecy::SecretIfVeryLong),
            ("X-Amz-Signature", Secrecy::Secret),
            ("signature", Secrecy::SecretIfVeryLong),
            ("X-Amz-Credential", Secrecy::Secret),
            ("mfa_code", Secrecy::Secret),
            ("zipcode", Secrecy::Open),
            ("estate", Secrecy::Open),
            ("monkey", Secrecy::Open),
            ("q", Secrecy::Open),
            ("page", Secrecy::Open),
            ("inside", Secrecy::Open),
            ("panorama", Secrecy::Open),
        ] {
            assert_eq!(secrecy(Reduced::new(name.as_bytes(), true).bytes()), want, "{name}");
        }
    }

    #[test]
    fn cookies() {
        for (name, want) in [
            ("sid", true),
            ("connect.sid", true),
            ("JSESSIONID", true),
            ("PHPSESSID", true),
            ("session", true),
            ("ASP.NET_SessionId", true),
            ("laravel_session", true),
            ("_session_id", true),
            ("_shop_session", true),
            ("__Host-session", true),
            ("__Secure-next-auth.session-token", true),
            ("auth", true),
            ("token", true),
            ("access_token", true),
            (".AspNetCore.Auth", true),
            ("sess", true),
            ("wordpress_logged_in_0a1b", true),
            ("csrftoken", false),
            ("XSRF-TOKEN", false),
            ("_ga", false),
            ("_hjSession_12", false),
            ("ai_session", false),
            ("author", false),
            ("theme", false),
            ("inside", false),
            ("lang", false),
            ("", false),
            ("intercom-session-x", false),
            ("AWSALB", false),
            ("_ga_session", false),
        ] {
            assert_eq!(session_like_cookie(name.as_bytes()), want, "{name}");
        }
    }
}
