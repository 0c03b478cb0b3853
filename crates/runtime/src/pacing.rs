//! Pacing of busy worker threads: their wake-ups are batched (ADR 4).
//!
//! Media arrives in small pieces from many sockets, and a thread that wakes for each pays for the wake-up and for cold
//! caches every time. While events follow each other closely, a paced thread therefore sleeps for [`BATCH`] before it asks
//! for more, and then handles in one turn all that has arrived. It answers at once while there are pauses between events:
//! the few that one stream's picture sets off do not make a thread busy.
//!
//! Pacing is a setting of the process ([`crate::Pacing`]); where it is off the hooks are not installed.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// The delay that a busy thread adds to an event at most; half of it on average. It is within the 15 ms that a part may
/// take through one process, and long enough that picture and sound of a publisher often arrive in one read.
const BATCH: Duration = Duration::from_millis(10);
/// The number of consecutive waits shorter than [`SHORT_WAIT`] that make a thread busy: the events of some ten publishers,
/// and more than one picture sets off on its way.
const BUSY_STREAK: u8 = 16;
/// A wait for the next event that counts as short.
const SHORT_WAIT: Duration = Duration::from_micros(2_500);
/// A busy thread that has slept and still has to wait longer than this for an event is busy no more.
const IDLE_WAIT: Duration = Duration::from_millis(1);

/// The pace of one thread.
#[derive(Debug, Clone, Copy)]
struct Pace {
    parked_at: Option<Instant>,
    /// Consecutive short waits; the thread is busy when they are [`BUSY_STREAK`].
    streak: u8,
    /// The number of sleeps so far.
    batches: u64,
}

impl Pace {
    const NEW: Self = Self { parked_at: None, streak: 0, batches: 0 };

    fn busy(self) -> bool {
        self.streak >= BUSY_STREAK
    }

    /// Returns the time to sleep before the thread waits for events.
    fn batch(self) -> Option<Duration> {
        self.busy().then_some(BATCH)
    }

    /// The thread waits from `now` on.
    fn park(&mut self, now: Instant) {
        self.parked_at = Some(now);
    }

    /// An event has ended the wait.
    fn unpark(&mut self, now: Instant) {
        let most = if self.busy() { IDLE_WAIT } else { SHORT_WAIT };
        let short = self.parked_at.is_some_and(|parked| now.saturating_duration_since(parked) < most);
        self.streak = if short { self.streak.saturating_add(1).min(BUSY_STREAK) } else { 0 };
    }
}

thread_local! {
    static PACE: Cell<Pace> = const { Cell::new(Pace::NEW) };
}

/// The hook for a worker thread that has nothing to do.
pub(crate) fn before_park() {
    let mut pace = PACE.get();
    if let Some(time) = pace.batch() {
        std::thread::sleep(time);
        pace.batches += 1;
    }
    pace.park(Instant::now());
    PACE.set(pace);
}

/// The hook for a worker thread that has something to do again.
pub(crate) fn after_unpark() {
    let mut pace = PACE.get();
    pace.unpark(Instant::now());
    PACE.set(pace);
}

/// Returns how often the calling thread has slept to batch its events.
#[cfg(test)]
pub(crate) fn batches_of_this_thread() -> u64 {
    PACE.get().batches
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets events arrive, `apart[n]` microseconds after one another, again and again. Returns how often the thread
    /// sleeps in a thousand turns.
    fn batches(apart: &[u64]) -> usize {
        let mut apart = apart.iter().cycle().map(|us| Duration::from_micros(*us));
        let (mut pace, mut now) = (Pace::NEW, Instant::now());
        let mut next = now;
        let mut count = 0;
        for _ in 0..1_000 {
            if let Some(time) = pace.batch() {
                now += time;
                count += 1;
            }
            pace.park(now);
            now = now.max(next);
            while next <= now {
                next += apart.next().unwrap();
            }
            pace.unpark(now);
        }
        count
    }

    #[test]
    fn pace_batches_once_a_streak_of_waits_was_short() {
        let entered = usize::from(BUSY_STREAK);
        assert_eq!(batches(&[300]), 1_000 - entered);
        assert_eq!(batches(&[300, 5, 2_000, 700]), 1_000 - entered);
    }

    #[test]
    fn pace_never_batches_the_events_of_one_stream() {
        assert_eq!(batches(&[13_000]), 0);
        // A picture, and the events it sets off on its way.
        assert_eq!(batches(&[33_000, 100, 50, 200, 20, 1_000, 30, 300]), 0);
    }

    #[test]
    fn pace_stops_batching_when_no_event_came_meanwhile() {
        let mut pace = Pace { streak: BUSY_STREAK, ..Pace::NEW };
        let start = Instant::now();
        pace.park(start);
        pace.unpark(start + IDLE_WAIT / 2);
        assert_eq!(pace.batch(), Some(BATCH));
        pace.park(start + BATCH);
        pace.unpark(start + BATCH + IDLE_WAIT);
        assert_eq!(pace.batch(), None);
    }
}
