//! Deletes stored segments that left the live window of streams that are not recorded. It is the leader's duty and works
//! on the segment index, so it does not depend on which worker or job stored a segment, or on whether they still live.
//!
//! Each round reads the retention records from where the last round stopped. For each stream it reads the checkpoint,
//! which bounds the segments that playlists list, and the oldest entries of the index up to there; it deletes the objects, then their
//! index entries, so that an interrupted round is continued by the next. An unavailable store ends the round.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use millrace_runtime::ActorContext;
use millrace_store::StoreError;
use millrace_wire::ids::{Epoch, Msn, PlaybackId, Rendition, StreamId};
use millrace_wire::object_names::{self, ObjectKind, ObjectName};
use millrace_wire::state_keys;
use tracing::{debug, info, warn};

use crate::context::Services;
use crate::domain::retention::{Cutoff, ExpiryScan, Horizon, Retention, grace_ms};
use crate::domain::stream::{Status, Stream};
use crate::repo::RepoError;

/// Pause between two rounds. A segment stays at most this long beyond its time while the stores answer.
const ROUND_EVERY: Duration = Duration::from_secs(10);

/// Streams handled in one round. Each costs two reads of the state store, and about five more when its index is read. With
/// more streams a round continues where the last one stopped.
const STREAMS_PER_ROUND: usize = 500;

/// Time limit for one stream in one round: a few hundred deletions at a slow store.
const STREAM_LIMIT: Duration = Duration::from_secs(20);

/// Streams in a row that may fail before the round ends: a store that is away fails for all of them.
const MAX_FAILURES: usize = 3;

/// Segments by which a stream's window has to advance before its index is read again: 16 s of segments of 2 s. Until then
/// there is little to delete.
const MIN_ADVANCE: u64 = 8;

/// A window that has advanced by less is read again after this time, so that the last segments of a session whose publisher is
/// away do not wait for its return.
const MAX_INDEX_AGE_MS: u64 = 30_000;

/// Index entries read at once; a window of one minute and its grace period fit.
const INDEX_PAGE: usize = 128;

/// Segments of a rendition deleted in one round, so that a stream with a backlog does not hold up the others.
const MAX_EXPIRED: usize = 1_000;

/// Renditions of one stream; more than any ladder has.
const MAX_RENDITIONS: usize = 32;

/// Interval at which the objects of a rendition are listed for strays. They are also listed whenever an epoch leaves the
/// window, which leaves its initialisation sections behind.
const STRAYS_EVERY_MS: u64 = 10 * 60 * 1_000;

/// Pages of objects listed for strays in one rendition and round.
const MAX_STRAY_PAGES: usize = 4;

/// A worker may write index entries and objects this long after the end while a store is away; the retention record stays
/// until then.
const LATE_WRITES_MS: u64 = 35 * 60 * 1_000;

#[derive(Debug, thiserror::Error)]
enum RetentionError {
    #[error(transparent)]
    Repo(#[from] RepoError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("not finished within {STREAM_LIMIT:?}")]
    TimedOut,
}

/// Runs rounds while this control leads, until the actor is stopped.
pub(crate) async fn run(services: Arc<Services>, actor: ActorContext) -> anyhow::Result<()> {
    let mut leading = services.leading.subscribe();
    let mut sweeper = Sweeper::new(services.clone());
    loop {
        if !*leading.borrow() {
            sweeper.forget();
            actor.status.set_state("standby");
        }
        tokio::select! {
            led = leading.wait_for(|leading| *leading) => drop(led?),
            () = actor.stop.cancelled() => return Ok(()),
        }
        actor.status.set_state("sweeping");
        tokio::select! {
            done = sweeper.run_once() => if let Err(error) = done {
                warn!(%error, "failed to read retention records; will retry");
            },
            () = actor.stop.cancelled() => return Ok(()),
        }
        actor.status.set_state("waiting for the next round");
        actor.status.set_queue(sweeper.overdue.len(), Duration::from_secs(sweeper.oldest_overdue_s()));
        tokio::select! {
            () = tokio::time::sleep(ROUND_EVERY) => {}
            () = actor.stop.cancelled() => return Ok(()),
        }
    }
}

/// The last time the objects of a rendition were listed for strays.
#[derive(Debug, Clone, Copy)]
struct StraySweep {
    epoch: Epoch,
    settled: bool,
    at_ms: u64,
}

/// A sweep of a stream that left nothing to delete.
#[derive(Debug, Clone, Copy)]
struct CompleteSweep {
    floor: Msn,
    settled: bool,
    at_ms: u64,
}

impl CompleteSweep {
    /// Returns true if the index has to be read again.
    fn is_outdated(&self, floor: Msn, settled: bool, now_ms: u64) -> bool {
        let advance = floor.0.saturating_sub(self.floor.0);
        let is_old = now_ms - self.at_ms >= MAX_INDEX_AGE_MS;
        self.settled != settled || advance >= MIN_ADVANCE || (advance > 0 && is_old)
    }
}

/// The leader's progress. Everything in it can be lost: it saves requests, and what is to be deleted is in the stores.
struct Sweeper {
    services: Arc<Services>,
    /// The key of the last retention record handled.
    cursor: Option<String>,
    /// The last complete sweep of each stream.
    complete: HashMap<StreamId, CompleteSweep>,
    stray_sweeps: HashMap<(StreamId, Rendition), StraySweep>,
    /// Seconds by which the oldest stored segment of a stream is past its deletion.
    overdue: HashMap<StreamId, u64>,
}

impl Sweeper {
    fn new(services: Arc<Services>) -> Self {
        Self {
            services,
            cursor: None,
            complete: HashMap::new(),
            stray_sweeps: HashMap::new(),
            overdue: HashMap::new(),
        }
    }

    /// Forgets the progress when another control leads.
    fn forget(&mut self) {
        *self = Self::new(self.services.clone());
        self.services.metrics.retention.oldest_overdue.set(0);
    }

    /// Returns the seconds by which the oldest stored segment of all streams is past its deletion.
    fn oldest_overdue_s(&self) -> u64 {
        self.overdue.values().copied().max().unwrap_or(0)
    }

    async fn run_once(&mut self) -> Result<(), RepoError> {
        let page = self.services.repo.retentions(self.cursor.as_deref(), STREAMS_PER_ROUND).await?;
        let last_page = page.len() < STREAMS_PER_ROUND;
        let mut failures = 0;
        for (key, retention) in page {
            match self.sweep_within_limit(retention).await {
                Ok(()) => failures = 0,
                Err(error) => {
                    warn!(key, %error, "failed to delete segments past the window; will retry in the next round");
                    failures += 1;
                }
            }
            self.cursor = Some(key);
            let oldest = i64::try_from(self.oldest_overdue_s()).unwrap_or(i64::MAX);
            self.services.metrics.retention.oldest_overdue.set(oldest);
            if failures == MAX_FAILURES {
                return Ok(());
            }
        }
        if last_page {
            self.cursor = None;
        }
        Ok(())
    }

    async fn sweep_within_limit(
        &mut self,
        retention: Result<Retention, RepoError>,
    ) -> Result<(), RetentionError> {
        let swept = tokio::time::timeout(STREAM_LIMIT, self.sweep_stream(&retention?)).await;
        swept.unwrap_or(Err(RetentionError::TimedOut))
    }

    async fn sweep_stream(&mut self, retention: &Retention) -> Result<(), RetentionError> {
        let services = self.services.clone();
        let id = retention.stream;
        let stream = match services.repo.stream(id).await {
            Ok(stream) => stream.value,
            // A deleted stream's objects are purged.
            Err(RepoError::NotFound) => return self.finish(id).await,
            Err(error) => return Err(error.into()),
        };
        if stream.settings.record {
            return self.finish(id).await;
        }
        let over_ms = over_for_ms(&stream, services.clock.unix_ms());
        let late = over_ms.is_some_and(|ms| ms >= LATE_WRITES_MS);
        let mut done = true;
        if let Some(checkpoint) = services.repo.checkpoint(id).await? {
            let settled = over_ms.is_some_and(|ms| ms >= grace_ms(&stream.settings));
            let horizon = Horizon::new(&checkpoint, &stream.settings, settled);
            let now = services.clock.now_ms();
            let outdated =
                self.complete.get(&id).is_none_or(|last| last.is_outdated(horizon.floor, settled, now));
            if outdated || late {
                done = self.sweep_renditions(&stream, &horizon, settled).await?;
                if done {
                    self.complete.insert(id, CompleteSweep { floor: horizon.floor, settled, at_ms: now });
                }
            }
        }
        if done {
            self.overdue.remove(&id);
        }
        if done && late {
            self.finish(id).await?;
        }
        Ok(())
    }

    /// Deletes the expired segments of every rendition; returns false if some are left for the next round.
    async fn sweep_renditions(
        &mut self,
        stream: &Stream,
        horizon: &Horizon,
        settled: bool,
    ) -> Result<bool, RetentionError> {
        let services = self.services.clone();
        let (mut done, mut after) = (true, None);
        for _ in 0..MAX_RENDITIONS {
            let Some(rendition) = services.repo.next_rendition(stream.id, after.as_deref()).await? else {
                break;
            };
            after = Some(state_keys::segment(stream.id, &rendition, Epoch(u64::MAX), Msn(u64::MAX)));
            done &= self.sweep_rendition(stream, horizon, rendition, settled).await?;
        }
        Ok(done)
    }

    /// Deletes the retention record of a stream that has nothing left to delete.
    async fn finish(&mut self, id: StreamId) -> Result<(), RetentionError> {
        self.services.repo.delete_records(&[state_keys::retention(id)]).await?;
        self.stray_sweeps.retain(|(stream, _), _| *stream != id);
        self.overdue.remove(&id);
        self.complete.remove(&id);
        debug!(stream = %id, "retention complete");
        Ok(())
    }

    /// Deletes the expired segments of one rendition; returns false if some are left for the next round.
    async fn sweep_rendition(
        &mut self,
        stream: &Stream,
        horizon: &Horizon,
        rendition: Rendition,
        settled: bool,
    ) -> Result<bool, RetentionError> {
        let (scan, complete) = scan_index(&self.services, stream.id, horizon, &rendition).await?;
        if !scan.expired().is_empty() {
            let overdue = self.overdue.entry(stream.id).or_default();
            *overdue = scan.overdue_s().max(*overdue);
            delete_expired(&self.services, stream, &rendition, &scan).await?;
        }
        let Some(cutoff) = scan.cutoff().filter(|_| complete) else { return Ok(complete) };
        let (key, now) = ((stream.id, rendition), self.services.clock.now_ms());
        let due = self.stray_sweeps.get(&key).is_none_or(|last| {
            last.epoch != cutoff.epoch || last.settled != settled || now - last.at_ms >= STRAYS_EVERY_MS
        });
        if due {
            if !delete_strays(&self.services, stream.playback_id, &key.1, &scan, cutoff).await? {
                return Ok(false);
            }
            self.stray_sweeps.insert(key, StraySweep { epoch: cutoff.epoch, settled, at_ms: now });
        }
        Ok(true)
    }
}

/// Returns for how long a stream that is over has been over, in milliseconds.
fn over_for_ms(stream: &Stream, now_ms: u64) -> Option<u64> {
    let over = !matches!(stream.status, Status::Scheduled | Status::Live);
    stream.ended_at.filter(|_| over).map(|ended| now_ms.saturating_sub(ended.0))
}

/// Reads the index of a rendition up to the horizon; the flag is false if the limit of one round came first.
async fn scan_index<'a>(
    services: &Services,
    stream: StreamId,
    horizon: &'a Horizon,
    rendition: &Rendition,
) -> Result<(ExpiryScan<'a>, bool), RetentionError> {
    let mut scan = ExpiryScan::new(horizon, rendition.clone());
    let mut after = None;
    loop {
        let page = services.repo.index_page(stream, rendition, after.as_deref(), INDEX_PAGE).await?;
        for fact in page.entries {
            if !scan.push(fact) {
                return Ok((scan, true));
            }
        }
        if page.next.is_none() {
            return Ok((scan, true));
        }
        if scan.expired().len() >= MAX_EXPIRED {
            return Ok((scan, false));
        }
        after = page.next;
    }
}

async fn delete_expired(
    services: &Services,
    stream: &Stream,
    rendition: &Rendition,
    scan: &ExpiryScan<'_>,
) -> Result<(), RetentionError> {
    let (mut objects, mut entries, mut bytes) = (Vec::new(), Vec::new(), 0);
    for fact in scan.expired() {
        let kind = ObjectKind::Segment(fact.segment.msn, fact.generation);
        let name = ObjectName {
            playback: stream.playback_id,
            rendition: rendition.clone(),
            epoch: fact.epoch,
            kind,
        };
        objects.push(name.key());
        entries.push(state_keys::segment(stream.id, rendition, fact.epoch, fact.segment.msn));
        bytes += fact.segment.bytes;
    }
    // The index entry goes last: an interrupted deletion finds the object again through it.
    services.store.delete_many(&objects).await?;
    services.repo.delete_records(&entries).await?;
    services.metrics.retention.segments_deleted.add(entries.len() as u64);
    services.metrics.retention.bytes_deleted.add(bytes);
    debug!(stream = %stream.id, %rendition, segments = entries.len(), bytes, "segments past the window deleted");
    Ok(())
}

/// Deletes objects below the cutoff that the index does not name; returns false if some are left for the next round.
async fn delete_strays(
    services: &Services,
    playback: PlaybackId,
    rendition: &Rendition,
    scan: &ExpiryScan<'_>,
    cutoff: Cutoff,
) -> Result<bool, RetentionError> {
    let prefix = object_names::rendition_prefix(playback, rendition);
    let mut after = None;
    for _ in 0..MAX_STRAY_PAGES {
        let page = services.store.list(&prefix, after.as_deref(), millrace_store::LIST_PAGE).await?;
        let Some(last) = page.entries.last().map(|entry| entry.key.clone()) else { return Ok(true) };
        let is_stray = |key: &String| key.parse().is_ok_and(|name| scan.is_stray(cutoff, &name));
        let strays: Vec<String> = page.entries.into_iter().map(|entry| entry.key).filter(is_stray).collect();
        if !strays.is_empty() {
            services.store.delete_many(&strays).await?;
            services.metrics.retention.stray_objects_deleted.add(strays.len() as u64);
            info!(%playback, %rendition, objects = strays.len(), "objects past the window without index entry deleted");
        }
        if !page.more {
            return Ok(true);
        }
        after = Some(last);
    }
    Ok(false)
}
