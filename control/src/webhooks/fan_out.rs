//! Fan-out: a durable reader of the journal moves each event from the outbox into the queues of the webhooks that take it.
//!
//! An entry of the journal is a notice: the events of its livestream that are in the outbox up to it are moved, in order, and
//! an event that is no longer there was moved before. So an entry that comes twice, late or out of order changes nothing.

use std::sync::Arc;
use std::time::Duration;

use millrace_bus::{BusError, ReaderConfig};
use millrace_runtime::Backoff;
use millrace_wire::message::control::LifecycleEvent;
use millrace_wire::topics;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::Webhooks;
use crate::domain::delivery::{DeliveryKey, Progress};
use crate::domain::webhook::{MAX_MATCHES, MAX_QUEUE, WebhookId};
use crate::events::journal;
use crate::repo::{DeliveryState, OutboxEntry, RepoError, Versioned};

/// The name of the reader: all controls share its place in the journal.
const READER: &str = "webhooks";

/// An entry that a control took and did not move is given to the next leader after this time.
const ACK_WAIT: Duration = Duration::from_secs(10);

/// Time for which one look at the journal waits for an entry; a control that stops waits no longer.
const LOOK: Duration = Duration::from_secs(1);

/// Shortest and longest pause after a failure.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Deliveries on their way to the engine; fan-out waits for room.
pub(super) const QUEUED: usize = 256;

/// The number of deliveries that wait for a webhook, as the engine knows it.
pub(super) type Waiting = Arc<dyn Fn(&WebhookId) -> usize + Send + Sync>;

pub(super) struct FanOut {
    pub(super) webhooks: Arc<Webhooks>,
    pub(super) deliveries: mpsc::Sender<(DeliveryKey, Progress)>,
    pub(super) waiting: Waiting,
}

impl FanOut {
    /// Moves events until `stop`.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
        let mut declared = false;
        while !stop.is_cancelled() {
            let step = if declared { self.step(&stop).await } else { self.declare().await };
            match step {
                Ok(()) => {
                    declared = true;
                    backoff.reset();
                }
                Err(error) => {
                    debug!(%error, "journal of events not read; will retry");
                    // The journal, or the reader, may be gone with its server.
                    declared = false;
                    let pause = backoff.next_delay();
                    let _ = tokio::time::timeout(pause, stop.cancelled()).await;
                }
            }
        }
    }

    async fn declare(&self) -> Result<(), BusError> {
        let bus = self.webhooks.services.link.bus();
        bus.journal_declare(&journal()).await?;
        let [pattern] = topics::EVENTS_SUBJECTS;
        let reader = ReaderConfig { ack_wait: ACK_WAIT, ..ReaderConfig::new(READER, pattern) };
        bus.journal_reader(topics::EVENTS_STREAM, &reader).await
    }

    async fn step(&self, stop: &CancellationToken) -> Result<(), BusError> {
        let bus = self.webhooks.services.link.bus();
        let Some(entry) = bus.journal_next(topics::EVENTS_STREAM, READER, LOOK).await? else { return Ok(()) };
        match millrace_wire::topic::decode::<LifecycleEvent>(&entry.payload) {
            Ok(event) => {
                let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
                while let Err(error) = self.move_up_to(&event).await {
                    warn!(stream = %event.stream, %error, "event not handed to the webhooks yet; will retry");
                    let pause = backoff.next_delay();
                    if tokio::time::timeout(pause, stop.cancelled()).await.is_ok() {
                        return entry.nak(Duration::ZERO).await;
                    }
                }
            }
            Err(error) => warn!(%error, "event in the journal cannot be read; event skipped"),
        }
        entry.ack().await
    }

    /// Moves the events of a livestream up to `last`.
    async fn move_up_to(&self, last: &LifecycleEvent) -> Result<(), RepoError> {
        let repo = &self.webhooks.services.repo;
        let entries = repo.outbox_of(last.stream).await?;
        for entry in entries.iter().take_while(|entry| entry.value.event.sequence <= last.sequence) {
            self.move_one(entry).await?;
        }
        Ok(())
    }

    async fn move_one(&self, entry: &Versioned<OutboxEntry>) -> Result<(), RepoError> {
        let services = &self.webhooks.services;
        let event = &entry.value.event;
        let stored = services.repo.webhooks().await?;
        let all = self.webhooks.configured.webhooks().chain(&stored);
        let takers: Vec<&WebhookId> =
            all.filter(|webhook| webhook.takes(event)).map(|webhook| &webhook.id).collect();
        if takers.len() > MAX_MATCHES {
            warn!(
                event = event.id(),
                webhooks = takers.len(),
                limit = MAX_MATCHES,
                "too many webhooks take the event; the newest ones do not get it"
            );
        }
        let queues = queues(&takers, &*self.waiting);
        let now = services.wall_clock();
        if !services.repo.fan_out(entry, &queues, now).await? {
            return Ok(());
        }
        for (endpoint, _) in queues.into_iter().filter(|(_, state)| *state == DeliveryState::Pending) {
            let key = DeliveryKey { endpoint, stream: event.stream, sequence: event.sequence };
            // The engine that has ended leaves the delivery to the next leader.
            let _ = self.deliveries.send((key, Progress::new(now))).await;
        }
        Ok(())
    }
}

/// Returns the webhooks that get an event, each with the place of its delivery, of those that take it, the oldest first. A webhook
/// with a full queue gets a dead letter.
fn queues(takers: &[&WebhookId], waiting: &dyn Fn(&WebhookId) -> usize) -> Vec<(WebhookId, DeliveryState)> {
    let place = |id: &WebhookId| match waiting(id) {
        waiting if waiting >= MAX_QUEUE => DeliveryState::Dead,
        _ => DeliveryState::Pending,
    };
    takers.iter().take(MAX_MATCHES).map(|&id| (id.clone(), place(id))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_leave_out_the_newest_webhooks_beyond_100() {
        let ids: Vec<WebhookId> =
            (0..=MAX_MATCHES).map(|number| format!("W{number}").parse().unwrap()).collect();
        let takers: Vec<&WebhookId> = ids.iter().collect();
        let found = queues(&takers, &|_| 0);
        assert!(found.iter().all(|(_, state)| *state == DeliveryState::Pending));
        let found: Vec<WebhookId> = found.into_iter().map(|(id, _)| id).collect();
        assert_eq!(found, ids[..MAX_MATCHES]);
    }

    #[test]
    fn queues_make_dead_letters_of_a_webhook_for_which_10_000_deliveries_wait() {
        let (full, other): (WebhookId, WebhookId) = ("full".parse().unwrap(), "other".parse().unwrap());
        let waiting = |id: &WebhookId| if *id == full { MAX_QUEUE } else { MAX_QUEUE - 1 };
        let found = queues(&[&full, &other], &waiting);
        assert_eq!(found, [(full.clone(), DeliveryState::Dead), (other, DeliveryState::Pending)]);
    }
}
