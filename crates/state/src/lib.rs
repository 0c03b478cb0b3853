//! The state store: small versioned records, changed together or not at all.
//!
//! Implementations, all held to one conformance suite:
//! * [`RedisState`]: Redis 7, one Lua script a commit;
//! * [`RedbState`]: embedded, durable on local disk;
//! * [`FaultyState`]: a wrapper that fails, slows and takes the store away, for tests.
//!
//! Every commit gives all its records one new version, larger than any before, so a record deleted and made
//! anew never has an old version again. Records may carry a time to live. Audiences count viewers.
#![forbid(unsafe_code)]

mod audience;
mod create;
mod error;
mod faulty;
mod key;
mod model;
mod redb_state;
mod redis_state;

use std::sync::Arc;

use async_trait::async_trait;

pub use audience::{MAX_SIGHTINGS, MAX_VIEWER_TTL, Sighting, VIEWER_KINDS};
pub use create::get_or_create;
pub use error::StateError;
pub use faulty::{FaultyState, StateFaults};
pub use key::MAX_KEY_LEN;
pub use model::{MAX_TX_BYTES, MAX_TX_KEYS, Record, Tx, Version, Versioned};
pub use redb_state::RedbState;
pub use redis_state::{RedisConfig, RedisState};

/// A state store shared by the parts of a node.
pub type SharedState = Arc<dyn StateStore>;

/// The most records that one scan returns.
pub const SCAN_PAGE: usize = 1000;

/// Versioned records, transactions over several of them, and audiences.
#[async_trait]
pub trait StateStore: Send + Sync + 'static {
    /// The record under `key`, unless absent or expired.
    async fn get(&self, key: &str) -> Result<Option<Versioned>, StateError>;

    /// Makes all changes of `tx` if all its checks hold, and none otherwise ([`StateError::Conflict`]).
    ///
    /// Returns the version that its records now have. When it has returned, the change is durable as far as the
    /// store promises. After [`StateError::Unavailable`] it may or may not have been made: read again.
    async fn commit(&self, tx: Tx) -> Result<Version, StateError>;

    /// Up to `limit` (at most [`SCAN_PAGE`]) records whose keys begin with `prefix` and sort after `after`, in
    /// byte order of the key. Not a snapshot: records changed meanwhile may show either state.
    async fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Record>, StateError>;

    /// Notes viewers of an audience that were seen or have left, at most [`MAX_SIGHTINGS`], and adds them to the set of unique
    /// viewers named `uniques`. Returns the number of viewers then. The same sightings noted twice count once.
    async fn audience_note(
        &self,
        audience: &str,
        uniques: Option<&str>,
        sightings: &[Sighting],
    ) -> Result<u64, StateError>;

    /// Returns the number of viewers of an audience at this moment.
    async fn audience_count(&self, audience: &str) -> Result<u64, StateError>;

    /// Returns the estimated number of viewers that a set of unique viewers has seen.
    async fn audience_uniques(&self, uniques: &str) -> Result<u64, StateError>;

    /// Succeeds if the store answers; readiness asks it.
    async fn ready(&self) -> Result<(), StateError>;
}

/// Every record below `prefix`, page by page, at most `limit`.
pub async fn scan_all(state: &dyn StateStore, prefix: &str, limit: usize) -> Result<Vec<Record>, StateError> {
    let mut records: Vec<Record> = Vec::new();
    while records.len() < limit {
        let want = (limit - records.len()).min(SCAN_PAGE);
        let after = records.last().map(|record| record.key.clone());
        let page = state.scan(prefix, after.as_deref(), want).await?;
        let last = page.len() < want;
        records.extend(page);
        if last {
            break;
        }
    }
    Ok(records)
}
