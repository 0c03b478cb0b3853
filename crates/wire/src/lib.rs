//! The wire format of Millrace: typed ids, the topics nodes exchange messages on, the messages, object names and
//! state-store keys.
//!
//! [`topics`] pairs each bus subject with the type of its messages. JSON messages carry their version as first member
//! ([`versioned`]); media messages and facts are split into binary fragments with the version in byte 0 ([`fragment`]).
//!
//! Every subject, key and code is spelled here and nowhere else. This crate does no I/O, reads no clock and draws no
//! randomness: the caller passes a random number generator where an id is made.
#![forbid(unsafe_code)]

pub mod catalog;
pub mod close_reason;
pub mod fact;
pub mod fragment;
pub mod ids;
pub mod ladder;
pub mod message;
pub mod object_names;
pub mod secret_ids;
pub mod state_keys;
mod text;
pub mod topic;
pub mod topics;
mod version;
pub mod versioned;

pub use text::to_hex;
pub use version::WIRE_VERSION;
pub use versioned::WireError;
