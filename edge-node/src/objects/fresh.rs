//! Small objects that writers replace under their name, such as a stream's newest picture: read from the store at most once in a
//! few seconds, however many viewers ask.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::objects::fetch::{Fetcher, Stored};

/// The age up to which a copy is served; an object that is missing is asked for again after it, too.
const MAX_AGE: Duration = Duration::from_secs(5);
/// Names that are remembered: those of the streams that are watched, a few kilobytes each.
const MAX_ENTRIES: usize = 1_024;
/// Bytes of all copies together.
const MAX_BYTES: usize = 64 << 20;

/// A copy of an object that may be replaced.
#[derive(Debug, Clone)]
pub struct Copy {
    /// The bytes of the object.
    pub bytes: Bytes,
    /// The entity tag, made of the bytes: every edge gives the same one.
    pub etag: Bytes,
}

/// The result of a read.
#[derive(Debug, Clone)]
pub enum Fresh {
    /// The object as it is, or was a few seconds ago.
    Found(Copy),
    /// The store has no object of this name.
    Missing,
    /// The store failed, or did not answer in time.
    Failed,
}

#[derive(Debug)]
struct Entry {
    read: Instant,
    copy: Option<Copy>,
}

/// Copies of objects that may be replaced.
#[derive(Debug)]
pub struct FreshObjects {
    fetcher: Arc<Fetcher>,
    entries: Mutex<HashMap<String, Entry>>,
}

impl FreshObjects {
    /// Creates an empty store of copies, which reads through `fetcher`.
    pub fn new(fetcher: Arc<Fetcher>) -> Arc<Self> {
        Arc::new(Self { fetcher, entries: Mutex::default() })
    }

    /// Returns the object under `key`, at most a few seconds old. While the store fails, an older copy is returned if there is one.
    pub async fn get(&self, key: &str) -> Fresh {
        if let Some(known) = self.known(key, Some(MAX_AGE)) {
            return known;
        }
        match self.fetcher.read_newest(key).await {
            Stored::Found(bytes) => {
                let copy = Copy { etag: etag(&bytes), bytes };
                self.remember(key, Some(copy.clone()));
                Fresh::Found(copy)
            }
            Stored::Missing => {
                self.remember(key, None);
                Fresh::Missing
            }
            Stored::Failed => self.known(key, None).unwrap_or(Fresh::Failed),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, key: &str, max_age: Option<Duration>) -> Option<Fresh> {
        let entries = self.lock();
        let entry = entries.get(key).filter(|entry| max_age.is_none_or(|age| entry.read.elapsed() < age))?;
        Some(entry.copy.clone().map_or(Fresh::Missing, Fresh::Found))
    }

    fn remember(&self, key: &str, copy: Option<Copy>) {
        let mut entries = self.lock();
        entries.insert(key.to_owned(), Entry { read: Instant::now(), copy });
        let size = |entry: &Entry| entry.copy.as_ref().map_or(0, |copy| copy.bytes.len());
        let mut bytes: usize = entries.values().map(size).sum();
        while entries.len() > MAX_ENTRIES || (bytes > MAX_BYTES && entries.len() > 1) {
            let oldest = entries.iter().min_by_key(|(_, entry)| entry.read).map(|(key, _)| key.clone());
            let Some(removed) = oldest.and_then(|key| entries.remove(&key)) else { break };
            bytes -= size(&removed);
        }
    }
}

fn etag(bytes: &Bytes) -> Bytes {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish()).into()
}
