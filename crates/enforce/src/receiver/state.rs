//! What should be in force, and which ids were seen: in memory for reading, in a store for the next start.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use ipnet::IpNet;
use offpath_types::Action;
use redb::{
    Database, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _, TableDefinition,
};
use serde::{Deserialize, Serialize};

use super::{BlockRecord, ReceiverConfig};
use crate::outbox::{CACHE_BYTES, in_memory, open_store};
use crate::record::rfc3339;
use crate::{DecisionRecord, clock};

const BLOCKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("blocks");
const IDS: TableDefinition<'_, &str, u64> = TableDefinition::new("ids");
const IDS_BY_TIME: TableDefinition<'_, (u64, &str), ()> = TableDefinition::new("ids_by_time");
/// Old ids removed with one commit.
const IDS_FORGOTTEN_AT_ONCE: usize = 64;
/// Ids that may wait for a store that cannot be written. Past it no new decision is taken.
const IDS_UNWRITTEN_MAX: usize = 1024;

/// A decision in force.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Block {
    pub(super) record: DecisionRecord,
    /// Comes back from the key, which is its text.
    #[serde(skip)]
    pub(super) net: Option<IpNet>,
    pub(super) received_ms: u64,
    pub(super) expires_ms: u64,
}

impl Block {
    pub(super) fn action(&self) -> Action {
        self.record.action().unwrap_or(Action::Block)
    }

    pub(super) fn listed(&self, now_ms: u64) -> BlockRecord {
        let time = |ms: u64| rfc3339(offpath_types::Timestamp::from_nanos(ms.saturating_mul(1_000_000)));
        BlockRecord {
            id: self.record.id.clone(),
            action: self.record.action.clone(),
            matches: self.record.matches.clone(),
            policy: self.record.policy.clone(),
            confidence: self.record.confidence,
            received: time(self.received_ms),
            expires: time(self.expires_ms),
            expires_in_secs: self.expires_ms.saturating_sub(now_ms).div_ceil(1000),
        }
    }
}

// Invariant: `ends` has exactly (expires, key) of each block; `desired` has the action of each block with a net.
pub(super) struct State {
    db: Database,
    path: Option<PathBuf>,
    /// The store failed, and takes nothing more until it is opened anew; `db` may be an empty one in memory.
    broken: bool,
    pub(super) blocks: BTreeMap<String, Block>,
    ends: BTreeSet<(u64, String)>,
    pub(super) desired: BTreeMap<IpNet, Action>,
    changed: BTreeSet<String>,
    /// Ids that are not in the store yet; no more than [`IDS_UNWRITTEN_MAX`] and a batch, see [`State::held_up`].
    new_ids: BTreeSet<String>,
    ids_keep_ms: u64,
    ids_max: u64,
}

impl State {
    pub(super) fn open(config: &ReceiverConfig) -> Result<Self, String> {
        let text = |e: &dyn std::fmt::Display| e.to_string();
        let db = match &config.state_path {
            Some(path) => open_store(path, CACHE_BYTES).map_err(|e| text(&e))?,
            None => in_memory().map_err(|e| text(&e))?,
        };
        Self::on(db, config).map_err(|e| text(&e))
    }

    /// Keeps the state in `db`, with what is there.
    pub(super) fn on(db: Database, config: &ReceiverConfig) -> Result<Self, Box<dyn std::error::Error>> {
        let mut state = Self {
            db,
            path: config.state_path.clone(),
            broken: false,
            blocks: BTreeMap::new(),
            ends: BTreeSet::new(),
            desired: BTreeMap::new(),
            changed: BTreeSet::new(),
            new_ids: BTreeSet::new(),
            ids_keep_ms: config.ids_keep_secs.saturating_mul(1000),
            ids_max: config.ids_max.max(1),
        };
        let found = state.load()?;
        for (key, block) in found {
            state.put(key, block);
        }
        state.changed.clear();
        Ok(state)
    }

    fn load(&self) -> Result<Vec<(String, Block)>, Box<dyn std::error::Error>> {
        let txn = self.db.begin_write()?;
        let mut found = Vec::new();
        {
            txn.open_table(IDS)?;
            txn.open_table(IDS_BY_TIME)?;
            for entry in txn.open_table(BLOCKS)?.iter()? {
                let (key, value) = entry?;
                let mut block: Block = serde_json::from_slice(value.value())?;
                block.net = key.value().parse().ok();
                found.push((key.value().to_owned(), block));
            }
        }
        txn.commit()?;
        Ok(found)
    }

    pub(super) fn put(&mut self, key: String, block: Block) {
        self.take(&key);
        if let Some(net) = block.net {
            self.desired.insert(net, block.action());
        }
        self.ends.insert((block.expires_ms, key.clone()));
        self.changed.insert(key.clone());
        self.blocks.insert(key, block);
    }

    pub(super) fn take(&mut self, key: &str) -> Option<Block> {
        let block = self.blocks.remove(key)?;
        self.ends.remove(&(block.expires_ms, key.to_owned()));
        if let Some(net) = &block.net {
            self.desired.remove(net);
        }
        self.changed.insert(key.to_owned());
        Some(block)
    }

    /// Takes out a block that ended by `now_ms`.
    pub(super) fn take_ended(&mut self, now_ms: u64) -> Option<Block> {
        let (end, key) = self.ends.first()?.clone();
        if end > now_ms {
            return None;
        }
        self.take(&key)
    }

    pub(super) fn next_end(&self) -> Option<u64> {
        self.ends.first().map(|(end, _)| *end)
    }

    pub(super) fn key_of(&self, id: &str) -> Option<String> {
        self.blocks.iter().find(|(_, b)| b.record.id == id).map(|(key, _)| key.clone())
    }

    /// Tells whether `id` was seen; on a store that cannot be read it was not.
    pub(super) fn seen(&self, id: &str) -> bool {
        if self.new_ids.contains(id) {
            return true;
        }
        let look = || -> Result<bool, redb::Error> {
            let txn = self.db.begin_read()?;
            Ok(txn.open_table(IDS)?.get(id)?.is_some())
        };
        look().unwrap_or_else(|error| {
            tracing::error!(%error, "the receiver's state cannot be read");
            false
        })
    }

    pub(super) fn note(&mut self, id: String) {
        self.new_ids.insert(id);
    }

    /// Tells whether `id` has to wait for the store: it was noted and is not durable, or too many like it are not.
    pub(super) fn held_up(&mut self, id: &str) -> bool {
        // Before anything is looked up in it.
        let broken = self.broken && self.commit().is_err();
        let waits = self.new_ids.contains(id) || self.new_ids.len() >= IDS_UNWRITTEN_MAX;
        waits && (broken || self.commit().is_err())
    }

    /// Writes what changed since the last time, durably, in one commit. On failure it is kept for the next.
    pub(super) fn commit(&mut self) -> Result<(), String> {
        if self.broken {
            self.reopen()?;
        }
        if self.changed.is_empty() && self.new_ids.is_empty() {
            return Ok(());
        }
        self.write().map_err(|e| {
            self.broken = true;
            e.to_string()
        })?;
        self.changed.clear();
        self.new_ids.clear();
        Ok(())
    }

    /// Opens the store anew: after a failed write it takes nothing more. What is in force is in memory.
    fn reopen(&mut self) -> Result<(), String> {
        let Some(path) = &self.path else { return Err("the store in memory failed".to_owned()) };
        // The file is locked until the old store is gone.
        self.db = in_memory().map_err(|e| e.to_string())?;
        self.db = open_store(path, CACHE_BYTES).map_err(|e| e.to_string())?;
        self.load().map_err(|e| e.to_string())?;
        self.broken = false;
        tracing::info!("the receiver's state was opened anew");
        Ok(())
    }

    fn write(&self) -> Result<(), Box<dyn std::error::Error>> {
        let now = clock::wall_ms();
        let txn = self.db.begin_write()?;
        {
            let mut blocks = txn.open_table(BLOCKS)?;
            for key in &self.changed {
                match self.blocks.get(key) {
                    Some(block) => drop(blocks.insert(key.as_str(), serde_json::to_vec(block)?.as_slice())?),
                    None => drop(blocks.remove(key.as_str())?),
                }
            }
            let mut ids = txn.open_table(IDS)?;
            let mut by_time = txn.open_table(IDS_BY_TIME)?;
            for id in &self.new_ids {
                ids.insert(id.as_str(), now)?;
                by_time.insert((now, id.as_str()), ())?;
            }
            for _ in 0..IDS_FORGOTTEN_AT_ONCE.max(2 * self.new_ids.len()) {
                let Some((time, id)) = by_time.first()?.map(|(k, _)| (k.value().0, k.value().1.to_owned()))
                else {
                    break;
                };
                if now.saturating_sub(time) <= self.ids_keep_ms && ids.len()? <= self.ids_max {
                    break;
                }
                by_time.remove((time, id.as_str()))?;
                ids.remove(id.as_str())?;
            }
        }
        txn.commit()?;
        Ok(())
    }
}
