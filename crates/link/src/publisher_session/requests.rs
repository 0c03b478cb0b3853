//! Requests that a session makes, each a future of its own: none delays another, and a machine that gets no answer asks
//! again in its own time.

use std::sync::Arc;
use std::time::Duration;

use millrace_bus::QueueConfig;
use millrace_protocol::session::{INITIAL_STATE_MS, Input};
use millrace_runtime::Backoff;
use millrace_wire::fact::StreamState;
use millrace_wire::ids::{Epoch, Generation};
use millrace_wire::message::control::LeaseReply;
use millrace_wire::message::job::Offer;
use millrace_wire::message::repair::{RepairReply, RepairRequest, SnapshotRequest};
use millrace_wire::topic::{Message, RequestTopic};
use millrace_wire::topics;

use super::driver::SessionDriver;

/// Longest wait for the answer to a renewal, a release or a repair request: the machine asks again anyway.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Snapshots are collected for this long: they are handed in together, and must be there before the first grant.
const SNAPSHOT_WAIT: Duration = Duration::from_millis(INITIAL_STATE_MS / 3);

/// Snapshots taken into account: those of the stream's worker, of its session and of a few edges.
const MAX_SNAPSHOTS: usize = 16;

/// First and longest pause between attempts to put a job into the backlog.
const BACKLOG_RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Asks the worker that writes the log to retransmit facts.
pub(super) async fn ask_facts(
    driver: Arc<SessionDriver>,
    topic: RequestTopic<RepairRequest, RepairReply>,
    (epoch, generation): (Epoch, Generation),
    request: RepairRequest,
) {
    if let Ok(reply) = driver.link().request(&topic, &request, ANSWER_TIMEOUT).await {
        driver.handle(Input::FactReply(epoch, generation, reply));
    }
}

/// Collects the newest states that readers of the stream know.
pub(super) async fn ask_snapshots(
    driver: Arc<SessionDriver>,
    topic: RequestTopic<SnapshotRequest, StreamState>,
) {
    let states = driver.link().gather(&topic, &SnapshotRequest {}, SNAPSHOT_WAIT, MAX_SNAPSHOTS).await;
    for state in states.unwrap_or_default() {
        driver.handle(Input::Snapshot(Box::new(state)));
    }
}

/// Renews or releases the lease; `input` names the request that the answer is handed in for. A missing answer is no
/// evidence: a stream goes on without control.
pub(super) async fn ask_lease<Q: Message + Sync>(
    driver: Arc<SessionDriver>,
    topic: RequestTopic<Q, LeaseReply>,
    request: Q,
    input: fn(LeaseReply) -> Input,
) {
    match driver.link().request(&topic, &request, ANSWER_TIMEOUT).await {
        Ok(reply) => driver.handle(input(reply)),
        Err(error) => {
            driver.metrics().lease_failures.inc();
            tracing::debug!(%error, "control did not answer; the session goes on and asks again");
        }
    }
}

/// Stores the job in the backlog until a worker takes it: for workers that come later, and as the autoscaler's signal.
pub(super) async fn push_backlog(driver: Arc<SessionDriver>, offer: Offer) {
    let (topic, bus) = (topics::backlog(), driver.link().bus().clone());
    let body = match topic.encode(&offer) {
        Ok(body) => body,
        Err(error) => {
            tracing::error!(%error, "offer not encoded; the job is not put into the backlog");
            return;
        }
    };
    let id = format!("{}-{}", offer.stream, offer.epoch);
    let queue = QueueConfig::new(topics::JOBS_STREAM, topic.into_subject());
    let mut backoff = Backoff::new(BACKLOG_RETRY.0, BACKLOG_RETRY.1);
    while driver.lacks_worker() {
        let pushed = match bus.queue_declare(&queue).await {
            Ok(()) => bus.queue_push(&queue.name, &id, body.clone()).await.map(drop),
            Err(error) => Err(error),
        };
        match pushed {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, "job not put into the backlog; will retry"),
        }
        backoff.wait().await;
    }
}
