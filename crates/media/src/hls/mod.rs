//! HLS playlists (RFC 8216bis): model, renderer, parser, and a checker of successive playlists.

pub mod checker;
mod date;
mod model;
mod multivariant;
mod parse;
mod render;
mod tags;

pub use date::{format_date_time, parse_date_time};
pub use model::{
    Map, MediaPlaylist, OpenSegment, Part, PreloadHint, RenditionReport, Segment, ServerControl, Start,
    part_hold_back,
};
pub use multivariant::{MediaRendition, MultivariantPlaylist, Variant};
pub use parse::{MAX_PLAYLIST_BYTES, ParseError, ParseErrorKind};
