//! The one writer: commits that wait together share one flush to disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redb::Durability;
use tokio::sync::{mpsc, oneshot};

use super::database::SharedDatabase;
use super::table::{self, unix_ms};
use crate::{StateError, Tx, Version};

/// The most commits that share one flush; it bounds how long the first one waits.
const MAX_BATCH: usize = 64;
/// Flushes are at least this far apart: what comes meanwhile shares the next one, so a busy server's disk sees ten a
/// second however many streams it carries, and a lone commit on a quiet one does not wait.
const PACE: Duration = Duration::from_millis(100);
/// The interval at which expired records are removed from the file while something is written; reads skip
/// them.
const PURGE_EVERY: Duration = Duration::from_mins(1);

/// Pause after a commit that the disk did not take. The file is opened again for the next one, which reads all of it, and the
/// disk does not empty itself in less.
const REFUSAL_PAUSE: Duration = Duration::from_secs(1);
/// Interval of the log lines about a disk that takes nothing.
const REFUSAL_LINE_EVERY: Duration = Duration::from_mins(1);

/// An order that waits for the writer.
pub(super) enum Order {
    /// Commits the transaction.
    Commit {
        /// The changes to make.
        tx: Tx,
        /// The place of the result.
        answer: oneshot::Sender<Result<Version, StateError>>,
    },
    /// Opens the file again: a reader found it closed.
    Reopen,
}

type Commit = (Tx, oneshot::Sender<Result<Version, StateError>>);

pub(super) struct Writer {
    database: Arc<SharedDatabase>,
    version: u64,
    purged: Instant,
    /// The time of the newest commit that the disk did not take, until one succeeds.
    refused: Option<Instant>,
    /// The time of the last log line about it.
    told: Option<Instant>,
    /// True if the log says that the disk takes nothing, and does.
    is_told: bool,
}

impl Order {
    fn into_commit(self) -> Option<Commit> {
        match self {
            Self::Commit { tx, answer } => Some((tx, answer)),
            Self::Reopen => None,
        }
    }
}

impl Writer {
    pub(super) fn new(database: Arc<SharedDatabase>, version: u64) -> Self {
        Self { database, version, purged: Instant::now(), refused: None, told: None, is_told: false }
    }

    /// Works until every sender is dropped.
    pub(super) fn run(mut self, mut inbox: mpsc::Receiver<Order>) {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        let mut flushed: Option<Instant> = None;
        while inbox.blocking_recv_many(&mut batch, MAX_BATCH) > 0 {
            let wait = flushed.map_or(Duration::ZERO, |at| PACE.saturating_sub(at.elapsed()));
            if !wait.is_zero() && batch.len() < MAX_BATCH {
                std::thread::sleep(wait);
                while batch.len() < MAX_BATCH
                    && let Ok(order) = inbox.try_recv()
                {
                    batch.push(order);
                }
            }
            let commits: Vec<Commit> = batch.drain(..).filter_map(Order::into_commit).collect();
            let results = self.write(&commits);
            flushed = Some(Instant::now());
            for ((_, answer), result) in commits.into_iter().zip(results) {
                // A caller that gave up does not want to know.
                let _ = answer.send(result);
            }
        }
    }

    /// Returns one result per commit: its own, or that of the flush they share.
    fn write(&mut self, commits: &[Commit]) -> Vec<Result<Version, StateError>> {
        let all = |error: &StateError| commits.iter().map(|_| Err(error.clone())).collect();
        if let Err(error) = self.recover() {
            return all(&error);
        }
        if commits.is_empty() {
            return Vec::new();
        }
        let start = self.version;
        match self.try_write(commits) {
            Ok(results) => {
                self.note_success();
                results
            }
            Err(error) => {
                self.version = start;
                let error = self.note_refusal(&error);
                // Reads go on with the file opened again. Without it they fail until the next attempt.
                drop(self.reopen());
                all(&error)
            }
        }
    }

    /// Makes the database usable after a refusal, at most once in [`REFUSAL_PAUSE`].
    fn recover(&mut self) -> Result<(), StateError> {
        let Some(refused) = self.refused else { return Ok(()) };
        if refused.elapsed() < REFUSAL_PAUSE {
            return Err(self.error());
        }
        match self.database.get() {
            Ok(_) => Ok(()),
            Err(_) => self.reopen(),
        }
    }

    fn reopen(&mut self) -> Result<(), StateError> {
        match self.database.reopen() {
            Ok(version) => {
                // A commit whose flush failed may be in the file: its version is not given out again.
                self.version = self.version.max(version);
                Ok(())
            }
            Err(error) => Err(self.note_refusal(&error)),
        }
    }

    /// Returns the error of a commit while the disk takes nothing.
    fn error(&self) -> StateError {
        StateError::NotWritable { reason: self.database.refusal().unwrap_or_default() }
    }

    fn note_refusal(&mut self, error: &StateError) -> StateError {
        self.refused = Some(Instant::now());
        let reason = match error {
            StateError::Unavailable { reason } => reason.clone(),
            error => error.to_string(),
        };
        self.database.set_refusal(Some(reason));
        if self.told.is_none_or(|at| at.elapsed() >= REFUSAL_LINE_EVERY) {
            self.told = Some(Instant::now());
            self.is_told = true;
            tracing::error!(%error, "the state file takes no changes: they are refused until the disk takes them again");
        }
        self.error()
    }

    fn note_success(&mut self) {
        if self.refused.take().is_some() {
            self.database.set_refusal(None);
        }
        if std::mem::take(&mut self.is_told) {
            tracing::info!("the state file takes changes again");
        }
    }

    fn try_write(&mut self, commits: &[Commit]) -> Result<Vec<Result<Version, StateError>>, StateError> {
        let database = self.database.get()?;
        let mut tx = database.begin_write().map_err(StateError::unavailable)?;
        tx.set_durability(Durability::Immediate).map_err(StateError::unavailable)?;
        let now = unix_ms();
        let mut results = Vec::with_capacity(commits.len());
        {
            let mut records = tx.open_table(table::RECORDS).map_err(StateError::corrupt)?;
            for (changes, _) in commits {
                match table::apply(&mut records, changes, self.version + 1, now) {
                    Ok(()) => {
                        self.version += 1;
                        results.push(Ok(Version(self.version)));
                    }
                    Err(error @ StateError::Conflict { .. }) => results.push(Err(error)),
                    // Half applied: the whole batch is rolled back.
                    Err(error) => return Err(error),
                }
            }
            if self.purged.elapsed() > PURGE_EVERY {
                self.purged = Instant::now();
                table::purge(&mut records, now)?;
            }
        }
        table::store_version(&tx, self.version)?;
        tx.commit().map_err(StateError::unavailable)?;
        Ok(results)
    }
}
