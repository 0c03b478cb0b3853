//! The session's machine and its bus, shared by the media path and the session's tasks.
//!
//! Whatever can be published at once is published under the lock, so that it leaves in the machine's order; what must
//! be waited for is left to the session's task.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use millrace_bus::{BusError, SharedBus};
use millrace_protocol::log::repair::RepairLimits;
use millrace_protocol::log::replay_buffer::ReplayLimits;
use millrace_protocol::session::{Input, Output, Session, SessionConfig};
use millrace_protocol::{Machine, Millis};
use millrace_runtime::Clock;
use millrace_wire::fact::StreamState;
use millrace_wire::ids::{SessionId, UnixMillis};
use millrace_wire::message::announce::Degraded;
use millrace_wire::message::control::ClaimGrant;
use millrace_wire::message::job::COPY_COST;
use millrace_wire::message::probe::Loopback;
use millrace_wire::message::repair::{RepairReply, RepairRequest};
use millrace_wire::subjects;
use millrace_wire::topic::{self, Message};
use tokio::sync::Notify;

use crate::context::Context;
use crate::limits;
use crate::metrics::IngestMetrics;
use crate::session::disconnect::DisconnectSignal;

/// GAP segments below a fresh window's first (`docs/adr/0002`).
const LEAD_GAPS: u32 = 1;
/// How late the session's timer may be; the machine's own times are multiples of it.
const LOOK: Duration = Duration::from_millis(200);

struct State {
    session: Session,
    later: VecDeque<Output>,
    ring_bytes: usize,
    no_worker: bool,
}

/// See the module.
pub(crate) struct Core {
    state: Mutex<State>,
    wake: Notify,
    disconnect: DisconnectSignal,
    media_subject: String,
    repair_subject: String,
    session_subject: String,
    loop_subject: String,
    bus: SharedBus,
    clock: Arc<dyn Clock>,
    metrics: IngestMetrics,
}

impl Core {
    pub(crate) fn new(
        context: &Context,
        grant: &ClaimGrant,
        session: SessionId,
        disconnect: DisconnectSignal,
    ) -> Self {
        let config = SessionConfig {
            claim: grant.clone(),
            session,
            program_date_time: UnixMillis(context.clock.unix_ms()),
            lead_gaps: LEAD_GAPS,
            cost: COPY_COST,
            max_payload: context.bus.max_payload(),
            ring: ReplayLimits {
                bytes: context.config.ring_bytes,
                age_ms: u64::from(context.config.ring_s) * 1_000,
            },
            // Twice the stream's rate; the whole ring at once, for a successor that begins with nothing.
            repair: RepairLimits {
                rate: grant.limits.max_bitrate / 8 * 2,
                burst: context.config.ring_bytes as u64,
            },
            seed: rand::random(),
        };
        let session_machine = Session::new(Millis(context.clock.now_ms()), config);
        Self {
            state: Mutex::new(State {
                session: session_machine,
                later: VecDeque::new(),
                ring_bytes: 0,
                no_worker: false,
            }),
            wake: Notify::new(),
            disconnect,
            media_subject: subjects::media(grant.stream, grant.epoch),
            repair_subject: subjects::repair_media(grant.stream, grant.epoch),
            session_subject: subjects::session(grant.stream),
            loop_subject: subjects::loopback(session),
            bus: context.bus.clone(),
            clock: context.clock.clone(),
            metrics: context.metrics.clone(),
        }
    }

    /// Hands one input in and carries out what follows from it.
    pub(crate) fn handle(&self, input: Input) {
        let mut state = self.lock();
        if let Err(error) = state.session.handle(self.now(), input) {
            self.metrics.publish_errors.with(&["encoding"]).inc();
            tracing::error!(%error, "media could not be written as a message");
        }
        self.carry_out(&mut state);
    }

    /// Answers a repair request.
    pub(crate) fn repair(&self, request: &RepairRequest) -> RepairReply {
        let mut state = self.lock();
        let reply = state.session.repair(self.now(), request);
        self.carry_out(&mut state);
        reply
    }

    /// The newest state the session knows.
    pub(crate) fn snapshot(&self) -> StreamState {
        self.lock().session.snapshot().clone()
    }

    /// Everything is stored, or the session waited long enough.
    pub(crate) fn is_done(&self) -> bool {
        self.lock().session.is_done()
    }

    /// No worker has capacity.
    pub(crate) fn lacks_worker(&self) -> bool {
        self.lock().session.degraded() == Some(Degraded::NoCapacity)
    }

    /// What is to be waited for, in order.
    pub(crate) fn take_later(&self) -> VecDeque<Output> {
        std::mem::take(&mut self.lock().later)
    }

    /// Returns when there is something for [`Core::take_later`]. Cancel safe.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Time until the machine wants to be asked again.
    pub(crate) fn until_timeout(&self) -> Duration {
        let due = self.lock().session.next_timeout().map(|at| Duration::from_millis(at - self.now()));
        due.unwrap_or(LOOK).clamp(Duration::from_millis(1), LOOK)
    }

    fn now(&self) -> Millis {
        Millis(self.clock.now_ms())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn carry_out(&self, state: &mut State) {
        let mut woken = false;
        while let Some(output) = state.session.poll_output() {
            match output {
                Output::Media(frames) => {
                    self.metrics.messages.inc();
                    self.send(&self.media_subject, frames, |bytes| self.metrics.published.add(bytes));
                }
                Output::Retransmit(frames) => {
                    self.metrics.repair_messages.inc();
                    self.send(&self.repair_subject, frames, |bytes| self.metrics.repair_bytes.add(bytes));
                }
                Output::Announce(announcement) => self.tell(&self.session_subject, &announcement),
                Output::Offer(offer) => self.tell(subjects::JOBS_OFFER, &offer),
                Output::Loopback => self.tell(&self.loop_subject, &Loopback {}),
                Output::Close(reason) => {
                    self.disconnect.close(reason);
                }
                other if state.later.len() < limits::CONTROL_QUEUE => {
                    state.later.push_back(other);
                    woken = true;
                }
                other => tracing::error!(?other, "the session's task does not keep up"),
            }
        }
        if woken {
            self.wake.notify_one();
        }
        self.measure(state);
    }

    fn measure(&self, state: &mut State) {
        let bytes = state.session.ring_bytes();
        self.metrics.ring.add(bytes as i64 - state.ring_bytes as i64);
        state.ring_bytes = bytes;
        let no_worker = state.session.degraded() == Some(Degraded::NoCapacity) && !state.session.is_done();
        if no_worker != state.no_worker {
            state.no_worker = no_worker;
            self.metrics.no_worker.add(if no_worker { 1 } else { -1 });
            if no_worker {
                tracing::warn!("no worker has capacity: the job waits in the backlog");
            } else {
                tracing::info!("a worker took the job from the backlog");
            }
        }
    }

    /// Never waits: what the bus can't take is repaired from the ring.
    fn send(&self, subject: &str, frames: Vec<Bytes>, sent: impl Fn(u64)) {
        for frame in frames {
            let bytes = frame.len() as u64;
            match self.bus.publish(subject, frame) {
                Ok(()) => sent(bytes),
                error => self.count(error),
            }
        }
    }

    /// Publishes `body` as JSON; what is lost is said again by the machine.
    pub(crate) fn tell(&self, subject: &str, body: &impl Message) {
        match topic::encode(body) {
            Ok(body) => self.count(self.bus.publish(subject, body)),
            Err(error) => tracing::error!(%error, subject, "message could not be written"),
        }
    }

    fn count(&self, result: Result<(), BusError>) {
        if let Err(error) = result {
            self.metrics.publish_errors.with(&[error_label(&error)]).inc();
            tracing::debug!(%error, "not published");
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        let (bytes, no_worker) = {
            let state = self.lock();
            (state.ring_bytes, state.no_worker)
        };
        self.metrics.ring.add(-(bytes as i64));
        self.metrics.no_worker.add(-i64::from(no_worker));
    }
}

/// A bounded label for an error of the bus.
fn error_label(error: &BusError) -> &'static str {
    match error {
        BusError::Disconnected => "disconnected",
        BusError::Overflow => "overflow",
        BusError::TooLarge { .. } => "too_large",
        BusError::Closed => "closed",
        _ => "other",
    }
}
