//! End-to-end tests: the built binary on real input.
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod boundaries;
mod cli;
mod docs;
mod fuzz;
mod golden;
mod inventory;
mod keylog;
mod overload;
mod replay;
mod sources;
mod support;
mod webhook;
