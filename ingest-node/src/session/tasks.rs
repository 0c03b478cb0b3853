//! The tasks beside a publisher's media: the session's own (timers, bids, heartbeats, kicks, leases) and the repairs',
//! so that a flood of one does not starve the other, and neither waits for media.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{Map, SelectAll};
use millrace_bus::{BusError, Message, QueueConfig, SharedBus, Subscription};
use millrace_protocol::session::{BASE_MS, Input, Output};
use millrace_runtime::{Alarm, Backoff};
use millrace_wire::fact::{FactReader, StreamState};
use millrace_wire::ids::{Epoch, Generation, SessionId, StreamId};
use millrace_wire::message::control::{self, ClaimGrant, Kick, LeaseReply};
use millrace_wire::message::job::{Bid, Heartbeat, Offer};
use millrace_wire::message::repair::{RepairReply, RepairRequest, SnapshotRequest};
use millrace_wire::{subjects, topic};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::core::Core;
use crate::context::Context;
use crate::limits;
use crate::metrics::IngestMetrics;

/// Snapshots taken into account: a stream's worker, its session and a few edges.
const SNAPSHOTS: usize = 16;
/// Logs followed at a time: the author's and a standby's.
const LOGS: usize = 2;

/// Answers those who lack media messages: the ring's bounds at once, the messages again on the repair subject.
pub(crate) async fn answer_repairs(
    core: Arc<Core>,
    bus: SharedBus,
    metrics: IngestMetrics,
    mut requests: Subscription,
    stop: CancellationToken,
) {
    while let Some(Some(message)) = stop.run_until_cancelled(requests.recv()).await {
        metrics.repair_requests.inc();
        let Some(request) = RepairRequest::parse(&message.payload) else {
            tracing::debug!("unreadable repair request");
            continue;
        };
        let answer = core.repair(&request);
        respond(&bus, &message, &answer);
    }
}

/// What a session hears.
enum Heard {
    Kick(Message),
    Bid(Message),
    Heartbeat(Message),
    Free,
    Echo,
    Snapshot(Message),
}

/// One for all subjects: of many receivers each would be looked at for a message on any of them.
type Ears = SelectAll<Map<Subscription, fn(Message) -> Heard>>;

/// The session's own task.
pub(crate) struct SessionTask {
    core: Arc<Core>,
    bus: SharedBus,
    metrics: IngestMetrics,
    stream: StreamId,
    session: SessionId,
    ears: Ears,
    /// Requests under way; dropped with the task.
    errands: JoinSet<()>,
    logs: VecDeque<AbortHandle>,
}

impl SessionTask {
    /// Listens from here on. `kicks` was subscribed before the claim.
    pub(crate) async fn new(
        context: &Context,
        grant: &ClaimGrant,
        session: SessionId,
        core: Arc<Core>,
        kicks: Subscription,
    ) -> Result<Self, BusError> {
        let bus = context.bus.clone();
        let mut ears = Ears::new();
        ears.push(kicks.map(Heard::Kick));
        for (subject, heard) in [
            (subjects::jobs_bid(session), Heard::Bid as fn(Message) -> Heard),
            (subjects::job_heartbeat(grant.stream, grant.epoch), Heard::Heartbeat),
            (subjects::JOBS_FREE.to_owned(), |_| Heard::Free),
            (subjects::loopback(session), |_| Heard::Echo),
            (subjects::snap(grant.stream), Heard::Snapshot),
        ] {
            ears.push(bus.subscribe(&subject, limits::CONTROL_QUEUE).await?.map(heard));
        }
        Ok(Self {
            core,
            bus,
            metrics: context.metrics.clone(),
            stream: grant.stream,
            session,
            ears,
            errands: JoinSet::new(),
            logs: VecDeque::new(),
        })
    }

    /// Runs until everything is stored, or `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        // What the machine wanted from its start on, above all the offer of its job.
        self.core.handle(Input::Tick);
        let mut alarm = Alarm::default();
        while !self.core.is_done() {
            for output in self.core.take_later() {
                self.perform(output).await;
            }
            alarm.within(self.core.until_timeout());
            tokio::select! {
                Some(heard) = self.ears.next() => self.hear(heard),
                Some(_) = self.errands.join_next() => {}
                () = self.core.woken() => {}
                () = alarm.ring() => self.core.handle(Input::Tick),
                () = stop.cancelled() => return,
            }
        }
        tracing::info!("the session is over");
    }

    fn hear(&self, heard: Heard) {
        match heard {
            Heard::Kick(message) => self.kicked(&message.payload),
            Heard::Bid(message) => self.read(&message, |bid: Bid| Input::Bid(bid)),
            Heard::Heartbeat(message) => {
                self.read(&message, |heartbeat: Heartbeat| Input::Heartbeat(heartbeat));
            }
            Heard::Free => self.core.handle(Input::WorkerFree),
            Heard::Echo => self.core.handle(Input::Loopback),
            Heard::Snapshot(message) => respond(&self.bus, &message, &self.core.snapshot()),
        }
    }

    fn read<T: topic::Message>(&self, message: &Message, input: impl FnOnce(T) -> Input) {
        match topic::decode(&message.payload) {
            Ok(read) => self.core.handle(input(read)),
            Err(error) => tracing::warn!(subject = %message.subject, %error, "unreadable message"),
        }
    }

    fn kicked(&self, payload: &[u8]) {
        match control::decode::<Kick>(payload) {
            Ok(kick) if kick.session == self.session => {
                tracing::info!(reason = %kick.reason, "control ends the session");
                self.core.handle(Input::Kick(kick.reason));
            }
            Ok(_) => tracing::warn!("a kick for another session came to this one"),
            Err(error) => tracing::warn!(%error, "unreadable kick"),
        }
    }

    async fn perform(&mut self, output: Output) {
        match output {
            Output::Order(node, order) => {
                tracing::info!(worker = %node, order = order_name(&order), "order to a worker");
                self.core.tell(&subjects::job_grant(&node), &*order);
            }
            Output::Follow(epoch, generation) => self.follow(epoch, generation).await,
            Output::AskFacts(epoch, generation, request) => self.ask_facts(epoch, generation, &request),
            Output::AskSnapshot => self.ask_snapshot(),
            Output::Renew(request) => self.ask_control(subjects::CONTROL_RENEW, &request),
            Output::Release(request) => self.ask_control(subjects::CONTROL_RELEASE, &request),
            Output::Backlog(offer) => self.wait_in_backlog(&offer),
            other => tracing::debug!(?other, "carried out elsewhere"),
        }
    }

    /// Subscribed before the grant leaves, so that the log is heard from its first fact.
    async fn follow(&mut self, epoch: Epoch, generation: Generation) {
        let live = subjects::digest(self.stream, epoch, generation);
        let repair = subjects::repair_live(self.stream, epoch, generation);
        let live = self.bus.subscribe(&live, limits::CONTROL_QUEUE).await;
        let repair = self.bus.subscribe(&repair, limits::CONTROL_QUEUE).await;
        let (Ok(live), Ok(repair)) = (live, repair) else {
            tracing::warn!("the worker's log cannot be followed: the bus is away");
            return;
        };
        self.logs.push_back(self.errands.spawn(read_log(self.core.clone(), live, repair)));
        if self.logs.len() > LOGS
            && let Some(old) = self.logs.pop_front()
        {
            old.abort();
        }
    }

    fn ask_facts(&mut self, epoch: Epoch, generation: Generation, request: &RepairRequest) {
        let Ok(body) = topic::encode(request) else { return };
        let subject = subjects::ring_live(self.stream, epoch, generation);
        let (bus, core) = (self.bus.clone(), self.core.clone());
        self.errands.spawn(async move {
            let reply = bus.request(&subject, body, limits::CONTROL_ATTEMPT).await;
            if let Some(reply) = reply.ok().and_then(|reply| topic::decode::<RepairReply>(&reply).ok()) {
                core.handle(Input::FactReply(epoch, generation, reply));
            }
        });
    }

    fn ask_snapshot(&mut self) {
        let (bus, core, subject) = (self.bus.clone(), self.core.clone(), subjects::snap(self.stream));
        self.errands.spawn(async move {
            // Collected answers are handed in together, and must be there before the first grant.
            let wait = Duration::from_millis(BASE_MS / 3);
            let Ok(ask) = topic::encode(&SnapshotRequest {}) else { return };
            for reply in bus.gather(&subject, ask.clone(), wait, SNAPSHOTS).await.unwrap_or_default() {
                if let Ok(snapshot) = topic::decode::<StreamState>(&reply) {
                    core.handle(Input::Snapshot(Box::new(snapshot)));
                }
            }
        });
    }

    /// Silence is no evidence: a stream goes on without control, and the machine asks again.
    fn ask_control(&mut self, subject: &'static str, request: &impl topic::Message) {
        let Ok(body) = control::encode(request) else { return };
        let (bus, core, metrics) = (self.bus.clone(), self.core.clone(), self.metrics.clone());
        self.errands.spawn(async move {
            let reply = bus.request(subject, body, limits::CONTROL_ATTEMPT).await;
            let read = reply
                .map_err(|error| error.to_string())
                .and_then(|reply| control::decode::<LeaseReply>(&reply).map_err(|error| error.to_string()));
            match read {
                Ok(reply) => core.handle(Input::Lease(reply)),
                Err(error) => {
                    metrics.lease_failures.inc();
                    tracing::debug!(subject, error, "control did not answer");
                }
            }
        });
    }

    /// The job is stored until a worker takes it: for those that come later, and to tell the autoscaler.
    fn wait_in_backlog(&mut self, offer: &Offer) {
        let Ok(body) = topic::encode(offer) else { return };
        let (bus, core, body) = (self.bus.clone(), self.core.clone(), body);
        let id = format!("{}-{}", offer.stream, offer.epoch);
        self.errands.spawn(async move {
            let queue = QueueConfig::new(subjects::JOBS_STREAM, subjects::BACKLOG_LIVE);
            let mut backoff = Backoff::new(limits::CLAIM_RETRY, limits::BACKLOG_RETRY_MAX);
            while core.lacks_worker() {
                let pushed = match bus.queue_declare(&queue).await {
                    Ok(()) => bus.queue_push(&queue.name, &id, body.clone()).await.map(drop),
                    Err(error) => Err(error),
                };
                match pushed {
                    Ok(()) => return,
                    Err(error) => tracing::warn!(%error, "the job could not be put into the backlog"),
                }
                backoff.wait().await;
            }
        });
    }
}

async fn read_log(core: Arc<Core>, mut live: Subscription, mut repair: Subscription) {
    let mut readers = (FactReader::default(), FactReader::default());
    loop {
        let fact = tokio::select! {
            Some(message) = live.recv() => readers.0.push(message.payload),
            Some(message) = repair.recv() => readers.1.push(message.payload),
            else => return,
        };
        match fact {
            Ok(Some(fact)) => core.handle(Input::Fact(fact)),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "unreadable fact"),
        }
    }
}

fn order_name(order: &millrace_wire::message::job::GrantOrder) -> &'static str {
    match order {
        millrace_wire::message::job::GrantOrder::Grant(_) => "grant",
        millrace_wire::message::job::GrantOrder::Yield { .. } => "yield",
        millrace_wire::message::job::GrantOrder::Revoke { .. } => "revoke",
    }
}

fn respond(bus: &SharedBus, message: &Message, answer: &impl topic::Message) {
    let Some(reply) = &message.reply else { return };
    let Ok(answer) = topic::encode(answer) else { return };
    if let Err(error) = bus.respond(reply, answer) {
        tracing::debug!(%error, subject = %message.subject, "request could not be answered");
    }
}
