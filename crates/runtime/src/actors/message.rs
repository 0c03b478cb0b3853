//! The messages in the mailbox of an actor: the question `Status`, and an order to be handed to its loop.

use std::sync::Arc;

use actix::Message;

use super::order::{Order, OrderError};
use super::record::{ActorStatus, Record};

/// Counts a message as waiting in the mailbox until it is handled or lost.
#[derive(Debug)]
pub(crate) struct InMailbox(Arc<Record>);

impl InMailbox {
    pub(super) fn new(record: &Arc<Record>) -> Self {
        record.mailbox_grows();
        Self(record.clone())
    }
}

impl Drop for InMailbox {
    fn drop(&mut self) {
        self.0.mailbox_shrinks();
    }
}

/// Asks an actor for its status through its mailbox, which shows that it still handles messages.
#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) waiting: InMailbox,
}

impl Message for Status {
    type Result = ActorStatus;
}

/// Hands an order to an actor; answered when its loop has accepted or refused it.
#[derive(Debug)]
pub(crate) struct Deliver {
    pub(crate) order: Order,
    pub(crate) waiting: InMailbox,
}

impl Message for Deliver {
    type Result = Result<(), OrderError>;
}
