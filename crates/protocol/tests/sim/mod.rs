//! One stream's cluster in a simulated, faulty network. All machines are the real ones; encoder, packager, store and
//! control are stand-ins (`packager.rs`, `control.rs`).

pub mod checks;
pub mod control;
pub mod network;
pub mod nodes;
pub mod packager;
pub mod takeover;
pub mod world;
