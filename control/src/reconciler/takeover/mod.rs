//! Takes over logs whose writer died. Control claims an epoch of its own, builds on the newest state that is still
//! available, writes the log to its end and answers repair and snapshot requests for it. When the broadcast is over, it
//! appends ENDLIST; while the publisher is away, it seals the epoch, appends the GAP segments that a log writer would
//! append, and ends when the publisher comes back with a new epoch.

mod error;
mod orphan_log;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millrace_link::media_convert::track_info;
use millrace_media::container::cmaf::demux::parse_config;
use millrace_protocol::state::rebuild::{Rebuild, newest_state};
use millrace_runtime::{ActorContext, ActorId, Order, Orders, Policy, StatusHandle, Supervisor};
use millrace_state::StateError;
use millrace_wire::fact::{Origin, StreamState};
use millrace_wire::ids::StreamId;
use millrace_wire::message::repair::{RepairReply, RepairRequest, SnapshotRequest};
use millrace_wire::object_names::{ObjectKind, ObjectName};
use millrace_wire::topic::RequestTopic;
use millrace_wire::topics;
use tracing::{debug, info, warn};

use self::error::TakeoverError;
use self::orphan_log::OrphanLogTask;
use crate::context::Services;
use crate::domain::claim::{AUTHOR_LIMIT_MS, AUTHOR_LOOK_MS, Claim, END_ANNOUNCED_MS};
use crate::repo::{RepoError, Versioned};

/// Takeovers that run at once; other orphaned logs wait for the next tick. Each takeover holds one window's state.
const MAX_TAKEOVERS: usize = 512;

/// Time for followers to answer a snapshot request (rule 8 of ADR 1).
const SNAPSHOT_WAIT: Duration = Duration::from_millis(300);

/// Unanswered snapshot requests after which the state is rebuilt from the segment index.
const SNAPSHOT_TRIES: usize = 3;

/// Snapshots read of one request: every follower may answer, and more answers than these hold nothing new.
const MAX_SNAPSHOTS: usize = 16;

/// A log writer answers from memory, so one that takes longer than this is taken for dead.
const WRITER_WAIT: Duration = Duration::from_millis(500);

/// The takeovers that run on this control, at most one for each stream. Each is an actor `takeover/{stream}`.
pub(crate) struct TakeoverManager {
    services: Arc<Services>,
    supervisor: Supervisor,
    running: Arc<Mutex<HashSet<StreamId>>>,
}

/// Removes the stream from the set of running takeovers when its task ends, in whichever way.
struct RunningGuard(Arc<Mutex<HashSet<StreamId>>>, StreamId);

impl Drop for RunningGuard {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

impl TakeoverManager {
    pub(crate) fn new(services: Arc<Services>, supervisor: Supervisor) -> Self {
        Self { services, supervisor, running: Arc::default() }
    }

    /// Spawns a takeover of the orphaned log unless one is already running. Does not wait for the takeover.
    pub(crate) async fn spawn_takeover(&self, found: Versioned<Claim>) {
        let stream = found.value.stream;
        let Some(running) = self.reserve(stream) else { return };
        let mut work = Some((self.services.clone(), found, running));
        let spawned = self
            .supervisor
            .spawn(ActorId::new("takeover", stream), Policy::once(), move |actor| {
                let work = work.take();
                async move {
                    // The policy starts the loop once.
                    let Some((services, found, _running)) = work else { return Ok(()) };
                    run(&services, found, &actor).await;
                    Ok(())
                }
            })
            .await;
        if let Err(error) = spawned {
            warn!(%stream, %error, "takeover not started; will retry");
        }
    }

    fn reserve(&self, stream: StreamId) -> Option<RunningGuard> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let is_free = running.len() < MAX_TAKEOVERS && running.insert(stream);
        is_free.then(|| RunningGuard(self.running.clone(), stream))
    }
}

/// Runs a takeover until it is done, the control stops, or an operator kicks it. The reconciler starts the next one if the
/// log is still orphaned then.
async fn run(services: &Arc<Services>, found: Versioned<Claim>, actor: &ActorContext) {
    let stream = found.value.stream;
    let mut orders = actor.orders();
    tokio::select! {
        done = Box::pin(take_over(services, found, &actor.status)) => match done {
            // A conflict means that another control took the log over first.
            Ok(()) | Err(TakeoverError::Repo(RepoError::State(StateError::Conflict { .. }))) => {}
            Err(error) => warn!(%stream, %error, "failed to take over orphaned log; will retry"),
        },
        () = kicked(&mut orders) => info!(%stream, "takeover kicked; the reconciler starts it again if it is still due"),
        () = actor.stop.cancelled() => {}
    }
}

/// Waits for a kick; other orders are not supported.
async fn kicked(orders: &mut Orders) {
    loop {
        let received = orders.recv().await;
        if matches!(received.order(), Order::Kick { .. }) {
            received.accept();
            return;
        }
    }
}

async fn take_over(
    services: &Arc<Services>,
    found: Versioned<Claim>,
    status: &StatusHandle,
) -> Result<(), TakeoverError> {
    let Versioned { value: claim, version } = found;
    let now = services.wall_clock();
    status.set_state("looking for a live owner");
    let known = newest_snapshot(services, &claim).await?;
    if has_live_owner(services, &claim, known.as_ref()).await {
        debug!(stream = %claim.stream, epoch = %claim.epoch, "log still has a live owner; no takeover");
        pause(&claim).await;
        return Ok(());
    }
    let base = match known {
        Some(state) => Some(state),
        None => rebuild(services, &claim).await?,
    };
    let Some(base) = base else {
        if claim.over_for_ms(now) >= END_ANNOUNCED_MS {
            info!(stream = %claim.stream, "no state found for ended broadcast; dropping claim");
            services.repo.forget_claim(&claim, version, now).await?;
        }
        pause(&claim).await;
        return Ok(());
    };
    let own = claim.claimed_by_control(services.wall_clock());
    let mut log = OrphanLogTask::open(services, &own, base).await?;
    // The claim is committed before the log is announced, so no other control grants this epoch.
    services.repo.put_claim(&own, version, services.wall_clock()).await?;
    services.metrics.logs_closed.inc();
    info!(stream = %own.stream, epoch = %own.epoch, away = own.is_away(), "log has no live writer; control takes it over");
    services.announcer.epoch(&own);
    status.set_state("writing the log");
    log.serve().await
}

/// Delays the next takeover attempt of a stream whose publisher is away. The end of a broadcast is tried again at once.
async fn pause(claim: &Claim) {
    if claim.is_away() {
        tokio::time::sleep(Duration::from_millis(AUTHOR_LOOK_MS)).await;
    }
}

/// Returns true if the writer of the log that `known` comes from still answers, or the session that would find another
/// writer.
async fn has_live_owner(services: &Services, claim: &Claim, known: Option<&StreamState>) -> bool {
    let patient = claim.by_control || claim.over_for_ms(services.wall_clock()) < AUTHOR_LIMIT_MS;
    if let Some(state) = known.filter(|state| state.origin == Origin::Log && patient) {
        let ring = topics::ring_live(claim.stream, state.epoch, state.generation);
        if answers(services, &ring).await {
            return true;
        }
    }
    // A lapsed lease is no evidence that the session died. A released session only finishes the recording.
    let silent = claim.is_away() && !claim.released && !claim.by_control;
    silent && answers(services, &topics::ring_media(claim.stream, claim.epoch)).await
}

/// Asks the stream's followers for their state; returns the newest one of this broadcast.
async fn newest_snapshot(services: &Services, claim: &Claim) -> Result<Option<StreamState>, TakeoverError> {
    let topic = topics::snapshot(claim.stream);
    for _ in 0..SNAPSHOT_TRIES {
        let states = services.link.gather(&topic, &SnapshotRequest {}, SNAPSHOT_WAIT, MAX_SNAPSHOTS).await?;
        if let Some(state) = newest_state(states, claim.broadcast, claim.epoch) {
            return Ok(Some(state));
        }
    }
    Ok(None)
}

/// Returns true if the owner of the replay buffer behind `ring` answers a repair request.
async fn answers(services: &Services, ring: &RequestTopic<RepairRequest, RepairReply>) -> bool {
    let numbers_only = RepairRequest { ranges: Vec::new() };
    services.link.request(ring, &numbers_only, WRITER_WAIT).await.is_ok()
}

/// Rebuilds the state from the segment index and the stored initialisation sections.
async fn rebuild(services: &Services, claim: &Claim) -> Result<Option<StreamState>, TakeoverError> {
    let mut rebuild = Rebuild::new(claim.stream, (claim.broadcast, claim.airing));
    services.repo.index(claim.stream, |fact| rebuild.add(fact)).await?;
    let Some(mut rebuilt) = rebuild.finish(&claim.settings) else { return Ok(None) };
    for (rendition, epoch, version) in rebuilt.inits() {
        let kind = ObjectKind::Init(version);
        let name = ObjectName { playback: claim.playback, rendition: rendition.clone(), epoch, kind };
        let object = match services.store.get(&name.key(), None).await {
            Ok(object) => object,
            Err(error) if error.is_retryable() => return Err(error.into()),
            Err(error) => {
                warn!(key = %name, %error, "initialisation section not in the object store; rendition rebuilt without it");
                continue;
            }
        };
        match parse_config(&object.body) {
            Ok(config) => rebuilt.describe(&rendition, (epoch, version), track_info(&config, 0)),
            Err(error) => {
                warn!(key = %name, %error, "initialisation section cannot be parsed; rendition rebuilt without it");
            }
        }
    }
    Ok(Some(rebuilt.into_state()))
}
