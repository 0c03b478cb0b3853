//! A circuit breaker: while a service fails, requests are not sent to it at all, and one at a time looks whether it is back.

use std::time::Duration;

/// Failures in a row after which the service counts as down: two may be one restart.
const OPENS_AFTER: u32 = 3;
/// Time for which the service is left alone first; it doubles with each attempt that fails.
const FIRST_REST: Duration = Duration::from_secs(1);
/// Longest time: encoders come back every few seconds, and a service that is back is to be noticed within one attempt.
const LONGEST_REST: Duration = Duration::from_secs(8);

/// Counts failures and decides whether the service is asked.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    /// While open: the time at which the next request may look whether the service is back.
    probe_at: Option<Duration>,
    rest: Duration,
}

impl Breaker {
    /// Returns true if a request may be sent at `now`. While open, it admits one after each rest.
    pub(super) fn admit(&mut self, now: Duration) -> bool {
        match self.probe_at {
            None => true,
            Some(at) if now >= at => {
                // The next one waits as long, should this one never report back.
                self.probe_at = Some(now + self.rest);
                true
            }
            Some(_) => false,
        }
    }

    /// Records an answer that decided about its key.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Records a request without such an answer.
    pub(super) fn failed(&mut self, now: Duration) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= OPENS_AFTER {
            self.rest = if self.rest.is_zero() { FIRST_REST } else { (self.rest * 2).min(LONGEST_REST) };
            self.probe_at = Some(now + self.rest);
        }
    }

    /// Returns true while the service counts as down.
    pub(super) fn is_open(&self) -> bool {
        self.probe_at.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn breaker_opens_after_three_failures_in_a_row_and_closes_with_an_answer() {
        let mut breaker = Breaker::default();
        breaker.failed(at(0));
        breaker.failed(at(0));
        breaker.succeeded();
        breaker.failed(at(0));
        breaker.failed(at(0));
        assert!(breaker.admit(at(1)) && !breaker.is_open());
        breaker.failed(at(10));
        assert!(breaker.is_open() && !breaker.admit(at(1_009)));
        assert!(breaker.admit(at(1_010)));
        breaker.succeeded();
        assert!(!breaker.is_open() && breaker.admit(at(1_011)));
    }

    #[test]
    fn open_breaker_admits_one_request_after_each_rest_and_rests_longer_after_it_fails() {
        let mut breaker = Breaker::default();
        (0..3).for_each(|_| breaker.failed(at(0)));
        let mut now = at(0);
        let mut rests = Vec::new();
        for _ in 0..5 {
            let began = now;
            while !breaker.admit(now) {
                now += at(10);
            }
            assert!(!breaker.admit(now), "a second request beside the first");
            rests.push(now.checked_sub(began).unwrap().as_millis());
            breaker.failed(now);
        }
        assert_eq!(rests, [1_000, 2_000, 4_000, 8_000, 8_000]);
    }
}
