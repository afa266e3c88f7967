//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::Path;

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

    /// A value that parses and makes no sense.
    pub(super) fn value(file: &str, key: &str, value: impl fmt::Display, want: &str) -> Self {
        Self(format!("{file}: {key} = {value}: {want}"))
    }

    pub(super) fn parse(file: &str, text: &str, error: &toml::de::Error) -> Self {
        let message = error.message().trim();
        let hint = nearest(message).map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
        let Some(span) = error.span() else { return Self(format!("{file}: {message}{hint}")) };
        let start = span.start.min(text.len());
        let before = text.get(..start).unwrap_or_default();
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        let column = before.get(line_start..).map_or(0, |s| s.chars().count()) + 1;
        let source = text.get(line_start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
        let key = key_at(text, line, source).map(|k| format!(" ({k})")).unwrap_or_default();
        let width =
            text.get(span.clone()).map_or(1, |s| s.lines().next().unwrap_or_default().chars().count()).max(1);
        Self(format!(
            "{file}: line {line}, column {column}{key}: {message}{hint}\n  {line} | {source}\n  {:pad$} | {:indent$}{}",
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
