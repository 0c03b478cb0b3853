//! The arrivals of a stream's parts, from which an edge sees that the media stands still. It reads no clock.

use millrace_protocol::Millis;

/// The least time without a part after which the media stands still: long enough for the takeover of a dead worker's job,
/// which takes about a second, and short enough for viewers to be told before they have played what their player holds.
const LEAST_STILL_MS: u64 = 1_500;
/// Arrivals closer together than this are one: parts of several renditions end together.
const TOGETHER_MS: u64 = 50;
/// The longest usual time between parts that is learned: the longest target duration.
const MOST_USUAL_MS: u64 = 10_000;
/// A usual time between parts shrinks by this share with each part that comes sooner.
const SHRINK: u64 = 8;

/// The arrivals of one stream's parts.
#[derive(Debug)]
pub(super) struct Arrivals {
    last: Millis,
    /// About the longest time between the last few parts: some sources send one picture in seconds.
    usual_ms: u64,
}

impl Arrivals {
    /// Begins at a time from which a part is expected.
    pub(super) fn new(now: Millis) -> Self {
        Self { last: now, usual_ms: 0 }
    }

    /// Notes a part.
    pub(super) fn part(&mut self, now: Millis) {
        let passed_ms = now - self.last;
        if passed_ms < TOGETHER_MS {
            return;
        }
        self.last = now;
        self.usual_ms = if passed_ms > self.usual_ms {
            passed_ms.min(MOST_USUAL_MS)
        } else {
            self.usual_ms - (self.usual_ms - passed_ms) / SHRINK
        };
    }

    /// Returns the time from which the media stands still unless a part comes.
    pub(super) fn still_from(&self) -> Millis {
        self.last + LEAST_STILL_MS.max(2 * self.usual_ms)
    }

    /// Returns true if the media stands still.
    pub(super) fn is_still(&self, now: Millis) -> bool {
        now >= self.still_from()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds parts every `step_ms` and returns the time of the last.
    fn run(arrivals: &mut Arrivals, from: u64, step_ms: u64, count: u64) -> u64 {
        (1..=count).for_each(|part| arrivals.part(Millis(from + part * step_ms)));
        from + count * step_ms
    }

    #[test]
    fn media_stands_still_after_one_and_a_half_seconds_without_a_part() {
        let mut arrivals = Arrivals::new(Millis(0));
        let last = run(&mut arrivals, 0, 200, 50);
        assert!(!arrivals.is_still(Millis(last + 1_499)));
        assert!(arrivals.is_still(Millis(last + 1_500)));
        arrivals.part(Millis(last + 4_000));
        assert!(!arrivals.is_still(Millis(last + 4_000)));
    }

    #[test]
    fn slow_source_is_learned_and_one_pause_is_forgotten() {
        let mut arrivals = Arrivals::new(Millis(0));
        let last = run(&mut arrivals, 0, 4_000, 3);
        assert!(!arrivals.is_still(Millis(last + 7_999)));
        assert!(arrivals.is_still(Millis(last + 8_000)));
        let last = run(&mut arrivals, last, 200, 20);
        assert!(arrivals.is_still(Millis(last + 1_900)), "{arrivals:?}");
    }

    #[test]
    fn parts_of_several_renditions_count_as_one_arrival() {
        let mut arrivals = Arrivals::new(Millis(0));
        for at in [4_000, 4_010, 4_020, 8_000, 8_005] {
            arrivals.part(Millis(at));
        }
        assert!(!arrivals.is_still(Millis(15_999)));
    }
}
