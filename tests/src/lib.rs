//! The parts that end-to-end tests, load generators and benchmarks share: processes, the API's client, a
//! viewer that checks every playlist it is served, and clips whose every access unit is known.
//!
//! The viewer's playlist reader is deliberately not the product's own: an error made in both would hide itself.
#![forbid(unsafe_code)]

pub mod api;
pub mod cluster;
pub mod compare;
pub mod facts;
pub mod imports;
pub mod known_clip;
pub mod ladder;
pub mod load;
pub mod playlist;
pub mod publish;
pub mod standalone;
pub mod tape;
pub mod viewer;
