//! What a head and a body mean: from parsed heads and body bytes to the fields of a `Transaction`.

mod body;
mod config;

pub use body::BodyTap;
pub use config::FactsConfig;

use offpath_types::{IdentityKey, Transaction};

use crate::head::{RequestHead, ResponseHead};

offpath_types::counters! {
    /// What was found in heads and bodies.
    pub struct FactsCounters {
        /// Request heads read.
        facts_request_heads_total,
        /// Response heads read.
        facts_response_heads_total,
    }
}

/// Turns heads and bodies into facts about a transaction.
pub struct Facts {
    config: FactsConfig,
    key: IdentityKey,
    counters: FactsCounters,
}

impl Facts {
    /// Makes an extractor.
    pub fn new(config: FactsConfig, key: IdentityKey) -> Self {
        Self { config, key, counters: FactsCounters::default() }
    }

    /// Fills `tx` from a request head; returns a tap where the body is worth looking into.
    pub fn request_head(&mut self, head: &RequestHead<'_>, tx: &mut Transaction) -> Option<Box<BodyTap>> {
        self.counters.facts_request_heads_total += 1;
        let _ = (&self.config, &self.key);
        tx.method = tx.text.push(head.method);
        tx.target = tx.text.push(head.target);
        None
    }

    /// Fills `tx` from the final response head; returns a tap where the body is worth looking into.
    pub fn response_head(&mut self, _head: &ResponseHead<'_>, _tx: &mut Transaction) -> Option<Box<BodyTap>> {
        self.counters.facts_response_heads_total += 1;
        None
    }

    /// Takes body bytes (after dechunking) in order.
    pub fn body(&mut self, tap: &mut BodyTap, bytes: &[u8]) {
        tap.push(bytes);
    }

    /// Tells that body bytes are missing here.
    pub fn body_gap(&mut self, tap: &mut BodyTap) {
        tap.gap();
    }

    /// Ends a request body: fills in user and password.
    pub fn request_body_end(&mut self, tap: Box<BodyTap>, _tx: &mut Transaction) {
        drop(tap);
    }

    /// Ends a response body: fills in what it hints at.
    pub fn response_body_end(&mut self, tap: Box<BodyTap>, _tx: &mut Transaction) {
        drop(tap);
    }

    /// Returns the counts so far.
    pub fn counters(&self) -> &FactsCounters {
        &self.counters
    }
}
