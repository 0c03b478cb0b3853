//! The topics' subjects as plain text, for code that does not use [`crate::topics`] yet.

use crate::ids::{Epoch, Generation, NodeId, SessionId, StreamId};
use crate::topics;

pub use crate::topics::{
    CHECKPOINT_QUEUE, CONTROL_QUEUE, EVENTS_STREAM, EVENTS_SUBJECTS, INDEX_STREAM, INDEX_SUBJECTS,
    JOBS_STREAM, JOBS_SUBJECTS, snapshot_stream as snap_stream,
};

macro_rules! subjects {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $ty:ty),*) = $topic:ident;)*) => {
        $(
            #[doc = concat!("The subject of [`topics::", stringify!($topic), "`].")]
            pub fn $name($($arg: $ty),*) -> String {
                topics::$topic($($arg),*).into_subject()
            }
        )*
    };
}

subjects! {
    media(stream: StreamId, epoch: Epoch) = media;
    ring_media(stream: StreamId, epoch: Epoch) = ring_media;
    repair_media(stream: StreamId, epoch: Epoch) = repair_media;
    live(stream: StreamId, epoch: Epoch, generation: Generation) = live;
    digest(stream: StreamId, epoch: Epoch, generation: Generation) = digest;
    ring_live(stream: StreamId, epoch: Epoch, generation: Generation) = ring_live;
    repair_live(stream: StreamId, epoch: Epoch, generation: Generation) = repair_live;
    snap(stream: StreamId) = snapshot;
    session(stream: StreamId) = session;
    epoch(stream: StreamId) = epoch;
    jobs_bid(session: SessionId) = bid;
    job_grant(node: &NodeId) = grant;
    job_heartbeat(stream: StreamId, epoch: Epoch) = heartbeat;
    loopback(session: SessionId) = loopback;
    control_kick(session: SessionId) = kick;
    events(stream: StreamId) = events;
    index(stream: StreamId) = index;
}

/// The subject of [`topics::all_snapshots`].
pub const SNAP_ALL: &str = "snap.*";
/// The subject of [`topics::offer`].
pub const JOBS_OFFER: &str = "jobs.offer";
/// The subject of [`topics::worker_free`].
pub const JOBS_FREE: &str = "jobs.free";
/// The subject of [`topics::claim`].
pub const CONTROL_CLAIM: &str = "control.claim";
/// The subject of [`topics::renew`].
pub const CONTROL_RENEW: &str = "control.renew";
/// The subject of [`topics::release`].
pub const CONTROL_RELEASE: &str = "control.release";
/// The subject of [`topics::sealed`].
pub const CONTROL_SEALED: &str = "control.sealed";
/// The subject of [`topics::backlog`].
pub const BACKLOG_LIVE: &str = "backlog.live";
