//! The ingest node: publishers come in over RTMP and RTMPS, control grants their stream keys, and their media leave on
//! the bus.
//!
//! ```text
//! source::rtmp ── SourceEvent ──▶ session ── messages ──▶ link: replay buffer + bus
//!   listener, connection            claim at control        lease, repairs, supervision of workers
//!   FLV → frames                    timestamps, segments,
//!                                   limits of every protocol
//! ```
//!
//! Invariants:
//! * Bytes from a connection cost that connection only: a panic closes it and is counted.
//! * The media path never waits: not for control, not for workers, not for the bus.
//! * A session ends on positive evidence (the publisher's end, a kick, a superseded lease), never on silence.
//! * A stream key is hashed as soon as it is read, and never logged. The plain key leaves the node in one case: a service
//!   outside the cluster that the operator named is asked whether it may publish (`key_check`).
#![forbid(unsafe_code)]

mod admission;
mod config;
mod context;
mod key_check;
pub mod limits;
mod metrics;
mod node;
mod paths;
mod role;
mod session;
mod source;

pub use config::Config;
pub use key_check::{KeyCheckShape, WhenDown};
pub use node::{Backends, Deps, Node, start};
pub use paths::{PathRule, Paths};
pub use role::Ingest;
pub use session::source::{
    Credential, DeclaredAudio, Identity, MediaError, MediaFault, MessagePosition, PublishEnd, Source,
    SourceEvent, SourceFrame, SourceMetadata,
};
