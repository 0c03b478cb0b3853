//! Journals: facts that are few and must survive, kept within limits and read at the reader's own pace.

mod writer;

use std::time::Duration;

use bytes::Bytes;

use crate::BusError;
use crate::queue::JobControl;
use crate::subject::{check_name, check_pattern, matches};
pub use writer::{JournalWriter, Outcome};

/// The age at which facts are deleted: a reader that was away over a weekend and its repair misses none.
pub const MAX_AGE: Duration = Duration::from_hours(7 * 24);
/// Bytes kept, which a server sets aside: little for any disk.
pub const MAX_BYTES: u64 = 256 * 1024 * 1024;
/// Facts kept: at half a kilobyte each they fit into [`MAX_BYTES`].
pub const MAX_MESSAGES: u64 = 500_000;
/// The time for which ids are remembered: longer than a writer repeats a fact.
pub const DEDUP_WINDOW: Duration = Duration::from_mins(2);

/// A journal's settings. Past its limits the oldest facts go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalConfig {
    /// The journal's name: one token. For NATS, the JetStream stream's name.
    pub name: String,
    /// Patterns of the subjects that it keeps.
    pub subjects: Vec<String>,
    /// Facts older than this go.
    pub max_age: Duration,
    /// More bytes than these make the oldest go.
    pub max_bytes: u64,
    /// More facts than these make the oldest go.
    pub max_messages: u64,
    /// A second fact of the same id within this time is a duplicate.
    pub dedup_window: Duration,
}

impl JournalConfig {
    /// Defaults: [`MAX_AGE`], [`MAX_BYTES`], [`MAX_MESSAGES`], [`DEDUP_WINDOW`].
    pub fn new(name: impl Into<String>, subjects: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            name: name.into(),
            subjects: subjects.into_iter().map(Into::into).collect(),
            max_age: MAX_AGE,
            max_bytes: MAX_BYTES,
            max_messages: MAX_MESSAGES,
            dedup_window: DEDUP_WINDOW,
        }
    }

    pub(crate) fn check(&self) -> Result<(), BusError> {
        check_name(&self.name)?;
        self.subjects.iter().try_for_each(|pattern| check_pattern(pattern))
    }

    /// True if the journal keeps what is published on `subject`.
    pub(crate) fn takes(&self, subject: &str) -> Result<(), BusError> {
        if self.subjects.iter().any(|pattern| matches(pattern, subject)) {
            return Ok(());
        }
        Err(BusError::InvalidSubject { subject: subject.to_owned() })
    }
}

/// One reader of a journal; processes that use the same name share its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReaderConfig {
    /// The reader's name: one token. For NATS, the durable consumer's name.
    pub name: String,
    /// It reads the facts whose subjects match this pattern.
    pub filter: String,
    /// A fact not acknowledged for this long is delivered again.
    pub ack_wait: Duration,
    /// At most this many facts are out and not acknowledged.
    pub max_in_flight: u32,
}

impl ReaderConfig {
    /// Defaults: `ack_wait` 30 s, 256 in flight.
    pub fn new(name: impl Into<String>, filter: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            filter: filter.into(),
            ack_wait: Duration::from_secs(30),
            max_in_flight: 256,
        }
    }

    pub(crate) fn check(&self) -> Result<(), BusError> {
        check_name(&self.name)?;
        check_pattern(&self.filter)
    }
}

/// A fact at its place in a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalRecord {
    /// The place, from 1.
    pub position: u64,
    /// The subject on which the fact was published.
    pub subject: String,
    /// The payload of the fact.
    pub payload: Bytes,
}

/// A fact read from a journal. Dropped without a word it comes back after the reader's `ack_wait`.
pub struct JournalEntry {
    /// The subject on which the fact was published.
    pub subject: String,
    /// The payload of the fact.
    pub payload: Bytes,
    /// The delivery's number, from 1.
    pub attempt: u64,
    control: Box<dyn JobControl>,
}

impl JournalEntry {
    pub(crate) fn new(subject: String, payload: Bytes, attempt: u64, control: Box<dyn JobControl>) -> Self {
        Self { subject, payload, attempt, control }
    }

    /// Read: it does not come again. Returns when the journal has confirmed it.
    pub async fn ack(&self) -> Result<(), BusError> {
        self.control.ack().await
    }

    /// Not now: deliver it again after `delay`.
    pub async fn nak(&self, delay: Duration) -> Result<(), BusError> {
        self.control.nak(delay).await
    }
}

impl std::fmt::Debug for JournalEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JournalEntry")
            .field("subject", &self.subject)
            .field("attempt", &self.attempt)
            .field("bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}
