//! The average bitrate of a publisher over a sliding window. Knows no clock: the caller passes the time.

use std::time::Duration;

use crate::limits::BITRATE_WINDOW;

/// Slots of the window: its resolution is a second.
const SLOTS: usize = BITRATE_WINDOW.as_secs() as usize;

/// Counts received bytes and compares their average over the window with a limit.
#[derive(Debug)]
pub(crate) struct BitrateMeter {
    limit_bytes: i64,
    slots: [i64; SLOTS],
    second: u64,
    sum: i64,
}

impl BitrateMeter {
    /// Creates a meter that allows `bits` per second on average.
    pub(crate) fn new(bits: u64) -> Self {
        let limit_bytes = i64::try_from((bits / 8).saturating_mul(SLOTS as u64)).unwrap_or(i64::MAX);
        Self { limit_bytes, slots: [0; SLOTS], second: 0, sum: 0 }
    }

    /// Counts `bytes` received at `now`; returns false if they exceed the limit.
    pub(crate) fn add(&mut self, now: Duration, bytes: usize) -> bool {
        self.count(now, bytes as i64);
        self.sum <= self.limit_bytes
    }

    /// Allows, for as long as the window, the bytes of a `pause` in which this process read nothing: what its publisher
    /// has sent meanwhile arrives at once.
    pub(crate) fn allow_pause(&mut self, now: Duration, pause: Duration) {
        let bytes =
            i128::from(self.limit_bytes) * pause.as_millis() as i128 / BITRATE_WINDOW.as_millis() as i128;
        // Some tens of minutes at any bitrate.
        self.count(now, -(bytes.min(i128::from(i64::MAX / 4)) as i64));
    }

    fn count(&mut self, now: Duration, bytes: i64) {
        let second = now.as_secs();
        let passed = second.saturating_sub(self.second).min(SLOTS as u64);
        for n in 0..passed {
            let slot = ((second - n) % SLOTS as u64) as usize;
            self.sum -= std::mem::take(&mut self.slots[slot]);
        }
        self.second = self.second.max(second);
        self.slots[(self.second % SLOTS as u64) as usize] += bytes;
        self.sum += bytes;
    }

    /// Returns the average over the window in bits per second.
    pub(crate) fn bits_per_second(&self) -> u64 {
        self.sum.max(0) as u64 * 8 / SLOTS as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meter_averages_over_ten_seconds() {
        let mut meter = BitrateMeter::new(8_000);
        // A burst of nine seconds' worth is within the limit, eleven are not.
        assert!(meter.add(Duration::from_secs(100), 9_000));
        assert!(!meter.add(Duration::from_secs(101), 2_000));
        // Ten seconds later the burst has left the window.
        assert!(meter.add(Duration::from_secs(110), 500));
        assert_eq!(meter.bits_per_second(), 2_500 * 8 / 10);
        assert!(meter.add(Duration::from_secs(1_000), 10_000));
        assert_eq!(meter.bits_per_second(), 8_000);
    }

    #[test]
    fn meter_allows_the_bytes_of_a_pause_for_one_window() {
        let mut meter = BitrateMeter::new(8_000);
        meter.allow_pause(Duration::from_secs(100), Duration::from_secs(20));
        assert!(meter.add(Duration::from_secs(101), 30_000));
        assert!(!meter.add(Duration::from_secs(101), 1));
        assert!(meter.add(Duration::from_mins(2), 10_000));
        assert!(!meter.add(Duration::from_mins(2), 1));
    }

    #[test]
    fn meter_allows_a_steady_stream_at_the_limit() {
        let mut meter = BitrateMeter::new(80_000);
        for ms in (0..60_000).step_by(20) {
            assert!(meter.add(Duration::from_millis(ms), 200), "at {ms} ms");
        }
    }
}
