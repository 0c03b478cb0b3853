//! The control node: the REST API and dashboard, the claims of publisher sessions over the bus, the records of
//! livestreams, and the reconciler, which makes the changes that time alone makes.
//!
//! ```text
//! http (API, dashboard) ──┐
//! bus (claims, leases) ───┼──▶ commands ──▶ repo ──▶ state store
//! reconciler (the leader) ┘        └──▶ announcer ──▶ bus: epochs, kicks, lifecycle events
//! ```
//!
//! Several controls may run at once. Each of them answers requests; they meet in the state store, where every change of
//! more than one record is a single transaction. One of them, the leader, runs the reconciler's loops.
#![forbid(unsafe_code)]

mod audit;
mod auth;
mod bus;
mod config;
mod context;
pub mod domain;
mod events;
mod http;
mod livestreams;
mod node;
mod reconciler;
mod repo;
mod role;
mod webhooks;

pub use config::{Config, JwtAlgorithm, MIN_TOKEN_CHARS, Settings, ViewerEndpoints};
pub use context::Deps;
pub use http::{ApiRoute, api_routes};
pub use node::{Node, start};
pub use role::Control;
