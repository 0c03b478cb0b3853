//! Lifecycle events on their way from the outbox into the journal.

mod relay;

pub(crate) use self::relay::{Relay, journal};
