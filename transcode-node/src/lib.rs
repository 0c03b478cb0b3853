//! The transcode node: a worker that bids for jobs, packages their media, stores segments and announces them.
//!
//! Each job is one task. It drives `millrace_protocol`'s job machine, which decides when media are packaged and which
//! facts are announced, and the job's [`rungs`], which make parts and segments. Uploads, the segment index, checkpoints
//! and playlists are written by the tasks of `output`; the live path never waits for them.
#![forbid(unsafe_code)]

mod calibration;
mod codec_policy;
mod config;
mod context;
pub mod encoders;
mod job;
mod metrics;
mod node;
mod output;
mod pictures;
mod role;
pub mod rungs;
mod worker;

pub use codec_policy::CodecPolicy;
pub use config::Config;
pub use context::Deps;
pub use node::{Node, start, start_with_rungs};
pub use role::Transcode;
