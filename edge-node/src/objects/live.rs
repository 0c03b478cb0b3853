//! The objects of one stream that its feed holds in memory: init sections, parts, and segments assembled from their parts.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use millrace_buf::ByteChain;
use millrace_protocol::state::query::is_parts_laid_together;
use millrace_runtime::LogLimit;
use millrace_wire::fact::{RenditionSegment, SegmentSlot, StreamState};
use millrace_wire::ids::{Epoch, Generation, InitVersion, Msn, PartIndex, PlaybackId, Rendition};
use millrace_wire::object_names::{ObjectKind, ObjectName};

use crate::metrics::EdgeMetrics;
use crate::objects::cache::ObjectCache;

/// The generation in a part's name, and its index.
pub type PartName = (Generation, PartIndex);

/// The key of a segment, ordered by age.
type SegmentKey = (Msn, Rendition, Epoch, Generation);

/// One segment's parts, and the segment once it is complete.
#[derive(Debug, Default)]
struct SegmentEntry {
    parts: BTreeMap<u32, Bytes>,
    complete: bool,
    /// Bytes that the complete segment adds to those of the parts: none if it shares the parts' memory.
    own_bytes: usize,
}

impl SegmentEntry {
    /// Returns the number of bytes that the entry holds in memory.
    fn len(&self) -> usize {
        self.parts.values().map(Bytes::len).sum::<usize>() + self.own_bytes
    }
}

/// The objects of one stream that requests find in memory, within a bound. They are dropped once the object store has them and
/// no playlist lists their parts any more, and earlier when the bound is exceeded.
#[derive(Debug)]
pub struct LiveObjects {
    playback: PlaybackId,
    cache: Arc<ObjectCache>,
    metrics: EdgeMetrics,
    segments: BTreeMap<SegmentKey, SegmentEntry>,
    inits: HashMap<(Rendition, Epoch, InitVersion), usize>,
    bytes: usize,
    limit: usize,
    /// The oldest segment that playlists list parts of or that the log has not reported as stored.
    needed_from: Msn,
    drops: LogLimit,
}

impl LiveObjects {
    /// Creates an empty set that holds at most about `limit` bytes, and shows what it holds in `cache`.
    pub fn new(playback: PlaybackId, cache: Arc<ObjectCache>, metrics: EdgeMetrics, limit: usize) -> Self {
        let (segments, inits) = (BTreeMap::new(), HashMap::new());
        let drops = LogLimit::default();
        Self { playback, cache, metrics, segments, inits, bytes: 0, limit, needed_from: Msn(u64::MAX), drops }
    }

    fn key(&self, rendition: &Rendition, epoch: Epoch, kind: ObjectKind) -> String {
        ObjectName { playback: self.playback, rendition: rendition.clone(), epoch, kind }.key()
    }

    fn count(&mut self, before: usize, after: usize) {
        self.bytes = self.bytes + after - before;
        self.metrics.hot_bytes.add(after as i64 - before as i64);
    }

    /// Takes an init section and shows it to requests.
    pub fn init(&mut self, rendition: &Rendition, epoch: Epoch, version: InitVersion, bytes: Bytes) {
        let size = bytes.len();
        self.cache.insert_live(&self.key(rendition, epoch, ObjectKind::Init(version)), bytes);
        let before = self.inits.insert((rendition.clone(), epoch, version), size).unwrap_or(0);
        self.count(before, size);
    }

    /// Takes a part and shows it to requests.
    pub fn part(
        &mut self,
        rendition: &Rendition,
        epoch: Epoch,
        msn: Msn,
        (generation, part): PartName,
        bytes: Bytes,
    ) {
        let key = self.key(rendition, epoch, ObjectKind::Part(msn, generation, part));
        self.cache.insert_live(&key, bytes.clone());
        let entry = self.segments.entry((msn, rendition.clone(), epoch, generation)).or_default();
        let before = entry.len();
        entry.parts.insert(part.0, bytes);
        let after = entry.len();
        self.count(before, after);
        self.evict_over_limit();
    }

    /// Takes a segment whose bytes came with its fact, in one piece.
    pub fn segment(
        &mut self,
        rendition: &Rendition,
        epoch: Epoch,
        msn: Msn,
        generation: Generation,
        bytes: Bytes,
    ) {
        let own_bytes = bytes.len();
        self.hold_segment(rendition, epoch, msn, generation, bytes.into(), own_bytes);
    }

    fn hold_segment(
        &mut self,
        rendition: &Rendition,
        epoch: Epoch,
        msn: Msn,
        generation: Generation,
        segment: ByteChain,
        own_bytes: usize,
    ) {
        let key = self.key(rendition, epoch, ObjectKind::Segment(msn, generation));
        self.cache.insert_live(&key, segment);
        let entry = self.segments.entry((msn, rendition.clone(), epoch, generation)).or_default();
        let before = entry.len();
        entry.complete = true;
        entry.own_bytes = own_bytes;
        let after = entry.len();
        self.count(before, after);
        self.evict_over_limit();
    }

    /// Returns true if the segment's bytes are held.
    pub fn has_segment(&self, rendition: &Rendition, epoch: Epoch, msn: Msn, generation: Generation) -> bool {
        let entry = self.segments.get(&(msn, rendition.clone(), epoch, generation));
        entry.is_some_and(|entry| entry.complete)
    }

    /// Assembles the segments of `shown` that are complete, have all their parts in memory and are not assembled yet. One
    /// whose parts are of two generations is not its parts laid end to end: its bytes come with its fact, or from the store.
    pub fn assemble_complete(&mut self, shown: &StreamState) {
        for slot in &shown.slots {
            for (rendition, track) in &slot.tracks {
                let Some(segment) = &track.segment else { continue };
                if is_parts_laid_together(track)
                    && !self.has_segment(rendition, slot.epoch, slot.msn, segment.generation)
                {
                    let named = track.parts.iter().zip(0..);
                    let parts: Vec<_> =
                        named.map(|(part, index)| (part.generation, PartIndex(index))).collect();
                    self.assemble(rendition, slot.epoch, slot.msn, segment.generation, &parts);
                }
            }
        }
    }

    /// Makes a complete segment of its parts, whose bytes it shares. False when a part is missing: the store has the segment,
    /// or will have it.
    pub fn assemble(
        &mut self,
        rendition: &Rendition,
        epoch: Epoch,
        msn: Msn,
        generation: Generation,
        parts: &[PartName],
    ) -> bool {
        let find = |(generation, part): &PartName| {
            self.segments.get(&(msn, rendition.clone(), epoch, *generation))?.parts.get(&part.0)
        };
        let found = parts.iter().map(|part| find(part).cloned());
        let Some(segment) = found.collect::<Option<ByteChain>>() else { return false };
        if segment.is_empty() {
            return false;
        }
        self.hold_segment(rendition, epoch, msn, generation, segment, 0);
        true
    }

    /// Drops the oldest segments up to the first that still lists parts or that the log has not reported as stored, and the init
    /// sections that no playlist names. A request for a dropped segment is answered from the store.
    pub fn evict(&mut self, shown: &StreamState) {
        let oldest = oldest_needed(shown).unwrap_or(shown.first_msn);
        self.needed_from = oldest;
        while self.segments.first_key_value().is_some_and(|((msn, ..), _)| *msn < oldest) {
            self.drop_oldest();
        }
        let is_named = |(rendition, epoch, version): &(Rendition, Epoch, InitVersion)| {
            let state = shown.renditions.get(rendition);
            state.is_some_and(|state| {
                state.inits.iter().any(|init| (init.epoch, init.version) == (*epoch, *version))
            })
        };
        let unnamed: Vec<_> = self.inits.keys().filter(|key| !is_named(key)).cloned().collect();
        for (rendition, epoch, version) in unnamed {
            self.cache.remove(&self.key(&rendition, epoch, ObjectKind::Init(version)));
            let size = self.inits.remove(&(rendition, epoch, version)).unwrap_or(0);
            self.count(size, 0);
        }
    }

    /// Drops the oldest segments while the bound is exceeded, stored or not. One that is not stored yet, which takes an object
    /// store that is behind by the whole bound, is answered with 404 until its upload has ended; so are its parts. Such drops
    /// are counted and logged.
    fn evict_over_limit(&mut self) {
        while self.bytes > self.limit && self.segments.len() > 1 {
            if let Some(((msn, rendition, ..), _)) = self.segments.first_key_value()
                && *msn >= self.needed_from
            {
                self.metrics.unstored_dropped.inc();
                if let Some(suppressed) = self.drops.due() {
                    let (playback, limit_bytes) = (self.playback, self.limit);
                    tracing::warn!(%playback, %rendition, %msn, limit_bytes, suppressed, "feed memory full: a segment that the object store does not have yet was dropped; it is answered with 404 until its upload has ended");
                }
            }
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some(((msn, rendition, epoch, generation), entry)) = self.segments.pop_first() else { return };
        for part in entry.parts.keys() {
            let kind = ObjectKind::Part(msn, generation, PartIndex(*part));
            self.cache.remove(&self.key(&rendition, epoch, kind));
        }
        if entry.complete {
            self.cache.remove(&self.key(&rendition, epoch, ObjectKind::Segment(msn, generation)));
        }
        self.count(entry.len(), 0);
    }

    /// Returns the number of bytes held in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Returns the oldest segment of the window that still has parts listed or is not in the store as a whole.
fn oldest_needed(shown: &StreamState) -> Option<Msn> {
    let is_stored = |slot: &SegmentSlot| {
        let done = |track: &RenditionSegment| track.parts.is_empty() && track.stored;
        slot.gap.is_some() || slot.tracks.values().all(done)
    };
    shown.slots.iter().find(|slot| !is_stored(slot)).or(shown.slots.back()).map(|slot| slot.msn)
}

impl Drop for LiveObjects {
    fn drop(&mut self) {
        while !self.segments.is_empty() {
            self.drop_oldest();
        }
        for (rendition, epoch, version) in self.inits.keys() {
            self.cache.remove(&self.key(rendition, *epoch, ObjectKind::Init(*version)));
        }
        self.metrics.hot_bytes.add(-(self.bytes as i64));
    }
}
