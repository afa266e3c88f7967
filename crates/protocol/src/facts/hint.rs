//! What a login's response body says of its outcome.
//!
//! JSON, down to the third level, strongest first: a flag (`success`, `ok`, `authenticated` …), an error
//! (a non-empty `error`, `errors`, `error_code` …), a token, the words of a message. HTML: a password field
//! (the form is shown again) or a known sentence of refusal. A guess for the scorer, not a verdict.

use offpath_types::BodyHint;

use super::json::{At, Value, Visit};
use super::names::Reduced;
use super::secret::SecretBuf;
use super::stack::contains_ignore_case;

/// Deepest JSON level that says something of the whole.
const DEPTH_MAX: usize = 3;
/// How much of a text is looked at.
const TEXT_BYTES_MAX: usize = 1024;

/// What a key may say, by bit.
pub(super) type HintKey = u8;
const FLAG: HintKey = 1;
const NEGATED: HintKey = 1 << 1;
const NUMBER: HintKey = 1 << 2;
const STATUS: HintKey = 1 << 3;
const ERROR: HintKey = 1 << 4;
const TOKEN: HintKey = 1 << 5;
const MESSAGE: HintKey = 1 << 6;

/// Reads a JSON text that passes by.
#[derive(Default)]
pub(super) struct JsonHint {
    flag: BodyHint,
    error: bool,
    token: bool,
    words: BodyHint,
}

impl JsonHint {
    /// What was found so far.
    pub(super) fn hint(&self) -> BodyHint {
        if self.flag != BodyHint::None {
            self.flag
        } else if self.error {
            BodyHint::Failure
        } else if self.token {
            BodyHint::Success
        } else {
            self.words
        }
    }
}

impl Visit for JsonHint {
    type Key = HintKey;

    fn key(&mut self, raw: &[u8], at: &At) -> Option<HintKey> {
        if at.depth > DEPTH_MAX {
            return None;
        }
        let key = Reduced::new(raw, false);
        let mut says = if is_flag(key.bytes()) { FLAG } else { 0 };
        says |= match key.bytes() {
            b"error" | b"errors" => NEGATED | ERROR,
            b"haserror" | b"iserror" | b"failed" | b"failure" => NEGATED,
            b"errorcode" | b"errormessage" | b"errordescription" | b"fault" => ERROR,
            b"success" => NUMBER | STATUS,
            b"ok" => NUMBER,
            b"status" | b"result" | b"outcome" => STATUS,
            b"message" | b"msg" | b"detail" | b"reason" | b"title" | b"description" | b"info" => MESSAGE,
            k if is_token(k) => TOKEN,
            _ => 0,
        };
        (says != 0).then_some(says)
    }

    fn value(&mut self, key: HintKey, value: Value<'_>, _at: &At) {
        let says = |what: HintKey| key & what != 0;
        match value {
            Value::Bool(yes) if says(FLAG) => first(&mut self.flag, yes),
            Value::Bool(yes) if says(NEGATED) => first(&mut self.flag, !yes),
            Value::Number(n) if says(NUMBER) => first(&mut self.flag, n != b"0"),
            Value::Text(t) if says(STATUS) => {
                if let Some(yes) = status_word(t) {
                    first(&mut self.flag, yes);
                }
            }
            Value::Text(t) if says(ERROR) => {
                self.error |= !t.is_empty();
                message(t, &mut self.words);
            }
            Value::Number(n) if says(ERROR) => self.error |= n != b"0",
            Value::Container { empty } if says(ERROR) => self.error |= !empty,
            Value::Text(t) if says(TOKEN) => self.token |= t.len() >= 8,
            Value::Text(t) if says(MESSAGE) => message(t, &mut self.words),
            _ => {}
        }
    }

    fn bytes_max(&self, _key: HintKey) -> usize {
        TEXT_BYTES_MAX
    }
}

fn first(flag: &mut BodyHint, yes: bool) {
    if *flag == BodyHint::None {
        *flag = if yes { BodyHint::Success } else { BodyHint::Failure };
    }
}

fn is_flag(key: &[u8]) -> bool {
    matches!(
        key,
        b"success"
            | b"successful"
            | b"succeeded"
            | b"ok"
            | b"authenticated"
            | b"isauthenticated"
            | b"loggedin"
            | b"isloggedin"
            | b"authorized"
            | b"valid"
            | b"loginsuccess"
            | b"issuccess"
    )
}

fn is_token(key: &[u8]) -> bool {
    matches!(
        key,
        b"token"
            | b"accesstoken"
            | b"idtoken"
            | b"refreshtoken"
            | b"jwt"
            | b"authtoken"
            | b"sessiontoken"
            | b"sessionid"
            | b"bearer"
    )
}

fn status_word(text: &[u8]) -> Option<bool> {
    let is = |words: &[&str]| words.iter().any(|w| text.eq_ignore_ascii_case(w.as_bytes()));
    if is(&["ok", "success", "successful", "succeeded", "authenticated", "true"]) {
        Some(true)
    } else if is(&[
        "error",
        "fail",
        "failed",
        "failure",
        "denied",
        "unauthorized",
        "unauthenticated",
        "invalid",
        "false",
        "ko",
        "nok",
    ]) {
        Some(false)
    } else {
        None
    }
}

/// In lower case. Words of refusal in a message that is short anyway.
const REFUSALS: &[&str] = &[
    "invalid",
    "incorrect",
    "wrong",
    "locked",
    "failed",
    "denied",
    "unauthorized",
    "bad credentials",
    "mismatch",
    "not match",
    "not found",
    "too many",
    "disabled",
    "blocked",
    "unknown user",
    "expired",
    "falsch",
    "ungültig",
    "fehlgeschlagen",
    "gesperrt",
    "incorrecte",
    "invalide",
    "erroné",
    "incorrect",
    "incorrecta",
    "inválid",
    "incorreta",
    "errata",
    "non valid",
    "onjuist",
    "ongeldig",
    "nieprawid",
    "błędn",
    "nesprávn",
    "felaktig",
    "forkert",
    "hatalı",
    "неверн",
    "错误",
    "錯誤",
    "正しくありません",
    "잘못",
];
const WELCOMES: &[&str] = &[
    "logged in",
    "login successful",
    "welcome",
    "success",
    "erfolgreich",
    "bienvenue",
    "bienvenido",
    "bem-vindo",
    "benvenuto",
];

fn message(text: &[u8], words: &mut BodyHint) {
    let has = |list: &[&str]| list.iter().any(|w| contains_ignore_case(text, w.as_bytes()));
    if has(REFUSALS) {
        *words = BodyHint::Failure;
    } else if *words == BodyHint::None && has(WELCOMES) {
        *words = BodyHint::Success;
    }
}

/// In lower case. Whole sentences, because a page has many words.
const SENTENCES: &[&str] = &[
    "type=\"password\"",
    "type='password'",
    "type=password",
    "invalid password",
    "incorrect password",
    "wrong password",
    "invalid username",
    "incorrect username",
    "invalid credentials",
    "bad credentials",
    "invalid login",
    "login failed",
    "authentication failed",
    "account locked",
    "account is locked",
    "too many attempts",
    "password is incorrect",
    "password you entered is",
    "falsches passwort",
    "passwort ist falsch",
    "passwort falsch",
    "ungültige anmeldedaten",
    "anmeldung fehlgeschlagen",
    "konto gesperrt",
    "mot de passe incorrect",
    "identifiants incorrects",
    "identifiants invalides",
    "contraseña incorrecta",
    "credenciales incorrectas",
    "credenciales inválidas",
    "senha incorreta",
    "senha inválida",
    "password errata",
    "credenziali non valide",
    "onjuist wachtwoord",
    "wachtwoord is onjuist",
    "nieprawidłowe hasło",
    "błędne hasło",
    "nesprávné heslo",
    "felaktigt lösenord",
    "неверный пароль",
    "密码错误",
    "パスワードが正しくありません",
];

/// How much of a page is searched at a time.
const PAGE_PIECE_BYTES: usize = 2 << 10;
/// Length of the longest of [`SENTENCES`]: what may lie across two pieces.
const SENTENCE_BYTES_MAX: usize = {
    let (mut longest, mut at) = (0, 0);
    while at < SENTENCES.len() {
        if SENTENCES[at].len() > longest {
            longest = SENTENCES[at].len();
        }
        at += 1;
    }
    longest
};

/// Reads HTML or text that passes by.
///
/// Cost: one pass per sentence over what is looked into, until one is found.
// Invariant: `piece` holds what was not searched yet, in lower case, and before it what a sentence may begin in.
#[derive(Default)]
pub(super) struct PageHint {
    piece: SecretBuf,
    refused: bool,
}

impl PageHint {
    /// Forgets the page before.
    pub(super) fn reset(&mut self) {
        self.piece.clear();
        self.refused = false;
    }

    /// Takes the next bytes.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.refused {
            let take = bytes.len().min(PAGE_PIECE_BYTES + SENTENCE_BYTES_MAX - self.piece.len());
            let from = self.piece.len();
            self.piece.extend(&bytes[..take]);
            self.piece.bytes_mut()[from..].make_ascii_lowercase();
            bytes = &bytes[take..];
            if self.piece.len() == PAGE_PIECE_BYTES + SENTENCE_BYTES_MAX {
                self.search();
            }
        }
    }

    /// Searches the rest; returns what the page says.
    pub(super) fn finish(&mut self) -> BodyHint {
        if !self.refused {
            self.search();
        }
        if self.refused { BodyHint::Failure } else { BodyHint::None }
    }

    fn search(&mut self) {
        let text = self.piece.bytes();
        self.refused = SENTENCES.iter().any(|s| memchr::memmem::find(text, s.as_bytes()).is_some());
        let mut last = [0; SENTENCE_BYTES_MAX];
        let keep = &text[text.len().saturating_sub(SENTENCE_BYTES_MAX)..];
        last[..keep.len()].copy_from_slice(keep);
        let len = keep.len();
        self.piece.clear();
        self.piece.extend(&last[..len]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::json::Scanner;
    use super::*;

    fn of_json(text: &[u8]) -> BodyHint {
        let run = |piece: usize| {
            let (mut scanner, mut hint) = (Scanner::default(), JsonHint::default());
            text.chunks(piece).for_each(|p| scanner.feed(p, &mut hint));
            scanner.finish();
            hint.hint()
        };
        assert_eq!(run(1), run(usize::MAX));
        run(3)
    }

    #[test]
    fn json_bodies() {
        use BodyHint::*;
        for (text, want) in [
            (r#"{"success":true}"#, Success),
            (r#"{"success":false,"token":"0123456789"}"#, Failure),
            (r#"{"Success":1}"#, Success),
            (r#"{"ok":false}"#, Failure),
            (r#"{"error":null,"token":"0123456789"}"#, Success),
            (r#"{"error":"invalid_grant"}"#, Failure),
            (r#"{"errors":[]}"#, None),
            (r#"{"errors":[{"message":"x"}]}"#, Failure),
            (r#"{"access_token":"eyJhbGciOi","token_type":"bearer"}"#, Success),
            (r#"{"data":{"login":{"token":"0123456789"}}}"#, Success),
            (r#"{"token":""}"#, None),
            (r#"{"csrf_token":"0123456789"}"#, None),
            (r#"{"message":"Invalid password"}"#, Failure),
            (r#"{"message":"Passwort ist falsch"}"#, Failure),
            (r#"{"message":"Welcome back"}"#, Success),
            (r#"{"status":"error","message":"Welcome"}"#, Failure),
            (r#"{"status":"ok"}"#, Success),
            (r#"{"status":200}"#, None),
            (r#"{"mfa_required":true}"#, None),
            (r#"{"a":{"b":{"c":{"success":true}}}}"#, None),
            (r#"{"success":tr"#, None),
            ("", None),
        ] {
            assert_eq!(of_json(text.as_bytes()), want, "{text}");
        }
    }

    #[test]
    fn pages() {
        for (text, want) in [
            ("<form><INPUT Type=\"Password\" name=p></form>", BodyHint::Failure),
            ("<p>Wrong Password!</p>", BodyHint::Failure),
            ("<p>Passwort ist falsch</p>", BodyHint::Failure),
            ("<p>Hello Ann, nothing invalid here</p>", BodyHint::None),
            ("", BodyHint::None),
        ] {
            for (piece, before) in [(1, 0), (usize::MAX, 0), (7, 2040), (1 << 20, 5000)] {
                let text = " ".repeat(before) + text;
                let mut page = PageHint::default();
                text.as_bytes().chunks(piece).for_each(|p| page.feed(p));
                assert_eq!(page.finish(), want, "{text}");
            }
        }
    }
}
