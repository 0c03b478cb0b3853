//! Counting viewers: signed sessions, their heartbeats, and the limit for one address.

pub mod heartbeat;
mod limit;
pub mod signer;
