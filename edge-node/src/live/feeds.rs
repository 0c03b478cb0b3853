//! The feeds that run: starts one for each stream that the registry hands over, and closes the streams that viewers have left.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use millrace_runtime::supervisor::Child;
use millrace_runtime::{ActorContext, ActorId, Policy, Restart, StatusHandle, Supervisor};
use millrace_wire::ids::StreamId;
use tokio::sync::mpsc;

use crate::live::feed::{self, FeedContext};
use crate::live::registry::Registry;
use crate::live::stream::LiveStream;

/// Time between two checks for streams without viewers and for feeds that have ended.
const CHECK_EVERY: Duration = Duration::from_millis(250);
/// Feeds that are being started at once. A start waits for a feed of the same stream that is still stopping; others are not to
/// wait with it.
const MAX_STARTING: usize = 64;

struct Running {
    stream: Arc<LiveStream>,
    child: Child,
}

/// The feeds of an edge.
pub(crate) struct Feeds {
    supervisor: Supervisor,
    registry: Arc<Registry>,
    context: FeedContext,
    idle: Duration,
    starts: tokio::sync::Mutex<mpsc::Receiver<Arc<LiveStream>>>,
    /// The feeds by stream id, which also names their actors. A stream has one playback id, as control makes both together.
    running: Mutex<HashMap<StreamId, Running>>,
    /// The numbers of open streams and of feeds that the actor's state shows.
    reported: Mutex<Option<(usize, usize)>>,
}

impl Feeds {
    /// Creates the feeds from the queue of streams to follow; none runs yet. A stream is closed when no request has come for `idle`.
    pub(crate) fn new(
        supervisor: Supervisor,
        registry: Arc<Registry>,
        context: FeedContext,
        idle: Duration,
        starts: mpsc::Receiver<Arc<LiveStream>>,
    ) -> Self {
        let starts = tokio::sync::Mutex::new(starts);
        let (running, reported) = (Mutex::default(), Mutex::default());
        Self { supervisor, registry, context, idle, starts, running, reported }
    }

    /// Starts and stops feeds until the actor is stopped. The actor's queue is the streams that wait for their feed.
    pub(crate) async fn run(self: Arc<Self>, actor: ActorContext) -> anyhow::Result<()> {
        let mut starts = self.starts.lock().await;
        let mut checks = tokio::time::interval(CHECK_EVERY);
        let mut starting = FuturesUnordered::new();
        checks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = actor.stop.cancelled() => return Ok(()),
                Some(stream) = starts.recv(), if starting.len() < MAX_STARTING => starting.push(self.start(stream)),
                Some(()) = starting.next() => {}
                _ = checks.tick() => {
                    self.close_ended();
                    self.close_idle();
                    self.report(&actor.status, starts.len());
                }
            }
        }
    }

    async fn start(&self, stream: Arc<LiveStream>) {
        // A stream may be closed while it waits for its feed.
        if !self.registry.holds(&stream) {
            return;
        }
        let policy = Policy { restart: Restart::OnFailure, ..Policy::once() };
        let (context, followed) = (self.context.clone(), stream.clone());
        let objects = feed::objects(&context, &stream);
        // A feed of the same stream that was closed a moment ago may still be on its way out.
        let spawned = self
            .supervisor
            .replace(ActorId::new("feed", stream.id), policy, move |actor| {
                feed::run(context.clone(), followed.clone(), objects.clone(), actor)
            })
            .await;
        match spawned {
            Ok(child) => {
                self.running().insert(stream.id, Running { stream, child });
            }
            Err(error) => {
                tracing::error!(stream = %stream.id, %error, "feed could not be started; the next request tries again");
                self.registry.close(&stream);
            }
        }
    }

    /// Closes the streams whose feed has failed for good: the next request opens them anew.
    fn close_ended(&self) {
        self.running().retain(|_, Running { stream, child }| {
            let Some(exit) = child.ended().now_or_never() else { return true };
            tracing::warn!(stream = %stream.id, %exit, "feed has ended; the next request for its stream starts another");
            self.registry.close(stream);
            false
        });
    }

    fn close_idle(&self) {
        let idle_ms = self.idle.as_millis() as u64;
        for stream in self.registry.all() {
            if self.registry.close_idle(&stream, idle_ms) {
                tracing::debug!(stream = %stream.id, "stream closed; no viewer has asked for it");
                if let Some(running) = self.running().remove(&stream.id) {
                    running.child.stop();
                }
            }
        }
    }

    /// Shows the numbers of streams and feeds, when they have changed.
    fn report(&self, status: &StatusHandle, waiting: usize) {
        status.set_queue(waiting, if waiting > 0 { CHECK_EVERY } else { Duration::ZERO });
        let counts = (self.registry.len(), self.running().len());
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if *reported != Some(counts) {
            *reported = Some(counts);
            status.set_state(format!("{} streams open, {} followed by a feed", counts.0, counts.1));
        }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<StreamId, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
