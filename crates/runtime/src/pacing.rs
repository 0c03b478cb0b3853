//! Wake-ups of a busy worker thread, gathered.
//!
//! Media arrives in small pieces from many sockets. A thread that wakes for each pays for the wake-up and for cold
//! caches every time. While events follow each other closely, the thread therefore sleeps for `GATHER` before it asks for
//! more, and then handles all that came in one turn. A thread whose events are further apart than that answers at once.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// What a busy thread adds to the delay of an event at most, half of it on average: within the 15 ms that a part may take
/// through one process, and long enough that picture and sound of a publisher often come in one read.
const GATHER: Duration = Duration::from_millis(10);

/// One thread's pace.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    parked_at: Option<Instant>,
    busy: bool,
}

impl Pace {
    /// How long to gather before the thread waits for events.
    fn gather(self) -> Option<Duration> {
        self.busy.then_some(GATHER)
    }

    /// The thread waits from `now` on.
    fn park(&mut self, now: Instant) {
        self.parked_at = Some(now);
    }

    /// There is an event.
    fn unpark(&mut self, now: Instant) {
        self.busy = self.parked_at.is_some_and(|at| now.saturating_duration_since(at) < GATHER);
    }
}

thread_local! {
    static PACE: Cell<Pace> = const { Cell::new(Pace { parked_at: None, busy: false }) };
}

/// To be called when a worker thread has nothing to do.
pub(crate) fn before_park() {
    let mut pace = PACE.get();
    if let Some(time) = pace.gather() {
        std::thread::sleep(time);
    }
    pace.park(Instant::now());
    PACE.set(pace);
}

/// To be called when a worker thread has something to do again.
pub(crate) fn after_unpark() {
    let mut pace = PACE.get();
    pace.unpark(Instant::now());
    PACE.set(pace);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets events come `apart` from each other; how often the thread gathers in ten of them.
    fn gathers(apart: Duration) -> usize {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        let mut next = now + apart;
        let mut count = 0;
        for _ in 0..10 {
            if let Some(time) = pace.gather() {
                now += time;
                count += 1;
            }
            pace.park(now);
            now = now.max(next);
            while next <= now {
                next += apart;
            }
            pace.unpark(now);
        }
        count
    }

    #[test]
    fn only_a_thread_whose_events_follow_each_other_closely_gathers() {
        assert_eq!(gathers(Duration::from_millis(33)), 0);
        assert_eq!(gathers(Duration::from_millis(1)), 9);
    }

    #[test]
    fn a_thread_that_calms_down_answers_at_once_again() {
        let mut pace = Pace::default();
        let start = Instant::now();
        pace.park(start);
        pace.unpark(start + GATHER / 2);
        assert_eq!(pace.gather(), Some(GATHER));
        pace.park(start + GATHER * 2);
        pace.unpark(start + GATHER * 9);
        assert_eq!(pace.gather(), None);
    }
}
