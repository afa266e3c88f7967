//! Signs and verifies webhooks by the Standard Webhooks rules.
//!
//! Headers: `webhook-id`, `webhook-timestamp` (seconds since the epoch), `webhook-signature` (one or more
//! `v1,<base64>` separated by spaces). What is signed: HMAC-SHA-256 over `id.timestamp.body`.
//! Source: <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>.
//!
//! Rotation: a sender signs with every secret it has, a receiver accepts any of those it has; so the new
//! secret goes to the receiver, then to the sender, then the old one goes away on both.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

/// Name of the header with the id.
pub const ID_HEADER: &str = "webhook-id";
/// Name of the header with the time of the attempt.
pub const TIMESTAMP_HEADER: &str = "webhook-timestamp";
/// Name of the header with the signatures.
pub const SIGNATURE_HEADER: &str = "webhook-signature";

/// Signatures looked at in one header; further ones are ignored.
const SIGNATURES_MAX: usize = 16;
const SECRET_BYTES_MIN: usize = 24;
const SECRET_BYTES_MAX: usize = 64;

/// A signing secret. Wiped on drop and never printed.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Parses `whsec_<base64>` of 24 to 64 bytes, as the rules ask for; the prefix may be missing.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let text = text.trim();
        let encoded = text.strip_prefix("whsec_").unwrap_or(text);
        let bytes = Zeroizing::new(STANDARD.decode(encoded).map_err(|_| SecretError::NotBase64)?);
        if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&bytes.len()) {
            return Err(SecretError::Length { bytes: bytes.len() });
        }
        Ok(Self(bytes))
    }

    /// Makes a fresh secret of 32 random bytes and returns it as `whsec_<base64>`.
    pub fn generate() -> Result<Zeroizing<String>, SecretError> {
        let mut bytes = [0u8; 32];
        getrandom::fill(&mut bytes).map_err(|_| SecretError::NoRandomness)?;
        let text = Zeroizing::new(format!("whsec_{}", STANDARD.encode(bytes)));
        bytes.zeroize();
        Ok(text)
    }

    fn mac(&self, id: &str, timestamp: &str, body: &[u8]) -> Option<Hmac<Sha256>> {
        // HMAC takes keys of any length, so this is always `Some`.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            mac.update(part);
        }
        Some(mac)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Why a text is no secret. Never contains the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Not base64.
    #[error("a webhook secret is `whsec_` and base64; this is not base64")]
    NotBase64,
    /// Too short to be safe, or longer than the rules allow.
    #[error("a webhook secret has 24 to 64 bytes; this one has {bytes}")]
    Length {
        /// How many it has.
        bytes: usize,
    },
    /// The system gave no random bytes.
    #[error("the system has no random bytes for a new webhook secret")]
    NoRandomness,
}

/// Returns the value of `webhook-signature`: one `v1,<base64>` per secret, separated by spaces.
pub fn sign(secrets: &[Secret], id: &str, timestamp_secs: u64, body: &[u8]) -> String {
    let timestamp = timestamp_secs.to_string();
    let mut out = String::with_capacity(secrets.len() * 48);
    for mac in secrets.iter().filter_map(|s| s.mac(id, &timestamp, body)) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str("v1,");
        STANDARD.encode_string(mac.finalize().into_bytes(), &mut out);
    }
    out
}

/// What a request says about itself, as its headers carry it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Headers<'a> {
    /// `webhook-id`.
    pub id: &'a str,
    /// `webhook-timestamp`.
    pub timestamp: &'a str,
    /// `webhook-signature`.
    pub signature: &'a str,
}

/// Why a request is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum VerifyError {
    /// A header is missing, empty or malformed.
    #[error("webhook-id, webhook-timestamp or webhook-signature is missing or malformed")]
    HeaderInvalid,
    /// Older than the tolerance: a replay, or a sender whose clock is slow.
    #[error("the webhook is too old")]
    TooOld,
    /// Further in the future than the tolerance: a sender whose clock is fast, or ours slow.
    #[error("the webhook is from the future")]
    TooNew,
    /// No signature fits any secret.
    #[error("no signature fits")]
    SignatureMismatch,
}

/// Checks `headers` over `body` against any of `secrets` at `now_secs` (seconds since the epoch).
///
/// The time is checked within `tolerance_secs` both ways. Every signature is compared with every secret
/// in constant time, and none is left out after a match.
pub fn verify(
    secrets: &[Secret],
    headers: Headers<'_>,
    body: &[u8],
    now_secs: u64,
    tolerance_secs: u64,
) -> Result<(), VerifyError> {
    let id_ok = !headers.id.is_empty()
        && headers.id.len() <= 256
        // A dot in the id would let `a.1` + `2.x` and `a` + `1.2.x` be signed alike.
        && headers.id.bytes().all(|b| b.is_ascii_graphic() && b != b'.');
    let digits = headers.timestamp.as_bytes();
    if !id_ok || digits.is_empty() || digits.len() > 12 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(VerifyError::HeaderInvalid);
    }
    let sent: u64 = headers.timestamp.parse().map_err(|_| VerifyError::HeaderInvalid)?;
    let mut matched = false;
    let mut well_formed = false;
    for candidate in headers.signature.split(' ').filter(|s| !s.is_empty()).take(SIGNATURES_MAX) {
        // Other versions (`v1a` is asymmetric) are somebody else's.
        let Some(encoded) = candidate.strip_prefix("v1,") else { continue };
        let Ok(given) = STANDARD.decode(encoded) else { continue };
        well_formed = true;
        for secret in secrets {
            if let Some(mac) = secret.mac(headers.id, headers.timestamp, body) {
                matched |= mac.verify_slice(&given).is_ok();
            }
        }
    }
    if !matched {
        return Err(if well_formed { VerifyError::SignatureMismatch } else { VerifyError::HeaderInvalid });
    }
    if now_secs.saturating_sub(sent) > tolerance_secs {
        return Err(VerifyError::TooOld);
    }
    if sent.saturating_sub(now_secs) > tolerance_secs {
        return Err(VerifyError::TooNew);
    }
    Ok(())
}

/// Compares two texts in time that depends on their lengths only.
pub(crate) fn same_text(a: &str, b: &str) -> bool {
    use subtle::ConstantTimeEq as _;
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

pub(crate) fn fuzz_headers(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut parts = text.split('\0');
    let headers = Headers {
        id: parts.next().unwrap_or_default(),
        timestamp: parts.next().unwrap_or_default(),
        signature: parts.next().unwrap_or_default(),
    };
    let secrets: Vec<Secret> = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").into_iter().collect();
    if verify(&secrets, headers, data, 1_614_265_330, 300).is_ok() {
        let again = sign(&secrets, headers.id, headers.timestamp.parse().unwrap_or(0), data);
        assert!(headers.signature.contains(again.as_str()) || headers.timestamp.starts_with('0'));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The example of the specification's reference libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const TIME: u64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn secrets(texts: &[&str]) -> Vec<Secret> {
        texts.iter().map(|t| Secret::parse(t).unwrap()).collect()
    }

    #[test]
    fn signs_as_the_specification_does() {
        assert_eq!(sign(&secrets(&[SECRET]), ID, TIME, BODY), SIGNATURE);
    }

    #[test]
    fn verification_table() {
        let other = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let both = format!("v2,zzz v1,not-base64 v1,AAAA {SIGNATURE}");
        let many = format!("{}{SIGNATURE}", "v1,AAAA ".repeat(SIGNATURES_MAX));
        let t = TIME.to_string();
        let (late, early) = (TIME + 300, TIME - 300);
        type Row<'a> = (&'a str, &'a [&'a str], Headers<'a>, &'a [u8], u64, Result<(), VerifyError>);
        let h = |id, timestamp, signature| Headers { id, timestamp, signature };
        let rows: [Row<'_>; 17] = [
            ("good", &[SECRET], h(ID, &t, SIGNATURE), BODY, TIME, Ok(())),
            ("second secret of ours", &[other, SECRET], h(ID, &t, SIGNATURE), BODY, TIME, Ok(())),
            ("third signature of theirs", &[SECRET], h(ID, &t, &both), BODY, TIME, Ok(())),
            (
                "too many signatures",
                &[SECRET],
                h(ID, &t, &many),
                BODY,
                TIME,
                Err(VerifyError::SignatureMismatch),
            ),
            ("edge of age", &[SECRET], h(ID, &t, SIGNATURE), BODY, late, Ok(())),
            ("too old", &[SECRET], h(ID, &t, SIGNATURE), BODY, late + 1, Err(VerifyError::TooOld)),
            ("edge of future", &[SECRET], h(ID, &t, SIGNATURE), BODY, early, Ok(())),
            ("too new", &[SECRET], h(ID, &t, SIGNATURE), BODY, early - 1, Err(VerifyError::TooNew)),
            ("other secret", &[other], h(ID, &t, SIGNATURE), BODY, TIME, Err(VerifyError::SignatureMismatch)),
            ("no secret", &[], h(ID, &t, SIGNATURE), BODY, TIME, Err(VerifyError::SignatureMismatch)),
            ("other body", &[SECRET], h(ID, &t, SIGNATURE), b"{}", TIME, Err(VerifyError::SignatureMismatch)),
            (
                "other id",
                &[SECRET],
                h("msg_x", &t, SIGNATURE),
                BODY,
                TIME,
                Err(VerifyError::SignatureMismatch),
            ),
            (
                "other time",
                &[SECRET],
                h(ID, "1614265331", SIGNATURE),
                BODY,
                TIME,
                Err(VerifyError::SignatureMismatch),
            ),
            ("no id", &[SECRET], h("", &t, SIGNATURE), BODY, TIME, Err(VerifyError::HeaderInvalid)),
            ("dotted id", &[SECRET], h("a.b", &t, SIGNATURE), BODY, TIME, Err(VerifyError::HeaderInvalid)),
            (
                "signed time",
                &[SECRET],
                h(ID, "+1614265330", SIGNATURE),
                BODY,
                TIME,
                Err(VerifyError::HeaderInvalid),
            ),
            ("no signature", &[SECRET], h(ID, &t, ""), BODY, TIME, Err(VerifyError::HeaderInvalid)),
        ];
        for (name, ours, headers, body, now, want) in rows {
            assert_eq!(verify(&secrets(ours), headers, body, now, 300), want, "{name}");
        }
    }

    #[test]
    fn rotation_signs_with_every_secret() {
        let fresh = Secret::generate().unwrap();
        let ours = secrets(&[&fresh, SECRET]);
        let signature = sign(&ours, ID, TIME, BODY);
        assert_eq!(signature.split(' ').count(), 2);
        for text in [fresh.as_str(), SECRET] {
            let headers = Headers { id: ID, timestamp: "1614265330", signature: &signature };
            assert_eq!(verify(&secrets(&[text]), headers, BODY, TIME, 300), Ok(()), "each alone");
        }
    }

    #[test]
    fn secrets_are_checked_and_never_printed() {
        assert_eq!(Secret::parse("whsec_???").unwrap_err(), SecretError::NotBase64);
        assert_eq!(Secret::parse("whsec_AAAA").unwrap_err(), SecretError::Length { bytes: 3 });
        let long = STANDARD.encode([1u8; 65]);
        assert_eq!(Secret::parse(&long).unwrap_err(), SecretError::Length { bytes: 65 });
        assert_eq!(format!("{:?}", secrets(&[SECRET])), "[Secret(..)]");
    }

    #[test]
    fn fuzz_seeds() {
        let good = format!("{ID}\0{TIME}\0{SIGNATURE}");
        for end in 0..=good.len() {
            fuzz_headers(&good.as_bytes()[..end]);
        }
        fuzz_headers(b"\xff\0\0\0v1,");
    }
}
