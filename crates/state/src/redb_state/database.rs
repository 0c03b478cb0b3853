//! The open database, and its opening again after the disk has failed it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use redb::Database;

use super::file::ReservedFile;
use super::table;
use crate::StateError;

/// Pages of the file kept in memory: what is read often (streams, claims, newest segments) is far less, and a long index
/// of recordings must not fill the memory. The library's own default is 1 GB.
const CACHE_BYTES: usize = 8 << 20;

/// Time that reads under way have to end before the database is opened again; they take milliseconds.
const READS_LIMIT: Duration = Duration::from_secs(1);
/// Interval at which the end of these reads is looked at.
const READS_POLL: Duration = Duration::from_millis(1);

/// The database of one file. After a failed write or read the library answers every call with an error until the file is
/// opened again, which [`SharedDatabase::reopen`] does.
#[derive(Debug)]
pub(super) struct SharedDatabase {
    path: PathBuf,
    open: RwLock<Option<Arc<Database>>>,
    /// The error of the newest commit, if the disk did not take it.
    refusal: RwLock<Option<String>>,
}

impl SharedDatabase {
    /// Opens the file, made if absent, and returns it with the version of its last commit.
    pub(super) fn open(path: &Path) -> Result<(Self, u64), StateError> {
        let (database, version) = open(path)?;
        let open = RwLock::new(Some(Arc::new(database)));
        Ok((Self { path: path.to_owned(), open, refusal: RwLock::default() }, version))
    }

    /// Returns the database, or an error while the file cannot be opened again.
    pub(super) fn get(&self) -> Result<Arc<Database>, StateError> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.clone().ok_or_else(|| {
            let reason = self.refusal().unwrap_or_else(|| "the state file is closed".to_owned());
            StateError::unavailable(reason)
        })
    }

    /// Returns the error of the newest commit, if the disk did not take it.
    pub(super) fn refusal(&self) -> Option<String> {
        self.refusal.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes whether the disk took the newest commit.
    pub(super) fn set_refusal(&self, error: Option<String>) {
        *self.refusal.write().unwrap_or_else(PoisonError::into_inner) = error;
    }

    /// Closes the file and opens it again; returns the version of its last commit. The library repairs what the failed write
    /// has left. Until it succeeds, reads fail.
    pub(super) fn reopen(&self) -> Result<u64, StateError> {
        let old = self.open.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(old) = old {
            let since = Instant::now();
            // The file is locked as long as a read has it.
            while Arc::strong_count(&old) > 1 && since.elapsed() < READS_LIMIT {
                std::thread::sleep(READS_POLL);
            }
        }
        let (database, version) = open(&self.path)?;
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(database));
        Ok(version)
    }

    /// Lets go of the file; reads that are under way end first.
    pub(super) fn close(&self) {
        drop(self.open.write().unwrap_or_else(PoisonError::into_inner).take());
    }
}

fn open(path: &Path) -> Result<(Database, u64), StateError> {
    let file = ReservedFile::open(path).map_err(StateError::unavailable)?;
    let database = Database::builder()
        .set_cache_size(CACHE_BYTES)
        .create_with_backend(file)
        .map_err(StateError::unavailable)?;
    let version = table::prepare(&database)?;
    Ok((database, version))
}
