//! The worker: bids on offers while it has room, takes grants, and looks after the backlog when it is idle.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use millrace_bus::{Message, QueueConfig, SharedBus};
use millrace_protocol::admission::{Admission, JobKey};
use millrace_runtime::supervisor::{Policy, Supervisor};
use millrace_runtime::{Drain, Exit, Ready};
use millrace_wire::message::job::{Bid, COPY_COST, Grant, GrantOrder, Offer};
use millrace_wire::subjects;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::config::Config;
use crate::job::{self, Deps, Order};

/// Offers and orders that may wait: a burst of every stream of a large cluster being offered again.
const CAPACITY: usize = 4096;
/// Orders waiting for one job.
const ORDERS: usize = 8;
/// How long a pull of the backlog waits for a job.
const PULL_WAIT: Duration = Duration::from_secs(5);
/// How long a backlog job waits for the grant that its new offer should bring.
const GRANT_WAIT: Duration = Duration::from_secs(3);
/// A backlog job without a grant goes to another worker after this time.
const BACKLOG_PAUSE: Duration = Duration::from_secs(2);
/// A pause after the queue could not be read.
const QUEUE_RETRY: Duration = Duration::from_secs(1);

/// Jobs running and what they cost.
struct Running {
    orders: HashMap<JobKey, mpsc::Sender<Order>>,
    admission: Admission,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Worker {
    deps: Deps,
    drain: Drain,
    supervisor: Supervisor,
    running: Arc<watch::Sender<Running>>,
}

/// The queue of live jobs that found no worker.
pub(crate) fn backlog() -> QueueConfig {
    QueueConfig::new(subjects::JOBS_STREAM, subjects::BACKLOG_LIVE)
}

impl Worker {
    pub(crate) fn new(config: &Config, deps: Deps, drain: Drain, supervisor: Supervisor) -> Self {
        let running = Running { orders: HashMap::new(), admission: Admission::new(config.admission()) };
        Self { deps, drain, supervisor, running: Arc::new(watch::Sender::new(running)) }
    }

    /// Bids and takes grants until told to stop.
    pub(crate) async fn run(self, stop: CancellationToken, ready: Ready) -> anyhow::Result<()> {
        let bus = &self.deps.bus;
        let mut offers = bus.subscribe(subjects::JOBS_OFFER, CAPACITY).await.context("offers")?;
        let grants = subjects::job_grant(&self.deps.node);
        let mut grants = bus.subscribe(&grants, CAPACITY).await.context("grants")?;
        ready.tell();
        self.tell_free();
        loop {
            tokio::select! {
                offer = offers.recv() => self.on_offer(&offer.context("offers ended")?),
                order = grants.recv() => self.on_order(order.context("grants ended")?).await,
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// Takes jobs from the backlog while there is room, until told to stop.
    pub(crate) async fn serve_backlog(self, stop: CancellationToken) -> anyhow::Result<()> {
        let bus = self.deps.bus.clone();
        while let Err(error) = bus.queue_declare(&backlog()).await {
            tracing::warn!(%error, "the backlog queue is not there yet");
            if stop.run_until_cancelled(tokio::time::sleep(QUEUE_RETRY)).await.is_none() {
                return Ok(());
            }
        }
        loop {
            tokio::select! {
                () = self.look_at_backlog(&bus) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// Nobody produces for a queue message: it makes the session offer its job again, to this worker among others.
    async fn look_at_backlog(&self, bus: &SharedBus) {
        let mut running = self.running.subscribe();
        let room = running.wait_for(|running| running.admission.bid(COPY_COST).is_some()).await.is_ok();
        if !room || self.drain.is_draining() {
            return tokio::time::sleep(QUEUE_RETRY).await;
        }
        let job = match bus.queue_pull(subjects::JOBS_STREAM, PULL_WAIT).await {
            Ok(Some(job)) => job,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%error, "the backlog cannot be read");
                return tokio::time::sleep(QUEUE_RETRY).await;
            }
        };
        let Ok(offer) = serde_json::from_slice::<Offer>(&job.payload) else {
            tracing::warn!("a backlog job could not be read; it is dropped");
            let _ = job.ack().await;
            return;
        };
        // Not for this worker now; another may have more room.
        if self.running.borrow().admission.bid(offer.cost).is_none() {
            let _ = job.nak(BACKLOG_PAUSE).await;
            return;
        }
        self.tell_free();
        let granted = running.wait_for(|running| {
            running.orders.keys().any(|(stream, epoch, _)| (*stream, *epoch) == (offer.stream, offer.epoch))
        });
        let granted = matches!(tokio::time::timeout(GRANT_WAIT, granted).await, Ok(Ok(_)));
        // An answer that is lost makes the job come again, which does no harm.
        let _ = if granted { job.ack().await } else { job.nak(BACKLOG_PAUSE).await };
    }

    fn tell_free(&self) {
        if !self.drain.is_draining() {
            let _ = self.deps.bus.publish(subjects::JOBS_FREE, Bytes::new());
        }
    }

    fn on_offer(&self, message: &Message) {
        if self.drain.is_draining() {
            return;
        }
        let Ok(offer) = serde_json::from_slice::<Offer>(&message.payload) else {
            tracing::warn!("an offer could not be read");
            return;
        };
        let running = self.running.borrow();
        let Some(free) = running.admission.bid(offer.cost) else {
            self.deps.metrics.offers_declined.inc();
            return;
        };
        let bid = Bid {
            round: offer.round,
            node: self.deps.node.clone(),
            free,
            continuing: running.orders.keys().any(|(stream, ..)| *stream == offer.stream),
        };
        if let Ok(bid) = serde_json::to_vec(&bid) {
            // A bid that is lost costs a round.
            let _ = self.deps.bus.publish(&subjects::jobs_bid(offer.session), bid.into());
        }
    }

    async fn on_order(&self, message: Message) {
        match serde_json::from_slice(&message.payload) {
            Ok(GrantOrder::Grant(grant)) => self.start(*grant).await,
            Ok(GrantOrder::Yield { stream, epoch, generation }) => {
                self.tell((stream, epoch, generation), Order::Yield);
            }
            Ok(GrantOrder::Revoke { stream, epoch, generation }) => {
                self.tell((stream, epoch, generation), Order::Revoke);
            }
            Err(error) => tracing::warn!(%error, "a grant could not be read"),
        }
    }

    fn tell(&self, id: JobKey, order: Order) {
        let running = self.running.borrow().orders.get(&id).cloned();
        if let Some(orders) = running {
            let _ = orders.try_send(order);
        }
    }

    /// Grants are repeated until heartbeats show them; a second one changes nothing.
    async fn start(&self, grant: Grant) {
        let id = (grant.stream, grant.epoch, grant.generation);
        let (orders, receiver) = mpsc::channel(ORDERS);
        let new = self.running.send_if_modified(|running| {
            let new = running.admission.take(id, grant.cost);
            if new {
                running.orders.insert(id, orders);
            }
            new
        });
        if !new {
            return;
        }
        let span = tracing::info_span!("job", stream = %id.0, epoch = %id.1, generation = %id.2);
        tracing::info!(parent: &span, resume_from = %grant.resume_from, "granted: packaging");
        self.deps.metrics.grants.inc();
        let (deps, held) = (self.deps.clone(), self.drain.guard());
        let mut once = Some((grant, receiver));
        let child = self.supervisor.spawn("job", Policy::once(), move |stop| {
            let work = once.take().map(|(grant, orders)| job::run(deps.clone(), grant, orders));
            let span = span.clone();
            async move {
                let Some(work) = work else { return Ok(()) };
                match stop.run_until_cancelled(Box::pin(work.instrument(span))).await {
                    Some(result) => Ok(result?),
                    None => Ok(()),
                }
            }
        });
        let worker = self.clone();
        let child = child.await;
        self.update_gauge();
        tokio::spawn(async move {
            match child {
                Ok(mut child) => {
                    if child.ended().await != Exit::Finished {
                        worker.deps.metrics.failures.inc();
                    }
                }
                Err(error) => tracing::error!(%error, "the job could not be started"),
            }
            worker.running.send_modify(|running| {
                running.orders.remove(&id);
                running.admission.give_back(&id);
            });
            worker.update_gauge();
            drop(held);
            worker.tell_free();
        });
    }

    fn update_gauge(&self) {
        self.deps.metrics.jobs.set(self.running.borrow().orders.len() as i64);
    }

    /// Asks for a successor for every running job.
    pub(crate) fn leave(&self) {
        for orders in self.running.borrow().orders.values() {
            let _ = orders.try_send(Order::Leave);
        }
    }
}
