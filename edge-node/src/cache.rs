//! Media objects in memory: those a feed holds (hot) and those read back from the store (cached).
//!
//! Both live in one map keyed by the object's key, which is the URL path without its leading slash, so a
//! request finds its bytes without parsing or allocating.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use millrace_buf::ByteChain;

/// Locks: enough that a feed's insertions and eight workers' look-ups rarely meet.
const SHARDS: usize = 32;

/// An object ready to be sent.
#[derive(Debug, Clone)]
pub struct Object {
    /// Its bytes.
    pub payload: ByteChain,
    /// Its entity tag.
    pub etag: Bytes,
}

impl Object {
    /// The object under `key`. A name never changes its bytes, so the name is the tag.
    pub fn new(key: &str, payload: impl Into<ByteChain>) -> Self {
        let tail = key.rsplitn(3, '/').take(2).collect::<Vec<_>>();
        let etag = format!("\"{}-{}\"", tail.get(1).unwrap_or(&""), tail.first().unwrap_or(&""));
        Self { payload: payload.into(), etag: etag.into() }
    }
}

#[derive(Debug)]
struct Entry {
    object: Object,
    /// Counted against the cache's limit, and evicted; hot entries are removed by their feed.
    cached: bool,
    used: AtomicU64,
}

type Map = HashMap<Box<str>, Entry>;

/// The map.
#[derive(Debug)]
pub struct ObjectCache {
    shards: Vec<RwLock<Map>>,
    hasher: RandomState,
    tick: AtomicU64,
    cached_bytes: AtomicUsize,
    limit: usize,
}

impl ObjectCache {
    /// A cache that keeps at most `limit` bytes read from the store.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            hasher: RandomState::new(),
            tick: AtomicU64::new(0),
            cached_bytes: AtomicUsize::new(0),
            limit,
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

    /// The object, if it is in memory.
    pub fn get(&self, key: &str) -> Option<Object> {
        let map = self.read(key);
        let entry = map.get(key)?;
        if entry.cached {
            entry.used.store(self.tick.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        }
        Some(entry.object.clone())
    }

    /// Whether the object is in memory.
    pub fn contains(&self, key: &str) -> bool {
        self.read(key).contains_key(key)
    }

    /// Puts a feed's object in; it stays until [`ObjectCache::remove`].
    pub fn insert_hot(&self, key: &str, payload: impl Into<ByteChain>) {
        let entry = Entry { object: Object::new(key, payload), cached: false, used: AtomicU64::new(0) };
        if let Some(old) = self.write(key).insert(key.into(), entry) {
            self.forget(&old);
        }
    }

    /// Takes a feed's object out.
    pub fn remove(&self, key: &str) {
        if let Some(old) = self.write(key).remove(key) {
            self.forget(&old);
        }
    }

    /// Puts an object read from the store in, evicting the least recently used beyond the limit.
    pub fn insert_cached(&self, key: &str, object: Object) {
        let size = object.payload.len();
        if size > self.limit {
            return;
        }
        let used = AtomicU64::new(self.tick.fetch_add(1, Ordering::Relaxed));
        {
            let mut map = self.write(key);
            if map.contains_key(key) {
                return;
            }
            map.insert(key.into(), Entry { object, cached: true, used });
        }
        if self.cached_bytes.fetch_add(size, Ordering::Relaxed) + size > self.limit {
            self.evict();
        }
    }

    fn forget(&self, entry: &Entry) {
        if entry.cached {
            self.cached_bytes.fetch_sub(entry.object.payload.len(), Ordering::Relaxed);
        }
    }

    /// Frees a tenth of the limit at once, so that the walk over all entries is rare.
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
            // It may have become a feed's meanwhile.
            if map.get(&key).is_some_and(|e| e.cached)
                && let Some(entry) = map.remove(&key)
            {
                self.forget(&entry);
            }
        }
    }

    /// Bytes read from the store and kept.
    pub fn cached_bytes(&self) -> usize {
        self.cached_bytes.load(Ordering::Relaxed)
    }

    /// How many objects are in memory.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|s| s.read().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    /// Whether nothing is in memory.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(key: &str, size: usize) -> Object {
        Object::new(key, Bytes::from(vec![7; size]))
    }

    #[test]
    fn the_least_recently_used_leave_and_hot_objects_stay() {
        let cache = ObjectCache::new(1000);
        cache.insert_hot("live/p/video/1/0.1.m4s", Bytes::from(vec![1; 5000]));
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
        assert!(cache.get("live/p/video/1/0.1.m4s").is_some(), "hot");
        cache.remove("live/p/video/1/0.1.m4s");
        assert!(cache.get("live/p/video/1/0.1.m4s").is_none());
    }

    #[test]
    fn an_object_larger_than_the_cache_is_not_kept() {
        let cache = ObjectCache::new(10);
        cache.insert_cached("k", object("k", 11));
        assert!(cache.is_empty());
    }

    #[test]
    fn the_tag_follows_from_the_name() {
        assert_eq!(object("live/p/video/17/5.1.m4s", 1).etag, "\"17-5.1.m4s\"");
    }
}
