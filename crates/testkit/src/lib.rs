//! The surroundings that tests need: real servers on free ports, publishers, clips with numbered frames,
//! waiting for conditions, processes that can be killed.
//!
//! Servers are the real ones: nats-server (Debian's and the newest), redis-server, MinIO. A missing one fails
//! the test with what to install; nothing is skipped silently.
#![forbid(unsafe_code)]
#![allow(clippy::expect_used, reason = "a test helper fails its test by panicking")]

pub mod clip;
pub mod disk;
pub mod ffmpeg;
pub mod http;
pub mod ports;
pub mod process;
pub mod programs;
pub mod servers;
pub mod tone;
pub mod wait;

pub use clip::{Clip, ClipSpec};
pub use ffmpeg::FfmpegPublisher;
pub use process::Process;
pub use servers::{MinioServer, NatsKind, NatsServer, RedisServer};
