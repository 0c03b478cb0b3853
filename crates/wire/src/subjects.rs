//! Every bus subject. A node subscribes to exactly what one of these functions returns.

use crate::ids::{Epoch, Generation, NodeId, SessionId, StreamId};

/// Media messages of one epoch, published by its session.
pub fn media(stream: StreamId, epoch: Epoch) -> String {
    format!("media.{stream}.{epoch}")
}
/// Repair requests for media, answered by the session's ring alone.
pub fn ring_media(stream: StreamId, epoch: Epoch) -> String {
    format!("ring.media.{stream}.{epoch}")
}
/// Media messages published again on request.
pub fn repair_media(stream: StreamId, epoch: Epoch) -> String {
    format!("repair.media.{stream}.{epoch}")
}
/// Facts and part bytes of one author.
pub fn live(stream: StreamId, epoch: Epoch, generation: Generation) -> String {
    format!("live.{stream}.{epoch}.{generation}")
}
/// Facts of one author without their bytes, for those who follow its state and serve nothing.
pub fn digest(stream: StreamId, epoch: Epoch, generation: Generation) -> String {
    format!("digest.{stream}.{epoch}.{generation}")
}
/// Repair requests for facts, answered by their author alone.
pub fn ring_live(stream: StreamId, epoch: Epoch, generation: Generation) -> String {
    format!("ring.live.{stream}.{epoch}.{generation}")
}
/// Facts published again on request.
pub fn repair_live(stream: StreamId, epoch: Epoch, generation: Generation) -> String {
    format!("repair.live.{stream}.{epoch}.{generation}")
}
/// Requests for the newest snapshot; every current follower may answer, the highest position wins.
pub fn snap(stream: StreamId) -> String {
    format!("snap.{stream}")
}
/// StreamState requests for every stream.
pub const SNAP_ALL: &str = "snap.*";
/// The queue group of workers that answer snapshot requests from checkpoints, for streams that have no author.
pub const CHECKPOINT_QUEUE: &str = "checkpoint";
/// The stream that a snapshot request is about.
pub fn snap_stream(subject: &str) -> Option<StreamId> {
    subject.strip_prefix("snap.")?.parse().ok()
}
/// Generation announcements: only the stream's publisher session publishes here.
pub fn session(stream: StreamId) -> String {
    format!("session.{stream}")
}
/// Epoch announcements: only control publishes here.
pub fn epoch(stream: StreamId) -> String {
    format!("epoch.{stream}")
}
/// Job offers to all workers.
pub const JOBS_OFFER: &str = "jobs.offer";
/// A worker tells all sessions that it has free capacity again.
pub const JOBS_FREE: &str = "jobs.free";
/// Bids for the offers of one session.
pub fn jobs_bid(session: SessionId) -> String {
    format!("jobs.bid.{session}")
}
/// Grants (and revocations) to one worker node.
pub fn job_grant(node: &NodeId) -> String {
    format!("job.grant.{node}")
}
/// Heartbeats of the workers granted in one epoch, for its session.
pub fn job_heartbeat(stream: StreamId, epoch: Epoch) -> String {
    format!("job.{stream}.{epoch}.heartbeat")
}
/// A session's probe to itself: silence of a worker counts only while this comes back.
pub fn loopback(session: SessionId) -> String {
    format!("loop.{session}")
}
/// Key claims (request/reply, control's queue group).
pub const CONTROL_CLAIM: &str = "control.claim";
/// Lease renewals (request/reply).
pub const CONTROL_RENEW: &str = "control.renew";
/// Lease releases (request/reply).
pub const CONTROL_RELEASE: &str = "control.release";
/// An author's report that an epoch is sealed (request/reply).
pub const CONTROL_SEALED: &str = "control.sealed";
/// Queue group of all control nodes.
pub const CONTROL_QUEUE: &str = "control";
/// Kick of one session, published by control.
pub fn control_kick(session: SessionId) -> String {
    format!("control.kick.{session}")
}
/// Lifecycle events of one stream (JetStream).
pub fn events(stream: StreamId) -> String {
    format!("events.{stream}")
}
/// Index facts of one stream, published once the object is stored (JetStream).
pub fn index(stream: StreamId) -> String {
    format!("index.{stream}")
}
/// JetStream stream of lifecycle events; apart from index facts, which are many more and would push them out.
pub const EVENTS_STREAM: &str = "MILLRACE_EVENTS";
/// Subjects of [`EVENTS_STREAM`].
pub const EVENTS_SUBJECTS: [&str; 1] = ["events.>"];
/// JetStream stream of index facts.
pub const INDEX_STREAM: &str = "MILLRACE_INDEX";
/// Subjects of [`INDEX_STREAM`].
pub const INDEX_SUBJECTS: [&str; 1] = ["index.>"];
/// JetStream work queue of jobs that wait for capacity.
pub const JOBS_STREAM: &str = "MILLRACE_JOBS";
/// Subjects of [`JOBS_STREAM`].
pub const JOBS_SUBJECTS: [&str; 1] = ["backlog.>"];
/// Work queue of live jobs without a worker.
pub const BACKLOG_LIVE: &str = "backlog.live";

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_subjects_are_the_same() {
        let (s, e, g, x) = (StreamId::from_u128(1), Epoch(2), Generation(3), SessionId::from_u128(1));
        let node: NodeId = "n".parse().unwrap();
        let all = [
            media(s, e),
            ring_media(s, e),
            repair_media(s, e),
            live(s, e, g),
            digest(s, e, g),
            ring_live(s, e, g),
            repair_live(s, e, g),
            snap(s),
            session(s),
            epoch(s),
            jobs_bid(x),
            job_grant(&node),
            job_heartbeat(s, e),
            loopback(x),
            control_kick(x),
            events(s),
            index(s),
            BACKLOG_LIVE.into(),
            JOBS_OFFER.into(),
            JOBS_FREE.into(),
            CONTROL_CLAIM.into(),
            CONTROL_RENEW.into(),
            CONTROL_RELEASE.into(),
            CONTROL_SEALED.into(),
        ];
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        assert!(all.iter().all(|s| !s.contains(['*', '>', ' '])));
    }
}
