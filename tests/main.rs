//! End-to-end tests: the built binary on real input.

mod boundaries;
mod cli;
mod docs;
mod golden;
mod replay;
mod support;
mod webhook;
