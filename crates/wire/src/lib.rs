//! What Millrace's nodes say to each other: typed ids, bus subjects, object keys, state-store keys, the binary
//! framing of media and facts, and the control API's messages.
//!
//! Every subject, key and code is spelled here and nowhere else. Nothing here does I/O, reads a clock or draws
//! randomness on its own: the caller passes a random number generator where an id is made.
#![forbid(unsafe_code)]

pub mod catalog;
pub mod close_reason;
pub mod fact;
pub mod fragment;
pub mod ids;
pub mod message;
pub mod object_names;
pub mod secret_ids;
pub mod state_keys;
pub mod subjects;
mod text;

/// Version of every message this crate encodes; a reader refuses another one.
pub const WIRE_VERSION: u8 = 1;
