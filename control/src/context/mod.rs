//! The services that the parts of a control node share.

mod announcer;

use std::sync::Arc;

use millrace_link::Link;
use millrace_node::LadderTemplates;
use millrace_runtime::metrics::{Counter, Counters, Gauge, Histogram, LATENCY_BUCKETS_S, Unit};
use millrace_runtime::{Clock, Metrics};
use millrace_store::SharedStore;
use millrace_wire::ids::UnixMillis;
use tokio::sync::{Notify, watch};

use self::announcer::Announcer;
use crate::repo::Repo;

/// Everything a control node is started with.
pub type Deps = millrace_node::Deps<millrace_node::Backends>;

/// The services that the parts of one control node share.
pub(crate) struct Services {
    pub(crate) repo: Repo,
    pub(crate) link: Link,
    pub(crate) store: SharedStore,
    pub(crate) announcer: Announcer,
    pub(crate) clock: Arc<dyn Clock>,
    /// The templates that a livestream's ladder may name.
    pub(crate) templates: LadderTemplates,
    /// The reconnect window in seconds of livestreams whose key a service outside the cluster accepted.
    pub(crate) checked_reconnect_window_s: u32,
    pub(crate) metrics: ControlMetrics,
    /// Notified when a livestream is deleted, so that its objects are deleted without waiting for the next round.
    pub(crate) deleted: Notify,
    /// True while this control holds the leader's lease.
    pub(crate) leading: watch::Sender<bool>,
    /// The reason for which the state store takes no changes, while it takes none.
    pub(crate) state_refusal: watch::Sender<Option<String>>,
}

impl Services {
    pub(crate) fn new(repo: Repo, templates: LadderTemplates, deps: &Deps) -> Self {
        let scope = deps.process.metrics.scope("control");
        let link = Link::new(deps.backends.bus.clone(), &scope);
        Self {
            announcer: Announcer::start(link.clone(), repo.clone(), &scope),
            repo,
            store: deps.backends.store.clone(),
            link,
            clock: deps.process.clock.clone(),
            templates,
            checked_reconnect_window_s: crate::config::CHECKED_RECONNECT_WINDOW_S,
            metrics: ControlMetrics::new(&scope),
            deleted: Notify::new(),
            leading: watch::Sender::new(false),
            state_refusal: watch::Sender::new(None),
        }
    }

    /// Returns the wall clock in the type of the wire format.
    pub(crate) fn wall_clock(&self) -> UnixMillis {
        UnixMillis(self.clock.unix_ms())
    }
}

/// The metrics of a control node, under the scope `control`.
pub(crate) struct ControlMetrics {
    pub(crate) claims: Counters,
    pub(crate) answer_time: Histogram,
    /// Orphaned logs that control sealed or ended itself.
    pub(crate) logs_closed: Counter,
    pub(crate) objects_deleted: Counter,
    /// Audit entries that are in the log alone.
    pub(crate) audit_entries_lost: Counter,
    /// Requests of the API that were refused, by reason.
    pub(crate) refused_requests: Counters,
    /// Attempts to deliver an event to a webhook.
    pub(crate) deliveries: Counters,
    /// 1 while the state store takes no changes.
    pub(crate) state_refuses_changes: Gauge,
    pub(crate) retention: RetentionMetrics,
}

impl ControlMetrics {
    fn new(scope: &Metrics) -> Self {
        Self {
            claims: scope.counters("claims", Unit::Count, "Claims by outcome", &["outcome"]),
            answer_time: scope.histogram(
                "answer",
                Unit::Seconds,
                "Time to answer a request on the bus",
                LATENCY_BUCKETS_S,
            ),
            logs_closed: scope.counter(
                "logs_closed",
                Unit::Count,
                "Orphaned logs that control sealed or ended in place of their writer",
            ),
            objects_deleted: scope.counter(
                "objects_deleted",
                Unit::Count,
                "Deleted objects of deleted livestreams",
            ),
            audit_entries_lost: scope.counter(
                "audit_entries_lost",
                Unit::Count,
                "Audit entries that are in the log alone, because too many waited for the state store",
            ),
            refused_requests: scope.counters(
                "refused_requests",
                Unit::Count,
                "Requests of the API that were refused: no token, a bad one, a role too low, or too many",
                &["reason"],
            ),
            deliveries: scope.counters(
                "deliveries",
                Unit::Count,
                "Attempts to deliver an event to a webhook by outcome",
                &["outcome"],
            ),
            state_refuses_changes: scope.gauge(
                "state_refuses_changes",
                Unit::Count,
                "1 while the state store answers reads and takes no changes",
            ),
            retention: RetentionMetrics::new(&scope.scope("retention")),
        }
    }
}

/// The metrics of retention, under the scope `control_retention`.
pub(crate) struct RetentionMetrics {
    pub(crate) segments_deleted: Counter,
    pub(crate) bytes_deleted: Counter,
    pub(crate) stray_objects_deleted: Counter,
    pub(crate) oldest_overdue: Gauge,
}

impl RetentionMetrics {
    fn new(scope: &Metrics) -> Self {
        Self {
            segments_deleted: scope.counter(
                "segments_deleted",
                Unit::Count,
                "Stored segments deleted because they left the window of a livestream that is not recorded",
            ),
            bytes_deleted: scope.counter("deleted", Unit::Bytes, "Bytes of those segments"),
            stray_objects_deleted: scope.counter(
                "stray_objects_deleted",
                Unit::Count,
                "Objects without index record deleted below the window: initialisation sections and duplicates",
            ),
            oldest_overdue: scope.gauge(
                "oldest_overdue",
                Unit::Seconds,
                "Playing time by which the oldest segment that is still stored is past its deletion",
            ),
        }
    }
}
