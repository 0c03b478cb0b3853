//! Jobs with encoded rungs beside the copy rung: alignment, gaps, replacement and troubled sources.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

mod engine;
mod failover;
mod fake;
mod gaps;
mod in_step;
mod pictures;
mod source;
mod trouble;
mod worker;
