//! The streams that viewers ask for: one feed for each stream that is live, and the playlists that requests read.

mod arrivals;
pub(crate) mod checkpoint;
mod expected;
pub(crate) mod feed;
pub(crate) mod feeds;
mod lag;
pub mod past;
pub mod playlists;
pub mod registry;
pub mod rendered;
mod snapshots;
mod status;
pub mod stream;
