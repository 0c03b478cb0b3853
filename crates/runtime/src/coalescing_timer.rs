//! One timer for a loop that asks its protocol machine again after each input.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// A timer that coalesces its settings: it fires no later than the earliest time it was set to. Setting it later than it
/// stands changes nothing, so that a loop that runs with every message does not move a timer with every message; firing
/// early costs the loop one turn.
#[derive(Debug)]
pub struct CoalescingTimer {
    sleep: Pin<Box<Sleep>>,
    fired: bool,
}

impl Default for CoalescingTimer {
    fn default() -> Self {
        Self { sleep: Box::pin(tokio::time::sleep(Duration::ZERO)), fired: true }
    }
}

impl CoalescingTimer {
    /// Sets the timer to fire within `wait` from now.
    pub fn fire_within(&mut self, wait: Duration) {
        let at = Instant::now() + wait;
        if self.fired || at < self.sleep.deadline() {
            self.fired = false;
            self.sleep.as_mut().reset(at);
        }
    }

    /// Waits until the timer fires. Cancel safe.
    pub async fn fired(&mut self) {
        self.sleep.as_mut().await;
        self.fired = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn timer_fires_at_the_earliest_time_it_was_set_to() {
        let mut timer = CoalescingTimer::default();
        timer.fire_within(Duration::from_mins(1));
        timer.fire_within(Duration::from_millis(20));
        let soonest = timer.sleep.deadline();
        timer.fire_within(Duration::from_secs(90));
        assert_eq!(timer.sleep.deadline(), soonest);
        timer.fired().await;
        assert!(Instant::now() >= soonest);
        timer.fire_within(Duration::from_secs(90));
        assert!(timer.sleep.deadline() > soonest + Duration::from_mins(1));
    }
}
