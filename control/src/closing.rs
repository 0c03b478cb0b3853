//! Closing a log whose author is gone: control takes an epoch of its own, builds on the newest state that is still to be
//! had, and answers those who come late. When the broadcast is over it says ENDLIST; while the publisher is awaited it
//! seals, appends the GAPs that an author would, and makes room for the epoch the publisher comes back with.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use millrace_bus::{BusError, Message, Subscription};
use millrace_media::container::cmaf::demux::parse_config;
use millrace_protocol::job;
use millrace_protocol::log::writer::EncodedMessage;
use millrace_protocol::state::checkpoint::at_rest;
use millrace_protocol::takeover::{self, Closing as Taken, GENERATION, OrphanLog};
use millrace_protocol::{Machine, Millis};
use millrace_runtime::Alarm;
use millrace_state::StateError;
use millrace_store::StoreError;
use millrace_wire::fact::{SegmentSlot, StreamState};
use millrace_wire::fragment::FragmentError;
use millrace_wire::ids::{Generation, StreamId};
use millrace_wire::message::announce::{EpochAnnouncement, EpochPhase};
use millrace_wire::message::control;
use millrace_wire::message::repair::RepairRequest;
use millrace_wire::object_names::{ObjectKind, ObjectName};
use millrace_wire::subjects;
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::domain::claim::{AUTHOR_LIMIT_MS, AUTHOR_LOOK_MS, Claim, END_ANNOUNCED_MS};
use crate::domain::ending::{Rebuild, newest};
use crate::repo::{Loaded, RepoError};
use crate::service::Core;

/// Logs closed or looked after at once; the others wait for the next look. Each holds one window's state.
const MAX_CLOSING: usize = 512;

/// Snapshots are waited for this long (the protocol's rule 8), and asked for so often before there are none.
const SNAPSHOT_WAIT: Duration = Duration::from_millis(300);
const SNAPSHOT_TRIES: usize = 3;

/// Every follower may answer; more than these say nothing new.
const MAX_SNAPSHOTS: usize = 16;

/// An author answers from memory: slower means that it is gone.
const AUTHOR_WAIT: Duration = Duration::from_millis(500);

/// Announcements, repair and snapshot requests that may wait.
const CAPACITY: usize = 128;

/// The log is answered for longer than the claim announces it, so nobody is told of a log that is gone.
const LINGER: Duration = Duration::from_millis(END_ANNOUNCED_MS + 5_000);

/// A log that a newer epoch follows is answered for this long: the next session builds on it.
const FAREWELL: Duration = Duration::from_millis(job::LINGER_MS);

/// The state store's time to keep a log's state.
const KEEP_LIMIT: Duration = Duration::from_secs(1);

/// Longest sleep between looks at what is to be repeated.
const LOOK: Duration = Duration::from_millis(200);

/// Why a broadcast was not ended this time; it is tried again.
#[derive(Debug, thiserror::Error)]
enum CloseError {
    #[error(transparent)]
    Repo(#[from] RepoError),
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Frame(#[from] FragmentError),
}

/// The logs this control closes.
pub(crate) struct Closing {
    core: Arc<Core>,
    running: Arc<Mutex<HashSet<StreamId>>>,
}

/// Takes the stream off the list however its task ends.
struct Running(Arc<Mutex<HashSet<StreamId>>>, StreamId);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

impl Closing {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core, running: Arc::default() }
    }

    /// Sees to it that somebody authors `found`'s log; returns at once.
    pub(crate) fn see_to(&self, found: Loaded<Claim>, stop: &CancellationToken) {
        let stream = found.value.stream;
        {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            if running.len() >= MAX_CLOSING || !running.insert(stream) {
                return;
            }
        }
        let (core, stop) = (self.core.clone(), stop.clone());
        let running = Running(self.running.clone(), stream);
        tokio::spawn(async move {
            let _running = running;
            tokio::select! {
                done = Box::pin(close(&core, found)) => match done {
                    // A conflict: somebody else was faster.
                    Ok(()) | Err(CloseError::Repo(RepoError::State(StateError::Conflict { .. }))) => {}
                    Err(error) => warn!(%stream, %error, "the broadcast's end could not be said yet"),
                },
                () = stop.cancelled() => {}
            }
        });
    }
}

async fn close(core: &Arc<Core>, found: Loaded<Claim>) -> Result<(), CloseError> {
    let Loaded { value: claim, version } = found;
    let now = crate::unix(&*core.clock);
    let known = ask(core, &claim).await?;
    if is_cared_for(core, &claim, known.as_ref()).await {
        debug!(stream = %claim.stream, epoch = %claim.epoch, "somebody is left to close the log");
        pause(&claim).await;
        return Ok(());
    }
    let base = match known {
        Some(state) => Some(state),
        None => rebuild(core, &claim).await?,
    };
    let Some(base) = base else {
        if claim.over_for_ms(now) >= END_ANNOUNCED_MS {
            info!(stream = %claim.stream, "nobody has seen anything of the broadcast");
            core.repo.forget_claim(claim.stream, version).await?;
        }
        pause(&claim).await;
        return Ok(());
    };
    let own = claim.taken_up(crate::unix(&*core.clock));
    let mut log = Log::open(core, &own, base).await?;
    // Recorded before it is announced: no other control will ever give this epoch out.
    core.repo.put_claim(&own, version).await?;
    core.closed.inc();
    info!(stream = %own.stream, epoch = %own.epoch, away = own.is_away(), "no author is alive: control closes the log");
    core.announce(&own);
    log.serve().await
}

/// A stream that is looked after, or that nothing is known of, is looked at again after a while. Its end cannot wait.
async fn pause(claim: &Claim) {
    if claim.is_away() {
        tokio::time::sleep(Duration::from_millis(AUTHOR_LOOK_MS)).await;
    }
}

/// Whether the author of the log that `known` comes from, or the session that would find another, still answers.
async fn is_cared_for(core: &Core, claim: &Claim, known: Option<&StreamState>) -> bool {
    let patient = claim.by_control || claim.over_for_ms(crate::unix(&*core.clock)) < AUTHOR_LIMIT_MS;
    if let Some(state) = known.filter(|state| state.generation > Generation(0) && patient) {
        let subject = subjects::ring_live(claim.stream, state.epoch, state.generation);
        if answers(core, &subject).await {
            return true;
        }
    }
    // Its lease ran out, which is no evidence that it is gone. One that said so only finishes the recording.
    let silent = claim.is_away() && !claim.released && !claim.by_control;
    silent && answers(core, &subjects::ring_media(claim.stream, claim.epoch)).await
}

/// The newest state that followers still have.
async fn ask(core: &Core, claim: &Claim) -> Result<Option<StreamState>, CloseError> {
    let subject = subjects::snap(claim.stream);
    for _ in 0..SNAPSHOT_TRIES {
        let replies = core.bus.gather(&subject, Bytes::new(), SNAPSHOT_WAIT, MAX_SNAPSHOTS).await?;
        let states = replies.iter().filter_map(|reply| serde_json::from_slice(reply).ok());
        if let Some(state) = newest(states, claim.broadcast, claim.epoch) {
            return Ok(Some(state));
        }
    }
    Ok(None)
}

/// Whether the holder of a ring says what it holds.
async fn answers(core: &Core, ring: &str) -> bool {
    let numbers_only = serde_json::to_vec(&RepairRequest { ranges: Vec::new() }).unwrap_or_default();
    core.bus.request(ring, numbers_only.into(), AUTHOR_WAIT).await.is_ok()
}

/// The state that the segment index and the stored initialisation sections tell.
async fn rebuild(core: &Core, claim: &Claim) -> Result<Option<StreamState>, CloseError> {
    let mut rebuild = Rebuild::new(claim.stream, claim.broadcast);
    core.repo.index(claim.stream, |fact| rebuild.add(fact)).await?;
    let Some(mut rebuilt) = rebuild.finish(&claim.settings) else { return Ok(None) };
    for (rendition, epoch, version) in rebuilt.inits() {
        let kind = ObjectKind::Init(version);
        let name = ObjectName { playback: claim.playback, rendition: rendition.clone(), epoch, kind };
        let object = match core.store.get(&name.key(), None).await {
            Ok(object) => object,
            Err(error) if error.is_retryable() => return Err(error.into()),
            Err(error) => {
                warn!(key = %name, %error, "an initialisation section is missing");
                continue;
            }
        };
        match parse_config(&object.body) {
            Ok(config) => rebuilt.describe(&rendition, (epoch, version), &config),
            Err(error) => warn!(key = %name, %error, "an initialisation section cannot be read"),
        }
    }
    Ok(Some(rebuilt.into_state()))
}

/// Control's own log of one stream.
struct Log<'a> {
    core: &'a Arc<Core>,
    claim: &'a Claim,
    closer: OrphanLog,
    epochs: Subscription,
    repairs: Subscription,
    snapshots: Subscription,
    /// When nobody needs it any more.
    until: Option<Instant>,
}

impl<'a> Log<'a> {
    /// Writes the log as far as it goes, telling nobody yet.
    async fn open(core: &'a Arc<Core>, claim: &'a Claim, base: StreamState) -> Result<Self, CloseError> {
        let wall = crate::unix(&*core.clock);
        let closing = Taken {
            epoch: claim.epoch,
            over: !claim.is_away(),
            used: claim.used_through(wall),
            wall,
            window_s: claim.settings.window,
        };
        let now = Millis(core.clock.now_ms());
        let ring = subjects::ring_live(claim.stream, claim.epoch, GENERATION);
        Ok(Self {
            core,
            claim,
            closer: OrphanLog::open(now, closing, base, core.bus.max_payload())?,
            epochs: core.bus.subscribe(&subjects::epoch(claim.stream), CAPACITY).await?,
            repairs: core.bus.subscribe(&ring, CAPACITY).await?,
            snapshots: core.bus.subscribe(&subjects::snap(claim.stream), CAPACITY).await?,
            until: (!claim.is_away()).then(|| Instant::now() + LINGER),
        })
    }

    /// Has the log kept for those who come when this control is gone, publishes it, and answers for it.
    async fn serve(&mut self) -> Result<(), CloseError> {
        let mut kept = None;
        let mut alarm = Alarm::default();
        loop {
            let said = Some(self.closer.view().seq);
            if kept != said {
                kept = said;
                self.keep().await;
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
                    Some(message) => self.answer(&message, self.closer.view()),
                    None => return Ok(()),
                },
                message = self.epochs.recv() => match message {
                    Some(message) => self.announced(&message)?,
                    None => return Ok(()),
                },
                () = alarm.ring() => self.closer.handle_timeout(Millis(self.core.clock.now_ms()))?,
                () = over(until) => return Ok(()),
            }
        }
    }

    /// Control's word, whichever of them leads, is an author's to follow.
    fn announced(&mut self, message: &Message) -> Result<(), CloseError> {
        let Ok(told) = control::decode::<EpochAnnouncement>(&message.payload) else { return Ok(()) };
        if told.epoch > self.claim.epoch {
            let farewell = Instant::now() + FAREWELL;
            self.until = Some(self.until.map_or(farewell, |until| until.min(farewell)));
        }
        if told.epoch == self.claim.epoch && told.phase == EpochPhase::Ended {
            self.until.get_or_insert_with(|| Instant::now() + LINGER);
        }
        Ok(self.closer.handle(Millis(self.core.clock.now_ms()), takeover::Input::Epoch(told))?)
    }

    /// Has the state kept before it is told, so that whoever goes on from it begins above what was shown. A state store
    /// that is away costs a moment, not the viewers' playlists.
    async fn keep(&self) {
        let (stream, view) = (self.claim.stream, self.closer.view());
        // Nobody is left to store what is not.
        let waiting = |slot: &Arc<SegmentSlot>| {
            let tracks = slot.tracks.iter().filter(|(_, track)| !track.stored);
            tracks.map(|(rendition, _)| (rendition.clone(), slot.msn)).collect::<Vec<_>>()
        };
        let lost = view.slots.iter().flat_map(waiting).collect();
        let rest = at_rest(view, &lost, self.claim.settings.window);
        match tokio::time::timeout(KEEP_LIMIT, self.core.repo.put_rest(stream, &rest)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%stream, %error, "the closed log's state is not kept"),
            Err(_) => warn!(%stream, "the closed log's state is not kept: the state store is away"),
        }
    }

    fn wait(&self) -> Duration {
        let now = Millis(self.core.clock.now_ms());
        let due = self.closer.next_timeout().map_or(LOOK, |at| Duration::from_millis(at - now));
        due.clamp(Duration::from_millis(1), LOOK)
    }

    fn publish(&mut self) {
        let (stream, epoch) = (self.claim.stream, self.claim.epoch);
        while let Some(frames) = self.closer.poll_output() {
            let (subject, frames) = match frames {
                EncodedMessage::Live(frames) => (subjects::live(stream, epoch, GENERATION), frames),
                EncodedMessage::Digest(_) => continue,
                EncodedMessage::Retransmit(frames) => {
                    (subjects::repair_live(stream, epoch, GENERATION), frames)
                }
            };
            for frame in frames {
                // What is lost here is asked for again.
                if let Err(error) = self.core.bus.publish(&subject, frame) {
                    debug!(%subject, %error, "a fact was not sent");
                }
            }
        }
    }

    fn repair(&mut self, message: &Message) {
        let Some(request) = RepairRequest::parse(&message.payload) else { return };
        let reply = self.closer.repair(Millis(self.core.clock.now_ms()), &request);
        self.answer(message, &reply);
    }

    fn answer(&self, message: &Message, body: &impl Serialize) {
        if let (Some(reply), Ok(body)) = (&message.reply, serde_json::to_vec(body))
            && let Err(error) = self.core.bus.respond(reply, body.into())
        {
            debug!(stream = %self.claim.stream, %error, "an answer was lost: it will be asked again");
        }
    }
}

/// Resolves at `until`, or never.
async fn over(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}
