//! The viewers that this edge sees. It reads no clock: the caller passes the time.
//!
//! A request costs one hash of its origin and one look into one of the table's shards. The keyed hashes that other nodes
//! know a viewer by are made when it comes, when its origin changes, and once a day.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use millrace_runtime::address::network;
use millrace_state::Sighting;
use millrace_wire::ids::{PlaybackId, StreamId};

use super::identity::{Client, Identity, Salt};
use super::places::Places;
use super::viewer_count::ViewerCount;

/// Shards of the table: many times the threads of an edge, so that two of them seldom meet at one.
const SHARDS: usize = 64;
/// Viewers of one stream at one edge that are counted: one stream leaves places for the others.
const MAX_VIEWERS_OF_STREAM: usize = super::places::MAX_VIEWERS / 2;

/// The hasher of keys that are hashes already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0 << 8 | u64::from(*byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

type Shard = HashMap<u64, Viewer, BuildHasherDefault<Hashed>>;

/// One viewer, by one of its ids.
struct Viewer {
    stream: StreamId,
    kind: char,
    id: u128,
    group: u64,
    /// A hash of its origin in this process.
    origin: u64,
    /// A hash of its address in this process, for the limit of an address.
    place: u64,
    /// The day of the keyed hashes.
    day: u64,
    ttl_ms: u64,
    seen_ms: u64,
    /// The time until which the state store counts it without another sighting.
    reported_until_ms: u64,
}

/// A stream that has viewers here.
struct Audience {
    count: Arc<ViewerCount>,
    viewers: usize,
    left: Vec<Sighting>,
}

/// The changes of one stream's audience that are to be written.
pub(super) struct Report {
    pub(super) stream: StreamId,
    pub(super) count: Arc<ViewerCount>,
    pub(super) sightings: Vec<Sighting>,
}

/// The viewers that an edge sees.
pub(super) struct Table {
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
    salt: ArcSwapOption<Salt>,
    places: Mutex<Places>,
    audiences: Mutex<HashMap<StreamId, Audience>>,
}

/// A viewer that comes, as the state store is to count it.
#[derive(Clone, Copy)]
pub(super) struct Arrival<'a> {
    pub(super) playback: PlaybackId,
    pub(super) stream: StreamId,
    pub(super) identity: Identity<'a>,
    pub(super) client: Client<'a>,
    pub(super) ttl: Duration,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Table {
    pub(super) fn new(per_address: u32) -> Self {
        Self {
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
            salt: ArcSwapOption::empty(),
            places: Mutex::new(Places::new(per_address)),
            audiences: Mutex::default(),
        }
    }

    /// Sets the key of the day. Before the first one no viewer is counted.
    pub(super) fn set_salt(&self, salt: Salt) {
        self.salt.store(Some(Arc::new(salt)));
    }

    /// Returns the day of the key.
    pub(super) fn day(&self) -> Option<u64> {
        self.salt.load().as_ref().map(|salt| salt.day)
    }

    /// Returns the number of viewers that are counted here.
    pub(super) fn viewers(&self) -> usize {
        lock(&self.places).all()
    }

    fn key(&self, playback: PlaybackId, identity: &Identity<'_>, client: &Client<'_>) -> u64 {
        match identity {
            Identity::Requests => self.hasher.hash_one((playback, client)),
            identity => self.hasher.hash_one((playback, identity)),
        }
    }

    fn shard(&self, key: u64) -> MutexGuard<'_, Shard> {
        // The map uses other bits of the key.
        lock(&self.shards[(key >> 40) as usize % SHARDS])
    }

    /// Notes that a viewer was seen. False if it is not known here: [`Table::enter`] takes it in.
    pub(super) fn touch(
        &self,
        playback: PlaybackId,
        identity: &Identity<'_>,
        client: &Client<'_>,
        now_ms: u64,
    ) -> bool {
        let key = self.key(playback, identity, client);
        let origin = if *identity == Identity::Requests { key } else { self.hasher.hash_one(client) };
        let salt = self.salt.load();
        let mut shard = self.shard(key);
        let Some(viewer) = shard.get_mut(&key) else { return false };
        viewer.seen_ms = viewer.seen_ms.max(now_ms);
        if let Some(salt) = salt.as_deref().filter(|salt| salt.day != viewer.day || viewer.origin != origin) {
            let before = viewer.sighting(0);
            viewer.group = salt.group(viewer.stream, client);
            viewer.id = salt.viewer(viewer.stream, identity, viewer.group);
            (viewer.day, viewer.origin, viewer.reported_until_ms) = (salt.day, origin, 0);
            let renamed = (before.viewer != viewer.sighting(0).viewer).then_some((viewer.stream, before));
            drop(shard);
            if let Some((stream, before)) = renamed
                && let Some(audience) = lock(&self.audiences).get_mut(&stream)
            {
                audience.left.push(before);
            }
        }
        true
    }

    /// Takes a viewer in. False if it is not counted because a limit is reached, or because there is no key yet.
    pub(super) fn enter(&self, arrival: &Arrival<'_>, count: &Arc<ViewerCount>, now_ms: u64) -> bool {
        let Arrival { playback, stream, identity, client, ttl } = arrival;
        if self.touch(*playback, identity, client, now_ms) {
            return true;
        }
        let Some(salt) = self.salt.load_full() else { return false };
        let place = self.hasher.hash_one(network(client.address));
        if !self.take_place(*stream, count, place) {
            return false;
        }
        let key = self.key(*playback, identity, client);
        let group = salt.group(*stream, client);
        let viewer = Viewer {
            stream: *stream,
            kind: identity.kind(),
            id: salt.viewer(*stream, identity, group),
            group,
            origin: if *identity == Identity::Requests { key } else { self.hasher.hash_one(client) },
            place,
            day: salt.day,
            ttl_ms: ttl.as_millis() as u64,
            seen_ms: now_ms,
            reported_until_ms: 0,
        };
        let replaced = self.shard(key).insert(key, viewer);
        // Two requests of one viewer may have come at once.
        if let Some(replaced) = replaced {
            self.give_back(&replaced);
        }
        true
    }

    /// Notes that a viewer has left. Requests of its origin without an id were its player's, and leave with it.
    pub(super) fn leave(&self, playback: PlaybackId, identity: &Identity<'_>, client: &Client<'_>) -> bool {
        let left = self.remove(self.key(playback, identity, client));
        self.remove(self.key(playback, &Identity::Requests, client));
        left
    }

    fn remove(&self, key: u64) -> bool {
        let Some(viewer) = self.shard(key).remove(&key) else { return false };
        if let Some(audience) = lock(&self.audiences).get_mut(&viewer.stream) {
            audience.left.push(viewer.sighting(0));
        }
        self.give_back(&viewer);
        true
    }

    fn take_place(&self, stream: StreamId, count: &Arc<ViewerCount>, place: u64) -> bool {
        let mut audiences = lock(&self.audiences);
        let new = || Audience { count: count.clone(), viewers: 0, left: Vec::new() };
        let audience = audiences.entry(stream).or_insert_with(new);
        // A stream that was closed and opened again has another count.
        audience.count = count.clone();
        let taken = audience.viewers < MAX_VIEWERS_OF_STREAM && lock(&self.places).take(place);
        audience.viewers += usize::from(taken);
        taken
    }

    fn give_back(&self, viewer: &Viewer) {
        lock(&self.places).give_back(viewer.place);
        if let Some(audience) = lock(&self.audiences).get_mut(&viewer.stream) {
            audience.viewers = audience.viewers.saturating_sub(1);
        }
    }

    /// Returns what is to be written now: viewers that came, those whose time in the state store is half over, and those that
    /// left. Every stream with viewers is named, so that its count is read. Viewers that were not seen for their time are
    /// forgotten; the state store does the same.
    pub(super) fn due(&self, now_ms: u64) -> Vec<Report> {
        let mut seen: HashMap<StreamId, Vec<Sighting>> = HashMap::new();
        let mut expired = Vec::new();
        for shard in &self.shards {
            lock(shard).retain(|_, viewer| {
                let until_ms = viewer.seen_ms + viewer.ttl_ms;
                if until_ms <= now_ms {
                    expired.push((viewer.stream, viewer.place));
                    return false;
                }
                let is_due = viewer.reported_until_ms < now_ms + viewer.ttl_ms / 2;
                if is_due && viewer.reported_until_ms < until_ms {
                    viewer.reported_until_ms = until_ms;
                    seen.entry(viewer.stream).or_default().push(viewer.sighting(until_ms - now_ms));
                }
                true
            });
        }
        let mut audiences = lock(&self.audiences);
        for (stream, place) in expired {
            lock(&self.places).give_back(place);
            if let Some(audience) = audiences.get_mut(&stream) {
                audience.viewers = audience.viewers.saturating_sub(1);
            }
        }
        let report = |(stream, audience): (&StreamId, &mut Audience)| {
            let mut sightings = std::mem::take(&mut audience.left);
            sightings.extend(seen.remove(stream).unwrap_or_default());
            Report { stream: *stream, count: audience.count.clone(), sightings }
        };
        let reports = audiences.iter_mut().map(report).collect();
        // The last report of a stream reads its count once more.
        audiences.retain(|_, audience| audience.viewers > 0);
        reports
    }

    /// Makes the next reports name all viewers: the state store did not take some.
    pub(super) fn report_all(&self) {
        for shard in &self.shards {
            lock(shard).values_mut().for_each(|viewer| viewer.reported_until_ms = 0);
        }
    }
}

impl Viewer {
    fn sighting(&self, ttl_ms: u64) -> Sighting {
        Sighting {
            viewer: format!("{}{:032x}", self.kind, self.id),
            group: format!("{:016x}", self.group),
            ttl: Duration::from_millis(ttl_ms),
        }
    }
}
