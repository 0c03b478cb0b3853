//! Media without I/O: clocks, codec headers, FLV bodies, segmentation, CMAF and HLS.
//!
//! Everything here is a function of its input: no clock, no randomness, no tasks, no files. The way of the data is
//!
//! ```text
//! flv (tag bodies) → timeline (repaired timestamps) → segmenter (numbers, boundaries) → packager (CMAF parts) → hls
//! ```
//!
//! `flv`, `timeline` and `segmenter` run where the publisher is connected; `packager` runs on the worker and must give the
//! same bytes whoever runs it; `hls` renders and reads playlists.
#![forbid(unsafe_code)]

mod bits;
pub mod codec;
pub mod container;
pub mod frame;
pub mod hls;
pub mod packager;
pub mod segmenter;
pub mod time;
pub mod timeline;
