//! The record of a deleted livestream whose objects are still to be deleted.

use millrace_wire::ids::{PlaybackId, StreamId, UnixMillis};
use serde::{Deserialize, Serialize};

/// A livestream whose record is deleted and whose objects are to be deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purge {
    /// The id of the deleted livestream.
    pub stream: StreamId,
    /// Its playback id, under which its objects are stored.
    pub playback: PlaybackId,
    /// The time at which it was deleted.
    pub since: UnixMillis,
}
