//! Jittered exponential back-off: many clients that lost the same server must not return in step.

use std::time::Duration;

use rand::Rng;

/// A sequence of waits that doubles from `first` up to `max`. Each wait is drawn from the upper half of its step, so that
/// clients spread out and none returns at once.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    attempt: u32,
}

impl Backoff {
    /// Makes a back-off whose first wait is at most `first`, and whose longest is `max`.
    pub fn new(first: Duration, max: Duration) -> Self {
        Self { first, max: max.max(first), attempt: 0 }
    }

    /// Returns the next wait: between half of the step and the whole of it.
    pub fn next_delay(&mut self) -> Duration {
        let step = self.step();
        self.attempt = self.attempt.saturating_add(1);
        let half = step / 2;
        half + rand::rng().random_range(Duration::ZERO..=step.saturating_sub(half))
    }

    /// Waits for the next delay.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next_delay()).await;
    }

    /// Begins with the first wait again, to be called after a success.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }

    /// Returns the number of waits since the last reset.
    pub fn attempts(&self) -> u32 {
        self.attempt
    }

    fn step(&self) -> Duration {
        // 2^20 times any useful first wait is far beyond any useful maximum.
        self.first.saturating_mul(1 << self.attempt.min(20)).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_maximum_within_the_jitter() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for expected_ms in [100_u64, 200, 400, 800, 1_000, 1_000, 1_000] {
            let step = Duration::from_millis(expected_ms);
            let delay = backoff.next_delay();
            assert!(delay >= step / 2 && delay <= step, "{delay:?} outside {step:?}");
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(100));
    }

    #[test]
    fn backoff_never_exceeds_its_maximum() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        for _ in 0..10_000 {
            assert!(backoff.next_delay() <= Duration::from_secs(30));
        }
    }
}
