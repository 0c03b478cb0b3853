//! The worker bids on offered jobs while it has room, takes grants, and runs one task for each granted job.

mod backlog;

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context;
use millrace_protocol::admission::{Admission, AdmissionLimits, JobKey};
use millrace_runtime::supervisor::{Policy, Supervisor};
use millrace_runtime::{ActorContext, ActorId, Drain, Exit};
use millrace_wire::message::job::{Bid, Grant, GrantOrder, Offer, WorkerFree};
use millrace_wire::topics;
use tokio::sync::{mpsc, watch};
use tracing::Instrument;

use crate::context::NodeContext;
use crate::job::{self, JobContext, Order};

/// Offers, and grants, that may wait: every stream of a large cluster may be offered again at the same moment.
const CAPACITY: usize = 4096;
/// Orders that may wait for one job.
const ORDER_CAPACITY: usize = 8;

/// The jobs that run, and their cost.
struct RunningJobs {
    orders: HashMap<JobKey, mpsc::Sender<Order>>,
    admission: Admission,
}

/// The worker of a node; clones share the same jobs.
#[derive(Clone)]
pub(crate) struct Worker {
    context: NodeContext,
    jobs: JobContext,
    drain: Drain,
    supervisor: Supervisor,
    running: Arc<watch::Sender<RunningJobs>>,
}

impl Worker {
    pub(crate) fn new(
        limits: AdmissionLimits,
        jobs: JobContext,
        drain: Drain,
        supervisor: Supervisor,
    ) -> Self {
        let context = jobs.node.clone();
        let admission = Admission::new(limits);
        let running = Arc::new(watch::Sender::new(RunningJobs { orders: HashMap::new(), admission }));
        Self { context, jobs, drain, supervisor, running }
    }

    /// Bids and takes grants until the actor is stopped.
    pub(crate) async fn run(self, actor: ActorContext) -> anyhow::Result<()> {
        let link = &self.context.link;
        let mut offers = link.subscribe(&topics::offer(), CAPACITY).await.context("offers")?;
        let grants = topics::grant(&self.context.node);
        let mut grants = link.subscribe(&grants, CAPACITY).await.context("grants")?;
        let mut running = self.running.subscribe();
        actor.ready.report();
        self.announce_free_capacity();
        actor.status.set_state(self.state());
        loop {
            tokio::select! {
                offer = offers.recv() => self.on_offer(&offer.context("the bus closed the offers")?),
                order = grants.recv() => self.on_order(order.context("the bus closed the grants")?).await,
                _ = running.changed() => actor.status.set_state(self.state()),
                () = actor.stop.cancelled() => return Ok(()),
            }
        }
    }

    /// Replaces the limits on the worker's jobs; those that run go on.
    pub(crate) fn limit(&self, limits: AdmissionLimits) {
        self.running.send_modify(|running| running.admission.set_limits(limits));
        self.announce_free_capacity();
    }

    /// Returns what the worker does, for operators.
    fn state(&self) -> String {
        let jobs = self.running.borrow().orders.len();
        let activity = if self.drain.is_draining() { "draining" } else { "bidding" };
        format!("{activity}, {jobs} jobs")
    }

    /// Makes sessions that lack a worker offer their jobs again.
    fn announce_free_capacity(&self) {
        if !self.drain.is_draining() {
            // Sessions repeat their offers anyway.
            let _ = self.context.link.publish(&topics::worker_free(), &WorkerFree {});
        }
    }

    fn on_offer(&self, offer: &Offer) {
        if self.drain.is_draining() {
            return;
        }
        let running = self.running.borrow();
        let Some(free) = running.admission.bid(offer.cost) else {
            self.context.metrics.offers_declined.inc();
            return;
        };
        let bid = Bid {
            round: offer.round,
            node: self.context.node.clone(),
            free,
            continuing: running.orders.keys().any(|(stream, ..)| *stream == offer.stream),
        };
        // A lost bid costs the session one more round of offers.
        let _ = self.context.link.publish(&topics::bid(offer.session), &bid);
    }

    async fn on_order(&self, order: GrantOrder) {
        match order {
            GrantOrder::Grant(grant) => self.start(*grant).await,
            GrantOrder::Quiesce { stream, epoch, generation } => {
                self.order((stream, epoch, generation), Order::Quiesce);
            }
            GrantOrder::Revoke { stream, epoch, generation } => {
                self.order((stream, epoch, generation), Order::Revoke);
            }
        }
    }

    /// Hands an order to a running job. Sessions repeat their orders, so one that finds no room is not lost.
    fn order(&self, job: JobKey, order: Order) {
        let orders = self.running.borrow().orders.get(&job).cloned();
        if let Some(orders) = orders {
            let _ = orders.try_send(order);
        }
    }

    /// Starts the job of a grant. A session repeats its grant until heartbeats show the job; a repeated one does nothing.
    async fn start(&self, grant: Grant) {
        let key = (grant.stream, grant.epoch, grant.generation);
        let (orders, receiver) = mpsc::channel(ORDER_CAPACITY);
        let new = self.running.send_if_modified(|running| {
            let new = running.admission.take(key, grant.cost);
            if new {
                running.orders.insert(key, orders);
            }
            new
        });
        if !new {
            return;
        }
        let span = tracing::info_span!("job", stream = %key.0, epoch = %key.1, generation = %key.2);
        tracing::info!(parent: &span, resume_from = %grant.resume_from, "job granted; packaging starts");
        self.context.metrics.grants.inc();
        let context = self.jobs.clone();
        let mut once = Some((grant, receiver));
        let name = ActorId::new("job", format_args!("{}.{}.{}", key.0, key.1, key.2));
        let child = self.supervisor.spawn(name, Policy::once(), move |actor| {
            let (once, span, stop) = (once.take(), span.clone(), actor.stop.clone());
            let context = context.clone();
            let work = once.map(|(grant, orders)| job::run(actor, context, grant, orders));
            async move {
                let Some(work) = work else { return Ok(()) };
                match stop.run_until_cancelled(Box::pin(work.instrument(span))).await {
                    Some(result) => Ok(result?),
                    None => Ok(()),
                }
            }
        });
        let (worker, guard) = (self.clone(), self.drain.guard());
        let child = child.await;
        self.update_gauge();
        tokio::spawn(async move {
            match child {
                Ok(mut child) => {
                    if child.ended().await != Exit::Finished {
                        worker.context.metrics.failures.inc();
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "job not started; its session grants it to another worker");
                }
            }
            worker.remove(key);
            drop(guard);
            worker.announce_free_capacity();
        });
    }

    fn remove(&self, job: JobKey) {
        self.running.send_modify(|running| {
            running.orders.remove(&job);
            running.admission.give_back(&job);
        });
        self.update_gauge();
    }

    fn update_gauge(&self) {
        self.context.metrics.jobs.set(self.running.borrow().orders.len() as i64);
    }

    /// Asks the sessions of all running jobs for successors.
    pub(crate) fn leave(&self) {
        for orders in self.running.borrow().orders.values() {
            let _ = orders.try_send(Order::Leave);
        }
    }
}
