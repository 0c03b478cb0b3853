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
//! * A stream key is hashed as soon as it is read, and never logged.
#![forbid(unsafe_code)]

mod admission;
mod config;
mod context;
pub mod limits;
mod metrics;
mod node;
mod role;
mod session;
mod source;

pub use config::Config;
pub use node::{Backends, Deps, Node, start};
pub use role::Ingest;
pub use session::source::{
    Credential, DeclaredAudio, Identity, MediaError, MediaFault, MessagePosition, PublishEnd, Source,
    SourceEvent, SourceFrame, SourceMetadata,
};
