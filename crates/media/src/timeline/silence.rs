//! The bound of all silence that is made up.

use super::limits::MAX_SILENCE;

/// Seconds of silence that may be made up in a second of arrivals. A file pushed without its sound at eight
/// times its speed still gets all of it; a sender of times that run away gets no more.
const SILENCE_SPEED: i64 = 8;

/// Silence that may be made up at once beyond that, in 90 kHz ticks (30 s): a file pushed as fast as the
/// network takes it, without its sound.
const SILENCE_BURST: i64 = 2_700_000;

/// The silence that may still be made up.
#[derive(Debug)]
pub(super) struct SilenceBudget {
    /// Silence left, in 90 kHz ticks.
    left: i64,
    /// The arrival up to which `left` has grown, in 90 kHz ticks.
    arrival: Option<i64>,
}

impl Default for SilenceBudget {
    fn default() -> Self {
        Self { left: SILENCE_BURST, arrival: None }
    }
}

impl SilenceBudget {
    /// Takes silence of `wanted` 90 kHz ticks out of the budget at this arrival; returns how much of it is
    /// left to take. Without a clock only the bound of one step holds.
    pub(super) fn take(&mut self, wanted: i64, arrival: Option<i64>) -> i64 {
        let wanted = wanted.clamp(0, MAX_SILENCE);
        let Some(now) = arrival else { return wanted };
        let passed = now.saturating_sub(self.arrival.replace(now).unwrap_or(now)).max(0);
        self.left = self.left.saturating_add(passed.saturating_mul(SILENCE_SPEED)).min(SILENCE_BURST);
        let taken = wanted.min(self.left);
        self.left -= taken;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_grows_with_arrivals_up_to_its_bound() {
        let mut budget = SilenceBudget::default();
        for _ in 0..SILENCE_BURST / MAX_SILENCE {
            assert_eq!(budget.take(MAX_SILENCE + 1, Some(0)), MAX_SILENCE, "the bound of one step");
        }
        assert_eq!(budget.take(90_000, Some(0)), 0);
        assert_eq!(budget.take(90_000, Some(900)), 900 * SILENCE_SPEED);
        assert_eq!(budget.take(i64::MAX, Some(i64::MAX)), MAX_SILENCE);
        assert_eq!(budget.take(i64::MAX, None), MAX_SILENCE);
    }
}
