//! The messages control sends unasked: epoch announcements, kicks of sessions, and lifecycle events out of the outbox.

use std::time::Duration;

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
use crate::events::Relay;
use crate::repo::Repo;

/// Publishes control's announcements on the bus. No call waits for the bus.
pub(crate) struct Announcer {
    link: Link,
    relay: Relay,
}

impl Announcer {
    pub(crate) fn start(link: Link, repo: Repo, scope: &Metrics) -> Self {
        let outcomes = scope.counters("events", Unit::Count, "Lifecycle events by outcome", &["outcome"]);
        Self { relay: Relay::start(repo, link.bus().clone(), outcomes), link }
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

    /// Waits until every lifecycle event of this control is in the journal; returns false if that takes longer than `limit`.
    pub(crate) async fn flush(&self, limit: Duration) -> bool {
        self.relay.flush(limit).await
    }

    fn publish<T: Message>(&self, topic: &Topic<T>, message: &T) {
        if let Err(error) = self.link.publish(topic, message) {
            warn!(%error, "message not published; it is repeated or made good later");
        }
    }
}
