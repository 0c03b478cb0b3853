//! The bus side of a log writer: publishes its messages and receives its readers' requests.

use millrace_bus::BusError;
use millrace_protocol::log::writer::EncodedMessage;
use millrace_wire::fact::{FactMessage, StreamState};
use millrace_wire::ids::{Epoch, Generation, StreamId};
use millrace_wire::message::repair::{RepairReply, RepairRequest, SnapshotRequest};
use millrace_wire::topic::Topic;
use millrace_wire::topics;

use crate::link::Link;
use crate::requests::{Request, RequestSubscription};

/// A request of one of the log's readers.
#[derive(Debug)]
pub enum LogRequest {
    /// A reader lacks facts: the log writer answers with the bounds of its replay buffer and retransmits.
    Repair(Request<RepairRequest, RepairReply>),
    /// A reader or a publisher session asks for the newest state.
    Snapshot(Request<SnapshotRequest, StreamState>),
}

/// Serves one log on the bus for the task that runs its log writer.
#[derive(Debug)]
pub struct LogServer {
    link: Link,
    live: Topic<FactMessage>,
    /// `None`: no reader follows this log without its bytes.
    digest: Option<Topic<FactMessage>>,
    retransmit: Topic<FactMessage>,
    repairs: RequestSubscription<RepairRequest, RepairReply>,
    snapshots: RequestSubscription<SnapshotRequest, StreamState>,
}

impl LogServer {
    /// Subscribes to the requests for the log of `(epoch, generation)`; at most `capacity` requests of each kind wait.
    pub async fn open(
        link: &Link,
        stream: StreamId,
        (epoch, generation): (Epoch, Generation),
        capacity: usize,
    ) -> Result<Self, BusError> {
        Ok(Self {
            link: link.clone(),
            live: topics::live(stream, epoch, generation),
            digest: Some(topics::digest(stream, epoch, generation)),
            retransmit: topics::repair_live(stream, epoch, generation),
            repairs: link.respond(&topics::ring_live(stream, epoch, generation), capacity).await?,
            snapshots: link.respond(&topics::snapshot(stream), capacity).await?,
        })
    }

    /// Leaves out the digest subject: a log that control writes is supervised by no publisher session.
    #[must_use]
    pub fn without_digest(mut self) -> Self {
        self.digest = None;
        self
    }

    /// Waits for the next request; `None` once the bus is closed. Cancel safe.
    pub async fn recv(&mut self) -> Option<LogRequest> {
        tokio::select! {
            request = self.repairs.recv() => request.map(LogRequest::Repair),
            request = self.snapshots.recv() => request.map(LogRequest::Snapshot),
        }
    }

    /// Publishes one encoded fact on the subject it is meant for and returns the number of fragments that the bus dropped:
    /// readers repair them from the log writer's replay buffer.
    pub fn publish(&self, message: EncodedMessage) -> u64 {
        let (topic, fragments) = match message {
            EncodedMessage::Live(fragments) => (&self.live, fragments),
            EncodedMessage::Digest(fragments) => match &self.digest {
                Some(topic) => (topic, fragments),
                None => return 0,
            },
            EncodedMessage::Retransmit(fragments) => (&self.retransmit, fragments),
        };
        let mut dropped = 0;
        for fragment in fragments {
            if let Err(error) = self.link.publish_fragment(topic, fragment) {
                tracing::debug!(topic = topic.name(), %error, "fact not published; readers repair it");
                dropped += 1;
            }
        }
        dropped
    }
}
