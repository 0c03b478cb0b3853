//! The transcode node: bids for jobs, packages media, uploads segments and announces them.
//!
//! One task per job drives `millrace_protocol`'s author, which decides what is said when, and the copy rung's
//! [`pipeline`], which makes it; uploads and the index happen behind its back.
#![forbid(unsafe_code)]

mod archive;
mod config;
mod convert;
mod index;
mod job;
mod keeper;
mod metrics;
mod node;
pub mod pipeline;
mod playlists;
mod rest;
mod role;
mod storage;
mod worker;

pub use config::Config;
pub use node::{Deps, Node, start};
pub use role::Transcode;
