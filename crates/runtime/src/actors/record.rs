//! The record of one actor: shared by the actor, its loop and the registry.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::id::ActorId;
use super::order::{Delivery, Order, OrderError, Orders};

/// Bytes of a state's text that are kept: one line for an operator.
const MAX_STATE_BYTES: usize = 160;

/// Bytes of a failure's text that are kept: an error with its causes.
const MAX_FAILURE_BYTES: usize = 512;

/// The state of a loop that has not set any.
const DEFAULT_STATE: &str = "running";

/// The record of one actor. The numbers that change with its work (queue, mailbox) are atomic; the texts change rarely.
#[derive(Debug)]
pub(crate) struct Record {
    id: ActorId,
    supervisor: Arc<str>,
    started: Instant,
    cancel: CancellationToken,
    restarting: AtomicBool,
    restarts: AtomicU32,
    mailbox: AtomicU32,
    queue_depth: AtomicU64,
    /// Milliseconds after `started` at which the oldest entry of the queue was put there.
    queue_oldest_ms: AtomicU64,
    texts: Mutex<Texts>,
    orders: Mutex<Option<mpsc::Sender<Delivery>>>,
    /// True once the loop has run up to its first wait since its last start.
    has_begun: AtomicBool,
    begun: Notify,
}

#[derive(Debug)]
struct Texts {
    state: Cow<'static, str>,
    last_failure: Option<Box<str>>,
}

/// The status of one actor as operators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ActorStatus {
    /// The kind of actor, for example `publisher`.
    pub kind: &'static str,
    /// The id, unique among the actors of the kind.
    pub id: String,
    /// The supervisor that started it: the role of the node.
    pub supervisor: String,
    /// The state in a few words: `restarting` and `stopping` come from its supervisor, all others from its loop.
    pub state: String,
    /// Milliseconds since it was first started.
    pub age_ms: u64,
    /// Messages and orders that wait for it.
    pub mailbox: u64,
    /// The number of restarts after failures.
    pub restarts: u32,
    /// Entries in the queue of its loop.
    pub queue: u64,
    /// Milliseconds since the oldest entry of the queue was put there; 0 when the queue is empty.
    pub queue_age_ms: u64,
    /// The error or panic that ended its loop last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn truncated(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

impl Record {
    pub(crate) fn new(id: ActorId, supervisor: Arc<str>, cancel: CancellationToken) -> Self {
        Self {
            id,
            supervisor,
            started: Instant::now(),
            cancel,
            restarting: AtomicBool::new(false),
            restarts: AtomicU32::new(0),
            mailbox: AtomicU32::new(0),
            queue_depth: AtomicU64::new(0),
            queue_oldest_ms: AtomicU64::new(0),
            texts: Mutex::new(Texts { state: Cow::Borrowed(DEFAULT_STATE), last_failure: None }),
            orders: Mutex::new(None),
            has_begun: AtomicBool::new(false),
            begun: Notify::new(),
        }
    }

    pub(crate) fn id(&self) -> &ActorId {
        &self.id
    }

    pub(crate) fn supervisor(&self) -> &str {
        &self.supervisor
    }

    pub(crate) fn cancel(&self) -> &CancellationToken {
        &self.cancel
    }

    pub(super) fn set_state(&self, state: Cow<'static, str>) {
        let state = match state {
            Cow::Owned(text) if text.len() > MAX_STATE_BYTES => {
                truncated(&text, MAX_STATE_BYTES).to_owned().into()
            }
            short => short,
        };
        locked(&self.texts).state = state;
    }

    pub(super) fn set_queue(&self, depth: usize, oldest: Duration) {
        let oldest = self.started.elapsed().saturating_sub(oldest);
        self.queue_oldest_ms.store(oldest.as_millis() as u64, Ordering::Relaxed);
        self.queue_depth.store(depth as u64, Ordering::Relaxed);
    }

    pub(super) fn mailbox_grows(&self) {
        self.mailbox.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn mailbox_shrinks(&self) {
        self.mailbox.fetch_sub(1, Ordering::Relaxed);
    }

    /// The loop has ended and is started again after a pause: what belonged to it is cleared.
    pub(crate) fn loop_ended(&self, failure: Option<&str>) {
        self.restarting.store(true, Ordering::Relaxed);
        self.queue_depth.store(0, Ordering::Relaxed);
        *locked(&self.orders) = None;
        let mut texts = locked(&self.texts);
        texts.state = Cow::Borrowed(DEFAULT_STATE);
        if let Some(failure) = failure {
            texts.last_failure = Some(truncated(failure, MAX_FAILURE_BYTES).into());
        }
    }

    pub(crate) fn loop_restarted(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
        self.has_begun.store(false, Ordering::Relaxed);
        self.restarting.store(false, Ordering::Relaxed);
    }

    /// Opens the loop's queue of orders. Until then, and for a loop that never does, every order is not supported.
    pub(super) fn open_orders(&self) -> Orders {
        let (sender, orders) = Orders::channel();
        *locked(&self.orders) = Some(sender);
        orders
    }

    /// Records that the loop has run up to its first wait: it has opened its queue of orders by then, or never will.
    pub(crate) fn loop_began(&self) {
        self.has_begun.store(true, Ordering::Release);
        self.begun.notify_waiters();
    }

    /// Waits until the loop has run up to its first wait. An order that comes earlier would find no queue and be answered
    /// "not supported" by an actor that supports it.
    pub(crate) async fn has_begun(&self) {
        let begun = self.begun.notified();
        tokio::pin!(begun);
        // Registered before the flag is read, so that no notification between the two is missed.
        begun.as_mut().enable();
        if !self.has_begun.load(Ordering::Acquire) && !self.restarting.load(Ordering::Relaxed) {
            begun.await;
        }
    }

    /// Hands an order to the loop without waiting; the receiver gets its answer.
    pub(crate) fn deliver(
        &self,
        order: Order,
    ) -> Result<oneshot::Receiver<Result<(), OrderError>>, OrderError> {
        if self.restarting.load(Ordering::Relaxed) {
            return Err(OrderError::Restarting);
        }
        let sender = locked(&self.orders).clone().ok_or(OrderError::NotSupported)?;
        let (reply, answer) = oneshot::channel();
        sender.try_send(Delivery { order, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => OrderError::Busy,
            // The loop has dropped its queue but is still up.
            mpsc::error::TrySendError::Closed(_) => OrderError::NotSupported,
        })?;
        Ok(answer)
    }

    pub(crate) fn status(&self) -> ActorStatus {
        let age = self.started.elapsed();
        let age_ms = age.as_millis() as u64;
        let orders =
            locked(&self.orders).as_ref().map_or(0, |sender| sender.max_capacity() - sender.capacity());
        let queue = self.queue_depth.load(Ordering::Relaxed);
        let oldest = self.queue_oldest_ms.load(Ordering::Relaxed);
        let texts = locked(&self.texts);
        let state = if self.cancel.is_cancelled() {
            "stopping"
        } else if self.restarting.load(Ordering::Relaxed) {
            "restarting"
        } else {
            &texts.state
        };
        ActorStatus {
            kind: self.id.kind(),
            id: self.id.id().to_owned(),
            supervisor: self.supervisor.to_string(),
            state: state.to_owned(),
            age_ms,
            mailbox: u64::from(self.mailbox.load(Ordering::Relaxed)) + orders as u64,
            restarts: self.restarts.load(Ordering::Relaxed),
            queue,
            queue_age_ms: if queue == 0 { 0 } else { age_ms.saturating_sub(oldest) },
            last_failure: texts.last_failure.as_deref().map(str::to_owned),
        }
    }
}
