//! The uploader as an actor: it shows operators what waits for the object store.

use std::sync::Arc;

use anyhow::Context;
use millrace_runtime::ActorContext;
use millrace_store::Uploader;

use crate::metrics::Metrics;

/// Shows the upload queue's length, age and size until the actor is stopped. The uploads themselves are the uploader's own
/// tasks, which go on while this loop restarts.
pub(crate) async fn run(
    uploader: Arc<Uploader>,
    metrics: Arc<Metrics>,
    actor: ActorContext,
) -> anyhow::Result<()> {
    let mut changes = uploader.watch();
    let mut shown = "";
    loop {
        let stats = *changes.borrow_and_update();
        metrics.spill.set(stats.bytes as i64);
        actor.status.set_queue(stats.objects, uploader.oldest());
        let state = if stats.objects == 0 { "idle" } else { "uploading" };
        if shown != state {
            shown = state;
            actor.status.set_state(state);
        }
        tokio::select! {
            changed = changes.changed() => changed.context("the uploader is closed")?,
            () = actor.stop.cancelled() => return Ok(()),
        }
    }
}
