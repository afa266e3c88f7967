//! What a login's response body says of its outcome.
//!
//! JSON, down to the third level, strongest first: a flag (`success`, `ok`, `authenticated` …), an error
//! (a non-empty `error`, `errors`, `error_code` …), a token, the words of a message. HTML: a password field
//! (the form is shown again) or a known sentence of refusal. A guess for the scorer, not a verdict.

use offpath_types::BodyHint;

use super::json::{self, Value};
use super::names::Reduced;
use super::stack::contains_ignore_case;

/// Deepest JSON level that says something of the whole.
const DEPTH_MAX: usize = 3;

/// Reads a JSON text.
pub(super) fn of_json(text: &[u8]) -> BodyHint {
    let mut flag = BodyHint::None;
    let mut error = false;
    let mut token = false;
    let mut words = BodyHint::None;
    json::walk(text, |item| {
        if item.depth == 0 || item.depth > DEPTH_MAX || item.key.is_empty() {
            return;
        }
        let key = Reduced::new(item.key, false);
        match (key.bytes(), item.value) {
            (k, Value::Bool(yes)) if is_flag(k) => first(&mut flag, yes),
            (b"error" | b"errors" | b"haserror" | b"iserror" | b"failed" | b"failure", Value::Bool(yes)) => {
                first(&mut flag, !yes);
            }
            (b"success" | b"ok", Value::Number(n)) => first(&mut flag, n != b"0"),
            (b"status" | b"result" | b"outcome" | b"success", Value::Text(t)) => {
                if let Some(yes) = status_word(t) {
                    first(&mut flag, yes);
                }
            }
            (
                b"error" | b"errors" | b"errorcode" | b"errormessage" | b"errordescription" | b"fault",
                value,
            ) => {
                error |= match value {
                    Value::Text(t) => !t.is_empty(),
                    Value::Number(n) => n != b"0",
                    Value::Container { empty } => !empty,
                    _ => false,
                };
                if let Value::Text(t) = value {
                    message(t, &mut words);
                }
            }
            (k, Value::Text(t)) if is_token(k) => token |= t.len() >= 8,
            (
                b"message" | b"msg" | b"detail" | b"reason" | b"title" | b"description" | b"info",
                Value::Text(t),
            ) => {
                message(t, &mut words);
            }
            _ => {}
        }
    });
    if flag != BodyHint::None {
        flag
    } else if error {
        BodyHint::Failure
    } else if token {
        BodyHint::Success
    } else {
        words
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

/// Reads HTML or text. ASCII letters in `text` are made lower case on the way.
///
/// Cost: one pass per sentence over a text that is capped.
pub(super) fn of_text(text: &mut [u8]) -> BodyHint {
    text.make_ascii_lowercase();
    let text = &*text;
    let refused = SENTENCES.iter().any(|s| memchr::memmem::find(text, s.as_bytes()).is_some());
    if refused { BodyHint::Failure } else { BodyHint::None }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(of_text(&mut text.as_bytes().to_vec()), want, "{text}");
        }
    }
}
