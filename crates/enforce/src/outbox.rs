//! The durable outbox: what was accepted and is not finished, per target, in an embedded store.
//!
//! A row is written while its webhook is being sent and removed after it ended, so `kill -9` costs at most a
//! second delivery under the same id; only what was offered in the milliseconds before the commit can be lost
//! (`Delivery::kept` says what cannot). Rows of one batch share one commit (one fsync).

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use redb::{
    Database, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _, TableDefinition,
};
use serde::{Deserialize, Serialize};

const PENDING: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("pending");
const PARKED: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("parked");
/// Parked rows kept for people to look at; the oldest go first.
pub(crate) const PARKED_MAX: u64 = 10_000;

/// One webhook for one target.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Order of acceptance; unique per target.
    pub(crate) seq: u64,
    /// `webhook-id`.
    pub(crate) id: Arc<str>,
    /// Whom it is about, hashed; rows with the same one keep their order. 0: nobody in particular.
    pub(crate) entity: u64,
    pub(crate) body: Arc<str>,
    /// Wall time of acceptance.
    pub(crate) accepted_ms: u64,
    /// Wall time at which it is pointless; 0: never.
    pub(crate) expires_ms: u64,
    /// When it was offered; unknown after a restart.
    pub(crate) offered: Option<Instant>,
    pub(crate) attempts: u32,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    id: String,
    entity: u64,
    body: String,
    accepted_ms: u64,
    expires_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Stored {
    fn new(row: &Row) -> Self {
        Self {
            id: row.id.as_ref().to_owned(),
            entity: row.entity,
            body: row.body.as_ref().to_owned(),
            accepted_ms: row.accepted_ms,
            expires_ms: row.expires_ms,
            target: None,
            reason: None,
        }
    }
}

/// A row that ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) target: usize,
    pub(crate) row: Row,
    /// Why it is parked; `None`: delivered or dropped.
    pub(crate) parked: Option<String>,
}

/// Why the outbox cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutboxError {
    #[error("{0}")]
    File(#[from] std::io::Error),
    #[error("{0}")]
    Store(Box<redb::Error>),
    #[error("{0}")]
    Json(#[from] serde_json::Error),
}

/// Turns any of redb's errors into ours.
fn store(e: impl Into<redb::Error>) -> OutboxError {
    OutboxError::Store(Box::new(e.into()))
}

/// Memory that a store may use to cache its file.
pub(crate) const CACHE_BYTES: usize = 8 << 20;

/// Makes a store that is lost with the process.
pub(crate) fn in_memory() -> Result<Database, redb::DatabaseError> {
    redb::Builder::new().create_with_backend(redb::backends::InMemoryBackend::new())
}

/// Opens or makes a store that only its owner can read.
pub(crate) fn open_store(path: &Path, cache_bytes: usize) -> Result<Database, OutboxError> {
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let mut builder = redb::Builder::new();
    builder.set_cache_size(cache_bytes);
    builder.create_with_backend(redb::backends::FileBackend::new(file).map_err(store)?).map_err(store)
}

pub(crate) struct Outbox {
    db: Database,
    names: Vec<String>,
    next_parked: u64,
    pub(crate) path: Option<PathBuf>,
    /// A commit failed: the store takes nothing more until it is opened anew.
    broken: bool,
}

impl Outbox {
    /// Opens the outbox at `path` for targets called `names`.
    pub(crate) fn open(path: &Path, names: Vec<String>) -> Result<Self, OutboxError> {
        let outbox = Self::on(open_store(path, CACHE_BYTES)?, names)?;
        Ok(Self { path: Some(path.to_owned()), ..outbox })
    }

    /// Opens the file anew. Rows of the commit that failed are not in it.
    fn reopen(&mut self) -> Result<(), OutboxError> {
        let Some(path) = self.path.clone() else { return Ok(()) };
        // The file is locked until the old store is gone.
        self.db = in_memory().map_err(store)?;
        *self = Self::open(&path, self.names.clone())?;
        tracing::info!("the outbox was opened anew");
        Ok(())
    }

    /// Keeps the outbox in `db`.
    pub(crate) fn on(db: Database, names: Vec<String>) -> Result<Self, OutboxError> {
        let txn = db.begin_write().map_err(store)?;
        let next_parked;
        {
            txn.open_table(PENDING).map_err(store)?;
            let parked = txn.open_table(PARKED).map_err(store)?;
            next_parked = parked.last().map_err(store)?.map_or(0, |(k, _)| k.value() + 1);
        }
        txn.commit().map_err(store)?;
        Ok(Self { db, names, next_parked, path: None, broken: false })
    }

    /// Returns, per target, how many rows wait, and the lowest sequence number that is free everywhere.
    pub(crate) fn survey(&self) -> Result<(Vec<u64>, u64), OutboxError> {
        let txn = self.db.begin_read().map_err(store)?;
        let table = txn.open_table(PENDING).map_err(store)?;
        let mut waiting = vec![0; self.names.len()];
        let mut next = 1;
        for entry in table.iter().map_err(store)? {
            let (key, _) = entry.map_err(store)?;
            let (name, seq) = key.value();
            next = next.max(seq + 1);
            if let Some(n) = self.names.iter().position(|t| t == name).and_then(|at| waiting.get_mut(at)) {
                *n += 1;
            }
        }
        Ok((waiting, next))
    }

    /// Parks the rows of targets that are no longer configured; returns how many.
    pub(crate) fn park_strangers(&mut self) -> Result<u64, OutboxError> {
        let mut strangers = Vec::new();
        {
            let txn = self.db.begin_read().map_err(store)?;
            let table = txn.open_table(PENDING).map_err(store)?;
            for entry in table.iter().map_err(store)? {
                let (key, value) = entry.map_err(store)?;
                let (name, seq) = key.value();
                if !self.names.iter().any(|t| t == name) {
                    strangers.push((name.to_owned(), seq, value.value().to_vec()));
                }
            }
        }
        if strangers.is_empty() {
            return Ok(0);
        }
        let txn = self.db.begin_write().map_err(store)?;
        {
            let mut pending = txn.open_table(PENDING).map_err(store)?;
            let mut parked = txn.open_table(PARKED).map_err(store)?;
            for (name, seq, bytes) in &strangers {
                pending.remove((name.as_str(), *seq)).map_err(store)?;
                let mut stored: Stored = serde_json::from_slice(bytes)?;
                stored.target = Some(name.clone());
                stored.reason = Some("target_removed".to_owned());
                parked.insert(self.next_parked, serde_json::to_vec(&stored)?.as_slice()).map_err(store)?;
                self.next_parked += 1;
            }
        }
        txn.commit().map_err(store)?;
        Ok(strangers.len() as u64)
    }

    /// Writes new rows and removes ended ones, durably, in one commit.
    ///
    /// After a failure the file is opened anew by the next commit, which may be told the same once more.
    pub(crate) fn commit(&mut self, new: &[(usize, Row)], ended: &[Ended]) -> Result<(), OutboxError> {
        if self.broken {
            self.reopen()?;
        }
        let written = self.write(new, ended);
        self.broken = written.is_err();
        written
    }

    fn write(&mut self, new: &[(usize, Row)], ended: &[Ended]) -> Result<(), OutboxError> {
        let txn = self.db.begin_write().map_err(store)?;
        let mut next_parked = self.next_parked;
        {
            let mut pending = txn.open_table(PENDING).map_err(store)?;
            for (target, row) in new {
                let Some(name) = self.names.get(*target) else { continue };
                let bytes = serde_json::to_vec(&Stored::new(row))?;
                pending.insert((name.as_str(), row.seq), bytes.as_slice()).map_err(store)?;
            }
            for end in ended {
                let Some(name) = self.names.get(end.target) else { continue };
                pending.remove((name.as_str(), end.row.seq)).map_err(store)?;
            }
            let mut parked = txn.open_table(PARKED).map_err(store)?;
            for end in ended.iter().filter(|e| e.parked.is_some()) {
                let stored = Stored {
                    target: self.names.get(end.target).cloned(),
                    reason: end.parked.clone(),
                    ..Stored::new(&end.row)
                };
                parked.insert(next_parked, serde_json::to_vec(&stored)?.as_slice()).map_err(store)?;
                next_parked += 1;
            }
            while parked.len().map_err(store)? > PARKED_MAX {
                parked.pop_first().map_err(store)?;
            }
        }
        txn.commit().map_err(store)?;
        self.next_parked = next_parked;
        Ok(())
    }

    /// Reads up to `limit` rows of `target` from sequence number `from` on.
    pub(crate) fn load(&self, target: usize, from: u64, limit: usize) -> Result<Vec<Row>, OutboxError> {
        let Some(name) = self.names.get(target) else { return Ok(Vec::new()) };
        let txn = self.db.begin_read().map_err(store)?;
        let table = txn.open_table(PENDING).map_err(store)?;
        let mut rows = Vec::new();
        for entry in
            table.range((name.as_str(), from)..=(name.as_str(), u64::MAX)).map_err(store)?.take(limit)
        {
            let (key, value) = entry.map_err(store)?;
            let stored: Stored = serde_json::from_slice(value.value())?;
            rows.push(Row {
                seq: key.value().1,
                id: stored.id.into(),
                entity: stored.entity,
                body: stored.body.into(),
                accepted_ms: stored.accepted_ms,
                expires_ms: stored.expires_ms,
                offered: None,
                attempts: 0,
            });
        }
        Ok(rows)
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::Row;

    /// A disk that takes writes and fails to keep them once it is told to.
    #[derive(Debug)]
    struct FailingDisk(redb::backends::InMemoryBackend, Arc<AtomicBool>);

    /// Makes a store on such a disk; it fails once the flag is set.
    pub(crate) fn failing_store() -> (redb::Database, Arc<AtomicBool>) {
        let failing = Arc::new(AtomicBool::new(false));
        let disk = FailingDisk(redb::backends::InMemoryBackend::new(), Arc::clone(&failing));
        (redb::Builder::new().create_with_backend(disk).unwrap(), failing)
    }

    /// Makes a row that waits for nothing.
    pub(crate) fn row(seq: u64) -> Row {
        Row {
            seq,
            id: "d".into(),
            entity: 0,
            body: "{}".into(),
            accepted_ms: 1,
            expires_ms: 0,
            offered: None,
            attempts: 0,
        }
    }

    impl redb::StorageBackend for FailingDisk {
        fn len(&self) -> std::io::Result<u64> {
            self.0.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
            self.0.read(offset, out)
        }

        fn set_len(&self, len: u64) -> std::io::Result<()> {
            self.0.set_len(len)
        }

        fn sync_data(&self) -> std::io::Result<()> {
            if self.1.load(Ordering::SeqCst) { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }

        fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
            self.0.write(offset, data)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::testing::{failing_store, row};
    use super::*;

    #[test]
    fn an_outbox_that_failed_is_opened_anew_by_the_next_commit() {
        let (db, failing) = failing_store();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outbox");
        let mut outbox = Outbox::on(db, vec!["t".to_owned()]).unwrap();
        outbox.path = Some(path.clone());
        failing.store(true, Ordering::SeqCst);
        assert!(outbox.commit(&[(0, row(1))], &[]).is_err());
        outbox.commit(&[(0, row(2))], &[]).unwrap();
        drop(outbox);
        let again = Outbox::open(&path, vec!["t".to_owned()]).unwrap();
        assert_eq!(again.survey().unwrap(), (vec![1], 3), "the row of the commit that failed is not there");
    }
}
