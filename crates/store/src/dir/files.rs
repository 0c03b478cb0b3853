//! One object as one file.

use std::fs::{self, File};
use std::io::{self, ErrorKind, IoSlice, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;
use std::time::SystemTime;

use super::layout::{Layout, META_DIR, SyncPolicy, TMP_DIR};
use super::meta::{self, Trailer};
use crate::{Meta, ObjectInfo, StoreError};
use millrace_buf::ByteChain;

/// The number of times a put creates its directory again when a delete has just removed it as empty.
const DIR_RACE_TRIES: usize = 32;

/// Returns the error of the store. A directory that is full, read-only or closed to this process is unavailable and not
/// denied: the operator can open it, and what waits for it is not given up before.
pub(super) fn io_error(error: &io::Error, key: &str) -> StoreError {
    match error.kind() {
        ErrorKind::NotFound => StoreError::not_found(key),
        ErrorKind::NotADirectory | ErrorKind::IsADirectory | ErrorKind::AlreadyExists => {
            StoreError::invalid(format!("{key}: {error}"))
        }
        _ => StoreError::unavailable(format!("{key}: {error}")),
    }
}

/// Makes the root and empties the place of unfinished files.
pub(super) fn prepare(root: &Path) -> Result<(), StoreError> {
    let tmp = root.join(TMP_DIR);
    let again = || -> io::Result<()> {
        match fs::remove_dir_all(&tmp) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::create_dir_all(&tmp)?;
        fs::create_dir_all(root.join(META_DIR))
    };
    again().map_err(|error| io_error(&error, "."))
}

/// Writes and removes a small file.
pub(super) fn probe(inner: &Layout) -> Result<(), StoreError> {
    let path = inner.tmp();
    fs::write(&path, b"ready")
        .and_then(|()| fs::remove_file(&path))
        .map_err(|error| StoreError::unavailable(error.to_string()))
}

pub(super) fn put(inner: &Layout, key: &str, mut body: ByteChain, meta: &Meta) -> Result<(), StoreError> {
    let in_file = meta::is_bmff(key);
    let guessed = *meta == meta::guessed(key);
    let mut work = || -> io::Result<()> {
        if in_file {
            body.push(meta::trailer(meta));
        } else if guessed {
            remove_if_there(&inner.side(key))?;
        } else {
            place(inner, &meta::to_json(meta).into(), &inner.side(key))?;
        }
        place(inner, &body, &inner.object(key))
    };
    work().map_err(|error| match error.kind() {
        // The missing path is not the object but a directory of the store: an operator removed it, the caller
        // did nothing wrong.
        ErrorKind::NotFound => StoreError::unavailable(format!("{key}: {error}")),
        _ => io_error(&error, key),
    })
}

/// Writes `body` beside and renames it to `path`.
fn place(inner: &Layout, body: &ByteChain, path: &Path) -> io::Result<()> {
    let tmp = inner.tmp();
    let done = write(inner.sync, body, &tmp).and_then(|()| rename(&tmp, path));
    if done.is_err() {
        // The first error is the one to report; what is left is removed at the next start.
        drop(fs::remove_file(&tmp));
        return done;
    }
    if inner.sync == SyncPolicy::PowerLoss
        && let Some(parent) = path.parent()
    {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

fn write(sync: SyncPolicy, body: &ByteChain, path: &Path) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    let mut slices: Vec<IoSlice<'_>> = body.iter().map(|slice| IoSlice::new(slice)).collect();
    let mut left = slices.as_mut_slice();
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        match file.write_vectored(left) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => IoSlice::advance_slices(&mut left, count),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if sync == SyncPolicy::PowerLoss { file.sync_data() } else { Ok(()) }
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let mut done = fs::rename(from, to);
    for _ in 0..DIR_RACE_TRIES {
        match (&done, to.parent()) {
            (Err(error), Some(parent)) if error.kind() == ErrorKind::NotFound => {
                // It may be removed again, at any level, while it is made.
                match fs::create_dir_all(parent) {
                    Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                    _ => done = fs::rename(from, to),
                }
            }
            _ => break,
        }
    }
    done
}

/// The open file of an object.
pub(super) struct Opened {
    file: File,
    pub(super) info: ObjectInfo,
}

impl Opened {
    pub(super) fn read(&mut self, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        let len = range.end.saturating_sub(range.start);
        let mut out = Vec::with_capacity(len as usize);
        self.file
            .seek(SeekFrom::Start(range.start))
            .and_then(|_| (&mut self.file).take(len).read_to_end(&mut out))
            .map_err(|error| StoreError::unavailable(error.to_string()))?;
        if out.len() as u64 == len { Ok(out) } else { Err(StoreError::unavailable("file was cut short")) }
    }
}

pub(super) fn open(inner: &Layout, key: &str) -> Result<Opened, StoreError> {
    let work = || -> io::Result<Opened> {
        let mut file = File::open(inner.object(key))?;
        let stat = file.metadata()?;
        if stat.is_dir() {
            return Err(ErrorKind::NotFound.into());
        }
        let modified = stat.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let (size, meta) = match read_trailer(&mut file, key, stat.len())? {
            Some(found) => (stat.len() - found.len, found.meta),
            None => (stat.len(), side_meta(inner, key)?),
        };
        Ok(Opened { file, info: ObjectInfo { size, modified, meta } })
    };
    work().map_err(|error| match error.kind() {
        ErrorKind::NotADirectory => StoreError::not_found(key),
        _ => io_error(&error, key),
    })
}

fn side_meta(inner: &Layout, key: &str) -> io::Result<Meta> {
    match fs::read(inner.side(key)) {
        Ok(json) => Ok(meta::from_json(&json).unwrap_or_else(|| meta::guessed(key))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(meta::guessed(key)),
        Err(error) => Err(error),
    }
}

/// The metadata box at the end of an MP4 object.
pub(super) fn read_trailer(file: &mut File, key: &str, file_len: u64) -> io::Result<Option<Trailer>> {
    if !meta::is_bmff(key) {
        return Ok(None);
    }
    let tail = file_len.min(meta::MAX_TRAILER);
    let mut bytes = Vec::with_capacity(tail as usize);
    file.seek(SeekFrom::Start(file_len - tail))?;
    file.take(tail).read_to_end(&mut bytes)?;
    Ok(meta::parse_trailer(&bytes))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Err(error),
        _ => Ok(()),
    }
}

pub(super) fn delete(inner: &Layout, key: &str) -> Result<(), StoreError> {
    let path = inner.object(key);
    if path.is_dir() {
        return Ok(());
    }
    remove_if_there(&path).map_err(|error| io_error(&error, key))?;
    prune(&path, &inner.root);
    if !meta::is_bmff(key) {
        let side = inner.side(key);
        remove_if_there(&side).map_err(|error| io_error(&error, key))?;
        prune(&side, &inner.root.join(META_DIR));
    }
    Ok(())
}

/// Removes the directories above `path` that are now empty, not `root` itself.
fn prune(path: &Path, root: &Path) {
    for dir in path.ancestors().skip(1).take_while(|dir| *dir != root) {
        if fs::remove_dir(dir).is_err() {
            break;
        }
    }
}
