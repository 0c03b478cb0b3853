//! The uploader as an actor: it shows operators what waits for the object store, and tells of a store that takes nothing.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use millrace_runtime::{ActorContext, LogLimit, Readiness};
use millrace_store::{GivenUp, Uploader};

use crate::metrics::Metrics;

/// A store is in trouble once its attempts have failed for this long: a shorter outage is a connection that was replaced.
pub(crate) const TROUBLE_AFTER: Duration = Duration::from_secs(3);

/// Interval at which a store in trouble is looked at though nothing changes.
const LOOK: Duration = Duration::from_secs(1);

/// The part of the process that readiness reports as degraded.
const STORAGE: &str = "storage";

/// True if the store has taken no object for long.
pub(crate) fn is_storage_failing(uploader: &Uploader) -> bool {
    uploader.trouble().is_some_and(|trouble| trouble.since >= TROUBLE_AFTER)
}

/// Shows the upload queue's length, age and size until the actor is stopped. The uploads themselves are the uploader's own
/// tasks, which go on while this loop restarts.
pub(crate) async fn run(
    uploader: Arc<Uploader>,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    actor: ActorContext,
) -> anyhow::Result<()> {
    let mut changes = uploader.watch();
    let mut watch = StorageWatch::new(readiness);
    let mut shown = "";
    loop {
        let stats = *changes.borrow_and_update();
        metrics.spill.set(stats.bytes as i64);
        actor.status.set_queue(stats.objects, uploader.oldest());
        let failing = watch.look(&uploader, &metrics);
        let state = match (failing, stats.objects) {
            (true, _) => "degraded: storage",
            (false, 0) => "idle",
            (false, _) => "uploading",
        };
        if shown != state {
            shown = state;
            actor.status.set_state(state);
        }
        tokio::select! {
            changed = changes.changed() => changed.context("the uploader is closed")?,
            () = tokio::time::sleep(LOOK), if uploader.trouble().is_some() => {}
            () = actor.stop.cancelled() => return Ok(()),
        }
    }
}

/// Tells of a store that takes nothing: in the log once a minute, in readiness and in the metrics.
struct StorageWatch {
    readiness: Readiness,
    lines: LogLimit,
    /// Apart from the lines about the store, so that the first objects that are lost are named at once.
    lost_lines: LogLimit,
    failing: bool,
    given_up: GivenUp,
}

impl StorageWatch {
    fn new(readiness: Readiness) -> Self {
        let (lines, lost_lines) = (LogLimit::default(), LogLimit::default());
        Self { readiness, lines, lost_lines, failing: false, given_up: GivenUp::default() }
    }

    /// Returns true while the store is in trouble.
    fn look(&mut self, uploader: &Uploader, metrics: &Metrics) -> bool {
        let new = uploader.take_given_up();
        metrics.uploads_given_up.add(new.keys.len() as u64 + new.more);
        self.given_up.merge(new);
        let trouble = uploader.trouble().filter(|trouble| trouble.since >= TROUBLE_AFTER);
        let failing = trouble.is_some();
        metrics.storage_failing.set(i64::from(failing));
        if failing != self.failing {
            self.failing = failing;
            let reason = trouble.as_ref().map(|trouble| format!("degraded: storage: {}", trouble.error));
            self.readiness.set_degraded(STORAGE, reason.as_deref());
            if !failing {
                tracing::info!("objects are stored again");
            }
        }
        let error = trouble.map_or_else(String::new, |trouble| trouble.error);
        if failing && self.lines.due().is_some() {
            let stats = uploader.stats();
            tracing::error!(
                error,
                waiting = stats.objects,
                waiting_bytes = stats.bytes,
                oldest_s = uploader.oldest().as_secs(),
                "objects cannot be stored: they wait and are tried again, and beyond the queue's bound the oldest are given up"
            );
        }
        if !self.given_up.keys.is_empty() && self.lost_lines.due().is_some() {
            let given_up = std::mem::take(&mut self.given_up);
            tracing::error!(
                error,
                given_up = given_up.keys.len() as u64 + given_up.more,
                objects = given_up.keys.join(" "),
                "objects were given up: they are served from memory while live, and missing afterwards"
            );
        }
        failing
    }
}
