//! The transcoder over whole clips: what goes in as coded media comes out on the same places.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "tests")]

mod ladder;
mod pictures;
mod random;
mod sound;
mod support;
mod trouble;
