//! What planning hands to delivery.

use offpath_types::{Decision, MatchValue, Timestamp};

/// Something that somebody outside is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// `offpath.decision.v1`: what to do, to whom.
    Decision(Decision),
    /// `offpath.account_at_risk.v1`: an attacker has probably found a password.
    AccountAtRisk(AccountAtRiskEvent),
    /// `offpath.alarm.v1`: enforcement itself needs a person.
    Alarm(Alarm),
}

impl Event {
    /// Returns the id: the idempotency key of the webhook.
    pub fn id(&self) -> &str {
        match self {
            Self::Decision(d) => &d.id,
            Self::AccountAtRisk(a) => &a.id,
            Self::Alarm(a) => &a.id,
        }
    }

    /// Returns the packet time.
    pub fn time(&self) -> Timestamp {
        match self {
            Self::Decision(d) => d.time,
            Self::AccountAtRisk(a) => a.time,
            Self::Alarm(a) => a.time,
        }
    }

    /// Returns the webhook type.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Decision(_) => "offpath.decision.v1",
            Self::AccountAtRisk(_) => "offpath.account_at_risk.v1",
            Self::Alarm(_) => "offpath.alarm.v1",
        }
    }

    /// Returns the decision, where it is one.
    pub fn decision(&self) -> Option<&Decision> {
        match self {
            Self::Decision(d) => Some(d),
            Self::AccountAtRisk(_) | Self::Alarm(_) => None,
        }
    }
}

/// A login that succeeded although it should not have.
#[derive(Clone, Debug, PartialEq)]
pub struct AccountAtRiskEvent {
    /// Unique and repeatable: a hash of user and time.
    pub id: String,
    /// Packet time of the login's last byte.
    pub time: Timestamp,
    /// The hashed user.
    pub user: String,
    /// Failures on the user, or by the client, before the success.
    pub failures_before: u32,
    /// Confidence that the login was automated, 0..=100.
    pub confidence: u8,
    /// Every entity of the login's transaction.
    pub entities: Vec<MatchValue>,
    /// Id of the login's transaction.
    pub transaction: String,
    /// Only a rehearsal.
    pub dry_run: bool,
}

/// What an alarm is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AlarmKind {
    /// The cap on new blocks per minute was reached; further ones are not made.
    NewBlocksCapped,
    /// A match was shared by too many who behave well, and no narrower one was found.
    BlastRadius,
    /// As many decisions are in force as may be; new ones are not made.
    ActiveFull,
}

impl AlarmKind {
    /// Returns the name used in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NewBlocksCapped => "new_blocks_capped",
            Self::BlastRadius => "blast_radius",
            Self::ActiveFull => "active_full",
        }
    }
}

/// Enforcement held back; at most one per kind and minute of packet time.
#[derive(Clone, Debug, PartialEq)]
pub struct Alarm {
    /// Unique and repeatable: a hash of kind and time.
    pub id: String,
    /// Packet time.
    pub time: Timestamp,
    /// What it is about.
    pub kind: AlarmKind,
    /// The limit that was met.
    pub limit: u64,
    /// How many decisions of this kind were held back since the alarm before, this one included.
    pub held_back: u64,
    /// The policy that wished for the decision.
    pub policy: String,
    /// What it wished to match.
    pub matches: Vec<MatchValue>,
}
