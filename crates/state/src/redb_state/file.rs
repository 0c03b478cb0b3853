//! The file beneath the database: its place on the disk is reserved before it is used.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use redb::backends::FileBackend;
use redb::{BackendError, DatabaseError, StorageBackend};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// The mode of the file: only its owner reads and writes it.
const FILE_MODE: u32 = 0o600;

/// Bytes of the disk that the file has from its start on, also beyond its end. A disk that media have filled therefore stops
/// no commit of an installation of common size: a livestream with its keys and claim takes about 2 KiB, an index entry 200
/// bytes.
const RESERVE_BYTES: u64 = 8 << 20;

/// A file whose bytes have blocks on the disk before the database writes them. Without that, the file would be sparse after
/// it has grown, and a full disk would fail in the middle of a commit.
#[derive(Debug)]
pub(super) struct ReservedFile {
    backend: FileBackend,
    /// A second handle of the same file.
    file: File,
}

impl ReservedFile {
    /// Opens the file, and makes it if it is absent, readable to its owner alone before anything is written to it; one that
    /// others could read is closed to them.
    pub(super) fn open(path: &Path) -> Result<Self, DatabaseError> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(FILE_MODE)
            .open(path)?;
        let found = file.metadata()?;
        if found.permissions().mode() & 0o077 != 0 {
            file.set_permissions(Permissions::from_mode(FILE_MODE))?;
        }
        if let Err(error) = reserve(&file, found.len()) {
            tracing::warn!(
                path = %path.display(), %error,
                "no space is reserved for the state file; on a full disk changes of the state are refused"
            );
        }
        Ok(Self { backend: FileBackend::new(file.try_clone()?)?, file })
    }
}

/// Gives the first `len` bytes of the file, [`RESERVE_BYTES`] at least, blocks on the disk. A file system without the call
/// is no error: there the first write to each block takes it.
fn reserve(file: &File, len: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::KEEP_SIZE, 0, len.max(RESERVE_BYTES)) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl StorageBackend for ReservedFile {
    fn len(&self) -> io::Result<u64> {
        self.backend.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.backend.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if len > self.backend.len()? {
            reserve(&self.file, len)?;
            return self.backend.set_len(len);
        }
        self.backend.set_len(len)?;
        // A file system may take the blocks beyond the new end away; the file is whole without them.
        drop(reserve(&self.file, len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.backend.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.backend.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.backend.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.query_lock_range(start, end)
    }
}
