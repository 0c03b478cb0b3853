//! The clock of a node: monotonic time and wall-clock time, replaceable in tests.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A source of time. The sans-IO machines are handed [`Clock::now_ms`] with each input.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Returns monotonic milliseconds since an arbitrary start; never goes back.
    fn now_ms(&self) -> u64;

    /// Returns wall-clock milliseconds since 1970-01-01T00:00:00Z, which may jump with the system's time.
    fn unix_ms(&self) -> u64;
}

/// The clocks of the operating system.
#[derive(Debug, Clone)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// Makes a clock whose monotonic time starts at 0 now.
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }

    /// Makes a clock in the form that nodes are started with.
    pub fn shared() -> Arc<dyn Clock> {
        Arc::new(Self::new())
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        // A u64 of milliseconds lasts 584 million years.
        self.start.elapsed().as_millis() as u64
    }

    fn unix_ms(&self) -> u64 {
        // A clock set before 1970 reads as 0 rather than failing: epochs then go on from the last one.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
    }
}

/// A clock for tests that moves only when it is advanced.
#[derive(Debug, Clone, Default)]
pub struct ManualClock {
    now: Arc<AtomicU64>,
    unix: Arc<AtomicU64>,
}

impl ManualClock {
    /// Makes a clock with monotonic time 0 and the given wall-clock time.
    pub fn at_unix_ms(unix_ms: u64) -> Self {
        let clock = Self::default();
        clock.unix.store(unix_ms, Ordering::SeqCst);
        clock
    }

    /// Moves monotonic and wall-clock time forward.
    pub fn advance_ms(&self, ms: u64) {
        self.now.fetch_add(ms, Ordering::SeqCst);
        self.unix.fetch_add(ms, Ordering::SeqCst);
    }

    /// Sets the wall-clock time alone, as an operator or NTP may.
    pub fn set_unix_ms(&self, unix_ms: u64) {
        self.unix.store(unix_ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> u64 {
        self.now.load(Ordering::SeqCst)
    }

    fn unix_ms(&self) -> u64 {
        self.unix.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manual_clock_moves_only_when_advanced() {
        let clock = ManualClock::at_unix_ms(1_000);
        assert_eq!((clock.now_ms(), clock.unix_ms()), (0, 1_000));
        clock.advance_ms(250);
        assert_eq!((clock.now_ms(), clock.unix_ms()), (250, 1_250));
        clock.set_unix_ms(5);
        assert_eq!((clock.now_ms(), clock.unix_ms()), (250, 5));
    }

    #[test]
    fn system_clock_is_monotonic_and_past_2020() {
        let clock = SystemClock::new();
        let first = clock.now_ms();
        assert!(clock.now_ms() >= first);
        assert!(clock.unix_ms() > 1_577_836_800_000);
    }
}
