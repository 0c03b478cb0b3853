//! What a feed keeps in memory: init sections, parts, and segments joined from their parts.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use millrace_buf::ByteChain;
use millrace_wire::fact::{RenditionSegment, SegmentSlot, StreamState};
use millrace_wire::ids::{Epoch, Generation, InitVersion, Msn, PartIndex, PlaybackId, Rendition};
use millrace_wire::object_names::{ObjectKind, ObjectName};

use crate::cache::ObjectCache;
use crate::metrics::EdgeMetrics;

/// A part's author and index.
pub type Named = (Generation, PartIndex);

/// Orders what is held by age.
type Place = (Msn, Rendition, Epoch, Generation);

#[derive(Debug, Default)]
struct Held {
    parts: BTreeMap<u32, Bytes>,
    whole: Option<ByteChain>,
    /// Bytes that `whole` adds to those of the parts: none if it consists of the parts' own memory.
    own_bytes: usize,
}

impl Held {
    fn len(&self) -> usize {
        self.parts.values().map(Bytes::len).sum::<usize>() + self.own_bytes
    }
}

/// The hot objects of one stream.
#[derive(Debug)]
pub struct Hot {
    playback: PlaybackId,
    cache: Arc<ObjectCache>,
    metrics: EdgeMetrics,
    held: BTreeMap<Place, Held>,
    inits: HashMap<(Rendition, Epoch, InitVersion), usize>,
    bytes: usize,
    limit: usize,
}

impl Hot {
    /// Holds nothing yet, and never more than about `limit` bytes.
    pub fn new(playback: PlaybackId, cache: Arc<ObjectCache>, metrics: EdgeMetrics, limit: usize) -> Self {
        Self { playback, cache, metrics, held: BTreeMap::new(), inits: HashMap::new(), bytes: 0, limit }
    }

    fn key(&self, rendition: &Rendition, epoch: Epoch, kind: ObjectKind) -> String {
        ObjectName { playback: self.playback, rendition: rendition.clone(), epoch, kind }.key()
    }

    fn count(&mut self, before: usize, after: usize) {
        self.bytes = self.bytes + after - before;
        self.metrics.hot_bytes.add(after as i64 - before as i64);
    }

    /// Takes an init section.
    pub fn init(&mut self, rendition: &Rendition, epoch: Epoch, version: InitVersion, bytes: Bytes) {
        let size = bytes.len();
        self.cache.insert_hot(&self.key(rendition, epoch, ObjectKind::Init(version)), bytes);
        let before = self.inits.insert((rendition.clone(), epoch, version), size).unwrap_or(0);
        self.count(before, size);
    }

    /// Takes a part.
    pub fn part(
        &mut self,
        rendition: &Rendition,
        epoch: Epoch,
        msn: Msn,
        (generation, part): (Generation, PartIndex),
        bytes: Bytes,
    ) {
        let key = self.key(rendition, epoch, ObjectKind::Part(msn, generation, part));
        self.cache.insert_hot(&key, bytes.clone());
        let held = self.held.entry((msn, rendition.clone(), epoch, generation)).or_default();
        let before = held.len();
        held.parts.insert(part.0, bytes);
        let after = held.len();
        self.count(before, after);
        self.shed();
    }

    /// Takes a whole segment that came with its fact.
    pub fn whole(
        &mut self,
        rendition: &Rendition,
        epoch: Epoch,
        msn: Msn,
        generation: Generation,
        bytes: Bytes,
    ) {
        let own_bytes = bytes.len();
        self.keep_whole(rendition, epoch, msn, generation, bytes.into(), own_bytes);
    }

    fn keep_whole(
        &mut self,
        rendition: &Rendition,
        epoch: Epoch,
        msn: Msn,
        generation: Generation,
        whole: ByteChain,
        own_bytes: usize,
    ) {
        self.cache
            .insert_hot(&self.key(rendition, epoch, ObjectKind::Segment(msn, generation)), whole.clone());
        let held = self.held.entry((msn, rendition.clone(), epoch, generation)).or_default();
        let before = held.len();
        held.whole = Some(whole);
        held.own_bytes = own_bytes;
        let after = held.len();
        self.count(before, after);
        self.shed();
    }

    /// Whether the segment's bytes are held.
    pub fn has_whole(&self, rendition: &Rendition, epoch: Epoch, msn: Msn, generation: Generation) -> bool {
        self.held.get(&(msn, rendition.clone(), epoch, generation)).is_some_and(|h| h.whole.is_some())
    }

    /// A segment is complete: its bytes are its parts'. `false` when some part is missing: the store has the
    /// segment, or will.
    pub fn join(
        &mut self,
        rendition: &Rendition,
        epoch: Epoch,
        msn: Msn,
        generation: Generation,
        parts: &[Named],
    ) -> bool {
        let find = |(generation, part): &Named| {
            self.held.get(&(msn, rendition.clone(), epoch, *generation))?.parts.get(&part.0)
        };
        let Some(whole) = parts.iter().map(|part| find(part).cloned()).collect::<Option<ByteChain>>() else {
            return false;
        };
        if whole.is_empty() {
            return false;
        }
        self.keep_whole(rendition, epoch, msn, generation, whole, 0);
        true
    }

    /// Lets go of what the store has and lists no parts any more. A player that is late asks for whole segments or for parts
    /// of them, which come from the store.
    pub fn retain(&mut self, snapshot: &StreamState) {
        let keep = oldest_needed(snapshot).unwrap_or(snapshot.first_msn);
        while self.held.first_key_value().is_some_and(|((msn, ..), _)| *msn < keep) {
            self.drop_oldest();
        }
        let used = |(rendition, epoch, version): &(Rendition, Epoch, InitVersion)| {
            snapshot
                .renditions
                .get(rendition)
                .is_some_and(|r| r.inits.iter().any(|i| (i.epoch, i.version) == (*epoch, *version)))
        };
        let gone: Vec<_> = self.inits.keys().filter(|k| !used(k)).cloned().collect();
        for (rendition, epoch, version) in gone {
            self.cache.remove(&self.key(&rendition, epoch, ObjectKind::Init(version)));
            let size = self.inits.remove(&(rendition, epoch, version)).unwrap_or(0);
            self.count(size, 0);
        }
    }

    /// Over the limit, the oldest leave memory: the store has them.
    fn shed(&mut self) {
        while self.bytes > self.limit && self.held.len() > 1 {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some(((msn, rendition, epoch, generation), held)) = self.held.pop_first() else { return };
        for part in held.parts.keys() {
            self.cache.remove(&self.key(
                &rendition,
                epoch,
                ObjectKind::Part(msn, generation, PartIndex(*part)),
            ));
        }
        if held.whole.is_some() {
            self.cache.remove(&self.key(&rendition, epoch, ObjectKind::Segment(msn, generation)));
        }
        self.count(held.len(), 0);
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The oldest segment of the window that still has parts listed or is not in the store as a whole.
fn oldest_needed(snapshot: &StreamState) -> Option<Msn> {
    let stored = |slot: &SegmentSlot| {
        let done = |track: &RenditionSegment| track.parts.is_empty() && track.stored;
        slot.gap.is_some() || slot.tracks.values().all(done)
    };
    snapshot.slots.iter().find(|slot| !stored(slot)).or(snapshot.slots.back()).map(|slot| slot.msn)
}

impl Drop for Hot {
    fn drop(&mut self) {
        while !self.held.is_empty() {
            self.drop_oldest();
        }
        for (rendition, epoch, version) in self.inits.keys() {
            self.cache.remove(&self.key(rendition, *epoch, ObjectKind::Init(*version)));
        }
        self.metrics.hot_bytes.add(-(self.bytes as i64));
    }
}
