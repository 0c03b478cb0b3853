//! The context that the loop of an actor gets at each start.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::id::ActorId;
use super::order::Orders;
use super::record::Record;

/// Lets a loop report that it is at work, after its first start and after each restart.
#[derive(Debug, Clone)]
pub struct Ready(watch::Sender<bool>);

impl Ready {
    /// Makes a handle and the receiver that sees `true` once the loop is at work.
    pub(crate) fn channel() -> (Self, watch::Receiver<bool>) {
        let (sender, receiver) = watch::channel(false);
        (Self(sender), receiver)
    }

    /// Reports that the loop is at work; [`crate::Supervisor::spawn_ready`] returns then.
    pub fn report(&self) {
        self.0.send_replace(true);
    }
}

/// The context that the loop of an actor gets at each start.
#[derive(Debug)]
pub struct ActorContext {
    /// Cancelled when the loop is to return.
    pub stop: CancellationToken,
    /// Shows operators what the loop does.
    pub status: StatusHandle,
    /// Reports that the loop is at work.
    pub ready: Ready,
}

impl ActorContext {
    pub(crate) fn new(record: Arc<Record>, stop: CancellationToken, ready: Ready) -> Self {
        Self { stop, status: StatusHandle(record), ready }
    }

    /// Returns the name of the actor.
    pub fn id(&self) -> &ActorId {
        self.status.0.id()
    }

    /// Opens the queue of orders, which the loop then has to read. A loop that does not call this supports no order,
    /// and the actor answers so. A second call replaces the first queue.
    pub fn orders(&self) -> Orders {
        self.status.0.open_orders()
    }
}

/// Shows operators what a loop does. Cheap to clone and to keep where the work is.
#[derive(Debug, Clone)]
pub struct StatusHandle(Arc<Record>);

impl StatusHandle {
    /// Sets the state in a few words, for example `resuming`. Takes a short lock: for changes of state, not for each
    /// message.
    pub fn set_state(&self, state: impl Into<Cow<'static, str>>) {
        self.0.set_state(state.into());
    }

    /// Sets the depth of the loop's queue and the age of its oldest entry now; the age shown grows until the next call.
    /// Two atomic stores and a reading of the clock.
    pub fn set_queue(&self, depth: usize, oldest: Duration) {
        self.0.set_queue(depth, oldest);
    }
}
