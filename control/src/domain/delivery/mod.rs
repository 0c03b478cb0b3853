//! The delivery scheduler: which delivery of which event is attempted when. It is a state machine without I/O, clock and
//! randomness: its driver hands in the time and a random number, makes the attempts, and keeps the records.
//!
//! The deliveries of one livestream to one endpoint form a lane, in the order of their events. A lane has at most one attempt
//! under way, and its first delivery holds up the others until it is delivered or dead. Lanes do not wait for one another, except for
//! the limits of attempts at the same time.

mod pauses;
#[cfg(test)]
mod simulation;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use millrace_wire::ids::{StreamId, UnixMillis};
use serde::{Deserialize, Serialize};

pub use self::pauses::{LIFETIME_MS, LONGEST_PAUSE_MS, Outcome, Verdict, judge};
use super::webhook::WebhookId;

/// Attempts to one endpoint at the same time: one that hangs holds no more than these places.
pub const MAX_PER_ENDPOINT: usize = 4;

/// Attempts at the same time in all: sixteen endpoints that hang leave room for none, which lasts for one time limit.
pub const MAX_ATTEMPTS: usize = 64;

/// The name of a delivery: one event to one endpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryKey {
    /// The endpoint.
    pub endpoint: WebhookId,
    /// The livestream of the event.
    pub stream: StreamId,
    /// The event's place among the events of its livestream.
    pub sequence: u64,
}

/// The progress of a delivery, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The time from which its lifetime counts.
    pub since: UnixMillis,
    /// Attempts that failed so far.
    pub attempts: u32,
    /// The time of the next attempt.
    pub due: UnixMillis,
}

impl Progress {
    /// Returns the progress of a delivery that is due at once.
    pub const fn new(now: UnixMillis) -> Self {
        Self { since: now, attempts: 0, due: now }
    }
}

#[derive(Debug, Default)]
struct Lane {
    waiting: BTreeMap<u64, Progress>,
    under_way: Option<u64>,
}

impl Lane {
    fn head_due(&self) -> Option<UnixMillis> {
        self.waiting.values().next().map(|progress| progress.due)
    }
}

#[derive(Debug, Default)]
struct Endpoint {
    lanes: BTreeMap<StreamId, Lane>,
    /// The lanes without an attempt under way, by the time at which their first delivery is due.
    due: BTreeSet<(UnixMillis, StreamId)>,
    under_way: usize,
    count: usize,
}

impl Endpoint {
    /// Changes a lane, and keeps the set of due lanes right.
    fn change<T>(&mut self, stream: StreamId, change: impl FnOnce(&mut Lane) -> T) -> T {
        let lane = self.lanes.entry(stream).or_default();
        if let Some(due) = lane.head_due() {
            self.due.remove(&(due, stream));
        }
        let before = lane.waiting.len();
        let result = change(lane);
        self.count = self.count + lane.waiting.len() - before;
        match lane.head_due() {
            Some(due) if lane.under_way.is_none() => drop(self.due.insert((due, stream))),
            None if lane.under_way.is_none() => drop(self.lanes.remove(&stream)),
            _ => {}
        }
        result
    }
}

/// The scheduler; see the module.
#[derive(Debug, Default)]
pub struct Scheduler {
    endpoints: BTreeMap<WebhookId, Endpoint>,
    under_way: usize,
    /// The endpoint of the last attempt: the next attempt is sought behind it, so that each endpoint has its turn.
    last: Option<WebhookId>,
}

impl Scheduler {
    /// Adds a delivery; returns false if it is known already.
    pub fn add(&mut self, key: &DeliveryKey, progress: Progress) -> bool {
        let endpoint = self.endpoints.entry(key.endpoint.clone()).or_default();
        endpoint.change(key.stream, |lane| {
            let is_new = !lane.waiting.contains_key(&key.sequence);
            if is_new {
                lane.waiting.insert(key.sequence, progress);
            }
            is_new
        })
    }

    /// Returns the deliveries that wait or are under way to an endpoint.
    pub fn count(&self, endpoint: &WebhookId) -> usize {
        self.endpoints.get(endpoint).map_or(0, |endpoint| endpoint.count)
    }

    /// Returns the deliveries to all endpoints.
    pub fn total(&self) -> usize {
        self.endpoints.values().map(|endpoint| endpoint.count).sum()
    }

    /// Returns the next delivery to attempt at `now`, with its progress; the driver reports the end of the attempt by
    /// [`Scheduler::settle`].
    pub fn start(&mut self, now: UnixMillis) -> Option<(DeliveryKey, Progress)> {
        if self.under_way >= MAX_ATTEMPTS {
            return None;
        }
        let id = self.next_ready(now)?;
        let endpoint = self.endpoints.get_mut(&id)?;
        let (_, stream) = endpoint.due.first().copied()?;
        let (sequence, progress) = endpoint.change(stream, |lane| {
            let (&sequence, progress) = lane.waiting.first_key_value()?;
            lane.under_way = Some(sequence);
            Some((sequence, progress.clone()))
        })?;
        endpoint.under_way += 1;
        self.under_way += 1;
        self.last = Some(id.clone());
        Some((DeliveryKey { endpoint: id, stream, sequence }, progress))
    }

    fn next_ready(&self, now: UnixMillis) -> Option<WebhookId> {
        let is_ready = |(_, endpoint): &(&WebhookId, &Endpoint)| {
            endpoint.under_way < MAX_PER_ENDPOINT && endpoint.due.first().is_some_and(|(due, _)| *due <= now)
        };
        let after = self.last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.endpoints.range((after, Bound::Unbounded)).find(is_ready);
        behind.or_else(|| self.endpoints.iter().find(is_ready)).map(|(id, _)| id.clone())
    }

    /// Returns the time at which the next attempt can start; `None` if one has to end first, or none is to be made.
    pub fn next_due(&self) -> Option<UnixMillis> {
        if self.under_way >= MAX_ATTEMPTS {
            return None;
        }
        let free = self.endpoints.values().filter(|endpoint| endpoint.under_way < MAX_PER_ENDPOINT);
        free.filter_map(|endpoint| endpoint.due.first().map(|(due, _)| *due)).min()
    }

    /// Ends an attempt, after its verdict was stored. `None` stands for a delivery whose record is gone or belongs to another
    /// control by now: it is forgotten here.
    pub fn settle(&mut self, key: &DeliveryKey, verdict: Option<&Verdict>) {
        let Some(endpoint) = self.endpoints.get_mut(&key.endpoint) else { return };
        let was_under_way = endpoint.change(key.stream, |lane| {
            let was_under_way = lane.under_way == Some(key.sequence);
            if was_under_way {
                lane.under_way = None;
            }
            match verdict {
                Some(Verdict::Again(progress)) => {
                    if let Some(waiting) = lane.waiting.get_mut(&key.sequence) {
                        *waiting = progress.clone();
                    }
                }
                Some(Verdict::Delivered | Verdict::Dead) | None => {
                    lane.waiting.remove(&key.sequence);
                }
            }
            was_under_way
        });
        if was_under_way {
            endpoint.under_way -= 1;
            self.under_way -= 1;
        }
        if endpoint.lanes.is_empty() {
            self.endpoints.remove(&key.endpoint);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(endpoint: &str, stream: u128, sequence: u64) -> DeliveryKey {
        let endpoint = endpoint.parse().unwrap();
        DeliveryKey { endpoint, stream: StreamId::from_u128(stream), sequence }
    }

    const NOW: UnixMillis = UnixMillis(1_000_000);

    fn at(ms: u64) -> UnixMillis {
        UnixMillis(NOW.0 + ms)
    }

    #[test]
    fn first_delivery_of_a_lane_holds_up_the_others_of_its_lane_alone() {
        let mut scheduler = Scheduler::default();
        for key in [key("a", 1, 2), key("a", 1, 1), key("a", 2, 1), key("b", 1, 1)] {
            assert!(scheduler.add(&key, Progress::new(NOW)));
        }
        assert!(!scheduler.add(&key("a", 1, 1), Progress::new(NOW)), "known");
        let mut started: Vec<_> = std::iter::from_fn(|| scheduler.start(NOW)).map(|(key, _)| key).collect();
        started.sort();
        assert_eq!(started, [key("a", 1, 1), key("a", 2, 1), key("b", 1, 1)]);
        let again = Verdict::Again(Progress { due: at(500), attempts: 1, since: NOW });
        scheduler.settle(&key("a", 1, 1), Some(&again));
        scheduler.settle(&key("a", 2, 1), Some(&Verdict::Delivered));
        assert_eq!((scheduler.start(at(499)), scheduler.next_due()), (None, Some(at(500))));
        assert_eq!(scheduler.start(at(500)).unwrap().0, key("a", 1, 1));
        scheduler.settle(&key("a", 1, 1), Some(&Verdict::Dead));
        assert_eq!(scheduler.start(at(500)).unwrap().0, key("a", 1, 2));
        scheduler.settle(&key("a", 1, 2), None);
        scheduler.settle(&key("b", 1, 1), Some(&Verdict::Delivered));
        assert_eq!((scheduler.total(), scheduler.next_due(), scheduler.endpoints.len()), (0, None, 0));
    }

    #[test]
    fn repeated_delivery_of_an_older_event_goes_before_the_waiting_ones() {
        let mut scheduler = Scheduler::default();
        scheduler.add(&key("a", 1, 5), Progress { due: at(900), attempts: 3, since: NOW });
        assert_eq!(scheduler.start(NOW), None);
        scheduler.add(&key("a", 1, 2), Progress::new(NOW));
        assert_eq!(scheduler.start(NOW).unwrap().0, key("a", 1, 2));
        scheduler.settle(&key("a", 1, 2), Some(&Verdict::Delivered));
        assert_eq!(scheduler.next_due(), Some(at(900)));
    }

    #[test]
    fn attempts_at_the_same_time_are_bounded_for_each_endpoint_and_in_all() {
        let mut scheduler = Scheduler::default();
        for endpoint in 0..40 {
            for stream in 0..10 {
                scheduler.add(&key(&format!("e{endpoint:02}"), stream, 1), Progress::new(NOW));
            }
        }
        let started: Vec<_> = std::iter::from_fn(|| scheduler.start(NOW)).map(|(key, _)| key).collect();
        assert_eq!((started.len(), scheduler.next_due()), (MAX_ATTEMPTS, None));
        let of = |endpoint: &WebhookId| started.iter().filter(|key| key.endpoint == *endpoint).count();
        assert!(started.iter().all(|key| of(&key.endpoint) <= 2), "each endpoint has its turn: {started:?}");
        let mut one = Scheduler::default();
        for stream in 0..10 {
            one.add(&key("a", stream, 1), Progress::new(NOW));
        }
        assert_eq!(std::iter::from_fn(|| one.start(NOW)).count(), MAX_PER_ENDPOINT);
        assert_eq!((one.next_due(), one.count(&"a".parse().unwrap())), (None, 10));
    }
}
