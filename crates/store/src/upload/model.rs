//! The limits of an uploader, what it counts, and how the upload of one object ends.

use std::time::Duration;

use crate::{RetryPolicy, StoreError};

/// Bounds and pace of an [`Uploader`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploaderConfig {
    /// Bytes that may wait, those being sent included.
    pub max_bytes: usize,
    /// Objects that may wait, those being sent included.
    pub max_objects: usize,
    /// Objects sent at the same time.
    pub parallel: usize,
    /// For one attempt; a store slower than this is away.
    pub attempt_timeout: Duration,
    /// Pauses between attempts. Their number is not bounded: a store that is away, full or denies access is tried for as long
    /// as the object may wait.
    pub retry: RetryPolicy,
}

impl Default for UploaderConfig {
    /// 256 MiB or 20 000 objects: 10 min of a 2.5 Mb/s stream, or half a minute of twenty; 16 at a time.
    fn default() -> Self {
        Self {
            max_bytes: 256 * 1024 * 1024,
            max_objects: 20_000,
            parallel: 16,
            attempt_timeout: Duration::from_secs(20),
            retry: RetryPolicy::default(),
        }
    }
}

/// The reason why an object did not get into the store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UploadError {
    /// Dropped to make room for newer objects while the store was away.
    #[error("dropped from the full upload queue")]
    Dropped,
    /// No room: it is larger than the queue, or everything that waits is essential.
    #[error("upload queue is full")]
    Full,
    /// The store will not take it.
    #[error(transparent)]
    Refused(#[from] StoreError),
    /// The uploader was dropped before the object was sent.
    #[error("uploader is closed")]
    Closed,
}

/// An object that is in the store now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completed {
    /// The number of attempts it took.
    pub attempts: u32,
    /// From submission to the store's answer.
    pub took: Duration,
}

/// The objects an uploader holds now, and its counts since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UploadStats {
    /// Objects waiting or being sent.
    pub objects: usize,
    /// The bytes of these objects.
    pub bytes: usize,
    /// The number of objects stored.
    pub stored: u64,
    /// The number of attempts that failed.
    pub failed_attempts: u64,
    /// Objects dropped for want of room.
    pub dropped: u64,
    /// Objects the store would not take.
    pub refused: u64,
}

/// A store that takes no objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageTrouble {
    /// The time since the first attempt that failed without one that succeeded after it.
    pub since: Duration,
    /// The error of the newest failed attempt.
    pub error: String,
}

/// Objects that never get into the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GivenUp {
    /// Their keys, at most [`GivenUp::NAMED`].
    pub keys: Vec<String>,
    /// How many more there are.
    pub more: u64,
}

impl GivenUp {
    /// Keys that are remembered until they are told: a log line of a few kilobytes.
    pub const NAMED: usize = 32;

    /// Adds the objects of `other`.
    pub fn merge(&mut self, other: Self) {
        self.more += other.more;
        for key in other.keys {
            self.add(key);
        }
    }

    pub(super) fn add(&mut self, key: String) {
        if self.keys.len() < Self::NAMED {
            self.keys.push(key);
        } else {
            self.more += 1;
        }
    }
}
