//! The edge node: playlists, media and the watch page for viewers.
//!
//! Modules from the ground up: `objects` keeps media in memory and reads the object store; `catalog` knows which streams exist;
//! `live` follows the streams that viewers ask for, one feed for each, and folds its log into playlists; `audience` counts
//! viewers; `http` answers requests; `node` puts them together. A playlist is rendered once per change by the first request for
//! it, and every other request takes a pointer.
#![forbid(unsafe_code)]

pub mod audience;
pub mod catalog;
pub mod config;
mod context;
mod http;
pub mod live;
pub mod metrics;
mod node;
pub mod objects;
mod role;

pub use config::Config;
pub use context::Deps;
pub use node::{Node, start};
pub use role::Edge;
