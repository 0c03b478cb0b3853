//! Writes the viewers that this edge sees to the state store once a second, and reads how many all edges see.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use millrace_runtime::{ActorContext, Clock, LogLimit, Secret};
use millrace_state::{MAX_SIGHTINGS, SharedState, StateError, StateStore, Tx};
use millrace_wire::ids::{PlaybackId, StreamId};
use millrace_wire::state_keys;
use rand::RngCore;

use super::identity::{Client, Identity, SALT_BYTES, Salt};
use super::table::{Arrival, Report, Table};
use super::viewer_count::ViewerCount;
use crate::metrics::EdgeMetrics;

/// Seconds between two heartbeats of a player.
pub const HEARTBEAT_S: u64 = 10;
/// A session expires half a heartbeat after the next one is due: a player sends it as soon as the last one is answered.
const HEARTBEAT_TTL: Duration = Duration::from_secs(15);
/// A player reloads its playlist at least once in a target duration, and one that is held is refused after three (RFC 8216bis §6.3.4,
/// §6.2.5.2). A viewer that makes no request for longer has left.
const REQUEST_TARGETS: u32 = 3;
const REQUEST_SLACK: Duration = Duration::from_secs(2);
/// Time between two writes: the load on the state store grows with edges, not with requests.
const FLUSH: Duration = Duration::from_secs(1);
/// Calls to the state store at once.
const CONCURRENT_WRITES: usize = 16;
/// The start of an edge waits this long for the state store.
const PREPARE_LIMIT: Duration = Duration::from_secs(1);
const DAY_MS: u64 = 86_400_000;
/// Time for which a day's key is kept. Edges whose clocks differ find yesterday's.
const SALT_TTL: Duration = Duration::from_hours(48);

/// A stream as far as counting knows it.
#[derive(Debug, Clone, Copy)]
pub struct Watched<'a> {
    /// The public id, which URLs carry.
    pub playback: PlaybackId,
    /// The internal id.
    pub stream: StreamId,
    /// The count that writes refresh.
    pub count: &'a Arc<ViewerCount>,
}

/// Counts the viewers that this edge sees.
pub struct Counting {
    table: Table,
    clock: Arc<dyn Clock>,
    metrics: EdgeMetrics,
    lines: LogLimit,
}

impl Counting {
    /// Creates a collector that counts at most `per_address` viewers of one address; 0 stands for any number.
    pub fn new(per_address: u32, clock: Arc<dyn Clock>, metrics: EdgeMetrics) -> Self {
        Self { table: Table::new(per_address), clock, metrics, lines: LogLimit::default() }
    }

    /// Notes a request of a viewer that is counted already; false for another one.
    pub fn seen(&self, playback: PlaybackId, identity: &Identity<'_>, client: &Client<'_>) -> bool {
        self.table.touch(playback, identity, client, self.clock.now_ms())
    }

    /// Counts a viewer from its first request for media on. `target_s` is the stream's target duration in seconds.
    pub fn requests(&self, of: Watched<'_>, identity: Identity<'_>, client: Client<'_>, target_s: u64) {
        let target = Duration::from_secs(target_s);
        self.enter(of, identity, client, target * REQUEST_TARGETS + REQUEST_SLACK);
    }

    /// Counts a viewer that announces itself, or notes that it has left.
    pub fn announced(&self, of: Watched<'_>, identity: Identity<'_>, client: Client<'_>, watching: bool) {
        if watching {
            self.enter(of, identity, client, HEARTBEAT_TTL);
        } else {
            self.table.leave(of.playback, &identity, &client);
        }
    }

    fn enter(&self, of: Watched<'_>, identity: Identity<'_>, client: Client<'_>, ttl: Duration) {
        let Watched { playback, stream, count } = of;
        let arrival = Arrival { playback, stream, identity, client, ttl };
        // Over a limit the viewer watches on, uncounted.
        if !self.table.enter(&arrival, count, self.clock.now_ms()) {
            self.metrics.viewers_uncounted.inc();
        }
    }

    /// Reads the key of the day, without which no viewer is counted, in a short time; a store that is away is asked again by the
    /// actor.
    pub async fn prepare(&self, state: &dyn StateStore) {
        let day = self.clock.unix_ms() / DAY_MS;
        match tokio::time::timeout(PREPARE_LIMIT, salt(state, day)).await {
            Ok(Ok(salt)) => self.table.set_salt(salt),
            Ok(Err(_)) | Err(_) => {
                tracing::warn!("state store does not answer; viewers are counted once it does");
            }
        }
    }

    /// Writes once a second until the actor is stopped. The actor's queue is the streams whose viewers are being written.
    pub async fn run(self: Arc<Self>, state: SharedState, actor: ActorContext) -> anyhow::Result<()> {
        actor.status.set_state("counting viewers");
        loop {
            tokio::select! {
                () = tokio::time::sleep(FLUSH) => {}
                () = actor.stop.cancelled() => return Ok(()),
            }
            let reports = self.table.due(self.clock.now_ms());
            actor.status.set_queue(reports.len(), FLUSH);
            if let Err(error) = self.write(&*state, reports).await {
                self.table.report_all();
                if let Some(suppressed) = self.lines.due() {
                    tracing::warn!(%error, suppressed, "viewers could not be counted; they are counted once the state store takes them");
                }
            }
            actor.status.set_queue(0, Duration::ZERO);
            self.metrics.viewers_here.set(self.table.viewers() as i64);
        }
    }

    async fn write(&self, state: &dyn StateStore, reports: Vec<Report>) -> Result<(), StateError> {
        let day = self.clock.unix_ms() / DAY_MS;
        if self.table.day() != Some(day) {
            self.table.set_salt(salt(state, day).await?);
        }
        let failed = AtomicBool::new(false);
        let failure = Mutex::new(None);
        let writes = reports.into_iter().map(|report| async {
            // A store that is away is not asked for each stream.
            if failed.load(Ordering::Relaxed) {
                return;
            }
            if let Err(error) = write_one(state, report).await {
                failed.store(true, Ordering::Relaxed);
                *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
        });
        futures::stream::iter(writes).buffer_unordered(CONCURRENT_WRITES).for_each(async |()| {}).await;
        failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

async fn write_one(state: &dyn StateStore, report: Report) -> Result<(), StateError> {
    let Report { stream, count, sightings } = report;
    let audience = state_keys::viewers(stream);
    let uniques = count.broadcast().map(|broadcast| state_keys::unique_viewers(stream, broadcast));
    let mut rest = &sightings[..];
    loop {
        let (batch, after) = rest.split_at(rest.len().min(MAX_SIGHTINGS));
        count.set(state.audience_note(&audience, uniques.as_deref(), batch).await?);
        rest = after;
        if rest.is_empty() {
            return Ok(());
        }
    }
}

/// Returns the key of a day's hashes, which the first edge that asks creates.
async fn salt(state: &dyn StateStore, day: u64) -> Result<Salt, StateError> {
    let name = state_keys::viewer_salt(day);
    loop {
        if let Some(found) = state.get(&name).await? {
            return Ok(Salt { day, key: Secret::new(found.value.to_vec()) });
        }
        let mut key = vec![0; SALT_BYTES];
        rand::rng().fill_bytes(&mut key);
        match state.commit(Tx::new().check(name.clone(), None).put_ttl(name.clone(), key, SALT_TTL)).await {
            // Another edge may have created it: what is stored counts.
            Ok(_) | Err(StateError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Returns the client of a request.
pub fn client(address: IpAddr, agent: &[u8]) -> Client<'_> {
    Client { address: address.to_canonical(), agent }
}
