//! The transcode node: bids for jobs, packages media, uploads segments and announces them.
#![forbid(unsafe_code)]

mod convert;
pub mod pipeline;
