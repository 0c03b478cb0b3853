//! Media without I/O: clocks, codec headers, FLV bodies, timestamp repair, segmentation, CMAF and
//! HLS.
//!
//! Everything here is a function of its input, without clock, randomness, tasks or files. Media
//! pass through
//!
//! ```text
//! container::flv → intake   → timeline → segmenter → packager → hls
//! message bodies   usual      repaired   segment     CMAF       playlists
//!                  framing    times      tags        parts
//! ```
//!
//! [`intake`], [`timeline`] and [`segmenter`] run in the ingest node that the publisher is connected to.
//! [`packager`] runs in a transcode node and gives the same bytes in any of them. [`hls`] writes
//! and reads playlists. [`frame`] is the model they share, and [`codec`] reads what depends on the
//! codec. Each stage counts what it drops, invents or moves in [`repair::RepairCounts`].
#![forbid(unsafe_code)]

mod bits;
pub mod codec;
pub mod container;
mod fill_budget;
pub mod frame;
pub mod hls;
pub mod intake;
pub mod packager;
pub mod repair;
pub mod segmenter;
pub mod time;
pub mod timeline;
