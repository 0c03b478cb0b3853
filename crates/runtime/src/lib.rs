//! The ground that all nodes run on, without knowledge of any protocol: configuration, logging, metrics and health,
//! time, back-off, drain, secrets, and supervised actors.
//!
//! Only this crate imports actix; only this crate and the `http` modules of a node import actix-web.
#![forbid(unsafe_code)]

pub mod actors;
pub mod address;
pub mod backoff;
pub mod clock;
mod coalescing_timer;
pub mod config;
mod connections;
pub mod drain;
pub mod health;
pub mod http;
mod log_limit;
pub mod logging;
pub mod metrics;
mod pacing;
mod process;
mod proxies;
mod running_time;
pub mod secret;
pub mod supervisor;
mod system;
mod text_list;

pub use actors::{
    ActorContext, ActorFilter, ActorId, ActorRegistry, ActorStatus, Order, OrderError, Orders, Ready,
    StatusHandle,
};
pub use backoff::Backoff;
pub use clock::{Clock, ManualClock, SystemClock};
pub use coalescing_timer::CoalescingTimer;
pub use config::{ConfigError, ConfigTree, Loader, Section};
pub use connections::{ConnectionLimit, Connections, Place, Port, PortOptions};
pub use drain::Drain;
pub use health::{Condition, Readiness};
pub use log_limit::LogLimit;
pub use metrics::Metrics;
pub use process::Process;
pub use proxies::{ForwardedHeader, Network, NotANetwork, TrustedProxies};
pub use running_time::{Elapsed, running_sleep, timeout};
pub use secret::Secret;
pub use supervisor::{Escalation, Exit, Policy, Restart, Supervisor, SupervisorError};
pub use system::{Pacing, block_on, start_runtime};
pub use text_list::text_list;
