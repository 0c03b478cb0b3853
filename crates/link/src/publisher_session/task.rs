//! The tasks beside a publisher's media: the session's own, and the one that answers repair requests.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::{BoxStream, SelectAll};
use millrace_bus::BusError;
use millrace_protocol::session::{Input, Output};
use millrace_runtime::CoalescingTimer;
use millrace_wire::fact::StreamState;
use millrace_wire::ids::{Epoch, Generation, SessionId, StreamId};
use millrace_wire::message::control::Kick;
use millrace_wire::message::job::{Bid, GrantOrder, Heartbeat};
use millrace_wire::message::repair::{RepairReply, RepairRequest, SnapshotRequest};
use millrace_wire::topics;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::driver::SessionDriver;
use super::report::SessionReport;
use super::requests;
use crate::link::Link;
use crate::reader::{LogForm, LogReader};
use crate::requests::{Request, RequestSubscription};
use crate::subscription::TypedSubscription;

/// Messages of one kind (bids, heartbeats, facts) that wait per session: five heartbeats a second of a few workers.
const CAPACITY: usize = 1_024;

/// Logs followed at a time: the primary's and the standby's.
const MAX_LOGS: usize = 2;

/// Facts taken from a log at once.
const FACT_BATCH: usize = 64;

/// A message that the session listens for.
enum SessionMessage {
    Kick(Kick),
    Bid(Bid),
    Heartbeat(Heartbeat),
    WorkerFree,
    Loopback,
    Snapshot(Request<SnapshotRequest, StreamState>),
}

/// All subscriptions as one stream: only those with a message are polled.
type Subscriptions = SelectAll<BoxStream<'static, SessionMessage>>;

/// The session's own task: timers, workers' supervision, lease. Its future ends once everything is stored.
pub struct SessionTask {
    driver: Arc<SessionDriver>,
    stream: StreamId,
    session: SessionId,
    subscriptions: Subscriptions,
    /// Requests and log readers under way; they end with the task.
    in_flight: JoinSet<()>,
    logs: VecDeque<AbortHandle>,
    /// Cancelled when this task ends: once everything is stored, no worker asks for media.
    ended: CancellationToken,
    _end: DropGuard,
}

impl SessionTask {
    pub(super) async fn subscribe(
        link: &Link,
        (stream, epoch): (StreamId, Epoch),
        session: SessionId,
        driver: Arc<SessionDriver>,
        kicks: TypedSubscription<Kick>,
    ) -> Result<Self, BusError> {
        let bids = link.subscribe(&topics::bid(session), CAPACITY).await?;
        let heartbeats = link.subscribe(&topics::heartbeat(stream, epoch), CAPACITY).await?;
        let free = link.subscribe(&topics::worker_free(), CAPACITY).await?;
        let loopback = link.subscribe(&topics::loopback(session), CAPACITY).await?;
        let snapshots = link.respond(&topics::snapshot(stream), CAPACITY).await?;
        let ended = CancellationToken::new();
        let mut subscriptions = Subscriptions::new();
        subscriptions.push(kicks.map(SessionMessage::Kick).boxed());
        subscriptions.push(bids.map(SessionMessage::Bid).boxed());
        subscriptions.push(heartbeats.map(SessionMessage::Heartbeat).boxed());
        subscriptions.push(free.map(|_| SessionMessage::WorkerFree).boxed());
        subscriptions.push(loopback.map(|_| SessionMessage::Loopback).boxed());
        subscriptions.push(snapshots.map(SessionMessage::Snapshot).boxed());
        Ok(Self {
            driver,
            stream,
            session,
            subscriptions,
            in_flight: JoinSet::new(),
            logs: VecDeque::new(),
            _end: ended.clone().drop_guard(),
            ended,
        })
    }

    /// Returns a token that is cancelled when this task ends, or is dropped.
    pub(super) fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }

    /// Runs until everything is stored, or until `stop`. `report` is called each time the task has woken up, at least every
    /// [`POLL_INTERVAL`](crate::driver::POLL_INTERVAL).
    pub async fn run(mut self, stop: CancellationToken, mut report: impl FnMut(SessionReport) + Send) {
        // The outputs of the machine's start, above all the offer of its job.
        self.driver.handle(Input::Tick);
        let mut timer = CoalescingTimer::default();
        while !self.driver.is_done() {
            let outputs = self.driver.take_deferred();
            if !outputs.is_empty() {
                // Shown while the outputs are executed, so that a bus that holds them up can be seen.
                let (_, condition) = self.driver.inspect();
                report(SessionReport { executing: outputs.len(), ..condition });
            }
            for output in outputs {
                self.perform(output).await;
            }
            let (timeout, condition) = self.driver.inspect();
            report(condition);
            timer.fire_within(timeout);
            tokio::select! {
                Some(message) = self.subscriptions.next() => self.on_message(message),
                Some(_) = self.in_flight.join_next() => {}
                () = self.driver.deferred() => {}
                () = timer.fired() => self.driver.handle(Input::Tick),
                () = stop.cancelled() => return,
            }
        }
        tracing::info!("publisher session complete: everything received is stored");
    }

    fn on_message(&self, message: SessionMessage) {
        match message {
            SessionMessage::Kick(kick) => self.on_kick(&kick),
            SessionMessage::Bid(bid) => self.driver.handle(Input::Bid(bid)),
            SessionMessage::Heartbeat(heartbeat) => self.driver.handle(Input::Heartbeat(heartbeat)),
            SessionMessage::WorkerFree => self.driver.handle(Input::WorkerFree),
            SessionMessage::Loopback => self.driver.handle(Input::Loopback),
            SessionMessage::Snapshot(request) => request.respond(&self.driver.snapshot()),
        }
    }

    fn on_kick(&self, kick: &Kick) {
        if kick.session == self.session {
            tracing::info!(reason = %kick.reason, "control ends the publisher session");
            self.driver.handle(Input::Kick(kick.reason));
        } else {
            tracing::warn!(other = %kick.session, "kick for another session received; ignored");
        }
    }

    async fn perform(&mut self, output: Output) {
        let driver = self.driver.clone();
        match output {
            Output::Order(node, order) => {
                tracing::info!(worker = %node, order = order_name(&order), "order sent to the worker");
                driver.publish(&topics::grant(&node), &order);
            }
            Output::Follow(epoch, generation) => self.follow(epoch, generation).await,
            Output::AskFacts(epoch, generation, request) => {
                let topic = topics::ring_live(self.stream, epoch, generation);
                self.in_flight.spawn(requests::ask_facts(driver, topic, (epoch, generation), request));
            }
            Output::AskSnapshot => {
                self.in_flight.spawn(requests::ask_snapshots(driver, topics::snapshot(self.stream)));
            }
            Output::Renew(request) => {
                self.in_flight.spawn(requests::ask_lease(driver, topics::renew(), request, Input::Renewed));
            }
            Output::Release(request) => {
                self.in_flight.spawn(requests::ask_lease(
                    driver,
                    topics::release(),
                    request,
                    Input::Released,
                ));
            }
            Output::Backlog(offer) => {
                self.in_flight.spawn(requests::push_backlog(driver, offer));
            }
            Output::Done => {}
            other => tracing::error!(?other, "output of the session machine has no executor; dropped"),
        }
    }

    /// Subscribes before the grant leaves, so that the log is received from its first fact.
    async fn follow(&mut self, epoch: Epoch, generation: Generation) {
        let log = LogReader::follow(
            self.driver.link(),
            self.stream,
            (epoch, generation),
            LogForm::Digest,
            CAPACITY,
        );
        match log.await {
            Ok(log) => self.logs.push_back(self.in_flight.spawn(read_log(self.driver.clone(), log))),
            Err(error) => {
                tracing::warn!(%epoch, %generation, %error, "subscription to the worker's log failed; its heartbeats decide");
                return;
            }
        }
        if self.logs.len() > MAX_LOGS
            && let Some(old) = self.logs.pop_front()
        {
            old.abort();
        }
    }
}

/// Answers workers that lack media messages.
pub struct RepairTask {
    driver: Arc<SessionDriver>,
    requests: RequestSubscription<RepairRequest, RepairReply>,
    ended: CancellationToken,
}

impl RepairTask {
    pub(super) fn new(
        driver: Arc<SessionDriver>,
        requests: RequestSubscription<RepairRequest, RepairReply>,
        ended: CancellationToken,
    ) -> Self {
        Self { driver, requests, ended }
    }

    /// Answers each request with the bounds of the replay buffer at once, and retransmits within the repair limits, until
    /// the session's task has ended.
    pub async fn run(mut self) {
        while let Some(Some(request)) = self.ended.run_until_cancelled(self.requests.recv()).await {
            self.driver.metrics().repair_requests.inc();
            request.respond(&self.driver.repair(&request.message));
        }
    }
}

async fn read_log(driver: Arc<SessionDriver>, mut log: LogReader) {
    let mut facts = Vec::new();
    while log.recv_many(&mut facts, FACT_BATCH).await > 0 {
        for fact in facts.drain(..) {
            driver.handle(Input::Fact(fact));
        }
    }
}

fn order_name(order: &GrantOrder) -> &'static str {
    match order {
        GrantOrder::Grant(_) => "grant",
        GrantOrder::Quiesce { .. } => "quiesce",
        GrantOrder::Revoke { .. } => "revoke",
    }
}
