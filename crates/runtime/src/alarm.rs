//! One timer for a loop that asks its state machine again after each input.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Rings no later than it was last set to. Setting it later than it stands changes nothing, so that a loop that runs with
/// every message does not move a timer with every message; an early ring costs one look.
#[derive(Debug)]
pub struct Alarm {
    sleep: Pin<Box<Sleep>>,
    rung: bool,
}

impl Default for Alarm {
    fn default() -> Self {
        Self { sleep: Box::pin(tokio::time::sleep(Duration::ZERO)), rung: true }
    }
}

impl Alarm {
    /// Rings within `wait` from now.
    pub fn within(&mut self, wait: Duration) {
        let at = Instant::now() + wait;
        if self.rung || at < self.sleep.deadline() {
            self.rung = false;
            self.sleep.as_mut().reset(at);
        }
    }

    /// Returns when it rings. Cancel safe.
    pub async fn ring(&mut self) {
        self.sleep.as_mut().await;
        self.rung = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_rings_at_the_earliest_time_it_was_set_to() {
        let mut alarm = Alarm::default();
        alarm.within(Duration::from_mins(1));
        alarm.within(Duration::from_millis(20));
        let soonest = alarm.sleep.deadline();
        alarm.within(Duration::from_secs(90));
        assert_eq!(alarm.sleep.deadline(), soonest);
        alarm.ring().await;
        assert!(Instant::now() >= soonest);
        alarm.within(Duration::from_secs(90));
        assert!(alarm.sleep.deadline() > soonest + Duration::from_mins(1));
    }
}
