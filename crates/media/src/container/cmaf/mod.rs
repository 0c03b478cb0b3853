//! Fragmented MP4 as CMAF wants it (ISO/IEC 23000-19, ISO/IEC 14496-12): one track per file.
//!
//! A part is one `moof` + `mdat`; a segment is the concatenation of its parts, without `styp` or
//! `sidx`. Presentation follows `tfdt` (version 1, 64 bits) and signed composition offsets (`trun`
//! version 1): there is no edit list, so a negative offset is kept as it is and AAC priming is
//! played as published.

mod boxes;
pub mod demux;
mod fragment;
mod init;
mod sample_entry;

pub use boxes::TRACK_ID;
pub use fragment::{Sample, fragment_header};
pub use init::init_segment;
