//! The machines of a session and of a worker's job, each alone.
#![allow(clippy::unwrap_used)]

mod capacity;
mod frames;
mod job;
mod lease;
