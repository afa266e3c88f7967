//! TLS secrets from outside: a key log file, and what pcapng files hold.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use offpath_capture::Secrets;
use offpath_protocol::{KeyLimits, KeyLine, KeyLogCounters, KeyLogParser, KeyStore};
use zeroize::Zeroizing;

use crate::exit::Failure;

/// Kind of a secrets block that holds a key log (pcapng, `secrets_type`).
const KEY_LOG: u32 = 0x544c_534b;
/// Bytes read at once.
const PIECE_BYTES: usize = 64 * 1024;

/// Secrets of a replay, and what was counted of them.
#[derive(Default)]
pub(crate) struct Keys {
    file: Option<Arc<KeyStore>>,
    /// What key logs held.
    pub(crate) counters: KeyLogCounters,
}

impl Keys {
    /// Reads a whole key log, if there is one.
    pub(crate) fn load(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path else { return Ok(Self::default()) };
        let mut parser = KeyLogParser::default();
        let mut store = KeyStore::new(KeyLimits::default());
        let mut lines = Vec::new();
        let mut read = || -> std::io::Result<()> {
            let mut file = File::open(path)?;
            let mut piece = Zeroizing::new(vec![0; PIECE_BYTES]);
            loop {
                let count = file.read(&mut piece)?;
                if count == 0 {
                    parser.finish(&mut lines);
                } else {
                    parser.push(&piece[..count], &mut lines);
                }
                lines.drain(..).for_each(|line| store.add(&line));
                if count == 0 {
                    return Ok(());
                }
            }
        };
        read()
            .with_context(|| format!("cannot read the key log {}", path.display()))
            .map_err(Failure::input)?;
        let mut counters = *parser.counters();
        counters.connections_evicted_total = store.evicted();
        Ok(Self { file: Some(Arc::new(store)), counters })
    }

    /// Returns the store of one worker.
    pub(crate) fn store(&self) -> KeyStore {
        let limits = KeyLimits::default();
        match &self.file {
            Some(file) => KeyStore::over(Arc::clone(file), limits),
            None => KeyStore::new(limits),
        }
    }

    /// Reads secrets blocks.
    pub(crate) fn read(&mut self, blocks: &[Secrets]) -> Vec<KeyLine> {
        let mut lines = Vec::new();
        for block in blocks.iter().filter(|block| block.kind == KEY_LOG) {
            let mut parser = KeyLogParser::default();
            parser.push(&block.data, &mut lines);
            parser.finish(&mut lines);
            self.counters.merge(parser.counters());
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_blocks_give_lines_and_counts() {
        let line = format!("CLIENT_RANDOM {} {}", "01".repeat(32), "ab".repeat(48));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("# comment\n{line}\nnonsense\n{}", line.replace("01", "02")))
            .unwrap();
        let mut keys = Keys::load(Some(file.path())).unwrap();
        assert_eq!((keys.counters.lines_used_total, keys.counters.lines_invalid_total), (2, 1));
        assert_eq!(keys.store().len(), 2);
        let block = |kind| Secrets { kind, data: line.replace("01", "03").into_bytes() };
        assert_eq!(keys.read(&[block(KEY_LOG), block(1)]).len(), 1, "of the kind that is a key log");
        assert_eq!(keys.counters.lines_used_total, 3);
        assert!(Keys::load(Some(Path::new("/nonexistent"))).is_err());
        assert!(Keys::load(None).unwrap().store().is_empty());
    }
}
