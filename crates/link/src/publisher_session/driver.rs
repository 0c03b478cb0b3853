//! The session machine behind a lock, shared by the publisher's task and the session's own tasks.
//!
//! Outputs that can be executed at once are executed under the lock, so that they leave in the machine's order. Outputs
//! that must be waited for are deferred to the session's task.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use millrace_protocol::log::repair::RepairLimits;
use millrace_protocol::session::{Input, Output, Session, SessionConfig};
use millrace_protocol::{Machine as _, Millis};
use millrace_runtime::Clock;
use millrace_runtime::metrics::Counter;
use millrace_wire::close_reason::CloseReason;
use millrace_wire::fact::StreamState;
use millrace_wire::ids::UnixMillis;
use millrace_wire::message::announce::{Degraded, SessionAnnouncement};
use millrace_wire::message::job::Offer;
use millrace_wire::message::media::MediaMessage;
use millrace_wire::message::probe::Loopback;
use millrace_wire::message::repair::{RepairReply, RepairRequest};
use millrace_wire::topic::{Message, Topic};
use millrace_wire::topics;
use tokio::sync::Notify;

use super::metrics::SessionMetrics;
use super::report::SessionReport;
use super::setup::SessionSetup;
use crate::driver::until_timeout;
use crate::error::bus_error_label;
use crate::link::Link;

/// GAP segments below a fresh window's first segment (ADR 2).
const LEAD_GAPS: u32 = 1;

/// Outputs waiting for the session's task: orders, renewals and requests of a few seconds. A machine that asks for more
/// repeats what is dropped here.
const DEFERRED_CAPACITY: usize = 1_024;

struct State {
    session: Session,
    deferred: VecDeque<Output>,
    ring_bytes: usize,
    no_worker: bool,
}

/// The topics that are published under the lock.
struct Outgoing {
    media: Topic<MediaMessage>,
    retransmit: Topic<MediaMessage>,
    announcements: Topic<SessionAnnouncement>,
    offers: Topic<Offer>,
    loopback: Topic<Loopback>,
}

/// Runs one session machine for all tasks of the session.
pub(super) struct SessionDriver {
    state: Mutex<State>,
    deferred: Notify,
    on_close: Box<dyn Fn(CloseReason) + Send + Sync>,
    outgoing: Outgoing,
    link: Link,
    clock: Arc<dyn Clock>,
    metrics: SessionMetrics,
}

impl SessionDriver {
    pub(super) fn new(link: Link, setup: SessionSetup) -> Self {
        let SessionSetup { grant, session, job_cost, replay, clock, metrics, on_close } = setup;
        let (stream, epoch) = (grant.stream, grant.epoch);
        // Twice the stream's rate; the whole replay buffer at once, for a successor that begins with nothing.
        let repair = RepairLimits { rate: grant.limits.max_bitrate / 8 * 2, burst: replay.bytes as u64 };
        let config = SessionConfig {
            claim: grant,
            session,
            program_date_time: UnixMillis(clock.unix_ms()),
            lead_gaps: LEAD_GAPS,
            cost: job_cost,
            max_payload: link.max_payload(),
            replay,
            repair,
            seed: rand::random(),
        };
        let state = State {
            session: Session::new(Millis(clock.now_ms()), config),
            deferred: VecDeque::new(),
            ring_bytes: 0,
            no_worker: false,
        };
        let outgoing = Outgoing {
            media: topics::media(stream, epoch),
            retransmit: topics::repair_media(stream, epoch),
            announcements: topics::session(stream),
            offers: topics::offer(),
            loopback: topics::loopback(session),
        };
        Self { state: Mutex::new(state), deferred: Notify::new(), on_close, outgoing, link, clock, metrics }
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    pub(super) fn metrics(&self) -> &SessionMetrics {
        &self.metrics
    }

    /// Hands one input to the machine and executes the outputs that follow from it.
    pub(super) fn handle(&self, input: Input) {
        let mut state = self.lock();
        if let Err(error) = state.session.handle(self.now(), input) {
            self.metrics.publish_errors.with(&["encoding"]).inc();
            tracing::error!(%error, "media message not encoded; its units are dropped");
        }
        self.execute(&mut state);
    }

    /// Answers a repair request; the messages asked for are published on the repair topic.
    pub(super) fn repair(&self, request: &RepairRequest) -> RepairReply {
        let mut state = self.lock();
        let reply = state.session.repair(self.now(), request);
        self.execute(&mut state);
        reply
    }

    /// Returns the newest state the session knows. It is cloned, so that it is encoded without holding up media.
    pub(super) fn snapshot(&self) -> StreamState {
        self.lock().session.snapshot().clone()
    }

    /// True if everything received is stored, or the session has waited for that long enough.
    pub(super) fn is_done(&self) -> bool {
        self.lock().session.is_done()
    }

    /// True if no worker has capacity for the job.
    pub(super) fn lacks_worker(&self) -> bool {
        self.lock().session.degraded() == Some(Degraded::NoCapacity)
    }

    /// Takes the outputs that must be waited for, in order.
    pub(super) fn take_deferred(&self) -> VecDeque<Output> {
        std::mem::take(&mut self.lock().deferred)
    }

    /// Waits until [`SessionDriver::take_deferred`] has something to give. Cancel safe.
    pub(super) async fn deferred(&self) {
        self.deferred.notified().await;
    }

    /// Returns the time until the machine is to be handed its next tick, and the session's condition.
    pub(super) fn inspect(&self) -> (Duration, SessionReport) {
        let state = self.lock();
        let report = SessionReport { lacks_worker: state.no_worker, executing: state.deferred.len() };
        (until_timeout(state.session.next_timeout(), self.now()), report)
    }

    /// Publishes one JSON message; the machine repeats what is lost.
    pub(super) fn publish<T: Message>(&self, topic: &Topic<T>, message: &T) {
        if let Err(error) = self.link.publish(topic, message) {
            self.metrics.publish_errors.with(&[error.label()]).inc();
            tracing::debug!(%error, "message not published; the session repeats it");
        }
    }

    fn now(&self) -> Millis {
        Millis(self.clock.now_ms())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn execute(&self, state: &mut State) {
        let (mut woken, topics) = (false, &self.outgoing);
        while let Some(output) = state.session.poll_output() {
            match output {
                Output::Media(fragments) => {
                    self.metrics.messages.inc();
                    self.publish_fragments(&topics.media, fragments, &self.metrics.published);
                }
                Output::Retransmit(fragments) => {
                    self.metrics.repair_messages.inc();
                    self.publish_fragments(&topics.retransmit, fragments, &self.metrics.repair_bytes);
                }
                Output::Announce(announcement) => self.publish(&topics.announcements, &announcement),
                Output::Offer(offer) => self.publish(&topics.offers, &offer),
                Output::Loopback => self.publish(&topics.loopback, &Loopback {}),
                Output::Close(reason) => (self.on_close)(reason),
                other if state.deferred.len() < DEFERRED_CAPACITY => {
                    state.deferred.push_back(other);
                    woken = true;
                }
                other => tracing::error!(?other, "session output queue full; output dropped"),
            }
        }
        if woken {
            self.deferred.notify_one();
        }
        self.measure(state);
    }

    fn measure(&self, state: &mut State) {
        let bytes = state.session.replay_bytes();
        self.metrics.ring.add(bytes as i64 - state.ring_bytes as i64);
        state.ring_bytes = bytes;
        let no_worker = state.session.degraded() == Some(Degraded::NoCapacity) && !state.session.is_done();
        if no_worker != state.no_worker {
            state.no_worker = no_worker;
            self.metrics.no_worker.add(if no_worker { 1 } else { -1 });
            if no_worker {
                tracing::warn!("no worker has capacity; the job waits in the backlog");
            } else {
                tracing::info!("a worker took the job from the backlog");
            }
        }
    }

    /// Never waits: what the bus cannot take is repaired from the replay buffer.
    fn publish_fragments(&self, topic: &Topic<MediaMessage>, fragments: Vec<Bytes>, sent: &Counter) {
        for fragment in fragments {
            let bytes = fragment.len() as u64;
            match self.link.publish_fragment(topic, fragment) {
                Ok(()) => sent.add(bytes),
                Err(error) => {
                    self.metrics.publish_errors.with(&[bus_error_label(&error)]).inc();
                    tracing::debug!(%error, "media fragment not published; workers repair it");
                }
            }
        }
    }
}

impl Drop for SessionDriver {
    fn drop(&mut self) {
        let (bytes, no_worker) = {
            let state = self.lock();
            (state.ring_bytes, state.no_worker)
        };
        self.metrics.ring.add(-(bytes as i64));
        self.metrics.no_worker.add(-i64::from(no_worker));
    }
}
