//! From a subject to the subscriptions that match it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::subject::{is_wild, matches};
use crate::subscription::{Delivery, Message, Sink};

struct Entry {
    id: u64,
    group: Option<Arc<str>>,
    sink: Sink,
}

/// The outcome of one publish.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Routed {
    /// Subscriptions and groups that matched.
    pub(super) matched: usize,
    /// Of these, how many were full.
    pub(super) dropped: u64,
}

/// Exact patterns in a hash map, for media is published on exact subjects at a high rate; the few patterns
/// with wildcards (control traffic) in a list.
#[derive(Default)]
pub(super) struct Router {
    exact: HashMap<Arc<str>, Vec<Entry>>,
    wild: Vec<(String, Entry)>,
    next_id: u64,
    turn: AtomicUsize,
}

impl Router {
    pub(super) fn add(&mut self, pattern: &str, group: Option<&str>, sink: Sink) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let entry = Entry { id, group: group.map(Arc::from), sink };
        if is_wild(pattern) {
            self.wild.push((pattern.to_owned(), entry));
        } else {
            self.exact.entry(Arc::from(pattern)).or_default().push(entry);
        }
        id
    }

    pub(super) fn len(&self) -> usize {
        self.exact.values().map(Vec::len).sum::<usize>() + self.wild.len()
    }

    pub(super) fn remove(&mut self, pattern: &str, id: u64) {
        if is_wild(pattern) {
            self.wild.retain(|(_, entry)| entry.id != id);
        } else if let Some(entries) = self.exact.get_mut(pattern) {
            entries.retain(|entry| entry.id != id);
            if entries.is_empty() {
                self.exact.remove(pattern);
            }
        }
    }

    pub(super) fn publish(&self, subject: &str, reply: Option<&str>, payload: Bytes) -> Routed {
        let exact = self.exact.get_key_value(subject);
        let wild: Vec<&Entry> = self
            .wild
            .iter()
            .filter(|(pattern, _)| matches(pattern, subject))
            .map(|(_, entry)| entry)
            .collect();
        if exact.is_none() && wild.is_empty() {
            return Routed::default();
        }
        let name = exact.map_or_else(|| Arc::from(subject), |(name, _)| name.clone());
        let message = Message::new(name, payload, reply.map(Arc::from));
        let entries = exact.map_or(&[][..], |(_, entries)| entries.as_slice());
        self.deliver(entries.iter().chain(wild), &message)
    }

    fn deliver<'a>(&self, entries: impl Iterator<Item = &'a Entry>, message: &Message) -> Routed {
        let mut routed = Routed::default();
        let mut count = |delivery| match delivery {
            Delivery::Taken => routed.matched += 1,
            Delivery::Full => {
                routed.matched += 1;
                routed.dropped += 1;
            }
            Delivery::Gone => {}
        };
        let mut groups: Vec<(&str, Vec<&Entry>)> = Vec::new();
        for entry in entries {
            match &entry.group {
                None => count(entry.sink.deliver(message.clone())),
                Some(group) => match groups.iter_mut().find(|(name, _)| **name == **group) {
                    Some((_, members)) => members.push(entry),
                    None => groups.push((group, vec![entry])),
                },
            }
        }
        for (_, members) in groups {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            count(members[turn % members.len()].sink.deliver(message.clone()));
        }
        routed
    }
}
