//! The object store: immutable media objects behind one trait.
//!
//! Implementations, all held to one conformance suite:
//! * [`S3Store`]: S3 or anything that speaks it (MinIO), path style;
//! * [`DirStore`]: a directory on local disk, each object one atomic rename;
//! * [`FaultyStore`]: a wrapper that fails, slows and takes the store away, for tests.
//!
//! [`RetryStore`] adds jittered back-off to any of them, and [`Uploader`] is the bounded spill between the
//! live path and a store that may be slow or absent.
//!
//! A `put` is all or nothing: a reader sees the whole object or none of it, never a part.
#![forbid(unsafe_code)]

mod dir;
mod error;
mod faulty;
mod key;
mod model;
mod retry;
mod s3;
mod upload;

use std::sync::Arc;

use async_trait::async_trait;
use millrace_buf::ByteChain;

pub use dir::{DirStore, SyncPolicy};
pub use error::StoreError;
pub use faulty::{FaultyStore, StoreFaults};
pub use key::{MAX_KEY_LEN, check_key};
pub use model::{ByteRange, ListEntry, ListPage, Meta, Object, ObjectInfo};
pub use retry::{RetryPolicy, RetryStore};
pub use s3::{S3Config, S3Store};
pub use upload::{
    Completed, GivenUp, StorageTrouble, UploadError, UploadStats, UploadTicket, Uploader, UploaderConfig,
};

/// A store shared by the parts of a node.
pub type SharedStore = Arc<dyn ObjectStore>;

/// The most keys that one `delete_many` request carries (S3's limit); longer lists are split.
pub const DELETE_BATCH: usize = 1000;

/// The most entries that one [`ListPage`] holds (S3's limit).
pub const LIST_PAGE: usize = 1000;

/// A store of whole objects under keys.
#[async_trait]
pub trait ObjectStore: Send + Sync + 'static {
    /// Stores the object under `key`, whole or not at all; an object already there is replaced.
    async fn put(&self, key: &str, body: ByteChain, meta: Meta) -> Result<(), StoreError>;

    /// Reads the object, or the part of it that `range` names.
    async fn get(&self, key: &str, range: Option<ByteRange>) -> Result<Object, StoreError>;

    /// Returns what the store knows about the object without reading its bytes.
    async fn head(&self, key: &str) -> Result<ObjectInfo, StoreError>;

    /// Removes the object; one that is not there is no error.
    async fn delete(&self, key: &str) -> Result<(), StoreError>;

    /// Removes the objects; those that are not there are no error.
    async fn delete_many(&self, keys: &[String]) -> Result<(), StoreError>;

    /// Up to `limit` (at most [`LIST_PAGE`]) objects whose keys begin with `prefix` and sort after `after`,
    /// in byte order of the key.
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<ListPage, StoreError>;

    /// Succeeds if the store answers and may be used; readiness asks it.
    async fn ready(&self) -> Result<(), StoreError>;
}

/// Every object below `prefix`, page by page, at most `limit`.
pub async fn list_all(
    store: &dyn ObjectStore,
    prefix: &str,
    limit: usize,
) -> Result<Vec<ListEntry>, StoreError> {
    let mut entries: Vec<ListEntry> = Vec::new();
    while entries.len() < limit {
        let after = entries.last().map(|entry| entry.key.clone());
        let want = (limit - entries.len()).min(LIST_PAGE);
        let page = store.list(prefix, after.as_deref(), want).await?;
        let more = page.more && !page.entries.is_empty();
        entries.extend(page.entries);
        if !more {
            break;
        }
    }
    Ok(entries)
}
