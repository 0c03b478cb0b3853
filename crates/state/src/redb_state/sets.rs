//! Expiring sets, kept in this process's memory.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

type Members = HashMap<String, Instant>;

/// Expiring sets by name; an empty set takes no room.
#[derive(Default)]
pub(super) struct Sets(Mutex<HashMap<String, Members>>);

impl Sets {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Members>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, set: &str, members: &[String], ttl: Duration) {
        let until = Instant::now() + ttl;
        let mut sets = self.lock();
        let entry = sets.entry(set.to_owned()).or_default();
        entry.extend(members.iter().map(|member| (member.clone(), until)));
    }

    pub(super) fn remove(&self, set: &str, members: &[String]) {
        let mut sets = self.lock();
        if let Some(entry) = sets.get_mut(set) {
            for member in members {
                entry.remove(member);
            }
        }
    }

    pub(super) fn count(&self, set: &str) -> u64 {
        let now = Instant::now();
        let mut sets = self.lock();
        // Every set is swept, so that a set that is not read any more is freed too.
        sets.retain(|_, members| {
            members.retain(|_, until| *until > now);
            !members.is_empty()
        });
        sets.get(set).map_or(0, |members| members.len() as u64)
    }
}
