//! What every node needs and no protocol knows: configuration, logging, metrics and health, time,
//! back-off, drain, secrets, and the supervision of actors.
//!
//! Only this crate and the `actors` module of a node import actix; only this crate and the `http`
//! modules of a node import actix-web.
#![forbid(unsafe_code)]

pub mod actors;
pub mod address;
pub mod alarm;
pub mod backoff;
pub mod clock;
pub mod config;
pub mod drain;
pub mod health;
pub mod http;
pub mod logging;
pub mod metrics;
mod pacing;
pub mod secret;
pub mod supervisor;

pub use actors::block_on;
pub use alarm::Alarm;
pub use backoff::Backoff;
pub use clock::{Clock, ManualClock, SystemClock};
pub use config::{ConfigError, ConfigTree, Loader, Section};
pub use drain::Drain;
pub use health::{Condition, Readiness};
pub use metrics::Metrics;
pub use secret::Secret;
pub use supervisor::{Escalation, Exit, Policy, Ready, Restart, Supervisor};
