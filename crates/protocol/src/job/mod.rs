//! A worker's job: the packaging of one epoch's media under one granted generation, and the log that announces the result.
//!
//! ```text
//! media ──▶ intake ──▶ rungs (the caller's) ──▶ log writer ──▶ live facts
//! (repaired,           init, parts, segments    └▶ object store ──▶ "stored" facts, segment index
//!  in order)
//!
//! running ──▶ flushing ──▶ sealed ──▶ done          at any point: superseded
//! ```
//!
//! [`WorkerJob`] is the machine. `machine.rs` takes inputs and drives the steps, `packaged.rs` announces and stores what
//! the rungs made, `ending.rs` flushes, seals and ends the epoch. The other files each hold one part of its state.

mod completion;
mod ending;
mod intake;
mod io;
mod machine;
mod objects;
mod packaged;
mod quiesce;

pub use self::completion::{LINGER_MS, REPORT_MS};
pub use self::intake::{PRE_ROLL_WAIT_MS, SEAL_SILENCE_MS};
pub use self::io::{Input, Output, Packaged};
pub use self::machine::{HEARTBEAT_MS, WorkerJob};
pub use self::quiesce::{POST_ROLL_FRAMES, POST_ROLL_MS, QUIESCE_LIMIT_MS};
