//! The stream protocol between the nodes, as state machines without I/O.
//!
//! # The problem
//!
//! A live stream passes three kinds of node: an *ingest* node receives the publisher's media, a *worker* packages them into
//! segments and parts, and *edges* render the playlists that viewers fetch. A fourth, *control*, decides who may publish.
//! Any of them may die at any moment, and the message bus between them (NATS, or a queue within one process) loses, repeats
//! and reorders messages. Still a playlist never goes back, a URL names the same bytes for ever, two edges behind one CDN
//! agree, and media that a producer published are not lost while its replay buffer holds them; beyond that they become a
//! GAP. `docs/adr/0001` has the reason of each rule; `tests/simulation.rs` checks the rules under thousands of random
//! schedules.
//!
//! # Epochs, generations, logs and the fold
//!
//! A *broadcast* is one airing of a stream, from the first publisher to EXT-X-ENDLIST. Control issues an **epoch** for each
//! publisher connection of it (each *session*), greater than any epoch of the stream before. A session holds its epoch by a
//! *lease* that it renews every second. It *offers* the packaging of its epoch to all workers, those with capacity *bid*,
//! and it *grants* the job to one; each grant is a **generation**, counted from 1. When the heartbeats of that worker stop,
//! the session grants the next generation to a *standby*, which becomes the primary once it is ready. The worker that
//! holds the newest announced generation is the *primary*: the one writer of the **log** of that (epoch, generation). A log is a numbered list of *facts* ("this part exists", "this segment is stored", "this rendition
//! has a gap here"); fact 0 holds the state that the log builds on, so a reader needs no earlier log. A writer *seals* a log when no segment
//! of its epoch will follow, and *ends* it when the broadcast is over (EXT-X-ENDLIST).
//! Everything that readers know of a stream is the **fold** of a log: [`state::apply`] applies fact after fact to a
//! [`StreamState`], and playlists are rendered from that state alone. Because the fold is a pure function, all readers
//! of one log agree; because epoch and generation are part of every media name, two writers never give one name to
//! different bytes; because readers adopt only a greater (epoch, generation), and only from the node that issues it, a
//! writer that was replaced without noticing, or that is cut off from the bus, is ignored. Control writes a log only in an
//! epoch of its own, so that rule holds for it, too.
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
//! | [`session::Session`] | the ingest node, one per publisher | numbers and keeps media, grants the job, detects a primary whose heartbeats stopped, grants a standby |
//! | [`job::WorkerJob`] | the worker node, one per grant | takes media in order, announces the parts and segments its rungs (encodings) made of them, seals and ends the log |
//! | [`reader::StreamReader`] | the edge node, one per watched stream | adopts the newest log, folds it, and shows a state that never goes back |
//! | [`takeover::OrphanLog`] | control, one per stream without a log writer | in an epoch of its own, seals or ends what the dead writer left open |
//!
//! All four implement [`Machine`]: the driver hands in an input with the time at which it came, executes the outputs, and
//! calls again at the next timeout. A machine reads no clock and draws no randomness: [`Millis`] is a monotonic time that the driver
//! passes in, and the jitter of repair requests comes from a seed given at construction. An error of a machine means that a
//! message could not be encoded. [`admission`] is not a machine: it decides which jobs a worker node bids for.
//!
//! # What they are made of
//!
//! A producer keeps what it published in a [`log::replay_buffer`], bounded in bytes and age; a consumer that misses a
//! message asks for it by number and the producer publishes it once more ([`log::repair`]). The *digest* is the log without
//! the parts' bytes, for the session, which follows every log of its epoch but serves no media. Media, from session to worker, and facts, from worker to readers, are repaired alike. [`log::writer`]
//! and [`log::follower`] are the two ends of one log. When no node holds a log any more, its [`state::checkpoint`] in the
//! state store tells readers, the next session or control where it stood.
//!
//! Imports within the crate run one way: `session`, `job`, `reader` and `takeover` use `log`, which uses `state`; `playlist`
//! uses `state`; `machine` and `time` lie below all.
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
