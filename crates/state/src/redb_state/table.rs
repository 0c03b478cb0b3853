//! The layout of records in the file.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};

use crate::{Record, StateError, Tx, Version, Versioned};

/// Key → (version, expiry in unix ms or 0 for never, value).
pub(super) const RECORDS: TableDefinition<'_, &str, (u64, u64, &[u8])> = TableDefinition::new("records");
/// Names → numbers of the file's own.
pub(super) const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
/// The name of the last commit's version.
const LAST_VERSION: &str = "version";
/// The layout of this file.
const FORMAT: &str = "format";
const FORMAT_NOW: u64 = 1;

pub(super) type Records<'a> = Table<'a, &'static str, (u64, u64, &'static [u8])>;

/// Returns the wall clock in milliseconds since 1970. Expiry times are kept in it because they outlive the process.
pub(super) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn live(expires: u64, now_ms: u64) -> bool {
    expires == 0 || expires > now_ms
}

/// Makes the tables where absent; the last version given out.
pub(super) fn prepare(db: &Database) -> Result<u64, StateError> {
    let tx = db.begin_write().map_err(StateError::unavailable)?;
    let version = {
        tx.open_table(RECORDS).map_err(StateError::corrupt)?;
        let mut numbers = tx.open_table(NUMBERS).map_err(StateError::corrupt)?;
        let read = |name: &str, numbers: &Table<'_, &'static str, u64>| -> Result<Option<u64>, StateError> {
            Ok(numbers.get(name).map_err(StateError::corrupt)?.map(|value| value.value()))
        };
        match read(FORMAT, &numbers)? {
            None => drop(numbers.insert(FORMAT, FORMAT_NOW).map_err(StateError::unavailable)?),
            Some(FORMAT_NOW) => {}
            Some(other) => return Err(StateError::corrupt(format!("state file has format {other}"))),
        }
        read(LAST_VERSION, &numbers)?.unwrap_or(0)
    };
    tx.commit().map_err(StateError::unavailable)?;
    Ok(version)
}

pub(super) fn store_version(tx: &WriteTransaction, version: u64) -> Result<(), StateError> {
    let mut numbers = tx.open_table(NUMBERS).map_err(StateError::corrupt)?;
    numbers.insert(LAST_VERSION, version).map_err(StateError::unavailable)?;
    Ok(())
}

pub(super) fn get(db: &Database, key: &str, now_ms: u64) -> Result<Option<Versioned>, StateError> {
    let tx = db.begin_read().map_err(StateError::unavailable)?;
    let records = tx.open_table(RECORDS).map_err(StateError::corrupt)?;
    let found = records.get(key).map_err(StateError::unavailable)?;
    Ok(found.and_then(|found| {
        let (version, expires, value) = found.value();
        live(expires, now_ms)
            .then(|| Versioned { value: Bytes::copy_from_slice(value), version: Version(version) })
    }))
}

pub(super) fn scan(
    db: &Database,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
    now_ms: u64,
) -> Result<Vec<Record>, StateError> {
    let tx = db.begin_read().map_err(StateError::unavailable)?;
    let records = tx.open_table(RECORDS).map_err(StateError::corrupt)?;
    let from = after.map_or(prefix, |after| after.max(prefix));
    let mut out = Vec::new();
    for found in records.range(from..).map_err(StateError::unavailable)? {
        let (key, value) = found.map_err(StateError::unavailable)?;
        if !key.value().starts_with(prefix) || out.len() == limit {
            break;
        }
        let (version, expires, value) = value.value();
        if Some(key.value()) != after && live(expires, now_ms) {
            let value = Bytes::copy_from_slice(value);
            out.push(Record { key: key.value().to_owned(), value, version: Version(version) });
        }
    }
    Ok(out)
}

/// Applies `tx` to the open table if its checks hold.
pub(super) fn apply(records: &mut Records<'_>, tx: &Tx, version: u64, now_ms: u64) -> Result<(), StateError> {
    for (key, expected) in &tx.checks {
        let found = records.get(key.as_str()).map_err(StateError::unavailable)?;
        let current = found.and_then(|found| {
            let (version, expires, _) = found.value();
            live(expires, now_ms).then_some(Version(version))
        });
        if current != *expected {
            return Err(StateError::Conflict { key: key.clone() });
        }
    }
    for put in &tx.puts {
        let expires = put.ttl.map_or(0, |ttl| now_ms + ttl.as_millis() as u64);
        let value = (version, expires, put.value.as_ref());
        records.insert(put.key.as_str(), value).map_err(StateError::unavailable)?;
    }
    for key in &tx.deletes {
        records.remove(key.as_str()).map_err(StateError::unavailable)?;
    }
    Ok(())
}

/// Removes what has expired; whether there was any.
pub(super) fn purge(records: &mut Records<'_>, now_ms: u64) -> Result<bool, StateError> {
    let before = redb::ReadableTableMetadata::len(records).map_err(StateError::unavailable)?;
    records.retain(|_, (_, expires, _)| live(expires, now_ms)).map_err(StateError::unavailable)?;
    let after = redb::ReadableTableMetadata::len(records).map_err(StateError::unavailable)?;
    Ok(after != before)
}
