//! Subjects and the messages published on them: a [`Topic`] is a subject together with the type of its messages, so that a topic
//! of heartbeats cannot carry a bid.
//!
//! JSON messages implement [`Message`] and carry the version as their first member ([`crate::versioned`]). Media messages
//! and facts implement [`crate::fragment::Fragmented`]: they travel as binary fragments that carry the version in byte 0.

use std::marker::PhantomData;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::versioned::{self, WireError};

/// Longest JSON message, in bytes, of a kind without a limit of its own: heartbeats of a hundred renditions fit.
pub const MAX_MESSAGE: usize = 64 << 10;

/// Longest JSON message, in bytes, of a kind that holds a stream's state (grant, snapshot): the state of the longest live
/// window, and as much again as any other message.
pub const MAX_STATE_MESSAGE: usize = crate::fact::MAX_FACT + MAX_MESSAGE;

/// A message that travels as one JSON object. It must serialise to an object and must not have a member `v`.
pub trait Message: Serialize + DeserializeOwned + Send + 'static {
    /// Longest accepted message, in bytes.
    const MAX_LEN: usize = MAX_MESSAGE;

    /// Checks what the types alone cannot; `Err` holds the rule that is broken.
    fn check(&self) -> Result<(), &'static str> {
        Ok(())
    }
}

/// Encodes a message with its version.
pub fn encode<T: Message>(message: &T) -> Result<Bytes, WireError> {
    let bytes = versioned::encode(message)?;
    check_length::<T>(bytes.len())?;
    Ok(bytes.into())
}

/// Decodes a message; checks its length, its version and its rules, in this order.
pub fn decode<T: Message>(bytes: &[u8]) -> Result<T, WireError> {
    check_length::<T>(bytes.len())?;
    let message: T = versioned::decode(bytes)?;
    message.check().map_err(WireError::Invalid)?;
    Ok(message)
}

fn check_length<T: Message>(len: usize) -> Result<(), WireError> {
    if len > T::MAX_LEN { Err(WireError::TooLong { len, limit: T::MAX_LEN }) } else { Ok(()) }
}

/// A subject, and the type of the messages published on it.
pub struct Topic<T> {
    name: &'static str,
    subject: String,
    message: PhantomData<fn() -> T>,
}

impl<T> Topic<T> {
    /// A topic whose subject holds ids; `name` is the same for all ids.
    pub(crate) fn new(name: &'static str, subject: String) -> Self {
        Self { name, subject, message: PhantomData }
    }

    /// A topic with one subject, which is its name as well.
    pub(crate) fn fixed(subject: &'static str) -> Self {
        Self::new(subject, subject.to_owned())
    }

    /// Returns the topic's name without ids: the value of the `topic` label of metrics.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the subject to publish on and to subscribe to.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Returns the subject, without its type.
    pub fn into_subject(self) -> String {
        self.subject
    }
}

impl<T: Message> Topic<T> {
    /// Encodes one of the topic's messages with its version.
    pub fn encode(&self, message: &T) -> Result<Bytes, WireError> {
        encode(message)
    }

    /// Decodes one of the topic's messages.
    pub fn decode(&self, bytes: &[u8]) -> Result<T, WireError> {
        decode(bytes)
    }
}

/// A subject of requests of type `Q`, each answered with an `A`.
pub struct RequestTopic<Q, A> {
    requests: Topic<Q>,
    answer: PhantomData<fn() -> A>,
}

impl<Q, A> RequestTopic<Q, A> {
    /// A request topic whose subject holds ids; `name` is the same for all ids.
    pub(crate) fn new(name: &'static str, subject: String) -> Self {
        Self { requests: Topic::new(name, subject), answer: PhantomData }
    }

    /// A request topic with one subject, which is its name as well.
    pub(crate) fn fixed(subject: &'static str) -> Self {
        Self::new(subject, subject.to_owned())
    }

    /// Returns the topic that the requests are published on.
    pub fn requests(&self) -> &Topic<Q> {
        &self.requests
    }

    /// Returns the topic's name without ids: the value of the `topic` label of metrics.
    pub fn name(&self) -> &'static str {
        self.requests.name
    }

    /// Returns the subject to ask on.
    pub fn subject(&self) -> &str {
        &self.requests.subject
    }

    /// Returns the subject, without its type.
    pub fn into_subject(self) -> String {
        self.requests.subject
    }
}

// Derived implementations would ask the same of the message types.
impl<T> Clone for Topic<T> {
    fn clone(&self) -> Self {
        Self::new(self.name, self.subject.clone())
    }
}

impl<Q, A> Clone for RequestTopic<Q, A> {
    fn clone(&self) -> Self {
        Self { requests: self.requests.clone(), answer: PhantomData }
    }
}

impl<T> std::fmt::Debug for Topic<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Topic").field(&self.subject).finish()
    }
}

impl<Q, A> std::fmt::Debug for RequestTopic<Q, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RequestTopic").field(&self.requests.subject).finish()
    }
}
