//! The one writer: commits that wait together share one flush to disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redb::{Database, Durability};
use tokio::sync::{mpsc, oneshot};

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

/// A commit waiting for the writer.
pub(super) struct Order {
    pub(super) tx: Tx,
    pub(super) answer: oneshot::Sender<Result<Version, StateError>>,
}

pub(super) struct Writer {
    db: Arc<Database>,
    version: u64,
    purged: Instant,
}

impl Writer {
    pub(super) fn new(db: Arc<Database>, version: u64) -> Self {
        Self { db, version, purged: Instant::now() }
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
            let results = self.write(&batch);
            flushed = Some(Instant::now());
            for (order, result) in batch.drain(..).zip(results) {
                // A caller that gave up does not want to know.
                let _ = order.answer.send(result);
            }
        }
    }

    /// One result per order: its own, or that of the flush they share.
    fn write(&mut self, batch: &[Order]) -> Vec<Result<Version, StateError>> {
        let start = self.version;
        match self.try_write(batch) {
            Ok(results) => results,
            Err(error) => {
                self.version = start;
                tracing::error!(%error, "state commit failed");
                batch.iter().map(|_| Err(error.clone())).collect()
            }
        }
    }

    fn try_write(&mut self, batch: &[Order]) -> Result<Vec<Result<Version, StateError>>, StateError> {
        let mut tx = self.db.begin_write().map_err(StateError::unavailable)?;
        tx.set_durability(Durability::Immediate).map_err(StateError::unavailable)?;
        let now = unix_ms();
        let mut results = Vec::with_capacity(batch.len());
        {
            let mut records = tx.open_table(table::RECORDS).map_err(StateError::corrupt)?;
            for order in batch {
                match table::apply(&mut records, &order.tx, self.version + 1, now) {
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
