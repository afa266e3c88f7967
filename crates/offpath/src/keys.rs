//! TLS secrets from outside: key logs, read whole or as they grow, and what pcapng files hold.

mod feed;
mod log_file;
mod socket;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use crossbeam_channel::Receiver;
use offpath_capture::Secrets;
use offpath_protocol::{KeyLimits, KeyLine, KeyLogCounters, KeyLogParser, KeyStore};
use offpath_types::Timestamp;
use zeroize::Zeroizing;

pub(crate) use self::feed::{Feed, Lines, LiveCounters, Logs, last_lines};
use crate::exit::Failure;

/// Kind of a secrets block that holds a key log (pcapng, `secrets_type`).
const KEY_LOG: u32 = 0x544c_534b;
/// Bytes read at once.
const PIECE_BYTES: usize = 64 * 1024;

/// Secrets of a replay, and what was counted of them.
#[derive(Default)]
pub(crate) struct Keys {
    file: Option<Arc<KeyStore>>,
    /// Of workers' own stores.
    limits: KeyLimits,
    live: Option<Live>,
    /// What key logs held that were read whole.
    counters: KeyLogCounters,
}

/// Key logs of a replay that grow.
struct Live {
    feed: Feed,
    lines: Receiver<Lines>,
    stop: Arc<AtomicBool>,
}

impl Keys {
    /// Reads whole key logs.
    pub(crate) fn load(paths: &[PathBuf]) -> Result<Self, Failure> {
        if paths.is_empty() {
            return Ok(Self::default());
        }
        let mut store = KeyStore::new(KeyLimits::default());
        let mut counters = KeyLogCounters::default();
        for path in paths {
            if feed::socket_path(path).is_some() {
                let name = path.display();
                return Err(Failure::usage(anyhow::anyhow!(
                    "{name}: a socket is for attach, or for --follow"
                )));
            }
            let read = read_whole(path, &mut store)
                .with_context(|| format!("cannot read the key log {}", path.display()))
                .map_err(Failure::input)?;
            counters.merge(&read);
        }
        counters.connections_evicted_total = store.evicted();
        Ok(Self { file: Some(Arc::new(store)), counters, ..Self::default() })
    }

    /// Reads what key logs hold now, and goes on as they grow.
    pub(crate) fn follow(paths: &[PathBuf], limits: KeyLimits, quiet: bool) -> Result<Self, Failure> {
        let mut logs = Logs::open(paths, quiet)?;
        let mut store = KeyStore::new(KeyLimits::default());
        logs.read_now(|line| store.add(line, Timestamp::ZERO));
        let counters =
            KeyLogCounters { connections_evicted_total: store.evicted(), ..KeyLogCounters::default() };
        let stop = Arc::new(AtomicBool::new(false));
        let (feed, mut lines) = logs.start(1, Arc::clone(&stop))?;
        let live = lines.pop().map(|lines| Live { feed, lines, stop });
        Ok(Self { file: Some(Arc::new(store)), limits, live, counters })
    }

    /// Returns lines that have come since; none of what was read whole.
    pub(crate) fn fresh(&self) -> Option<Lines> {
        self.live.as_ref()?.lines.try_recv().ok()
    }

    /// Stops reading, and returns the last lines.
    pub(crate) fn last(&mut self) -> Vec<Lines> {
        let Some(live) = &self.live else { return Vec::new() };
        live.stop.store(true, Ordering::Relaxed);
        last_lines(&live.lines).collect()
    }

    /// Returns what was counted, once nothing more is read.
    pub(crate) fn finish(&mut self) -> Result<(KeyLogCounters, LiveCounters), Failure> {
        let mut counters = self.counters;
        let mut counted = LiveCounters::default();
        if let Some(live) = &mut self.live {
            live.stop.store(true, Ordering::Relaxed);
            let (lines, live) = live.feed.finish()?;
            counters.merge(&lines);
            counted = live;
        }
        Ok((counters, counted))
    }

    /// Returns the store of one worker.
    pub(crate) fn store(&self) -> KeyStore {
        let limits = self.limits.clone();
        match &self.file {
            Some(file) => KeyStore::over(Arc::clone(file), limits),
            None => KeyStore::new(limits),
        }
    }

    /// Returns what was counted of what was read whole, and of blocks.
    pub(crate) fn counters(&self) -> KeyLogCounters {
        self.counters
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

/// Reads a key log into `store`; returns its counts.
fn read_whole(path: &Path, store: &mut KeyStore) -> std::io::Result<KeyLogCounters> {
    let (mut parser, mut lines) = (KeyLogParser::default(), Vec::new());
    let mut file = File::open(path)?;
    let mut piece = Zeroizing::new(vec![0; PIECE_BYTES]);
    loop {
        let count = file.read(&mut piece)?;
        if count == 0 {
            parser.finish(&mut lines);
        } else {
            parser.push(&piece[..count], &mut lines);
        }
        lines.drain(..).for_each(|line| store.add(&line, Timestamp::ZERO));
        if count == 0 {
            return Ok(*parser.counters());
        }
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
        let mut keys = Keys::load(&[file.path().into()]).unwrap();
        assert_eq!((keys.counters.lines_used_total, keys.counters.lines_invalid_total), (2, 1));
        assert_eq!(keys.store().len(), 2);
        let block = |kind| Secrets { kind, data: line.replace("01", "03").into_bytes() };
        assert_eq!(keys.read(&[block(KEY_LOG), block(1)]).len(), 1, "of the kind that is a key log");
        assert_eq!(keys.counters.lines_used_total, 3);
        assert!(Keys::load(&["/nonexistent".into()]).is_err());
        assert!(Keys::load(&["unix:///run/keys".into()]).is_err(), "a socket is read by nobody");
        assert!(Keys::load(&[]).unwrap().store().is_empty());
    }
}
