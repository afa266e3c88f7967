//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::Path;

/// A configuration file that parses.
#[derive(Clone, Copy)]
pub(super) struct Text<'a> {
    pub(super) name: &'a str,
    pub(super) text: &'a str,
}

impl Text<'_> {
    /// Returns the line of a key, or, where that is not there, of the nearest thing around it.
    fn line_of(self, key: &str) -> Option<usize> {
        let table = toml::de::DeTable::parse(self.text).ok()?;
        let (mut at, mut found) = (Some(table.get_ref()), None);
        for step in key.split('.') {
            let (name, index) = step.strip_suffix(']').and_then(|s| s.split_once('[')).unwrap_or((step, ""));
            let Some((key, value)) = at.and_then(|table| table.iter().find(|(k, _)| k.get_ref() == name))
            else {
                break;
            };
            let value = match index.parse::<usize>() {
                Ok(index) => value.get_ref().as_array().and_then(|list| list.get(index)),
                Err(_) => Some(value),
            };
            let span = value.filter(|_| !index.is_empty()).map_or(key.span(), toml::Spanned::span);
            found = Some(span.start);
            at = value.and_then(|value| value.get_ref().as_table());
        }
        Some(line_at(self.text, found?))
    }
}

/// Returns the number of the line that holds byte `at`.
fn line_at(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|b| *b == b'\n').count() + 1
}

/// A mistake in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigError(String);

impl ConfigError {
    pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        Self(format!("{}: cannot read the configuration: {error}", path.display()))
    }

    pub(super) fn too_long(path: &Path, size: u64, max: u64) -> Self {
        Self(format!("{}: {size} bytes is no configuration (at most {max})", path.display()))
    }

    pub(super) fn not_utf8(path: &Path, error: &std::string::FromUtf8Error) -> Self {
        Self(format!("{}: not UTF-8 text: {error}", path.display()))
    }

    /// A value that parses and makes no sense. `key` is its path: `section.key`, `list[2].key`.
    pub(super) fn value(file: Text<'_>, key: &str, value: impl fmt::Display, want: &str) -> Self {
        let line = file.line_of(key).map(|line| format!("line {line}: ")).unwrap_or_default();
        Self(format!("{}: {line}{key} = {value}: {want}", file.name))
    }

    pub(super) fn parse(file: &str, text: &str, error: &toml::de::Error) -> Self {
        let message = &mask(error.message().trim());
        let hint = nearest(message).map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
        let Some(span) = error.span() else { return Self(format!("{file}: {message}{hint}")) };
        let start = span.start.min(text.len());
        let before = text.get(..start).unwrap_or_default();
        let line = line_at(text, start);
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        let column = before.get(line_start..).map_or(0, |s| s.chars().count()) + 1;
        let source = text.get(line_start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
        let shown = mask(source);
        let key = key_at(text, line, source).map(|k| format!(" ({k})")).unwrap_or_default();
        let width =
            text.get(span.clone()).map_or(1, |s| s.lines().next().unwrap_or_default().chars().count()).max(1);
        Self(format!(
            "{file}: line {line}, column {column}{key}: {message}{hint}\n  {line} | {shown}\n  {:pad$} | {:indent$}{}",
            "",
            "",
            "^".repeat(width.min(80)),
            pad = line.to_string().len(),
            indent = column - 1,
        ))
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// Replaces webhook secrets and the passwords of URLs, each by `*`: what is wrong with
/// a line must not carry its secret to a terminal or a log.
pub(super) fn mask(text: &str) -> String {
    let mut out = text.to_owned();
    // Byte for byte, so that what is found in `text` stays where it is in `out`.
    let mut hide = |from: usize, to: usize| out.replace_range(from..to, &"*".repeat(to - from));
    for (at, prefix) in text.match_indices("whsec_") {
        let start = at + prefix.len();
        let end = text[start..].find(|c: char| !c.is_ascii_alphanumeric() && !"+/=-_".contains(c));
        hide(start, end.map_or(text.len(), |len| start + len));
    }
    for (at, colon) in text.match_indices("://") {
        let start = at + colon.len();
        let authority = &text
            [start..start + text[start..].find(['/', '"', '\'', '`', ' ']).unwrap_or(text.len() - start)];
        if let Some(end) = authority.rfind('@') {
            hide(start, start + end);
        }
    }
    // Whatever is given as a secret is one, also without the prefix.
    if let Some((key, value)) = text.split_once('=')
        && key.trim() == "secret"
    {
        hide(text.len() - value.len(), text.len());
    }
    out
}

/// Returns `section.key` for the line that a mistake is on.
fn key_at(text: &str, line: usize, source: &str) -> Option<String> {
    let key = source.split_once('=').map(|(k, _)| k.trim()).filter(|k| !k.is_empty())?;
    let section = text
        .lines()
        .take(line)
        .filter_map(|l| l.trim().strip_prefix('['))
        .filter_map(|l| l.trim_start_matches('[').split(']').next())
        .last();
    Some(section.map_or_else(|| key.to_owned(), |s| format!("{}.{key}", s.trim())))
}

/// Finds the nearest of the names that serde lists in "unknown … `x`, expected one of `a`, `b`".
fn nearest(message: &str) -> Option<String> {
    let (what, expected) = message.split_once(", expected ")?;
    if !what.starts_with("unknown ") {
        return None;
    }
    let wrong = what.split('`').nth(1)?;
    expected
        .split('`')
        .skip(1)
        .step_by(2)
        .map(|name| (strsim::damerau_levenshtein(wrong, name), name))
        .min()
        .filter(|(distance, name)| *distance <= name.chars().count().max(3) / 2 + 1)
        .map(|(_, name)| name.to_owned())
}
