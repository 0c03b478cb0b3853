//! The edge over HTTP, on an in-process bus and embedded stores.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod airings;
mod aliases;
mod catalog;
mod client;
mod cors;
mod log_writer;
mod objects;
mod playlists;
mod slow_readers;
mod status;
mod viewers;
mod world;
