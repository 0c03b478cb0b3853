//! The messages control sends unasked: epoch announcements, kicks of sessions, lifecycle events.

use std::time::Duration;

use millrace_bus::{JournalConfig, JournalWriter, Outcome};
use millrace_link::Link;
use millrace_runtime::Metrics;
use millrace_runtime::metrics::Unit;
use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::SessionId;
use millrace_wire::message::control::Kick;
use millrace_wire::topic::{Message, Topic};
use millrace_wire::topics;
use tracing::{info, warn};

use crate::domain::claim::Claim;

/// The journal remembers ids of lifecycle events for this long. A new leader republishes events younger than ten
/// minutes, so a repeated event still meets its id.
const EVENT_IDS_KEPT: Duration = Duration::from_mins(15);

/// Publishes control's announcements on the bus. No call waits for the bus.
pub(crate) struct Announcer {
    link: Link,
    events: JournalWriter,
}

impl Announcer {
    pub(crate) fn start(link: Link, scope: &Metrics) -> Self {
        let outcomes = scope.counters("events", Unit::Count, "Lifecycle events by outcome", &["outcome"]);
        let journal = JournalConfig {
            dedup_window: EVENT_IDS_KEPT,
            ..JournalConfig::new(topics::EVENTS_STREAM, topics::EVENTS_SUBJECTS)
        };
        let count = move |outcome: Outcome| outcomes.with(&[outcome.name()]).inc();
        Self { events: JournalWriter::start(link.bus().clone(), journal, count), link }
    }

    /// Asks a session to disconnect its publisher. A lost kick is made good by the answer to the session's next
    /// renewal.
    pub(crate) fn kick(&self, session: SessionId, reason: CloseReason) {
        info!(%session, reason = reason.code(), "session kicked");
        self.publish(&topics::kick(session), &Kick { session, reason });
    }

    /// Announces the stream's newest epoch and its phase. The reconciler repeats the announcement about every second.
    pub(crate) fn epoch(&self, claim: &Claim) {
        self.publish(&topics::epoch(claim.stream), &claim.announcement());
    }

    /// Appends the claim's last lifecycle event to the journal in the background; the journal keeps one copy of it.
    pub(crate) fn event(&self, claim: &Claim) {
        let Some(event) = &claim.event else { return };
        let topic = topics::events(event.stream);
        match topic.encode(event) {
            Ok(bytes) => self.events.append(topic.into_subject(), event.id(), bytes),
            Err(error) => warn!(stream = %event.stream, %error, "lifecycle event not encoded; event dropped"),
        }
    }

    /// Waits until every lifecycle event is in the journal; returns false if that takes longer than `limit`.
    pub(crate) async fn flush(&self, limit: Duration) -> bool {
        self.events.flush(limit).await
    }

    fn publish<T: Message>(&self, topic: &Topic<T>, message: &T) {
        if let Err(error) = self.link.publish(topic, message) {
            warn!(%error, "message not published; it is repeated or made good later");
        }
    }
}
