//! Relays the events of the outbox into the journal `MILLRACE_EVENTS`, those of one livestream in their order. Several controls
//! may relay the same event: the journal knows its id and keeps it once. An event stays in the outbox until the reader of the
//! journal that serves webhooks has moved it, so that one which the journal loses before is relayed again.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use millrace_bus::{BusError, JournalConfig, SharedBus};
use millrace_runtime::Backoff;
use millrace_runtime::metrics::Counters;
use millrace_wire::ids::StreamId;
use millrace_wire::message::control::LifecycleEvent;
use millrace_wire::{WireError, topics};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, warn};

use crate::repo::{Repo, RepoError};

/// The journal remembers ids of events for this long: an event whose acknowledgement was lost is appended again well before.
const EVENT_IDS_KEPT: Duration = Duration::from_mins(15);

/// An event that this control has appended is appended again only after this time, should it still be in the outbox.
const APPENDED_AGAIN: Duration = Duration::from_mins(5);

/// Livestreams whose events are appended at the same time.
const CONCURRENCY: usize = 16;

/// Shortest and longest pause after a failure; an election of JetStream takes up to 5 s.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

#[derive(Debug, thiserror::Error)]
enum RelayError {
    #[error(transparent)]
    Repo(#[from] RepoError),
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// A livestream, the ids of its events that were appended, and the error that kept the next one from it.
type Relayed = (StreamId, Vec<Arc<str>>, Result<(), RelayError>);

/// Returns the settings of the journal of lifecycle events.
pub(crate) fn journal() -> JournalConfig {
    JournalConfig {
        dedup_window: EVENT_IDS_KEPT,
        ..JournalConfig::new(topics::EVENTS_STREAM, topics::EVENTS_SUBJECTS)
    }
}

/// The task that relays events; it ends when this value is dropped.
pub(crate) struct Relay {
    repo: Repo,
    idle: watch::Receiver<bool>,
    _stop: DropGuard,
}

impl Relay {
    /// Starts the task. `outcomes` counts the events by outcome.
    pub(crate) fn start(repo: Repo, bus: SharedBus, outcomes: Counters) -> Self {
        let (is_idle, idle) = watch::channel(false);
        let stop = CancellationToken::new();
        let task = Task { repo: repo.clone(), bus, outcomes, is_idle, appended: HashMap::new() };
        let stopped = stop.clone();
        tokio::spawn(async move {
            stopped.run_until_cancelled(task.run()).await;
        });
        Self { repo, idle, _stop: stop.drop_guard() }
    }

    /// Waits until every event of this control is in the journal; returns false if that takes longer than `limit`.
    pub(crate) async fn flush(&self, limit: Duration) -> bool {
        let mut idle = self.idle.clone();
        let done = idle.wait_for(|idle| *idle && self.repo.unrelayed().is_empty());
        tokio::time::timeout(limit, done).await.is_ok_and(|done| done.is_ok())
    }
}

struct Task {
    repo: Repo,
    bus: SharedBus,
    outcomes: Counters,
    is_idle: watch::Sender<bool>,
    /// The ids of events that are in the journal and were in the outbox, and when they were appended.
    appended: HashMap<Arc<str>, Instant>,
}

impl Task {
    async fn run(mut self) {
        let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
        let mut declared = false;
        loop {
            let streams = self.repo.unrelayed().take();
            if streams.is_empty() {
                self.is_idle.send_replace(true);
                self.repo.unrelayed().changed().await;
                self.is_idle.send_replace(false);
                continue;
            }
            declared = declared || self.declare().await;
            let failed = if declared { self.relay_all(streams).await } else { streams };
            if failed.is_empty() {
                backoff.reset();
                continue;
            }
            // The journal may be gone with its server.
            declared = false;
            for stream in failed {
                self.repo.unrelayed().add(stream);
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    async fn declare(&self) -> bool {
        let declared = self.bus.journal_declare(&journal()).await;
        let failed =
            declared.inspect_err(|error| debug!(%error, "journal of events not declared; will retry"));
        failed.is_ok()
    }

    /// Appends the events of `streams`; returns those of which an event is missing in the journal.
    async fn relay_all(&mut self, streams: BTreeSet<StreamId>) -> BTreeSet<StreamId> {
        self.appended.retain(|_, at| at.elapsed() < APPENDED_AGAIN);
        let this = &*self;
        let relayed: Vec<Relayed> = futures::stream::iter(streams)
            .map(|stream| async move {
                let mut ids = Vec::new();
                let result = this.relay(stream, &mut ids).await;
                (stream, ids, result)
            })
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        let mut failed = BTreeSet::new();
        for (stream, ids, result) in relayed {
            let now = Instant::now();
            self.appended.extend(ids.into_iter().map(|id| (id, now)));
            if let Err(error) = result {
                warn!(%stream, %error, "lifecycle event not in the journal yet; will retry");
                self.outcomes.with(&["failed"]).inc();
                failed.insert(stream);
            }
        }
        failed
    }

    /// Appends the events of one livestream in their order, and notes the ids of those that are appended.
    async fn relay(&self, stream: StreamId, ids: &mut Vec<Arc<str>>) -> Result<(), RelayError> {
        for entry in self.repo.outbox_of(stream).await? {
            let event = entry.value.event;
            let id: Arc<str> = event.id().into();
            if self.appended.contains_key(&id) {
                continue;
            }
            self.append(&event).await?;
            ids.push(id);
        }
        Ok(())
    }

    async fn append(&self, event: &LifecycleEvent) -> Result<(), RelayError> {
        let topic = topics::events(event.stream);
        let bytes = topic.encode(event)?;
        let subject = topic.into_subject();
        let is_new = self.bus.journal_append(topics::EVENTS_STREAM, &subject, &event.id(), bytes).await?;
        self.outcomes.with(&[if is_new { "stored" } else { "known" }]).inc();
        Ok(())
    }
}
