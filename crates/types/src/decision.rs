//! What to do about a verdict.

use crate::{EntityKind, Timestamp};

/// What a decision asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Refuse matching requests.
    Block,
    /// Make matching clients prove themselves.
    Challenge,
    /// Mark for another system.
    Tag,
    /// Put before a person.
    Review,
    /// Tell somebody.
    Notify,
    /// Take a block or challenge back.
    Unblock,
    /// Policies only: stop here, ask for nothing.
    Allow,
}

impl Action {
    /// Returns the name used in records and configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Challenge => "challenge",
            Self::Tag => "tag",
            Self::Review => "review",
            Self::Notify => "notify",
            Self::Unblock => "unblock",
            Self::Allow => "allow",
        }
    }
}

/// One entity value that a request must equal; the text is that of `offpath.entities` in records.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MatchValue {
    /// Which entity.
    pub kind: EntityKind,
    /// Its value as records write it: an address, a CIDR, a hash in hex, `POST /login`.
    pub value: String,
}

/// Why, for people: one signal of the verdict that made the decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Reason {
    /// Name of the signal.
    pub signal: String,
    /// What was observed.
    pub value: f64,
    /// What would be usual.
    pub baseline: f64,
    /// How much it added.
    pub contribution: f64,
}

/// What to do, to whom, for how long, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Unique and repeatable: a hash of policy, match and time.
    pub id: String,
    /// Packet time of the deciding transaction's last byte.
    pub time: Timestamp,
    /// What to do.
    pub action: Action,
    /// Every value must equal; never empty for `Block` and `Challenge`.
    pub matches: Vec<MatchValue>,
    /// How long it holds, from `time`.
    pub ttl_secs: u32,
    /// Confidence of the deciding transaction, 0..=100.
    pub confidence: u8,
    /// Name of the policy.
    pub policy: String,
    /// Id of the campaign, where there is one.
    pub campaign: Option<String>,
    /// Why.
    pub reasons: Vec<Reason>,
    /// Ids of the transactions that are evidence, the deciding one last.
    pub transactions: Vec<String>,
    /// Only a rehearsal: nobody acts on it.
    pub dry_run: bool,
    /// Share of the traffic that was seen when it was made, 0..=1.
    pub observability: f64,
}
