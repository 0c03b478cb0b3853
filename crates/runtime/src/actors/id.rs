//! The name of an actor.

use std::fmt;
use std::sync::Arc;

/// The name of an actor: its kind, and an id that is unique among the actors of that kind in one process. It is written
/// `kind/id`, for example `publisher/01JDC2…` or `listener/rtmp`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActorId {
    kind: &'static str,
    id: Arc<str>,
}

impl ActorId {
    /// Names an actor. Kinds are few and label metrics; ids are as many as there are actors.
    pub fn new(kind: &'static str, id: impl fmt::Display) -> Self {
        Self { kind, id: id.to_string().into() }
    }

    /// Returns the kind, for example `publisher`.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Returns the part after the kind, for example the id of the stream.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the id as a key that shares the memory.
    pub(super) fn shared_id(&self) -> Arc<str> {
        self.id.clone()
    }
}

impl fmt::Display for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.id)
    }
}
