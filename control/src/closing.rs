//! Ending a broadcast whose author is gone: control takes an epoch of its own, builds on the newest state that is
//! still to be had, says ENDLIST, and answers those who come late.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use millrace_bus::{BusError, Message, Subscription};
use millrace_cluster::Millis;
use millrace_cluster::author::{Author, Frames};
use millrace_media::cmaf::demux::parse_config;
use millrace_state::StateError;
use millrace_store::StoreError;
use millrace_wire::fact::Snapshot;
use millrace_wire::frame::FrameError;
use millrace_wire::ids::{Generation, StreamId};
use millrace_wire::objects::{ObjectKind, ObjectName};
use millrace_wire::repair::RepairRequest;
use millrace_wire::subjects;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::domain::claim::{AUTHOR_LIMIT_MS, Claim, END_ANNOUNCED_MS};
use crate::domain::ending::{Rebuild, closing_facts, newest};
use crate::repo::{Loaded, RepoError};
use crate::service::Core;

/// Broadcasts ended at once; the others wait for the next look. Each holds one window's state.
const MAX_CLOSING: usize = 512;

/// Snapshots are waited for this long (the protocol's rule 8), and asked for so often before there are none.
const SNAPSHOT_WAIT: Duration = Duration::from_millis(300);
const SNAPSHOT_TRIES: usize = 3;

/// Every follower may answer; more than these say nothing new.
const MAX_SNAPSHOTS: usize = 16;

/// An author answers from memory: slower means that it is gone.
const AUTHOR_WAIT: Duration = Duration::from_millis(500);

/// Repair and snapshot requests that may wait.
const CAPACITY: usize = 128;

/// The log is answered for longer than the claim announces it, so nobody is told of a log that is gone.
const LINGER: Duration = Duration::from_millis(END_ANNOUNCED_MS + 5_000);

/// Longest sleep between looks at what is to be repeated.
const LOOK: Duration = Duration::from_millis(200);

/// Control's epochs have one author.
const GENERATION: Generation = Generation(1);

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
    Frame(#[from] FrameError),
}

/// The broadcasts this control is ending.
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

    /// Sees to it that the end of `found`'s broadcast is said; returns at once.
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
                done = close(&core, found) => match done {
                    // A conflict: somebody else was faster.
                    Ok(()) | Err(CloseError::Repo(RepoError::State(StateError::Conflict { .. }))) => {}
                    Err(error) => warn!(%stream, %error, "the broadcast's end could not be said yet"),
                },
                () = stop.cancelled() => {}
            }
        });
    }
}

async fn close(core: &Core, found: Loaded<Claim>) -> Result<(), CloseError> {
    let Loaded { value: claim, version } = found;
    let now = crate::unix(&*core.clock);
    let known = ask(core, &claim).await?;
    if let Some(author) = known.as_ref().filter(|state| state.generation > Generation(0))
        && (claim.by_control || claim.over_for_ms(now) < AUTHOR_LIMIT_MS)
        && is_alive(core, claim.stream, author).await
    {
        debug!(stream = %claim.stream, epoch = %author.epoch, "the author is alive: it will say the end");
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
        return Ok(());
    };
    let own = claim.taken_up(crate::unix(&*core.clock));
    let mut log = Log::open(core, &own, base).await?;
    // Recorded before it is announced: no other control will ever give this epoch out.
    core.repo.put_claim(&own, version).await?;
    core.closed.inc();
    info!(stream = %own.stream, epoch = %own.epoch, "no author is alive: control says the end");
    core.announce(&own);
    log.serve().await
}

/// The newest state that followers still have.
async fn ask(core: &Core, claim: &Claim) -> Result<Option<Snapshot>, CloseError> {
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

/// Whether the author of the log that `state` comes from still answers.
async fn is_alive(core: &Core, stream: StreamId, state: &Snapshot) -> bool {
    let subject = subjects::ring_live(stream, state.epoch, state.generation);
    let numbers_only = serde_json::to_vec(&RepairRequest { ranges: Vec::new() }).unwrap_or_default();
    core.bus.request(&subject, numbers_only.into(), AUTHOR_WAIT).await.is_ok()
}

/// The state that the segment index and the stored initialisation sections tell.
async fn rebuild(core: &Core, claim: &Claim) -> Result<Option<Snapshot>, CloseError> {
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
    core: &'a Core,
    claim: &'a Claim,
    author: Author,
    repairs: Subscription,
    snapshots: Subscription,
}

impl<'a> Log<'a> {
    /// Writes the whole log, telling nobody yet.
    async fn open(core: &'a Core, claim: &'a Claim, base: Snapshot) -> Result<Self, CloseError> {
        let now = Millis(core.clock.now_ms());
        let facts = closing_facts(&base);
        let mut author = Author::open(now, (claim.epoch, GENERATION), base, core.bus.max_payload())?;
        for fact in facts {
            author.announce(now, fact, Bytes::new())?;
        }
        let ring = subjects::ring_live(claim.stream, claim.epoch, GENERATION);
        let repairs = core.bus.subscribe(&ring, CAPACITY).await?;
        let snapshots = core.bus.subscribe(&subjects::snap(claim.stream), CAPACITY).await?;
        Ok(Self { core, claim, author, repairs, snapshots })
    }

    /// Publishes the log and answers for it.
    async fn serve(&mut self) -> Result<(), CloseError> {
        let until = tokio::time::Instant::now() + LINGER;
        loop {
            self.publish();
            let wait = self.wait();
            tokio::select! {
                message = self.repairs.recv() => match message {
                    Some(message) => self.repair(&message),
                    None => return Ok(()),
                },
                message = self.snapshots.recv() => match message {
                    Some(message) => self.answer(&message, self.author.view()),
                    None => return Ok(()),
                },
                () = tokio::time::sleep(wait) => self.author.tick(Millis(self.core.clock.now_ms())),
                () = tokio::time::sleep_until(until) => return Ok(()),
            }
        }
    }

    fn wait(&self) -> Duration {
        let now = Millis(self.core.clock.now_ms());
        let due = self.author.next_timeout().map_or(LOOK, |at| Duration::from_millis(at - now));
        due.clamp(Duration::from_millis(1), LOOK)
    }

    fn publish(&mut self) {
        let (stream, epoch) = (self.claim.stream, self.claim.epoch);
        while let Some(frames) = self.author.poll_output() {
            let (subject, frames) = match frames {
                Frames::Live(frames) => (subjects::live(stream, epoch, GENERATION), frames),
                Frames::Repeat(frames) => (subjects::repair_live(stream, epoch, GENERATION), frames),
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
        let reply = self.author.repair(Millis(self.core.clock.now_ms()), &request);
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
