//! The key file that turns identities into hashes.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use offpath_types::IdentityKey;

/// Returns where the key lives when the configuration does not say: below `$OFFPATH_STATE_DIR`, else
/// `/var/lib/offpath` for root, else `$XDG_STATE_HOME/offpath` or `~/.local/state/offpath`.
pub(crate) fn default_path() -> PathBuf {
    state_dir().join("identity.key")
}

/// Returns the directory for state: key, outbox, receiver state.
pub(crate) fn state_dir() -> PathBuf {
    let var = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(dir) = var("OFFPATH_STATE_DIR") {
        return dir;
    }
    if fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0) {
        return PathBuf::from("/var/lib/offpath");
    }
    var("XDG_STATE_HOME")
        .or_else(|| var("HOME").map(|home| home.join(".local/state")))
        .unwrap_or_else(|| PathBuf::from("/var/lib"))
        .join("offpath")
}

/// Makes the folder of `path` where there is none: so the first run needs no preparation.
pub(crate) fn make_folder_of(path: &Path) -> io::Result<()> {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).map_or(Ok(()), fs::create_dir_all)
}

/// Reads the key at `path`: 64 hexadecimal digits; makes it with mode 0600 where there is none.
///
/// Two processes that start together get the same key: the file is linked into place only if none is there.
pub(crate) fn load_or_create(path: &Path) -> io::Result<IdentityKey> {
    match read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            create(path)?;
            read(path)
        }
        other => other,
    }
}

fn read(path: &Path) -> io::Result<IdentityKey> {
    let text = zeroize::Zeroizing::new(fs::read_to_string(path)?);
    let digits = text.trim().as_bytes();
    let mut key = zeroize::Zeroizing::new([0u8; 32]);
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "an identity key is 64 hexadecimal digits");
    if digits.len() != 64 {
        return Err(bad());
    }
    for (slot, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |b: u8| (b as char).to_digit(16).ok_or_else(bad);
        *slot = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Ok(IdentityKey::new(*key))
}

fn create(path: &Path) -> io::Result<()> {
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_folder_of(path)?;
    let mut key = zeroize::Zeroizing::new([0u8; 32]);
    getrandom::fill(&mut *key).map_err(|e| io::Error::other(e.to_string()))?;
    let mut text = zeroize::Zeroizing::new(String::with_capacity(65));
    for byte in key.iter() {
        text.push_str(&format!("{byte:02x}"));
    }
    text.push('\n');
    let fresh = dir.join(format!(".identity-{}.tmp", std::process::id()));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        match fs::hard_link(&fresh, path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
            _ => Ok(()),
        }
    })();
    let _ = fs::remove_file(&fresh);
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_made_once_with_mode_0600_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/identity.key");
        let a = load_or_create(&path).unwrap().hash(b"user", b"ann");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(load_or_create(&path).unwrap().hash(b"user", b"ann"), a);
        assert_eq!(fs::read_dir(dir.path().join("state")).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn a_damaged_key_is_an_error_and_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        for text in ["", "abc", &"g".repeat(64), &"0".repeat(63)] {
            fs::write(&path, text).unwrap();
            assert_eq!(load_or_create(&path).unwrap_err().kind(), io::ErrorKind::InvalidData, "{text:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
