//! The messages that nodes exchange over the bus, one module for each pair of parties.

pub mod alias;
pub mod announce;
pub mod control;
pub mod job;
pub mod ladder_health;
pub mod lifecycle;
pub mod media;
pub mod node;
pub mod probe;
pub mod repair;
