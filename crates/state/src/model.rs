//! The records of a state store, and the transactions that change them.

use std::time::Duration;

use bytes::Bytes;

use crate::StateError;
use crate::key::check_key;

/// The most keys that one transaction may name; Redis runs it in one script, blocking others meanwhile.
pub const MAX_TX_KEYS: usize = 256;
/// All values of one transaction, in bytes.
pub const MAX_TX_BYTES: usize = 4 * 1024 * 1024;

/// When a record was last changed, in the store's own count of commits; only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

/// A record's value and version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// The value of the record.
    pub value: Bytes,
    /// The commit that wrote it.
    pub version: Version,
}

/// A record found by a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The key of the record.
    pub key: String,
    /// The value to write.
    pub value: Bytes,
    /// The commit that wrote it.
    pub version: Version,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Put {
    pub(crate) key: String,
    pub(crate) value: Bytes,
    pub(crate) ttl: Option<Duration>,
}

/// Changes to make together, and what must hold for them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tx {
    pub(crate) checks: Vec<(String, Option<Version>)>,
    pub(crate) puts: Vec<Put>,
    pub(crate) deletes: Vec<String>,
}

impl Tx {
    /// Returns a transaction that changes nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only if the record still has this version; `None`: only if there is no such record.
    #[must_use]
    pub fn check(mut self, key: impl Into<String>, version: Option<Version>) -> Self {
        self.checks.push((key.into(), version));
        self
    }

    /// Writes the record, for ever.
    #[must_use]
    pub fn put(mut self, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.puts.push(Put { key: key.into(), value: value.into(), ttl: None });
        self
    }

    /// Writes the record; it expires after `ttl` unless it is written again.
    #[must_use]
    pub fn put_ttl(mut self, key: impl Into<String>, value: impl Into<Bytes>, ttl: Duration) -> Self {
        self.puts.push(Put { key: key.into(), value: value.into(), ttl: Some(ttl) });
        self
    }

    /// Removes the record; one that is not there is no error.
    #[must_use]
    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.deletes.push(key.into());
        self
    }

    /// True if the transaction changes nothing.
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.deletes.is_empty()
    }

    pub(crate) fn validate(&self) -> Result<(), StateError> {
        let puts = self.puts.iter().map(|put| &put.key);
        let keys = || self.checks.iter().map(|(key, _)| key).chain(puts.clone()).chain(&self.deletes);
        keys().try_for_each(|key| check_key(key))?;
        let mut written: Vec<&String> = puts.clone().chain(&self.deletes).collect();
        written.sort_unstable();
        if written.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(StateError::invalid("a key written twice in one transaction"));
        }
        if self.puts.iter().any(|put| put.ttl.is_some_and(|ttl| ttl < Duration::from_millis(1))) {
            return Err(StateError::invalid("time to live under a millisecond"));
        }
        let bytes: usize = self.puts.iter().map(|put| put.value.len()).sum();
        if keys().count() > MAX_TX_KEYS || bytes > MAX_TX_BYTES {
            return Err(StateError::invalid("transaction too large"));
        }
        Ok(())
    }
}
