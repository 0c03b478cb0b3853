//! Monotonic time as the machines see it, and their jitter.

use std::ops::{Add, Sub};

/// A time on the node's monotonic clock, in milliseconds from an arbitrary origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Millis(pub u64);

impl Add<u64> for Millis {
    type Output = Self;

    /// Returns the time `ms` milliseconds later.
    fn add(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

impl Sub for Millis {
    type Output = u64;

    /// Returns the milliseconds from `earlier` to `self`; 0 if `earlier` is the later one.
    fn sub(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Returns the earlier of two timeouts, of which either may be absent.
pub(crate) fn earlier(a: Option<Millis>, b: Option<Millis>) -> Option<Millis> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Deterministic jitter (splitmix64): the same seed gives the same sequence.
#[derive(Debug, Clone)]
pub(crate) struct Jitter(pub(crate) u64);

impl Jitter {
    /// Returns the next number in `0..=max`.
    pub(crate) fn up_to(&mut self, max: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % (max + 1)
    }
}
