//! A reader of one stream: an edge, or any other node that renders the playlists of a log.
//!
//! It adopts the newest log that control and the session announce, folds it, and merges the result with what it has shown
//! before, so that no playlist rendered from [`StreamReader::shown`] ever goes back. A reader that comes late starts from a
//! snapshot and has the bytes of listed parts repeated; one that finds no log at all may show a checkpoint.
//!
//! [`StreamReader`] is the machine (`machine.rs`), `overlay.rs` the merge, `media.rs` what facts carry and what is missing
//! of it.

mod io;
mod machine;
mod media;
mod overlay;

pub use self::io::{Input, Output};
pub use self::machine::{ANNOUNCED_MS, CURRENT_MS, FIRST_FACT_MS, SNAPSHOT_RETRY_MS, StreamReader};
pub use self::media::{Media, MediaKind};
