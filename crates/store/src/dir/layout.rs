//! The paths of an object store's files below its root directory, and the policy of flushing them to disk.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

/// The extent to which `put` forces an object to the disk before it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SyncPolicy {
    /// Nothing. The object survives the death of this process at any moment; a power cut may take the last
    /// seconds, but never leaves part of an object under its key on journalling file systems.
    #[default]
    ProcessCrash,
    /// The object's bytes and its directory entry: it survives a power cut too, at one disk flush per object.
    PowerLoss,
}

/// The folder of unfinished objects; no key begins with a dot.
pub(super) const TMP_DIR: &str = ".tmp";
/// The folder of the metadata of objects that cannot carry it themselves.
pub(super) const META_DIR: &str = ".meta";

/// The paths below one root directory.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) root: PathBuf,
    pub(super) sync: SyncPolicy,
    pub(super) next_tmp: AtomicU64,
}

impl Layout {
    pub(super) fn object(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    pub(super) fn side(&self, key: &str) -> PathBuf {
        self.root.join(META_DIR).join(key)
    }

    pub(super) fn tmp(&self) -> PathBuf {
        let number = self.next_tmp.fetch_add(1, Ordering::Relaxed);
        self.root.join(TMP_DIR).join(number.to_string())
    }
}
