//! From what the user names to a list of files.

use std::collections::HashSet;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::input::Layer;
use crate::{SourceError, classic::Classic, ng::Ng, snoop::Snoop};

/// The files to read.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// In the order named; those of one pattern or directory sorted by name. `-` is standard input.
    pub(crate) paths: Vec<PathBuf>,
    /// Files of directories that are no capture, and second namings of a file.
    pub(crate) skipped: u64,
    /// Names that stand for no file, and why.
    pub(crate) missing: Vec<(PathBuf, SourceError)>,
}

/// Returns the files that [`crate::FileSource::open`] would read for these names, in the order named.
///
/// # Errors
/// No name is a file or a pattern that matches one, or a pattern is none.
pub fn input_files(named: &[PathBuf]) -> Result<Vec<PathBuf>, SourceError> {
    expand(named).map(|files| files.paths)
}

/// Checks that every name that looks like a pattern is one.
pub(crate) fn check_patterns(named: &[PathBuf]) -> Result<(), SourceError> {
    named.iter().filter(|path| !path.exists()).try_for_each(|path| match pattern(path) {
        Err(e @ SourceError::Pattern { .. }) => Err(e),
        _ => Ok(()),
    })
}

/// Expands patterns and directories.
///
/// A path that exists is taken as it is, even with `*` or `[` in its name. A directory gives the files
/// directly in it that begin like a capture (or a compressed file), hidden ones left out. Nothing is read
/// twice: a second name for the same file (device and inode) is skipped and counted. A name that stands for nothing is
/// an error only where no other stands for anything.
pub(crate) fn expand(named: &[PathBuf]) -> Result<Files, SourceError> {
    let mut out = Files::default();
    let mut seen = HashSet::new();
    for path in named {
        if path.as_os_str() == "-" {
            if seen.insert((0, 0)) {
                out.paths.push(path.clone());
            } else {
                out.skipped += 1;
            }
            continue;
        }
        let found = match std::fs::metadata(path) {
            Ok(meta) if meta.is_dir() => directory(path, &mut out.skipped),
            Ok(_) => Ok(vec![path.clone()]),
            Err(source) => pattern(path)
                .and_then(|matches| matches.ok_or_else(|| SourceError::Open { path: path.clone(), source })),
        };
        let found = match found {
            Ok(found) => found,
            Err(e @ SourceError::Pattern { .. }) => return Err(e),
            Err(e) => {
                out.missing.push((path.clone(), e));
                continue;
            }
        };
        for file in found {
            let id = std::fs::metadata(&file).map(|m| (m.dev(), m.ino()));
            if id.is_ok_and(|id| !seen.insert(id)) {
                out.skipped += 1;
            } else {
                out.paths.push(file);
            }
        }
    }
    if out.paths.is_empty() {
        if !out.missing.is_empty() {
            return Err(out.missing.swap_remove(0).1);
        }
        let what: Vec<_> = named.iter().map(|p| p.display().to_string()).collect();
        return Err(SourceError::NoFiles {
            what: if what.is_empty() { "no path was given".to_owned() } else { what.join(", ") },
        });
    }
    Ok(out)
}

/// Returns the files that match, sorted; `None` where `path` is no pattern.
fn pattern(path: &Path) -> Result<Option<Vec<PathBuf>>, SourceError> {
    let Some(text) = path.to_str().filter(|t| t.contains(['*', '?', '['])) else { return Ok(None) };
    let bad = |message: String| SourceError::Pattern { pattern: text.to_owned(), message };
    // `*` leaves hidden files out, and crosses no `/`.
    let like_a_shell = glob::MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: true,
    };
    let mut files: Vec<_> = glob::glob_with(text, like_a_shell)
        .map_err(|e| bad(e.to_string()))?
        .filter_map(Result::ok)
        .filter(|p| !p.is_dir())
        .collect();
    if files.is_empty() {
        return Err(SourceError::NoFiles { what: text.to_owned() });
    }
    files.sort();
    Ok(Some(files))
}

fn directory(path: &Path, skipped: &mut u64) -> Result<Vec<PathBuf>, SourceError> {
    let open = |source| SourceError::Open { path: path.to_path_buf(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(open)? {
        let entry = entry.map_err(open)?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        // Follows links; what is neither file nor link to one (sockets, pipes) would block.
        if hidden || !std::fs::metadata(entry.path()).is_ok_and(|m| m.is_file()) {
            continue;
        }
        if begins_like_capture(&entry.path()) {
            files.push(entry.path());
        } else {
            *skipped += 1;
        }
    }
    files.sort();
    Ok(files)
}

fn begins_like_capture(path: &Path) -> bool {
    let mut start = Vec::with_capacity(8);
    let Ok(file) = std::fs::File::open(path) else {
        // Let opening it say why.
        return true;
    };
    #[expect(clippy::disallowed_methods, reason = "limited to 8 bytes")]
    let read = file.take(8).read_to_end(&mut start);
    read.is_err() || Classic::is(&start) || Ng::is(&start) || Snoop::is(&start) || Layer::of(&start).is_some()
}
