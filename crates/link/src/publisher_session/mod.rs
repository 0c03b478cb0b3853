//! The publisher session on the bus: runs the session machine of [`millrace_protocol::session`] for one publisher whose
//! claim was granted, over any ingest protocol.
//!
//! Three parties share the machine. The publisher's task hands media in through [`PublisherSession`], and the encoded
//! messages are published before the call returns: media crosses no queue on its way to the bus. [`SessionTask`] runs the
//! machine's timers, receives bids, heartbeats, kicks and the worker's log, and executes the outputs that must be waited
//! for. [`RepairTask`] answers workers that lack media messages; it is a task of its own, so that a flood of repair requests
//! delays neither media nor supervision.
//!
//! The session outlives its publisher: until everything received is in the object store, the replay buffer answers and
//! the worker is supervised.

mod driver;
mod metrics;
mod report;
mod requests;
mod setup;
mod task;

use std::sync::Arc;

use millrace_bus::BusError;
use millrace_protocol::session::Input;
use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::SessionId;
use millrace_wire::message::control::{HealthNote, Kick, bounded_text};
use millrace_wire::message::media::MediaUnit;
use millrace_wire::topics;

use self::driver::SessionDriver;
pub use self::metrics::SessionMetrics;
pub use self::report::SessionReport;
pub use self::setup::SessionSetup;
pub use self::task::{RepairTask, SessionTask};
use crate::link::Link;
use crate::subscription::TypedSubscription;

/// Repair requests that wait: each may ask for many messages, and is repeated when lost.
const REPAIR_CAPACITY: usize = 256;

/// Kicks that wait. Control sends one, and answers the next renewal with the same reason if it is lost.
const KICK_CAPACITY: usize = 16;

/// Subscribes to the kicks of `session`. A publisher subscribes before it claims: control may kick as soon as it has
/// granted.
pub async fn subscribe_kicks(link: &Link, session: SessionId) -> Result<TypedSubscription<Kick>, BusError> {
    link.subscribe(&topics::kick(session), KICK_CAPACITY).await
}

/// The publisher's side of a session. Cheap to clone.
#[derive(Clone)]
pub struct PublisherSession {
    driver: Arc<SessionDriver>,
}

impl PublisherSession {
    /// Starts a session and subscribes to everything it listens to; its two tasks are to be spawned by the caller.
    ///
    /// The subscription to repair requests exists before the first media message: a worker may ask as soon as it is
    /// granted.
    pub async fn open(
        link: &Link,
        setup: SessionSetup,
        kicks: TypedSubscription<Kick>,
    ) -> Result<(Self, SessionTask, RepairTask), BusError> {
        let (stream, epoch, session) = (setup.grant.stream, setup.grant.epoch, setup.session);
        let requests = link.respond(&topics::ring_media(stream, epoch), REPAIR_CAPACITY).await?;
        let driver = Arc::new(SessionDriver::new(link.clone(), setup));
        let task = SessionTask::subscribe(link, (stream, epoch), session, driver.clone(), kicks).await?;
        let repairs = RepairTask::new(driver.clone(), requests, task.ended());
        Ok((Self { driver }, task, repairs))
    }

    /// Publishes units as one media message, before it returns. What the bus drops is repaired from the replay buffer.
    pub fn publish(&self, units: Vec<MediaUnit>) {
        self.driver.handle(Input::Media(units));
    }

    /// Reports the conditions of the media that last now to control, with the renewals of the lease.
    pub fn health(&self, notes: Vec<HealthNote>) {
        self.driver.handle(Input::Health(notes));
    }

    /// Ends the epoch's media: the publisher has left, for `reason`, which `text` says in words. Later calls do nothing.
    pub fn end(&self, reason: CloseReason, text: &str) {
        self.driver.handle(Input::PublisherGone(reason, bounded_text(text)));
    }
}
