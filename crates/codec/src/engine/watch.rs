//! Conditions that begin after they have lasted.

use super::product::{Condition, Product};

/// Ticks of 90 kHz that a condition must last before it begins: longer than a fade or a pause of speech.
const BEGINS_AFTER: u64 = 5 * 90_000;

/// A condition that begins once it has held for 5 s of media, and ends at once.
#[derive(Debug)]
pub(super) struct Steady {
    condition: Condition,
    lasts: u64,
    told: bool,
}

impl Steady {
    pub(super) const fn new(condition: Condition) -> Self {
        Self { condition, lasts: 0, told: false }
    }

    /// Notes whether the condition held for `ticks` of media. Returns the product that tells of a change.
    pub(super) fn observe(&mut self, holds: bool, ticks: u64) -> Option<Product> {
        self.lasts = if holds { self.lasts + ticks } else { 0 };
        let begins = self.lasts >= BEGINS_AFTER;
        (begins != self.told && (begins || !holds)).then(|| {
            self.told = begins;
            Product::Condition { condition: self.condition, begins }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn condition_begins_after_five_seconds_and_ends_at_once() {
        let mut steady = Steady::new(Condition::Black);
        let told = |begins| Some(Product::Condition { condition: Condition::Black, begins });
        for second in 1..5 {
            assert_eq!(steady.observe(true, 90_000), None, "{second}");
        }
        assert_eq!(steady.observe(true, 90_000), told(true));
        assert_eq!(steady.observe(true, 90_000), None);
        assert_eq!(steady.observe(false, 3_000), told(false));
        assert_eq!(steady.observe(false, 3_000), None);
    }
}
