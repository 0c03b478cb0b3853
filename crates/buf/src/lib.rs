//! Byte containers that every layer shares.
//!
//! - A [`ByteChain`] is one sequence of bytes that lies in several slices of memory. Access units
//!   travel as chains from the socket to the bus, and parts travel as chains from the packager to
//!   the store and the viewer, so that media bytes are not copied to be joined.
//! - An [`Arena`] hands out write buffers from memory that it uses again, for producers of a steady
//!   stream of messages.
#![forbid(unsafe_code)]

mod arena;
mod chain;

pub use arena::Arena;
pub use chain::{ByteChain, Reader};
