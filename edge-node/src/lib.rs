//! The edge: playlists, media and the watch page for viewers.
//!
//! One feed for each watched stream folds the stream's log of facts into playlists, rendered once per change; a request
//! takes a pointer. Media come from the feed's memory while hot and from the object store afterwards.
#![forbid(unsafe_code)]

pub mod cache;
pub mod config;
mod crowd;
mod feed;
pub mod fetch;
pub mod hot;
mod http;
pub mod metrics;
mod node;
pub mod registry;
mod role;
pub mod stream;
pub mod text;
pub mod view;
pub mod viewers;

pub use config::Config;
pub use node::{Deps, Node, start};
pub use role::Edge;
