//! The protocol between the nodes as state machines without I/O: rings and gap repair, the publisher's session, the
//! author of a generation, the fold that readers share, and admission.
//!
//! A machine is driven by `handle(now, input)` (or a named method where that reads better), drained with
//! `poll_output()` until it gives `None`, and called again with [`Millis`] at `next_timeout()`. It reads no clock and
//! draws no randomness: jitter comes from a seed given at construction. `docs/adr/0001` states the rules;
//! `tests/simulation.rs` checks them.
#![forbid(unsafe_code)]

pub mod admission;
pub mod job;
pub mod log;
mod machine;
pub mod playlist;
pub mod reader;
pub mod session;
pub mod state;
pub mod takeover;
pub mod time;

pub use machine::Machine;
pub use time::Millis;
