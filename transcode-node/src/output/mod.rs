//! The outputs of a job beside its log: objects in the store, their entries in the segment index, the stream's
//! checkpoint, and playlists in the bucket.

pub(crate) mod checkpoint;
pub(crate) mod index;
pub(crate) mod objects;
pub(crate) mod pictures;
pub(crate) mod playlists;
mod segment_metadata;
pub(crate) mod storyboard;
pub(crate) mod uploads;
