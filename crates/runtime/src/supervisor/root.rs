//! The actor of a supervisor: starts its children's actors, one after the other.

use std::sync::Arc;

use actix::{Actor, AsyncContext, Context, Handler, Message};
use tracing::error;

use super::child::{Child, ChildActor, Group};
use crate::actors::{Mailbox, RegisterError};

pub(super) struct Root(Arc<Group>);

impl Root {
    pub(super) fn new(group: Arc<Group>) -> Self {
        Self(group)
    }
}

/// Registers a child and starts its actor.
pub(super) struct Start {
    pub(super) child: Child,
    /// The child takes the name of an actor that is still up, which is stopped.
    pub(super) replace: bool,
}

impl Message for Start {
    type Result = Result<(), RegisterError>;
}

impl Actor for Root {
    type Context = Context<Self>;
}

impl Drop for Root {
    fn drop(&mut self) {
        if std::thread::panicking() {
            error!(supervisor = &*self.0.name, "the supervisor panicked: aborting the process");
            std::process::abort();
        }
    }
}

impl Handler<Start> for Root {
    type Result = Result<(), RegisterError>;

    fn handle(&mut self, Start { child, replace }: Start, _: &mut Context<Self>) -> Self::Result {
        let context = Context::<ChildActor>::new();
        let addr = context.address();
        let mailbox = Mailbox { status: addr.clone().recipient(), orders: addr.recipient() };
        self.0.registry.insert(&child.record, mailbox, replace)?;
        context.run(ChildActor::new(child, self.0.clone()));
        Ok(())
    }
}
