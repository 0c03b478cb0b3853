//! The edge node: playlists, media and the watch page for viewers.
//!
//! Modules from the ground up: `objects` keeps media in memory and reads the object store; `catalog` finds the livestream that a
//! playback id names; `live` follows the livestreams that viewers ask for, one feed for each that may be live, which folds the
//! livestream's log into the state that playlists are rendered from; `audience` counts viewers; `http` answers requests; `node`
//! starts and stops all of them. The first request after a change renders the playlist, and later ones share its bytes.
#![forbid(unsafe_code)]

mod aliases;
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
