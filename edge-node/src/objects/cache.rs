//! Media objects in memory: those that feeds hold (live) and those read back from the object store (cached).
//!
//! Both live in one map keyed by the object's key, which is the URL path without its leading slash, so a request finds its bytes
//! without parsing or allocating.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use millrace_buf::ByteChain;
use millrace_runtime::metrics::Gauge;

use crate::objects::media::Media;

/// Independent locks of the map: more than the HTTP workers of a usual edge, one per core, so that insertions by feeds
/// and look-ups rarely meet.
const SHARDS: usize = 32;

/// An object as it is sent.
#[derive(Debug, Clone)]
pub struct Object {
    /// The object's bytes; a clone is a pointer to them.
    pub media: Arc<Media>,
    /// The entity tag (RFC 9110 §8.8.3).
    pub etag: Bytes,
}

impl Object {
    /// Makes the object under `key`. The bytes under a name never change, so the name gives the tag.
    pub fn new(key: &str, bytes: impl Into<ByteChain>) -> Self {
        let tail = key.rsplitn(3, '/').take(2).collect::<Vec<_>>();
        let etag = format!("\"{}-{}\"", tail.get(1).unwrap_or(&""), tail.first().unwrap_or(&""));
        Self { media: Arc::new(Media::new(bytes)), etag: etag.into() }
    }
}

#[derive(Debug)]
struct Entry {
    object: Object,
    /// True for objects read from the store, which count against the limit and are evicted; a feed removes its own.
    cached: bool,
    used: AtomicU64,
}

type Map = HashMap<Box<str>, Entry>;

/// The map from keys to objects in memory.
#[derive(Debug)]
pub struct ObjectCache {
    shards: Vec<RwLock<Map>>,
    hasher: RandomState,
    tick: AtomicU64,
    cached_bytes: AtomicUsize,
    limit: usize,
    held: Gauge,
}

impl ObjectCache {
    /// Creates a cache that keeps at most `limit` bytes read from the store; objects of feeds do not count. `held` counts
    /// the bytes that are no longer in the cache and that answers still send.
    pub fn new(limit: usize, held: Gauge) -> Arc<Self> {
        Arc::new(Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            hasher: RandomState::new(),
            tick: AtomicU64::new(0),
            cached_bytes: AtomicUsize::new(0),
            limit,
            held,
        })
    }

    fn shard(&self, key: &str) -> &RwLock<Map> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    fn read(&self, key: &str) -> RwLockReadGuard<'_, Map> {
        self.shard(key).read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, key: &str) -> RwLockWriteGuard<'_, Map> {
        self.shard(key).write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the object if it is in memory, and notes its use.
    pub fn get(&self, key: &str) -> Option<Object> {
        let map = self.read(key);
        let entry = map.get(key)?;
        if entry.cached {
            entry.used.store(self.tick.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        }
        Some(entry.object.clone())
    }

    /// Returns true if the object is in memory.
    pub fn contains(&self, key: &str) -> bool {
        self.read(key).contains_key(key)
    }

    /// Inserts an object that a feed holds; it stays until [`ObjectCache::remove`].
    pub fn insert_live(&self, key: &str, bytes: impl Into<ByteChain>) {
        let entry = Entry { object: Object::new(key, bytes), cached: false, used: AtomicU64::new(0) };
        let mut map = self.write(key);
        if let Some(old) = map.insert(key.into(), entry) {
            self.uncount(&old);
        }
    }

    /// Removes an object that a feed no longer holds.
    pub fn remove(&self, key: &str) {
        let mut map = self.write(key);
        if let Some(old) = map.remove(key) {
            self.uncount(&old);
        }
    }

    /// Inserts an object read from the store, and evicts the least recently used ones beyond the limit. An object larger than
    /// the limit is not kept.
    pub fn insert_cached(&self, key: &str, object: Object) {
        let size = object.media.len();
        if size > self.limit {
            self.hold(&object);
            return;
        }
        let used = AtomicU64::new(self.tick.fetch_add(1, Ordering::Relaxed));
        {
            let mut map = self.write(key);
            if map.contains_key(key) {
                self.hold(&object);
                return;
            }
            map.insert(key.into(), Entry { object, cached: true, used });
            // Counted under the lock: a removal of the same entry must not subtract before this adds.
            self.cached_bytes.fetch_add(size, Ordering::Relaxed);
        }
        if self.cached_bytes() > self.limit {
            self.evict();
        }
    }

    /// Counts an object that the cache does not keep as held by the answers that send it.
    pub fn hold(&self, object: &Object) {
        object.media.leave_cache(&self.held);
    }

    /// Subtracts a removed entry; the caller holds the lock of its shard.
    fn uncount(&self, entry: &Entry) {
        self.hold(&entry.object);
        if entry.cached {
            self.cached_bytes.fetch_sub(entry.object.media.len(), Ordering::Relaxed);
        }
    }

    /// Evicts a tenth of the limit at once, so that the walk over all entries is rare.
    fn evict(&self) {
        let mut old: Vec<(u64, Box<str>)> = Vec::new();
        for shard in &self.shards {
            let map = shard.read().unwrap_or_else(PoisonError::into_inner);
            let cached = map.iter().filter(|(_, e)| e.cached);
            old.extend(cached.map(|(key, e)| (e.used.load(Ordering::Relaxed), key.clone())));
        }
        old.sort_unstable();
        for (_, key) in old {
            if self.cached_bytes.load(Ordering::Relaxed) <= self.limit - self.limit / 10 {
                break;
            }
            let mut map = self.write(&key);
            // A feed may have inserted it meanwhile.
            if map.get(&key).is_some_and(|e| e.cached)
                && let Some(entry) = map.remove(&key)
            {
                self.uncount(&entry);
            }
        }
    }

    /// Returns the bytes of objects read from the store.
    pub fn cached_bytes(&self) -> usize {
        self.cached_bytes.load(Ordering::Relaxed)
    }

    /// Returns the number of objects in memory.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|s| s.read().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    /// Returns true if no object is in memory.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use millrace_runtime::Metrics;
    use millrace_runtime::metrics::Unit;

    use super::*;

    fn held() -> Gauge {
        Metrics::new().gauge("held", Unit::Bytes, "Held")
    }

    fn object(key: &str, size: usize) -> Object {
        Object::new(key, Bytes::from(vec![7; size]))
    }

    #[test]
    fn object_cache_evicts_the_least_recently_used_and_keeps_live_objects() {
        let cache = ObjectCache::new(1000, held());
        cache.insert_live("live/p/video/1/0.1.m4s", Bytes::from(vec![1; 5000]));
        for i in 0..10 {
            let key = format!("live/p/video/1/{i}.2.m4s");
            cache.insert_cached(&key, object(&key, 100));
        }
        assert_eq!(cache.cached_bytes(), 1000);
        assert!(cache.get("live/p/video/1/0.2.m4s").is_some());
        cache.insert_cached("live/p/video/1/99.2.m4s", object("k", 100));
        assert!(cache.cached_bytes() <= 900);
        assert!(cache.get("live/p/video/1/0.2.m4s").is_some(), "used last");
        assert!(cache.get("live/p/video/1/1.2.m4s").is_none(), "used first");
        assert!(cache.get("live/p/video/1/0.1.m4s").is_some(), "live");
        cache.remove("live/p/video/1/0.1.m4s");
        assert!(cache.get("live/p/video/1/0.1.m4s").is_none());
    }

    #[test]
    fn object_cache_does_not_keep_an_object_larger_than_its_limit() {
        let cache = ObjectCache::new(10, held());
        cache.insert_cached("k", object("k", 11));
        assert!(cache.is_empty());
    }

    #[test]
    fn object_tag_is_made_of_epoch_and_name() {
        assert_eq!(object("live/p/video/17/5.1.m4s", 1).etag, "\"17-5.1.m4s\"");
    }
}
