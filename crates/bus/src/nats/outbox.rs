//! Messages on their way to the client library, handed over in batches.
//!
//! The library's task writes to the socket when it is woken, and the runtime runs a task next that has just been woken:
//! handed over one by one, every message is a system call of its own. Here they wait until every task that can run has
//! run, so that what many publishers send in one turn leaves in one write.

use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_nats::{Client, Subject};
use bytes::Bytes;
use futures::FutureExt as _;
use tokio::sync::Notify;

use crate::BusError;

/// One message that waits to be published.
pub(super) struct Outgoing {
    pub(super) subject: Subject,
    pub(super) reply: Option<Subject>,
    pub(super) payload: Bytes,
}

/// Bounded; the newest message is refused when it is full.
pub(super) struct Outbox {
    waiting: Mutex<Vec<Outgoing>>,
    capacity: usize,
    filled: Notify,
    /// Held while a batch is handed over: the next one waits.
    handing: tokio::sync::Mutex<()>,
}

impl Outbox {
    pub(super) fn new(capacity: usize) -> Self {
        let waiting = Mutex::new(Vec::with_capacity(capacity));
        Self { waiting, capacity, filled: Notify::new(), handing: tokio::sync::Mutex::default() }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Outgoing>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a message, or refuses it: full.
    pub(super) fn push(&self, message: Outgoing) -> Result<(), BusError> {
        let mut waiting = self.waiting();
        if waiting.len() >= self.capacity {
            return Err(BusError::Overflow);
        }
        waiting.push(message);
        if waiting.len() == 1 {
            self.filled.notify_one();
        }
        Ok(())
    }

    fn take(&self) -> Vec<Outgoing> {
        let mut waiting = self.waiting();
        let empty = Vec::with_capacity(waiting.len());
        mem::replace(&mut waiting, empty)
    }

    /// Hands over what is there whenever there is something, for ever.
    pub(super) async fn run(&self, client: &Client) {
        loop {
            self.filled.notified().await;
            // Behind all tasks that are ready now.
            tokio::task::yield_now().await;
            self.hand_over(client).await;
        }
    }

    /// Hands the waiting messages to the client library, and waits while the library has no room. A failed
    /// publish means that the library's task has ended, which every later publish is told.
    pub(super) async fn hand_over(&self, client: &Client) {
        let _handing = self.handing.lock().await;
        for message in self.take() {
            let _ = publish(client, message).await;
        }
    }

    /// As [`Outbox::hand_over`], as far as it goes without waiting.
    pub(super) fn hand_over_now(&self, client: &Client) {
        for message in self.take() {
            // Unconstrained, for a used-up task budget would look like a full buffer.
            let _ = tokio::task::unconstrained(publish(client, message)).now_or_never();
        }
    }
}

async fn publish(client: &Client, message: Outgoing) -> Result<(), async_nats::PublishError> {
    let Outgoing { subject, reply, payload } = message;
    match reply {
        None => client.publish(subject, payload).await,
        Some(reply) => client.publish_with_reply(subject, reply, payload).await,
    }
}
