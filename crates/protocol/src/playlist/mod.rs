//! Playlists rendered from a folded state: a pure function, so that all edges, and the writer that publishes playlists into
//! the bucket, render the same text.
//!
//! A rendition is a name and a description ([`millrace_wire::fact::TrackInfo`]); nothing here knows which names there are.

mod media;
mod multivariant;
mod names;
mod position;
mod reports;

pub use self::media::media;
pub use self::multivariant::multivariant;
pub use self::position::{BlockingDecision, PlaylistPosition};
pub use self::reports::{heads, media_with_reports, plain_media};
