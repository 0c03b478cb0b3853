//! Wake-ups of a busy worker thread, gathered.
//!
//! Media arrives in small pieces from many sockets. A thread that wakes for each pays for the wake-up and for cold
//! caches every time. While events follow each other closely, the thread therefore sleeps for `GATHER` before it asks for
//! more, and then handles all that came in one turn. It answers at once while there are pauses between the events: the few
//! that one stream's picture sets off are no crowd.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// What a busy thread adds to the delay of an event at most, half of it on average: within the 15 ms that a part may take
/// through one process, and long enough that picture and sound of a publisher often come in one read.
const GATHER: Duration = Duration::from_millis(10);
/// So many waits in a row, each shorter than `CLOSE`, make a thread busy: the events of some ten publishers, and more than
/// one picture sets off on its way.
const CROWD: u8 = 16;
const CLOSE: Duration = Duration::from_micros(2_500);
/// A thread that gathered and still has to wait longer than this is not busy any more.
const EMPTY: Duration = Duration::from_millis(1);

/// One thread's pace.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    parked_at: Option<Instant>,
    /// Short waits in a row; the thread is busy when they are `CROWD`.
    close: u8,
}

impl Pace {
    fn busy(self) -> bool {
        self.close >= CROWD
    }

    /// How long to gather before the thread waits for events.
    fn gather(self) -> Option<Duration> {
        self.busy().then_some(GATHER)
    }

    /// The thread waits from `now` on.
    fn park(&mut self, now: Instant) {
        self.parked_at = Some(now);
    }

    /// There is an event.
    fn unpark(&mut self, now: Instant) {
        let most = if self.busy() { EMPTY } else { CLOSE };
        let close = self.parked_at.is_some_and(|at| now.saturating_duration_since(at) < most);
        self.close = if close { self.close.saturating_add(1).min(CROWD) } else { 0 };
    }
}

thread_local! {
    static PACE: Cell<Pace> = const { Cell::new(Pace { parked_at: None, close: 0 }) };
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

    /// Lets events come, `apart[n]` after one another, again and again; how often the thread gathers in a thousand turns.
    fn gathers(apart: &[u64]) -> usize {
        let mut apart = apart.iter().cycle().map(|us| Duration::from_micros(*us));
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        let mut next = now;
        let mut count = 0;
        for _ in 0..1_000 {
            if let Some(time) = pace.gather() {
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
    fn a_crowd_is_gathered() {
        let entered = usize::from(CROWD);
        assert_eq!(gathers(&[300]), 1_000 - entered);
        assert_eq!(gathers(&[300, 5, 2_000, 700]), 1_000 - entered);
    }

    #[test]
    fn one_stream_is_not() {
        assert_eq!(gathers(&[13_000]), 0);
        // A picture, and what it sets off on its way.
        assert_eq!(gathers(&[33_000, 100, 50, 200, 20, 1_000, 30, 300]), 0);
    }

    #[test]
    fn a_thread_that_calms_down_answers_at_once_again() {
        let mut pace = Pace { parked_at: None, close: CROWD };
        let start = Instant::now();
        pace.park(start);
        pace.unpark(start + EMPTY / 2);
        assert_eq!(pace.gather(), Some(GATHER));
        pace.park(start + GATHER);
        pace.unpark(start + GATHER + EMPTY);
        assert_eq!(pace.gather(), None);
    }
}
