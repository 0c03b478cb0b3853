//! The ingest node: publishers come in over RTMP and RTMPS, their keys are claimed at control, their media leave on
//! the bus.
//!
//! ```text
//! listener → connection (RTMP) → mux (timestamps, segments, messages) → ring + bus
//!                 └ claim at control        lease · repairs · supervision of workers, each in a task of its own
//! ```
//!
//! What holds here:
//! * Whatever bytes come in, they cost their connection only: a panic closes it and is counted.
//! * The media path never waits: not for control, not for workers, not for the bus.
//! * A session ends on positive evidence (its publisher's end, a kick, a superseded lease), never on silence.
//! * A stream key is hashed as soon as it is read, and never logged.
#![forbid(unsafe_code)]

mod claim;
mod closing;
mod config;
mod connection;
mod gate;
pub mod limits;
mod listener;
mod metrics;
mod node;
mod publisher;
mod rate;
mod role;
mod tls;

pub use config::Config;
pub use node::{Deps, Node, start};
pub use role::Ingest;
