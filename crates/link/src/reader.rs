//! Reading what a producer publishes and retransmits: the facts of a log, the media messages of an epoch.

use std::time::Duration;

use millrace_bus::BusError;
use millrace_wire::fact::FactMessage;
use millrace_wire::fragment::Fragmented;
use millrace_wire::ids::{Epoch, Generation, StreamId};
use millrace_wire::message::media::MediaMessage;
use millrace_wire::message::repair::{RepairReply, RepairRequest};
use millrace_wire::topic::{RequestTopic, Topic};
use millrace_wire::topics;

use crate::link::Link;
use crate::subscription::FragmentSubscription;

/// A producer answers a repair request from memory: a slower answer means that it is away, and the reader asks again.
pub const REPAIR_TIMEOUT: Duration = Duration::from_millis(500);

/// The form in which a reader receives the facts of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogForm {
    /// Facts with the bytes of parts, for readers that serve media.
    Live,
    /// Facts without the bytes of parts, for readers that follow the state only.
    Digest,
}

/// Reads the facts of one log: those published live and those retransmitted on request.
pub type LogReader = RepairedReader<FactMessage>;

/// Reads the media messages of one epoch: those published live and those retransmitted on request.
pub type MediaReader = RepairedReader<MediaMessage>;

/// Reads the messages of one producer from its live topic and its repair topic, and asks it for retransmissions.
///
/// The reader does not order messages or find holes: that is the work of the protocol machine it reads for, which names
/// the missing sequence numbers in a [`RepairRequest`].
#[derive(Debug)]
pub struct RepairedReader<T> {
    link: Link,
    live: FragmentSubscription<T>,
    repaired: FragmentSubscription<T>,
    producer: RequestTopic<RepairRequest, RepairReply>,
}

impl LogReader {
    /// Subscribes to the log of `(epoch, generation)`; at most `capacity` fragments wait on each of its two subjects.
    pub async fn follow(
        link: &Link,
        stream: StreamId,
        (epoch, generation): (Epoch, Generation),
        form: LogForm,
        capacity: usize,
    ) -> Result<Self, BusError> {
        let live = match form {
            LogForm::Live => topics::live(stream, epoch, generation),
            LogForm::Digest => topics::digest(stream, epoch, generation),
        };
        let repaired = topics::repair_live(stream, epoch, generation);
        Self::subscribe(link, &live, &repaired, topics::ring_live(stream, epoch, generation), capacity).await
    }
}

impl MediaReader {
    /// Subscribes to the media of `epoch`; at most `capacity` fragments wait on each of its two subjects.
    pub async fn follow(
        link: &Link,
        stream: StreamId,
        epoch: Epoch,
        capacity: usize,
    ) -> Result<Self, BusError> {
        let (live, repaired) = (topics::media(stream, epoch), topics::repair_media(stream, epoch));
        Self::subscribe(link, &live, &repaired, topics::ring_media(stream, epoch), capacity).await
    }
}

impl<T: Fragmented> RepairedReader<T> {
    async fn subscribe(
        link: &Link,
        live: &Topic<T>,
        repaired: &Topic<T>,
        producer: RequestTopic<RepairRequest, RepairReply>,
        capacity: usize,
    ) -> Result<Self, BusError> {
        Ok(Self {
            link: link.clone(),
            live: link.subscribe_fragments(live, capacity).await?,
            repaired: link.subscribe_fragments(repaired, capacity).await?,
            producer,
        })
    }

    /// Waits for at least one fragment on either subject, takes up to `limit` of them at once and appends the messages they
    /// complete to `out`. Returns the number of fragments taken; 0 once the bus is closed. Cancel safe.
    pub async fn recv_many(&mut self, out: &mut Vec<T>, limit: usize) -> usize {
        let mut late = Vec::new();
        tokio::select! {
            taken = self.live.recv_many(out, limit) => taken,
            taken = self.repaired.recv_many(&mut late, limit) => {
                out.append(&mut late);
                taken
            }
        }
    }

    /// Asks the producer to retransmit; the messages themselves come out of [`RepairedReader::recv_many`]. The future does
    /// not borrow the reader, so a task goes on reading while it waits; it returns `None` if the producer did not answer
    /// within [`REPAIR_TIMEOUT`].
    pub fn ask_repair(
        &self,
        request: RepairRequest,
    ) -> impl Future<Output = Option<RepairReply>> + Send + 'static + use<T> {
        let (link, producer) = (self.link.clone(), self.producer.clone());
        async move {
            match link.request(&producer, &request, REPAIR_TIMEOUT).await {
                Ok(reply) => Some(reply),
                Err(error) => {
                    tracing::debug!(%error, "repair request not answered; the reader asks again");
                    None
                }
            }
        }
    }

    /// Returns the number of fragments lost because a subscription was full.
    pub fn dropped(&self) -> u64 {
        self.live.dropped() + self.repaired.dropped()
    }

    /// Returns the number of fragments that wait to be taken.
    pub fn waiting(&self) -> usize {
        self.live.waiting() + self.repaired.waiting()
    }
}
