//! Every topic: which messages travel on which bus subject. A node publishes on, and subscribes to, exactly what one of
//! these functions returns; the few patterns, queue groups and JetStream names that are no topics stand below them.

use crate::fact::{FactMessage, StreamState};
use crate::ids::{Epoch, Generation, NodeId, SessionId, StreamId};
use crate::message::alias::{AliasReply, AliasRequest};
use crate::message::announce::{EpochAnnouncement, IndexFact, SessionAnnouncement};
use crate::message::control::{
    ClaimReply, ClaimRequest, Kick, LeaseReply, LifecycleEvent, RefusalReport, ReleaseRequest, RenewRequest,
    SealReport,
};
use crate::message::job::{Bid, GrantOrder, Heartbeat, Offer, WorkerFree};
use crate::message::lifecycle::WebhookNotice;
use crate::message::media::MediaMessage;
use crate::message::node::{NodeReport, NodesRequest};
use crate::message::probe::Loopback;
use crate::message::repair::{RepairReply, RepairRequest, SnapshotRequest};
use crate::topic::{RequestTopic, Topic};

/// Media messages of one epoch; its publisher session publishes them.
pub fn media(stream: StreamId, epoch: Epoch) -> Topic<MediaMessage> {
    Topic::new("media", format!("media.{stream}.{epoch}"))
}

/// Repair requests for media messages; the publisher session answers from its replay buffer.
pub fn ring_media(stream: StreamId, epoch: Epoch) -> RequestTopic<RepairRequest, RepairReply> {
    RequestTopic::new("ring.media", format!("ring.media.{stream}.{epoch}"))
}

/// Media messages that the publisher session retransmits on request.
pub fn repair_media(stream: StreamId, epoch: Epoch) -> Topic<MediaMessage> {
    Topic::new("repair.media", format!("repair.media.{stream}.{epoch}"))
}

/// Facts of one log with the bytes of parts; its log writer publishes them.
pub fn live(stream: StreamId, epoch: Epoch, generation: Generation) -> Topic<FactMessage> {
    Topic::new("live", format!("live.{stream}.{epoch}.{generation}"))
}

/// Facts of one log without the bytes of parts, for readers that follow the state and serve no media.
pub fn digest(stream: StreamId, epoch: Epoch, generation: Generation) -> Topic<FactMessage> {
    Topic::new("digest", format!("digest.{stream}.{epoch}.{generation}"))
}

/// Repair requests for facts; the log writer answers from its replay buffer.
pub fn ring_live(
    stream: StreamId,
    epoch: Epoch,
    generation: Generation,
) -> RequestTopic<RepairRequest, RepairReply> {
    RequestTopic::new("ring.live", format!("ring.live.{stream}.{epoch}.{generation}"))
}

/// Facts that the log writer retransmits on request.
pub fn repair_live(stream: StreamId, epoch: Epoch, generation: Generation) -> Topic<FactMessage> {
    Topic::new("repair.live", format!("repair.live.{stream}.{epoch}.{generation}"))
}

/// Requests for the newest state of a stream. Every reader that follows it may answer; the highest position wins.
pub fn snapshot(stream: StreamId) -> RequestTopic<SnapshotRequest, StreamState> {
    RequestTopic::new("snap", format!("snap.{stream}"))
}

/// Snapshot requests of every stream. Its subject is a pattern: it can be subscribed to, not asked.
pub fn all_snapshots() -> RequestTopic<SnapshotRequest, StreamState> {
    RequestTopic::fixed("snap.*")
}

/// Returns the stream that a snapshot request published on `subject` is about.
pub fn snapshot_stream(subject: &str) -> Option<StreamId> {
    subject.strip_prefix("snap.")?.parse().ok()
}

/// Generation announcements of one stream; only its publisher session publishes them.
pub fn session(stream: StreamId) -> Topic<SessionAnnouncement> {
    Topic::new("session", format!("session.{stream}"))
}

/// Epoch announcements of one stream; only control publishes them.
pub fn epoch(stream: StreamId) -> Topic<EpochAnnouncement> {
    Topic::new("epoch", format!("epoch.{stream}"))
}

/// Job offers to all workers.
pub fn offer() -> Topic<Offer> {
    Topic::fixed("jobs.offer")
}

/// Workers' notices to all publisher sessions that they have free capacity again.
pub fn worker_free() -> Topic<WorkerFree> {
    Topic::fixed("jobs.free")
}

/// Bids for the offers of one publisher session.
pub fn bid(session: SessionId) -> Topic<Bid> {
    Topic::new("jobs.bid", format!("jobs.bid.{session}"))
}

/// Grants, quiesce orders and revocations to one worker node.
pub fn grant(node: &NodeId) -> Topic<GrantOrder> {
    Topic::new("job.grant", format!("job.grant.{node}"))
}

/// Heartbeats of the workers granted in one epoch, for its publisher session.
pub fn heartbeat(stream: StreamId, epoch: Epoch) -> Topic<Heartbeat> {
    Topic::new("job.heartbeat", format!("job.{stream}.{epoch}.heartbeat"))
}

/// A publisher session's probes to itself: a missing heartbeat counts only while these come back.
pub fn loopback(session: SessionId) -> Topic<Loopback> {
    Topic::new("loop", format!("loop.{session}"))
}

/// Claims of stream keys by ingest nodes.
pub fn claim() -> RequestTopic<ClaimRequest, ClaimReply> {
    RequestTopic::fixed("control.claim")
}

/// Renewals of a publisher session's lease.
pub fn renew() -> RequestTopic<RenewRequest, LeaseReply> {
    RequestTopic::fixed("control.renew")
}

/// Releases of a publisher session's lease.
pub fn release() -> RequestTopic<ReleaseRequest, LeaseReply> {
    RequestTopic::fixed("control.release")
}

/// Reports of ingest nodes that they refused a publisher before it claimed its key.
pub fn refused() -> RequestTopic<RefusalReport, LeaseReply> {
    RequestTopic::fixed("control.refused")
}

/// Questions of edges for the public id behind a stream key.
pub fn alias() -> RequestTopic<AliasRequest, AliasReply> {
    RequestTopic::fixed("control.alias")
}

/// Reports of log writers that an epoch is sealed.
pub fn sealed() -> RequestTopic<SealReport, LeaseReply> {
    RequestTopic::fixed("control.sealed")
}

/// Orders of control to one publisher session to end.
pub fn kick(session: SessionId) -> Topic<Kick> {
    Topic::new("control.kick", format!("control.kick.{session}"))
}

/// Notices of a control that deliveries of a webhook wait.
pub fn webhooks() -> Topic<WebhookNotice> {
    Topic::fixed("control.webhooks")
}

/// Requests for the reports of all nodes; every node answers for itself.
pub fn nodes() -> RequestTopic<NodesRequest, NodeReport> {
    RequestTopic::fixed("nodes.list")
}

/// Lifecycle events of one stream, kept in the journal [`EVENTS_STREAM`].
pub fn events(stream: StreamId) -> Topic<LifecycleEvent> {
    Topic::new("events", format!("events.{stream}"))
}

/// Index facts of one stream, kept in the journal [`INDEX_STREAM`] once the segment's object is stored.
pub fn index(stream: StreamId) -> Topic<IndexFact> {
    Topic::new("index", format!("index.{stream}"))
}

/// Offers of live jobs without a worker, kept in the work queue [`JOBS_STREAM`].
pub fn backlog() -> Topic<Offer> {
    Topic::fixed("backlog.live")
}

/// Queue group of the workers that answer snapshot requests from stored checkpoints.
pub const CHECKPOINT_QUEUE: &str = "checkpoint";
/// Queue group of all control nodes.
pub const CONTROL_QUEUE: &str = "control";
/// JetStream stream of lifecycle events; apart from index facts, which are many more and would push them out.
pub const EVENTS_STREAM: &str = "MILLRACE_EVENTS";
/// Subjects that [`EVENTS_STREAM`] keeps messages of.
pub const EVENTS_SUBJECTS: [&str; 1] = ["events.>"];
/// JetStream stream of index facts.
pub const INDEX_STREAM: &str = "MILLRACE_INDEX";
/// Subjects that [`INDEX_STREAM`] keeps messages of.
pub const INDEX_SUBJECTS: [&str; 1] = ["index.>"];
/// JetStream work queue of jobs that wait for capacity.
pub const JOBS_STREAM: &str = "MILLRACE_JOBS";
/// Subjects that [`JOBS_STREAM`] keeps messages of.
pub const JOBS_SUBJECTS: [&str; 1] = ["backlog.>"];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn topics_have_distinct_subjects_and_names() {
        let (s, e, g, x) = (StreamId::from_u128(1), Epoch(2), Generation(3), SessionId::from_u128(1));
        let node: NodeId = "n".parse().unwrap();
        let pair = |topic: (&'static str, String)| topic;
        macro_rules! pairs {
            ($($topic:expr),* $(,)?) => { [$({ let topic = $topic; pair((topic.name(), topic.into_subject())) }),*] };
        }
        let all = pairs![
            media(s, e),
            ring_media(s, e),
            repair_media(s, e),
            live(s, e, g),
            digest(s, e, g),
            ring_live(s, e, g),
            repair_live(s, e, g),
            snapshot(s),
            session(s),
            epoch(s),
            offer(),
            worker_free(),
            bid(x),
            grant(&node),
            heartbeat(s, e),
            loopback(x),
            claim(),
            renew(),
            release(),
            refused(),
            alias(),
            sealed(),
            webhooks(),
            nodes(),
            kick(x),
            events(s),
            index(s),
            backlog(),
        ];
        assert_eq!(all.iter().map(|(name, _)| name).collect::<HashSet<_>>().len(), all.len());
        assert_eq!(all.iter().map(|(_, subject)| subject).collect::<HashSet<_>>().len(), all.len());
        assert!(all.iter().all(|(_, subject)| !subject.contains(['*', '>', ' '])));
    }

    #[test]
    fn snapshot_stream_reads_what_snapshot_writes() {
        let stream = StreamId::from_u128(7);
        assert_eq!(snapshot_stream(snapshot(stream).subject()), Some(stream));
        assert_eq!(snapshot_stream("session.x"), None);
    }
}
