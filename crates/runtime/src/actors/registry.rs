//! All actors of a process by kind and id.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix::{MailboxError, Recipient};
use serde::Serialize;

use super::id::ActorId;
use super::message::{Deliver, InMailbox, Status};
use super::order::{Order, OrderError};
use super::record::{ActorStatus, Record};
use crate::Metrics;
use crate::metrics::{Counters, Gauges, Unit};

/// Actors of one process at most. Connections, jobs and feeds have limits of their own far below; beyond this number
/// something starts actors and forgets them, and the next start fails rather than the process.
pub const MAX_ACTORS: usize = 65_536;

/// An actor's mailbox carries status questions and orders, which it handles at once; one that has not answered in this
/// time is not scheduled any more.
const STATUS_LIMIT: Duration = Duration::from_secs(1);

/// The actors of a process. Cheap to clone.
#[derive(Clone)]
pub struct ActorRegistry(Arc<Inner>);

struct Inner {
    table: Mutex<Table>,
    by_kind: Gauges,
    restarts: Counters,
    timed_out: Counters,
}

#[derive(Default)]
struct Table {
    kinds: BTreeMap<&'static str, BTreeMap<Arc<str>, Entry>>,
    len: usize,
}

#[derive(Clone)]
struct Entry {
    record: Arc<Record>,
    mailbox: Mailbox,
}

/// The address of an actor, whatever its type.
#[derive(Clone)]
pub(crate) struct Mailbox {
    pub(crate) status: Recipient<Status>,
    pub(crate) orders: Recipient<Deliver>,
}

/// The reason why an actor could not be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// An actor of that name is up.
    #[error("actor {0} is running already")]
    Duplicate(ActorId),
    /// The process has [`MAX_ACTORS`] actors.
    #[error("actor {0} cannot be started: the process has {MAX_ACTORS} actors")]
    Full(ActorId),
}

/// Selects actors of a registry; the default selects all.
#[derive(Debug, Clone, Copy, Default)]
pub struct ActorFilter<'a> {
    /// Only actors of this kind.
    pub kind: Option<&'a str>,
    /// Only actors of this supervisor: of one node of the process.
    pub supervisor: Option<&'a str>,
}

/// Actors that a filter selected, in the order of kind and id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ActorList {
    /// The number of selected actors; larger than the list when that was cut at its limit.
    pub total: usize,
    /// The first actors of the selection.
    pub actors: Vec<ActorStatus>,
}

impl fmt::Debug for ActorRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActorRegistry").field("len", &self.table().len).finish_non_exhaustive()
    }
}

impl ActorRegistry {
    /// Makes the registry of a process; its metrics are registered with `metrics`.
    pub fn new(metrics: &Metrics) -> Self {
        Self(Arc::new(Inner {
            table: Mutex::default(),
            by_kind: metrics.gauges("actors", Unit::Count, "Actors that are up, by kind", &["kind"]),
            restarts: metrics.counters(
                "actor_restarts",
                Unit::Count,
                "Restarts after failures, by kind",
                &["kind"],
            ),
            timed_out: metrics.counters(
                "actor_orders_timed_out",
                Unit::Count,
                "Orders and status questions an actor did not answer in time, by kind",
                &["kind"],
            ),
        }))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an actor. With `replace`, an actor of the same name is stopped and gives its name up at once; without, the
    /// newcomer is refused.
    pub(crate) fn insert(
        &self,
        record: &Arc<Record>,
        mailbox: Mailbox,
        replace: bool,
    ) -> Result<(), RegisterError> {
        let id = record.id();
        {
            let mut table = self.table();
            let full = table.len >= MAX_ACTORS;
            let kind = table.kinds.entry(id.kind()).or_default();
            if let Some(old) = kind.get_mut(id.id()) {
                if !replace {
                    return Err(RegisterError::Duplicate(id.clone()));
                }
                old.record.cancel().cancel();
                *old = Entry { record: record.clone(), mailbox };
                return Ok(());
            }
            if full {
                return Err(RegisterError::Full(id.clone()));
            }
            kind.insert(id.shared_id(), Entry { record: record.clone(), mailbox });
            table.len += 1;
        }
        self.0.by_kind.with(&[id.kind()]).add(1);
        Ok(())
    }

    /// Removes an actor that is down for good, unless another has taken its name.
    pub(crate) fn remove(&self, record: &Arc<Record>) {
        let id = record.id();
        {
            let mut table = self.table();
            let Some(kind) = table.kinds.get_mut(id.kind()) else { return };
            if !kind.get(id.id()).is_some_and(|entry| Arc::ptr_eq(&entry.record, record)) {
                return;
            }
            kind.remove(id.id());
            table.len -= 1;
        }
        self.0.by_kind.with(&[id.kind()]).add(-1);
    }

    pub(crate) fn count_restart(&self, kind: &str) {
        self.0.restarts.with(&[kind]).inc();
    }

    /// Returns the number of registered actors.
    pub fn len(&self) -> usize {
        self.table().len
    }

    /// Returns true when no actor is registered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lists the selected actors, at most `limit`. Reads the shared records and does not disturb the actors.
    pub fn list(&self, filter: ActorFilter<'_>, limit: usize) -> ActorList {
        let records: Vec<Arc<Record>> = {
            let table = self.table();
            let kinds =
                table.kinds.iter().filter(|(kind, _)| filter.kind.is_none_or(|wanted| wanted == **kind));
            let entries = kinds.flat_map(|(_, entries)| entries.values().map(|entry| &entry.record));
            let wanted =
                |record: &&Arc<Record>| filter.supervisor.is_none_or(|name| record.supervisor() == name);
            entries.filter(wanted).cloned().collect()
        };
        let actors = records.iter().take(limit).map(|record| record.status()).collect();
        ActorList { total: records.len(), actors }
    }

    /// Asks an actor for its status through its mailbox, so that the answer also shows that it handles messages.
    pub async fn status(&self, kind: &str, id: &str) -> Result<ActorStatus, OrderError> {
        let Entry { record, mailbox } = self.find(kind, id)?;
        let question = Status { waiting: InMailbox::new(&record) };
        let answer = mailbox.status.send(question).timeout(STATUS_LIMIT).await.map_err(unanswered);
        self.counted(&record, answer)
    }

    /// Gives an order to an actor and waits, at most for the order's time limit, until its loop accepts or refuses it.
    pub async fn order(&self, kind: &str, id: &str, order: Order) -> Result<(), OrderError> {
        let Entry { record, mailbox } = self.find(kind, id)?;
        // The actor itself waits for its loop as long as the order allows; the rest is for the mailbox.
        let limit = order.limit() + STATUS_LIMIT;
        let message = Deliver { order, waiting: InMailbox::new(&record) };
        let answer = mailbox.orders.send(message).timeout(limit).await.map_err(unanswered).flatten();
        self.counted(&record, answer)
    }

    fn find(&self, kind: &str, id: &str) -> Result<Entry, OrderError> {
        let table = self.table();
        let found = table.kinds.get(kind).and_then(|entries| entries.get(id)).cloned();
        found.ok_or_else(|| OrderError::NotFound { kind: kind.to_owned(), id: id.to_owned() })
    }

    fn counted<T>(&self, record: &Record, answer: Result<T, OrderError>) -> Result<T, OrderError> {
        if matches!(answer, Err(OrderError::TimedOut)) {
            self.0.timed_out.with(&[record.id().kind()]).inc();
            tracing::warn!(actor = %record.id(), "actor did not answer in time");
        }
        answer
    }
}

fn unanswered(error: MailboxError) -> OrderError {
    match error {
        MailboxError::Closed => OrderError::Ended,
        MailboxError::Timeout => OrderError::TimedOut,
    }
}
