//! What a report says of scoring.

use offpath_types::{EntityKey, EntityKind};

/// One endpoint's numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointSummary {
    /// Method and path template.
    pub endpoint: String,
    /// Requests since it was first seen (or last evicted).
    pub requests: u64,
    /// Responses with status 4xx or 5xx.
    pub errors: u64,
    /// Login attempts.
    pub logins: u64,
    /// Login attempts that failed.
    pub failures: u64,
}

/// What a login endpoint's outcomes are read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OutcomeSource {
    /// The operator's rule.
    Configured,
    /// The response body says so.
    Body,
    /// 4xx refuses, 2xx lets in.
    Status,
    /// Where the response redirects.
    Redirect,
    /// A form that is shown again refuses.
    FormShownAgain,
    /// A cookie lets in, none refuses.
    Cookie,
    /// No telling.
    Unknown,
}

impl OutcomeSource {
    /// Returns the name used in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Configured => "configured",
            Self::Body => "body",
            Self::Status => "status",
            Self::Redirect => "redirect",
            Self::FormShownAgain => "form_shown_again",
            Self::Cookie => "cookie",
            Self::Unknown => "unknown",
        }
    }
}

/// A login endpoint, found or configured, for the operator to confirm.
#[derive(Clone, Debug, PartialEq)]
pub struct LoginSummary {
    /// Method and path template.
    pub endpoint: String,
    /// A configured rule applies.
    pub configured: bool,
    /// What successes were read from, most often.
    pub success_from: OutcomeSource,
    /// What failures were read from, most often.
    pub failure_from: OutcomeSource,
    /// Attempts.
    pub attempts: u64,
    /// Attempts that got in.
    pub successes: u64,
    /// Attempts that were refused.
    pub failures: u64,
    /// Attempts with no telling.
    pub unknown: u64,
    /// Failure ratio of unsuspicious clients, smoothed.
    pub failure_ratio_baseline: f64,
}

/// One entity that was rated high.
#[derive(Clone, Debug, PartialEq)]
pub struct EntitySummary {
    /// Which.
    pub key: EntityKey,
    /// Its kind.
    pub kind: EntityKind,
    /// Its text, as records write it.
    pub text: String,
    /// Highest confidence of its transactions.
    pub confidence: u8,
    /// Transactions rated 90 or more.
    pub confident: u64,
    /// All its transactions.
    pub requests: u64,
}

/// What scoring found, for the report at the end. Every list is in a fixed order and capped.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScoreSummary {
    /// Endpoints with the most requests, at most 20.
    pub endpoints: Vec<EndpointSummary>,
    /// Login endpoints, most attempts first, at most 50.
    pub logins: Vec<LoginSummary>,
    /// Entities rated highest (50 or more), at most 50.
    pub entities: Vec<EntitySummary>,
    /// Live entities of each kind.
    pub live: Vec<(EntityKind, u64)>,
}
