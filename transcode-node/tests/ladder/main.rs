//! Jobs with encoded rungs beside the copy rung: alignment, gaps, replacement and troubled sources.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

mod fake;
mod gaps;
mod source;
mod worker;
