//! The backlog: a work queue of live jobs that found no worker. A worker with room takes a job from it, and so makes the
//! job's session offer the job again.

use std::time::Duration;

use millrace_bus::{QueueConfig, SharedBus};
use millrace_runtime::{ActorContext, StatusHandle};
use millrace_wire::message::job::COPY_COST;
use millrace_wire::topics;

use super::Worker;

/// The longest time one pull of the queue waits for a job.
const PULL_WAIT: Duration = Duration::from_secs(5);
/// The longest time to wait for the grant that a session's new offer brings.
const GRANT_WAIT: Duration = Duration::from_secs(3);
/// The time after which a job that was not granted is given to another worker.
const REDELIVERY_DELAY: Duration = Duration::from_secs(2);
/// The pause after the queue could not be declared or read.
const QUEUE_RETRY: Duration = Duration::from_secs(1);

impl Worker {
    /// Takes jobs from the backlog while the worker has room, until the actor is stopped.
    pub(crate) async fn serve_backlog(self, actor: ActorContext) -> anyhow::Result<()> {
        let ActorContext { stop, status, .. } = actor;
        let bus = self.context.link.bus().clone();
        let queue = QueueConfig::new(topics::JOBS_STREAM, topics::backlog().subject());
        status.set_state("declaring the queue");
        while let Err(error) = bus.queue_declare(&queue).await {
            tracing::warn!(%error, "backlog queue not declared; will retry");
            if stop.run_until_cancelled(tokio::time::sleep(QUEUE_RETRY)).await.is_none() {
                return Ok(());
            }
        }
        loop {
            tokio::select! {
                () = self.take_from_backlog(&bus, &status) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// Takes one job from the queue. The message itself brings no media: its session grants the job after a new offer,
    /// to this worker or to another that bids.
    async fn take_from_backlog(&self, bus: &SharedBus, status: &StatusHandle) {
        let mut running = self.running.subscribe();
        status.set_state("waiting for room");
        let has_room = running.wait_for(|running| running.admission.bid(COPY_COST).is_some()).await.is_ok();
        if !has_room || self.drain.is_draining() {
            return tokio::time::sleep(QUEUE_RETRY).await;
        }
        status.set_state("waiting for a job");
        let job = match bus.queue_pull(topics::JOBS_STREAM, PULL_WAIT).await {
            Ok(Some(job)) => job,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%error, "backlog queue not read; will retry");
                return tokio::time::sleep(QUEUE_RETRY).await;
            }
        };
        // A job that is refused would be refused again, so it leaves the queue.
        let Some(offer) = self.context.link.decode(&topics::backlog(), &job.payload) else {
            let _ = job.ack().await;
            return;
        };
        // Another worker may have more room for a costly job.
        if self.running.borrow().admission.bid(offer.cost).is_none() {
            let _ = job.nak(REDELIVERY_DELAY).await;
            return;
        }
        status.set_state("waiting for a grant");
        self.announce_free_capacity();
        let granted = running.wait_for(|running| {
            running.orders.keys().any(|(stream, epoch, _)| (*stream, *epoch) == (offer.stream, offer.epoch))
        });
        let granted = matches!(tokio::time::timeout(GRANT_WAIT, granted).await, Ok(Ok(_)));
        // A lost acknowledgement makes the job come again, which does no harm.
        let _ = if granted { job.ack().await } else { job.nak(REDELIVERY_DELAY).await };
    }
}
