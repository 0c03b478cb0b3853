//! Stores the changes of the audit in the background: a command never waits for the audit log.

use std::sync::Arc;
use std::time::Duration;

use millrace_runtime::ActorContext;
use millrace_runtime::metrics::Counter;
use millrace_wire::ids::UnixMillis;
use tokio::sync::{Mutex, mpsc};
use tracing::warn;

use super::entry::{Audit, AuditEntry, AuditOutcome, Command, Principal, log};
use crate::context::Services;
use crate::domain::access::AuditRecord;

/// Entries that wait for the state store; about a minute of the busiest API. Beyond it they are in the log alone.
const QUEUE: usize = 4_096;

/// Entries stored in one transaction.
const BATCH: usize = 32;

/// Pause after a failed write.
const RETRY: Duration = Duration::from_millis(500);

/// Time in which a stopping control stores the entries that wait.
const FLUSH: Duration = Duration::from_secs(3);

/// Writes every entry to the log, and hands those of changes to the writer.
pub(crate) struct AuditLog {
    services: Arc<Services>,
    queue: mpsc::Sender<AuditRecord>,
    lost: Counter,
}

/// The other end of the queue, which an actor works on.
#[derive(Clone)]
pub(crate) struct AuditWriter {
    services: Arc<Services>,
    queue: Arc<Mutex<mpsc::Receiver<AuditRecord>>>,
    keep: u64,
}

impl AuditLog {
    /// Creates the audit log and its writer, which keeps the newest `keep` entries.
    pub(crate) fn new(services: &Arc<Services>, keep: u64) -> (Self, AuditWriter) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let lost = services.metrics.audit_entries_lost.clone();
        let log = Self { services: services.clone(), queue: sender, lost };
        let queue = Arc::new(Mutex::new(receiver));
        (log, AuditWriter { services: services.clone(), queue, keep })
    }
}

impl Audit for AuditLog {
    fn record(&self, entry: &AuditEntry<'_>) {
        log(entry);
        if !is_stored(entry) {
            return;
        }
        if self.queue.try_send(record(entry, self.services.wall_clock())).is_err() {
            self.lost.inc();
            warn!(
                command = entry.command.as_str(),
                "audit entry not stored: too many wait for the state store; it is in the log alone"
            );
        }
    }
}

/// Returns true for entries of changes. Renewals and seals are no changes that a person makes, and refusals are in the log: stored,
/// they would let anybody push the changes out of a list of limited length.
fn is_stored(entry: &AuditEntry<'_>) -> bool {
    let changes = !matches!(entry.command, Command::Renew | Command::Refused | Command::Sealed);
    let is_done = match entry.outcome {
        AuditOutcome::Done => true,
        AuditOutcome::Refused(_) => false,
        // The change may have been made.
        AuditOutcome::Failed(_) => entry.caller.identity().is_some(),
    };
    changes && is_done
}

fn record(entry: &AuditEntry<'_>, at: UnixMillis) -> AuditRecord {
    let AuditEntry { caller, command, stream, target, outcome, change } = entry;
    AuditRecord {
        number: 0,
        at,
        actor: match &caller.who {
            Principal::Api(identity) => identity.actor.clone(),
            who => who.to_string(),
        },
        role: caller.identity().map(|identity| identity.role),
        from: caller.from,
        command: command.as_str().to_owned(),
        stream: *stream,
        target: target.as_ref().map(ToString::to_string),
        error: match outcome {
            AuditOutcome::Failed(error) => Some(error.clone()),
            _ => None,
        },
        before: change.before.clone(),
        after: change.after.clone(),
    }
}

impl AuditWriter {
    /// Stores entries until the actor is stopped, and then those that wait.
    pub(crate) async fn run(self, actor: ActorContext) -> anyhow::Result<()> {
        let mut queue = self.queue.lock().await;
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                received = queue.recv_many(&mut batch, BATCH) => if received == 0 { return Ok(()) },
                () = actor.stop.cancelled() => break,
            }
            tokio::select! {
                () = self.store(&mut batch) => {}
                () = actor.stop.cancelled() => break,
            }
        }
        while let Ok(record) = queue.try_recv() {
            batch.push(record);
        }
        if tokio::time::timeout(FLUSH, self.store(&mut batch)).await.is_err() {
            warn!(
                entries = batch.len(),
                "audit entries not stored before the stop; they are in the log alone"
            );
        }
        Ok(())
    }

    /// Stores the entries of `batch`, however often the state store fails, and empties it.
    async fn store(&self, batch: &mut Vec<AuditRecord>) {
        while !batch.is_empty() {
            let count = batch.len().min(BATCH);
            match self.services.repo.append_audit(&batch[..count], self.keep).await {
                Ok(()) => drop(batch.drain(..count)),
                Err(error) => {
                    warn!(%error, entries = batch.len(), "audit entries not stored; will retry");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}
