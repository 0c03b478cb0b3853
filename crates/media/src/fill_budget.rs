//! The bound of all media that are made up: silence, and pictures that repeat the last one.

/// Seconds of media that may be made up in a second of arrivals. A file pushed without its sound at eight
/// times its speed still gets all of it; a sender of times that run away gets no more.
const SPEED: i64 = 8;

/// Media that may be made up at once beyond that, in 90 kHz ticks (30 s): a file pushed as fast as the
/// network takes it, without its sound.
const BURST: i64 = 2_700_000;

/// The media of one track that may still be made up, of which one frame of the source takes at most
/// `LONGEST_STEP` 90 kHz ticks.
#[derive(Debug)]
pub(crate) struct FillBudget<const LONGEST_STEP: i64> {
    /// What is left, in 90 kHz ticks.
    left: i64,
    /// The arrival up to which `left` has grown, in 90 kHz ticks.
    arrival: Option<i64>,
}

impl<const LONGEST_STEP: i64> Default for FillBudget<LONGEST_STEP> {
    fn default() -> Self {
        Self { left: BURST, arrival: None }
    }
}

impl<const LONGEST_STEP: i64> FillBudget<LONGEST_STEP> {
    /// Takes `wanted` 90 kHz ticks out of the budget at this arrival; returns how much of it is left to take.
    /// Without a clock only the bound of one step holds.
    pub(crate) fn take(&mut self, wanted: i64, arrival: Option<i64>) -> i64 {
        let wanted = wanted.clamp(0, LONGEST_STEP);
        let Some(now) = arrival else { return wanted };
        let passed = now.saturating_sub(self.arrival.replace(now).unwrap_or(now)).max(0);
        self.left = self.left.saturating_add(passed.saturating_mul(SPEED)).min(BURST);
        let taken = wanted.min(self.left);
        self.left -= taken;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 5 s.
    const STEP: i64 = 450_000;

    #[test]
    fn budget_grows_with_arrivals_up_to_its_bound() {
        let mut budget = FillBudget::<STEP>::default();
        for _ in 0..BURST / STEP {
            assert_eq!(budget.take(STEP + 1, Some(0)), STEP, "the bound of one step");
        }
        assert_eq!(budget.take(90_000, Some(0)), 0);
        assert_eq!(budget.take(90_000, Some(900)), 900 * SPEED);
        assert_eq!(budget.take(i64::MAX, Some(i64::MAX)), STEP);
        assert_eq!(budget.take(i64::MAX, None), STEP);
    }
}
