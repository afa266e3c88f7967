//! What scoring counted.

offpath_types::counters! {
    /// Counters of one scorer.
    ///
    /// They balance: `transactions == scored + without_request`; `login_attempts == login_successes +
    /// login_failures + login_unknown`; `policies_held == proposals + proposals_without_entity +
    /// policies_allowed`; for each table `entities_made == entities live + entities_evicted`.
    pub struct ScoreCounters {
        /// Transactions observed.
        transactions_total,
        /// Transactions that were rated.
        scored_total,
        /// Responses without a request: nobody to rate.
        without_request_total,
        /// Transactions handed on at an earlier time than one before them; the clock of scoring stood still.
        clock_backwards_total,
        /// Transactions that tried to log in.
        login_attempts_total,
        /// Of those, got in.
        login_successes_total,
        /// Of those, were refused.
        login_failures_total,
        /// Of those, no telling.
        login_unknown_total,
        /// Transactions rated 90 or more.
        confident_total,
        /// Accounts found at risk.
        accounts_at_risk_total,
        /// Policies whose condition held.
        policies_held_total,
        /// Proposals made.
        proposals_total,
        /// Policies that held for a transaction that lacks an entity of their scope.
        proposals_without_entity_total,
        /// `allow` policies that held and ended the evaluation.
        policies_allowed_total,
        /// Entities remembered, over all tables.
        entities_made_total,
        /// Entities evicted to make room, over all tables.
        entities_evicted_total,
        /// Of those: client addresses.
        evicted_ip_total,
        /// Of those: prefixes.
        evicted_prefix_total,
        /// Of those: sessions.
        evicted_session_total,
        /// Of those: users.
        evicted_user_total,
        /// Of those: fingerprints.
        evicted_fingerprint_total,
        /// Of those: endpoints.
        evicted_endpoint_total,
        /// Of those: cells.
        evicted_cell_total,
        /// Of those: passwords.
        evicted_password_total,
    }
}
