//! Playlists rendered from a folded state: a pure function, so that all edges, and the writer that publishes playlists into
//! the bucket, render the same text.
//!
//! A rendition is a name and a description ([`millrace_wire::fact::TrackInfo`]). Two kinds of names have a meaning here: those of the
//! source's own tracks, and the one of encoded audio, which takes the place of the source's.

mod media;
mod multivariant;
mod names;
mod position;
mod reports;

pub use self::media::media;
pub use self::multivariant::{awaits_renditions, multivariant, offered};
pub use self::position::{BlockingDecision, PlaylistPosition};
pub use self::reports::{heads, media_with_reports, plain_media};
