//! The thread that owns the state and the providers that keep something.
//!
//! Jobs are taken in batches: one pass over the providers and one commit for all that wait. A decision is
//! answered after it is in the providers and in the store; a crash in between leaves an entry that the next
//! start removes, and the sender, unanswered, sends again.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::haproxy::Haproxy;
use super::http::Shared;
use super::nginx::Nginx;
use super::state::{Block, State};
use super::stateless::Outputs;
use super::{BlockRecord, ProviderConfig, ReceiverConfig};
use crate::clock;

/// Jobs of one batch.
const BATCH: usize = 256;

pub(super) enum Job {
    /// May this id be worked on?
    Begin {
        id: String,
        reply: oneshot::Sender<Begun>,
    },
    /// The work on `id` ended; `remember` it, so that a repeat is recognised.
    Finish {
        id: String,
        remember: bool,
        change: Change,
        reply: oneshot::Sender<Result<Outcome, String>>,
    },
    List {
        reply: oneshot::Sender<Vec<BlockRecord>>,
    },
    Undo {
        id: String,
        reply: oneshot::Sender<bool>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begun {
    Fresh,
    Duplicate,
    Busy,
    /// It was worked on and is not durable, or it would not be: the state cannot be written.
    Unwritable,
}

pub(super) enum Change {
    Nothing,
    Put { key: String, block: Box<Block> },
    Take { key: String },
}

/// What became of a change: per provider, and whether there was something to take.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) providers: Vec<(String, String)>,
    pub(super) found: bool,
}

enum Keeper {
    Haproxy(Haproxy),
    Nginx(Nginx),
}

impl Keeper {
    /// Tells whether it holds what it was last given, but the WAF has not read it yet.
    fn behind(&self) -> bool {
        match self {
            Self::Haproxy(_) => false,
            Self::Nginx(nginx) => nginx.behind(),
        }
    }
}

struct Kept {
    name: String,
    keeper: Keeper,
    /// Why it does not agree with the state.
    failure: Option<String>,
}

/// Tells whether `provider` keeps a list that can hold exactly this.
pub(super) fn keeps(provider: &ProviderConfig, block: &Block) -> bool {
    let action = block.action();
    block.net.is_some()
        && match provider {
            ProviderConfig::Haproxy { map, .. } => Haproxy::supports(*map, action),
            ProviderConfig::Nginx { .. } => Nginx::supports(action),
            ProviderConfig::Command { .. } | ProviderConfig::Log { .. } => false,
        }
}

pub(super) struct Applier {
    config: Arc<ReceiverConfig>,
    state: State,
    kept: Vec<Kept>,
    outputs: Arc<Outputs>,
    shared: Arc<Shared>,
    under_way: HashSet<String>,
}

impl Applier {
    pub(super) fn new(
        config: Arc<ReceiverConfig>,
        state: State,
        outputs: Arc<Outputs>,
        shared: Arc<Shared>,
    ) -> Self {
        let keeper = |p: &ProviderConfig| {
            let keeper = match p.clone() {
                ProviderConfig::Haproxy { socket, list, map } => {
                    Keeper::Haproxy(Haproxy::new(socket, list, map))
                }
                ProviderConfig::Nginx { path, reload } => Keeper::Nginx(Nginx::new(path, reload)),
                ProviderConfig::Command { .. } | ProviderConfig::Log { .. } => return None,
            };
            Some(Kept { name: p.to_string(), keeper, failure: None })
        };
        let kept = config.to.iter().filter_map(keeper).collect();
        Self { config, state, kept, outputs, shared, under_way: HashSet::new() }
    }

    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Job>) {
        let every = Duration::from_millis(self.config.reconcile_ms.max(10));
        let mut reconcile_at = Instant::now();
        let mut jobs = Vec::new();
        loop {
            if reconcile_at <= Instant::now() {
                self.reconcile().await;
                reconcile_at = Instant::now() + every;
            }
            let ends = self.state.next_end().map(|end| {
                Instant::now() + Duration::from_millis(end.saturating_sub(clock::wall_ms())).min(every)
            });
            let reload = self.kept.iter().filter_map(|k| match &k.keeper {
                Keeper::Nginx(nginx) => nginx.next(),
                Keeper::Haproxy(_) => None,
            });
            let wake = reload.chain(ends).chain([reconcile_at]).min().unwrap_or(reconcile_at);
            let mut open = true;
            tokio::select! {
                n = inbox.recv_many(&mut jobs, BATCH) => open = n > 0,
                () = tokio::time::sleep_until(wake) => {}
            }
            self.work(std::mem::take(&mut jobs)).await;
            if !open {
                break;
            }
        }
        if let Err(error) = self.state.commit() {
            tracing::error!(error, "the receiver's state cannot be written");
        }
    }

    async fn work(&mut self, jobs: Vec<Job>) {
        let mut finished = Vec::new();
        let mut undone = Vec::new();
        let mut gone: Vec<(Block, &'static str)> = Vec::new();
        let mut changed = false;
        while let Some(block) = self.state.take_ended(clock::wall_ms()) {
            self.shared.bump(|c| c.expired_total += 1);
            gone.push((block, "expired"));
            changed = true;
        }
        for job in jobs {
            match job {
                Job::Begin { id, reply } => {
                    let begun = if self.state.held_up(&id) {
                        Begun::Unwritable
                    } else if self.state.seen(&id) {
                        Begun::Duplicate
                    } else if self.under_way.insert(id) {
                        Begun::Fresh
                    } else {
                        Begun::Busy
                    };
                    let _ = reply.send(begun);
                }
                Job::Finish { id, remember, change, reply } => {
                    let mut wanted = None;
                    let result = match change {
                        Change::Nothing => Ok(false),
                        Change::Put { key, block } => {
                            if self.state.blocks.len() >= self.config.blocks_max
                                && !self.state.blocks.contains_key(&key)
                            {
                                Err("as many decisions are in force as may be".to_owned())
                            } else {
                                wanted = Some((*block).clone());
                                self.state.put(key, *block);
                                changed = true;
                                Ok(true)
                            }
                        }
                        Change::Take { key } => {
                            let taken = self.state.take(&key);
                            changed |= taken.is_some();
                            Ok(taken.is_some())
                        }
                    };
                    self.under_way.remove(&id);
                    if remember && result.is_ok() {
                        self.state.note(id);
                    }
                    finished.push((result, wanted, reply));
                }
                Job::List { reply } => {
                    let now = clock::wall_ms();
                    let _ = reply.send(self.state.blocks.values().map(|b| b.listed(now)).collect());
                }
                Job::Undo { id, reply } => {
                    let block = self.state.key_of(&id).and_then(|key| self.state.take(&key));
                    let found = block.is_some();
                    if let Some(block) = block {
                        self.shared.bump(|c| c.undone_by_admin_total += 1);
                        tracing::info!(id, "undone by an admin request");
                        gone.push((block, "undone"));
                        changed = true;
                    }
                    undone.push((reply, found));
                }
            }
        }
        if changed {
            self.agree().await;
        }
        self.tick().await;
        let written = self.state.commit();
        if let Err(error) = &written {
            tracing::error!(error, "the receiver's state cannot be written");
        }
        for (result, wanted, reply) in finished {
            let answer = match (&written, result) {
                (Err(error), _) => Err(format!("state: {error}")),
                (Ok(()), Err(error)) => Err(error),
                (Ok(()), Ok(found)) => Ok(Outcome { providers: self.statuses(wanted.as_ref()), found }),
            };
            let _ = reply.send(answer);
        }
        for (reply, found) in undone {
            let _ = reply.send(found);
        }
        if !gone.is_empty() && !self.outputs.is_empty() {
            let outputs = self.outputs.clone();
            tokio::spawn(async move {
                for (block, why) in gone {
                    let _ = outputs.tell(&unblock_line(block, why), false).await;
                }
            });
        }
    }

    fn statuses(&self, block: Option<&Block>) -> Vec<(String, String)> {
        let Some(block) = block else { return Vec::new() };
        let lists = self
            .config
            .to
            .iter()
            .filter(|p| matches!(p, ProviderConfig::Haproxy { .. } | ProviderConfig::Nginx { .. }));
        lists
            .zip(&self.kept)
            .map(|(provider, kept)| {
                let status = match (&kept.failure, keeps(provider, block)) {
                    (_, false) => "unsupported".to_owned(),
                    (Some(failure), true) => format!("pending: {failure}"),
                    (None, true) if kept.keeper.behind() => "pending: nginx has yet to reload".to_owned(),
                    (None, true) => "applied".to_owned(),
                };
                (kept.name.clone(), status)
            })
            .collect()
    }

    /// Brings every list up to the state.
    async fn agree(&mut self) {
        for kept in &mut self.kept {
            let result = match &mut kept.keeper {
                Keeper::Haproxy(haproxy) => haproxy.apply(&self.state.desired).await.map(|_| ()),
                Keeper::Nginx(nginx) => nginx.apply(&self.state.desired),
            };
            note(&self.shared, kept, result);
        }
    }

    /// Compares every list with the state, also where nothing changed.
    async fn reconcile(&mut self) {
        for kept in &mut self.kept {
            let result = match &mut kept.keeper {
                Keeper::Haproxy(haproxy) => haproxy.reconcile(&self.state.desired).await.map(|changes| {
                    if changes > 0 {
                        self.shared.bump(|c| c.reconciled_total += changes);
                        tracing::info!(provider = kept.name, changes, "a list was put right");
                    }
                }),
                Keeper::Nginx(nginx) => nginx.apply(&self.state.desired),
            };
            note(&self.shared, kept, result);
        }
    }

    async fn tick(&mut self) {
        for kept in &mut self.kept {
            if let Keeper::Nginx(nginx) = &mut kept.keeper
                && let Err(error) = nginx.tick().await
            {
                note(&self.shared, kept, Err(error));
            }
        }
    }
}

/// Keeps a provider's failure and logs when it begins and ends; one that is behind has not caught up yet.
fn note(shared: &Shared, kept: &mut Kept, result: Result<(), String>) {
    let (name, failure) = (&kept.name, &mut kept.failure);
    match result {
        Ok(()) if kept.keeper.behind() => {}
        Ok(()) => {
            if failure.take().is_some() {
                tracing::info!(provider = name, "the provider agrees with the state again");
            }
        }
        Err(error) => {
            shared.bump(|c| c.provider_failures_total += 1);
            if failure.as_ref() != Some(&error) {
                tracing::warn!(provider = name, error, "the provider does not take decisions; trying on");
            }
            *failure = Some(error);
        }
    }
}

/// Tells commands and logs that a decision is over: the same record as an `unblock`, its id marked.
fn unblock_line(block: Block, why: &str) -> String {
    let mut record = block.record;
    record.id = format!("{}-{why}", record.id);
    record.action = "unblock".to_owned();
    record.ttl_secs = 0;
    record.reasons.clear();
    serde_json::to_string(&record).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::outbox::testing::failing_store;

    /// Works on one id from beginning to end; returns how it began and whether it was answered with success.
    async fn take(applier: &mut Applier, id: &str) -> (Begun, bool) {
        let (reply, begun) = oneshot::channel();
        applier.work(vec![Job::Begin { id: id.to_owned(), reply }]).await;
        let begun = begun.await.unwrap();
        if begun != Begun::Fresh {
            return (begun, false);
        }
        let (reply, done) = oneshot::channel();
        let job = Job::Finish { id: id.to_owned(), remember: true, change: Change::Nothing, reply };
        applier.work(vec![job]).await;
        (begun, done.await.unwrap().is_ok())
    }

    #[tokio::test]
    async fn a_store_that_failed_is_opened_anew_and_gets_what_it_missed() {
        let dir = tempfile::tempdir().unwrap();
        let (db, failing) = failing_store();
        let path = dir.path().join("state");
        let config = Arc::new(ReceiverConfig { state_path: Some(path.clone()), ..ReceiverConfig::default() });
        let state = State::on(db, &config).unwrap();
        let outputs = Arc::new(Outputs::new(&config.to));
        let mut applier = Applier::new(Arc::clone(&config), state, outputs, Arc::default());
        failing.store(true, Ordering::SeqCst);
        assert_eq!(take(&mut applier, "a").await, (Begun::Fresh, false));
        assert_eq!(take(&mut applier, "a").await, (Begun::Duplicate, false), "durable in the new store");
        assert_eq!(take(&mut applier, "b").await, (Begun::Fresh, true));
        drop(applier);
        let again = State::open(&config).unwrap();
        assert!(again.seen("a") && again.seen("b") && !again.seen("c"));
    }

    #[tokio::test]
    async fn what_is_not_durable_is_never_called_a_duplicate_and_does_not_pile_up() {
        let (db, failing) = failing_store();
        let config = Arc::new(ReceiverConfig::default());
        let state = State::on(db, &config).unwrap();
        let outputs = Arc::new(Outputs::new(&config.to));
        let mut applier = Applier::new(config, state, outputs, Arc::default());
        assert_eq!(take(&mut applier, "a").await, (Begun::Fresh, true));
        assert_eq!(take(&mut applier, "a").await, (Begun::Duplicate, false));
        failing.store(true, Ordering::SeqCst);
        assert_eq!(take(&mut applier, "b").await, (Begun::Fresh, false));
        assert_eq!(take(&mut applier, "b").await, (Begun::Unwritable, false), "the sender tries again");
        let mut fresh = 0;
        for n in 0..2000 {
            fresh += usize::from(take(&mut applier, &n.to_string()).await.0 == Begun::Fresh);
        }
        assert_eq!(fresh, 1023, "with `b` as many as may wait for the store");
    }
}
