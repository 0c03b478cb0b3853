//! The stream protocol between the nodes, as state machines without I/O.
//!
//! # The problem
//!
//! A live stream passes three nodes: an *ingest* node receives the publisher's media, a *worker* packages them into
//! segments and parts, and *edges* render the playlists that viewers fetch. Any of them may die at any moment, and the bus
//! between them loses, repeats and reorders messages. Still a playlist never goes back, a URL names the same bytes for
//! ever, two edges behind one CDN agree, and no media that reached the bus are lost. `docs/adr/0001` states the rules and
//! their reasons; `tests/simulation.rs` checks them under thousands of random schedules.
//!
//! # Epochs, generations, logs and the fold
//!
//! *Control* issues an **epoch** for each publisher connection of a broadcast (each *session*), greater than any before.
//! The session grants the packaging of its epoch to one worker at a time; each grant is a **generation**, counted from 1.
//! The worker that holds the newest announced generation is the *primary*: the one writer of the **log** of that
//! (epoch, generation). A log is a numbered list of *facts* ("this part exists", "this segment is stored", "this rendition
//! has a gap here"); fact 0 holds the state that the log builds on, so a log explains itself without its predecessors.
//! Everything that readers know of a stream is the **fold** of a log: [`state::apply`] applies fact after fact to a
//! [`StreamState`], and playlists are rendered from that state alone. Because the fold is a pure function, all readers
//! of one log agree; because epoch and generation are part of every media name, two writers never give one name to
//! different bytes; because readers adopt only a greater (epoch, generation), and only from the node that issues it, a
//! writer that was replaced without noticing is ignored.
//!
//! # The machines and who drives them
//!
//! ```text
//!             control ── epoch announcements ──────────────────────────────────────┐
//!                │ claim, lease                     │                              │
//!                ▼                                  ▼                              ▼
//!  ingest: [session::Session] ── media ──▶ worker: [job::WorkerJob] ── facts ──▶ edge: [reader::StreamReader]
//!            │  ▲  └── offer, grant, quiesce, revoke ──▶ │                              │
//!            │  └───────── heartbeats, digest ───────────┘                              ▼
//!            └── session announcements (which generation is primary) ──────────▶ [playlist]: state → playlists
//!
//!  control, if no node is left to write the log: [takeover::OrphanLog] ── facts ──▶ edge
//! ```
//!
//! | machine | driven by | does |
//! |---|---|---|
//! | [`session::Session`] | the ingest node, one per publisher | numbers and keeps media, grants the job, detects a silent primary, promotes a standby |
//! | [`job::WorkerJob`] | the worker node, one per grant | takes media in order, announces what the rungs made of them, seals and ends the epoch |
//! | [`reader::StreamReader`] | the edge node, one per watched stream | adopts the newest log, folds it, and shows a state that never goes back |
//! | [`takeover::OrphanLog`] | control, one per stream without a log writer | seals or ends the log in the dead writer's place |
//!
//! All four implement [`Machine`]: the driver hands in an input with the time at which it came, executes the outputs, and
//! calls again at the next timeout. A machine reads no clock and draws no randomness; jitter comes from a seed given at
//! construction. [`admission`] is not a machine: it decides which jobs a worker node bids for.
//!
//! # What they are made of
//!
//! A producer keeps what it published in a bounded [`log::replay_buffer`]; a consumer that misses a message asks for it
//! ([`log::repair`]). Media, from session to worker, and facts, from worker to readers, are repaired alike. [`log::writer`]
//! and [`log::follower`] are the two ends of one log. When no node holds a log any more, its [`state::checkpoint`] in the
//! state store tells readers, the next session or control where it stood.
//!
//! Imports within the crate run one way: `state` ← `log` ← {`session`, `job`, `reader`, `takeover`}, `state` ← `playlist`.
//!
//! [`StreamState`]: millrace_wire::fact::StreamState
#![forbid(unsafe_code)]

pub mod admission;
pub mod job;
pub mod log;
mod machine;
pub mod playlist;
pub mod reader;
pub mod session;
pub mod state;
pub mod takeover;
mod time;

pub use machine::Machine;
pub use time::Millis;
