//! The transcode node: bids for jobs, packages media, uploads segments and announces them.
#![forbid(unsafe_code)]

mod config;
mod convert;
pub mod pipeline;
mod storage;

pub use config::Config;
