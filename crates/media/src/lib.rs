//! Media without I/O: clocks, codec headers, FLV bodies, segmentation, CMAF and HLS.
//!
//! Everything here is a function of its input: no clock, no randomness, no tasks, no files. The way of the data is
//!
//! ```text
//! flv (tag bodies) → door (repaired timestamps) → segmenter (numbers, boundaries) → packager (CMAF parts) → hls
//! ```
//!
//! `flv`, `door` and `segmenter` run where the publisher is connected; `packager` runs on the worker and must give the
//! same bytes whoever runs it; `hls` renders and reads playlists.
#![forbid(unsafe_code)]

pub mod aac;
mod bits;
pub mod cmaf;
pub mod door;
pub mod flv;
pub mod h264;
pub mod hls;
pub mod packager;
pub mod pieces;
pub mod sample;
pub mod segmenter;
pub mod time;
