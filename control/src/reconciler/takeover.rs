//! Takes over logs whose writer is gone. Control claims an epoch of its own, builds on the newest state that is still
//! available, writes the log to its end and answers repair and snapshot requests for it. When the broadcast is over, it
//! appends ENDLIST; while the publisher is away, it seals the epoch, appends the GAP segments that a log writer would
//! append, and ends when the publisher comes back with a new epoch.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millrace_bus::{BusError, Message, Subscription};
use millrace_media::container::cmaf::demux::parse_config;
use millrace_protocol::job;
use millrace_protocol::log::writer::EncodedMessage;
use millrace_protocol::state::checkpoint::at_rest;
use millrace_protocol::takeover::{self, Closing, GENERATION, OrphanLog};
use millrace_protocol::{Machine, Millis};
use millrace_runtime::Alarm;
use millrace_state::StateError;
use millrace_store::StoreError;
use millrace_wire::fact::{SegmentSlot, StreamState};
use millrace_wire::fragment::FragmentError;
use millrace_wire::ids::{Generation, StreamId};
use millrace_wire::message::announce::{EpochAnnouncement, EpochPhase};
use millrace_wire::message::control;
use millrace_wire::message::repair::{RepairRequest, SnapshotRequest};
use millrace_wire::object_names::{ObjectKind, ObjectName};
use millrace_wire::{subjects, topic};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::context::Services;
use crate::domain::claim::{AUTHOR_LIMIT_MS, AUTHOR_LOOK_MS, Claim, END_ANNOUNCED_MS};
use crate::domain::ending::{Rebuild, newest};
use crate::repo::{RepoError, Versioned};

/// Takeovers that run at once; other orphaned logs wait for the next tick. Each takeover holds one window's state.
const MAX_TAKEOVERS: usize = 512;

/// Time for followers to answer a snapshot request (rule 8 of ADR 1).
const SNAPSHOT_WAIT: Duration = Duration::from_millis(300);

/// Unanswered snapshot requests after which the state is rebuilt from the segment index.
const SNAPSHOT_TRIES: usize = 3;

/// Snapshots read of one request: every follower may answer, and more answers than these hold nothing new.
const MAX_SNAPSHOTS: usize = 16;

/// A log writer answers from memory, so one that takes longer than this is gone.
const WRITER_WAIT: Duration = Duration::from_millis(500);

/// Announcements, repair and snapshot requests that may wait.
const CAPACITY: usize = 128;

/// The log is served for longer than the claim announces it, so that no announcement names a log that is gone.
const LINGER: Duration = Duration::from_millis(END_ANNOUNCED_MS + 5_000);

/// A log that a newer epoch follows is served for this long, because the next session builds on it.
const LINGER_AFTER_NEXT_EPOCH: Duration = Duration::from_millis(job::LINGER_MS);

/// Time limit for writing a checkpoint to the state store.
const CHECKPOINT_LIMIT: Duration = Duration::from_secs(1);

/// Longest pause between two polls of the log.
const MAX_POLL_WAIT: Duration = Duration::from_millis(200);

/// Shortest pause between two polls of the log: the grain of the clock.
const MIN_POLL_WAIT: Duration = Duration::from_millis(1);

/// The reason a takeover failed; the reconciler tries again.
#[derive(Debug, thiserror::Error)]
enum TakeoverError {
    #[error(transparent)]
    Repo(#[from] RepoError),
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Frame(#[from] FragmentError),
}

/// The takeovers that run on this control, at most one for each stream.
pub(crate) struct TakeoverManager {
    services: Arc<Services>,
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
    pub(crate) fn new(services: Arc<Services>) -> Self {
        Self { services, running: Arc::default() }
    }

    /// Spawns a takeover of the orphaned log unless one is already running. Does not wait.
    pub(crate) fn spawn_takeover(&self, found: Versioned<Claim>, stop: &CancellationToken) {
        let stream = found.value.stream;
        {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            if running.len() >= MAX_TAKEOVERS || !running.insert(stream) {
                return;
            }
        }
        let (services, stop) = (self.services.clone(), stop.clone());
        let running = RunningGuard(self.running.clone(), stream);
        tokio::spawn(async move {
            let _running = running;
            tokio::select! {
                done = Box::pin(take_over(&services, found)) => match done {
                    // A conflict means that another control took the log over first.
                    Ok(()) | Err(TakeoverError::Repo(RepoError::State(StateError::Conflict { .. }))) => {}
                    Err(error) => warn!(%stream, %error, "failed to take over orphaned log; will retry"),
                },
                () = stop.cancelled() => {}
            }
        });
    }
}

async fn take_over(services: &Arc<Services>, found: Versioned<Claim>) -> Result<(), TakeoverError> {
    let Versioned { value: claim, version } = found;
    let now = services.wall_clock();
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
            services.repo.forget_claim(claim.stream, version).await?;
        }
        pause(&claim).await;
        return Ok(());
    };
    let own = claim.claimed_by_control(services.wall_clock());
    let mut log = OrphanLogTask::open(services, &own, base).await?;
    // The claim is committed before the log is announced, so no other control grants this epoch.
    services.repo.put_claim(&own, version).await?;
    services.metrics.logs_closed.inc();
    info!(stream = %own.stream, epoch = %own.epoch, away = own.is_away(), "log has no live writer; control takes it over");
    services.announcer.epoch(&own);
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
    if let Some(state) = known.filter(|state| state.generation > Generation(0) && patient) {
        let subject = subjects::ring_live(claim.stream, state.epoch, state.generation);
        if answers(services, &subject).await {
            return true;
        }
    }
    // A lapsed lease is no evidence that the session is gone. A released session only finishes the recording.
    let silent = claim.is_away() && !claim.released && !claim.by_control;
    silent && answers(services, &subjects::ring_media(claim.stream, claim.epoch)).await
}

/// Asks the stream's followers for their state; returns the newest one of this broadcast.
async fn newest_snapshot(services: &Services, claim: &Claim) -> Result<Option<StreamState>, TakeoverError> {
    let subject = subjects::snap(claim.stream);
    let ask = topic::encode(&SnapshotRequest {}).unwrap_or_default();
    for _ in 0..SNAPSHOT_TRIES {
        let replies = services.bus.gather(&subject, ask.clone(), SNAPSHOT_WAIT, MAX_SNAPSHOTS).await?;
        let states = replies.iter().filter_map(|reply| topic::decode(reply).ok());
        if let Some(state) = newest(states, claim.broadcast, claim.epoch) {
            return Ok(Some(state));
        }
    }
    Ok(None)
}

/// Returns true if the owner of the replay buffer behind `ring` answers a repair request.
async fn answers(services: &Services, ring: &str) -> bool {
    let numbers_only = topic::encode(&RepairRequest { ranges: Vec::new() }).unwrap_or_default();
    services.bus.request(ring, numbers_only, WRITER_WAIT).await.is_ok()
}

/// Rebuilds the state from the segment index and the stored initialisation sections.
async fn rebuild(services: &Services, claim: &Claim) -> Result<Option<StreamState>, TakeoverError> {
    let mut rebuild = Rebuild::new(claim.stream, claim.broadcast);
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
            Ok(config) => rebuilt.describe(&rendition, (epoch, version), &config),
            Err(error) => {
                warn!(key = %name, %error, "initialisation section cannot be parsed; rendition rebuilt without it")
            }
        }
    }
    Ok(Some(rebuilt.into_state()))
}

/// Writes and serves the log that control took over.
struct OrphanLogTask<'a> {
    services: &'a Arc<Services>,
    claim: &'a Claim,
    log: OrphanLog,
    epochs: Subscription,
    repairs: Subscription,
    snapshots: Subscription,
    /// The time after which no reader needs the log.
    until: Option<Instant>,
}

impl<'a> OrphanLogTask<'a> {
    /// Writes the log as far as it goes, without publishing it.
    async fn open(
        services: &'a Arc<Services>,
        claim: &'a Claim,
        base: StreamState,
    ) -> Result<Self, TakeoverError> {
        let wall = services.wall_clock();
        let closing = Closing {
            epoch: claim.epoch,
            over: !claim.is_away(),
            used: claim.used_through(wall),
            wall,
            window_s: claim.settings.window,
        };
        let now = Millis(services.clock.now_ms());
        let ring = subjects::ring_live(claim.stream, claim.epoch, GENERATION);
        Ok(Self {
            services,
            claim,
            log: OrphanLog::open(now, closing, base, services.bus.max_payload())?,
            epochs: services.bus.subscribe(&subjects::epoch(claim.stream), CAPACITY).await?,
            repairs: services.bus.subscribe(&ring, CAPACITY).await?,
            snapshots: services.bus.subscribe(&subjects::snap(claim.stream), CAPACITY).await?,
            until: (!claim.is_away()).then(|| Instant::now() + LINGER),
        })
    }

    /// Writes the checkpoint, publishes the log, and answers repair and snapshot requests until no reader needs it.
    async fn serve(&mut self) -> Result<(), TakeoverError> {
        let mut checkpointed = None;
        let mut alarm = Alarm::default();
        loop {
            let written = Some(self.log.view().seq);
            if checkpointed != written {
                checkpointed = written;
                self.checkpoint().await;
            }
            self.publish();
            alarm.within(self.wait());
            let until = self.until;
            tokio::select! {
                message = self.repairs.recv() => match message {
                    Some(message) => self.repair(&message),
                    None => return Ok(()),
                },
                message = self.snapshots.recv() => match message {
                    Some(message) => self.answer(&message, self.log.view()),
                    None => return Ok(()),
                },
                message = self.epochs.recv() => match message {
                    Some(message) => self.on_announcement(&message)?,
                    None => return Ok(()),
                },
                () = alarm.ring() => self.log.handle_timeout(Millis(self.services.clock.now_ms()))?,
                () = over(until) => return Ok(()),
            }
        }
    }

    /// Handles an epoch announcement, of this control or of the one that leads by now.
    fn on_announcement(&mut self, message: &Message) -> Result<(), TakeoverError> {
        let Ok(announcement) = control::decode::<EpochAnnouncement>(&message.payload) else { return Ok(()) };
        if announcement.epoch > self.claim.epoch {
            let linger = Instant::now() + LINGER_AFTER_NEXT_EPOCH;
            self.until = Some(self.until.map_or(linger, |until| until.min(linger)));
        }
        if announcement.epoch == self.claim.epoch && announcement.phase == EpochPhase::Ended {
            self.until.get_or_insert_with(|| Instant::now() + LINGER);
        }
        Ok(self.log.handle(Millis(self.services.clock.now_ms()), takeover::Input::Epoch(announcement))?)
    }

    /// Persists the state before it is published, so that a successor starts at or above what viewers saw. An unavailable
    /// state store delays the log by the time limit and does not stop it.
    async fn checkpoint(&self) {
        let (stream, view) = (self.claim.stream, self.log.view());
        // The worker is gone, so segments that are not stored yet never will be.
        let unstored = |slot: &Arc<SegmentSlot>| {
            let tracks = slot.tracks.iter().filter(|(_, track)| !track.stored);
            tracks.map(|(rendition, _)| (rendition.clone(), slot.msn)).collect::<Vec<_>>()
        };
        let lost = view.slots.iter().flat_map(unstored).collect();
        let checkpoint = at_rest(view, &lost, self.claim.settings.window);
        match tokio::time::timeout(CHECKPOINT_LIMIT, self.services.repo.put_checkpoint(stream, &checkpoint))
            .await
        {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                warn!(%stream, %error, "failed to write checkpoint of orphaned log; the next change is written again")
            }
            Err(_) => {
                warn!(%stream, "writing checkpoint of orphaned log timed out; the next change is written again")
            }
        }
    }

    fn wait(&self) -> Duration {
        let now = Millis(self.services.clock.now_ms());
        let due = self.log.next_timeout().map_or(MAX_POLL_WAIT, |at| Duration::from_millis(at - now));
        due.clamp(MIN_POLL_WAIT, MAX_POLL_WAIT)
    }

    fn publish(&mut self) {
        let (stream, epoch) = (self.claim.stream, self.claim.epoch);
        while let Some(message) = self.log.poll_output() {
            let (subject, fragments) = match message {
                EncodedMessage::Live(fragments) => (subjects::live(stream, epoch, GENERATION), fragments),
                EncodedMessage::Digest(_) => continue,
                EncodedMessage::Retransmit(fragments) => {
                    (subjects::repair_live(stream, epoch, GENERATION), fragments)
                }
            };
            for fragment in fragments {
                // A follower requests a repair of a fact that is lost here.
                if let Err(error) = self.services.bus.publish(&subject, fragment) {
                    debug!(%subject, %error, "fact not published; followers request its repair");
                }
            }
        }
    }

    fn repair(&mut self, message: &Message) {
        let Some(request) = RepairRequest::parse(&message.payload) else { return };
        let reply = self.log.repair(Millis(self.services.clock.now_ms()), &request);
        self.answer(message, &reply);
    }

    fn answer(&self, message: &Message, body: &impl topic::Message) {
        if let (Some(reply), Ok(body)) = (&message.reply, topic::encode(body))
            && let Err(error) = self.services.bus.respond(reply, body)
        {
            debug!(stream = %self.claim.stream, %error, "answer not sent; the requester asks again");
        }
    }
}

/// Resolves at `until`; never without one.
async fn over(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}
