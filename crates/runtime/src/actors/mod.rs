//! Actors: the long-lived things of a process, each with a name, a mailbox and a loop beside it.
//!
//! An actor is supervised ([`crate::Supervisor::spawn`]), stands in the process's [`ActorRegistry`] under its kind and
//! id until it is down for good, answers `Status` and takes the [`Order`]s `Kick`, `Drain` and `Reload`. Its I/O runs in
//! a tokio task that gets an [`ActorContext`]; media flows between those tasks and never through a mailbox (ADR 6).

mod context;
mod id;
mod message;
mod order;
mod record;
mod registry;
#[cfg(test)]
mod tests;

pub use self::context::{ActorContext, Ready, StatusHandle};
pub use self::id::ActorId;
pub(crate) use self::message::{Deliver, Status};
pub use self::order::{Order, OrderError, Orders, ReceivedOrder};
pub use self::record::ActorStatus;
pub(crate) use self::record::Record;
pub(crate) use self::registry::Mailbox;
pub use self::registry::{ActorFilter, ActorList, ActorRegistry, MAX_ACTORS, RegisterError};
