//! A directory as an object store.

mod files;
mod layout;
mod meta;
mod walk;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use async_trait::async_trait;
use bytes::Bytes;
use millrace_buf::ByteChain;

use self::layout::Layout;
pub use self::layout::SyncPolicy;
use crate::key::{check_key, check_prefix};
use crate::{ByteRange, LIST_PAGE, ListPage, Meta, Object, ObjectInfo, ObjectStore, StoreError};

/// Objects as files below a root directory, the key being the path.
///
/// An object is written to a temporary file and renamed into place, so it is there whole or not at all.
/// Metadata costs no second file where there are many objects: MP4 objects carry it in a trailing `free` box
/// (ISO/IEC 14496-12 §8.1.2, which players skip) outside the object's size; others have a side file under
/// `.meta/` unless the file name says it all.
#[derive(Debug, Clone)]
pub struct DirStore {
    inner: Arc<Layout>,
}

impl DirStore {
    /// Opens the directory, made if absent; what a crash left half written is removed.
    ///
    /// One process at a time may have it open.
    pub async fn open(root: impl AsRef<Path>, sync: SyncPolicy) -> Result<Self, StoreError> {
        let root = root.as_ref().to_path_buf();
        let inner = Arc::new(Layout { root, sync, next_tmp: AtomicU64::new(0) });
        let store = Self { inner };
        store.run(|inner| files::prepare(&inner.root)).await?;
        Ok(store)
    }

    /// Returns the path of the object's file; its first [`ObjectInfo::size`] bytes are the object.
    pub fn path(&self, key: &str) -> Result<PathBuf, StoreError> {
        check_key(key)?;
        Ok(self.inner.object(key))
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Layout) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = self.inner.clone();
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(result) => result,
            Err(error) => Err(StoreError::unavailable(error.to_string())),
        }
    }
}

#[async_trait]
impl ObjectStore for DirStore {
    async fn put(&self, key: &str, body: ByteChain, meta: Meta) -> Result<(), StoreError> {
        check_key(key)?;
        meta.check()?;
        let key = key.to_owned();
        self.run(move |inner| files::put(inner, &key, body, &meta)).await
    }

    async fn get(&self, key: &str, range: Option<ByteRange>) -> Result<Object, StoreError> {
        check_key(key)?;
        let key = key.to_owned();
        self.run(move |inner| {
            let mut opened = files::open(inner, &key)?;
            let size = opened.info.size;
            let wanted = range.map_or(Ok(0..size), |range| range.resolve(size))?;
            let offset = wanted.start;
            let body = Bytes::from(opened.read(wanted)?);
            Ok(Object { info: opened.info, body, offset })
        })
        .await
    }

    async fn head(&self, key: &str) -> Result<ObjectInfo, StoreError> {
        check_key(key)?;
        let key = key.to_owned();
        self.run(move |inner| files::open(inner, &key).map(|opened| opened.info)).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.delete_many(&[key.to_owned()]).await
    }

    async fn delete_many(&self, keys: &[String]) -> Result<(), StoreError> {
        keys.iter().try_for_each(|key| check_key(key))?;
        let keys = keys.to_vec();
        self.run(move |inner| keys.iter().try_for_each(|key| files::delete(inner, key))).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<ListPage, StoreError> {
        check_prefix(prefix)?;
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        self.run(move |inner| walk::list(&inner.root, &prefix, after.as_deref(), limit.min(LIST_PAGE))).await
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.run(files::probe).await
    }
}
