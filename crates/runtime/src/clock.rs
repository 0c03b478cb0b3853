//! The clock of a node: monotonic time and wall-clock time, replaceable in tests.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::running_time::running_time;

/// A source of time. The sans-IO machines are handed [`Clock::now_ms`] with each input.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Returns monotonic milliseconds since an arbitrary start; never goes back. Time for which the whole process was
    /// stopped does not count, so no deadline passes in it.
    fn now_ms(&self) -> u64;

    /// Returns wall-clock milliseconds since 1970-01-01T00:00:00Z, which may jump with the system's time.
    fn unix_ms(&self) -> u64;

    /// Returns the milliseconds for which the process has been stopped since its start.
    fn paused_ms(&self) -> u64 {
        0
    }

    /// Returns the time of this clock at which the process last went on after a stop.
    fn resumed_ms(&self) -> Option<u64> {
        None
    }
}

/// The clocks of the operating system. Its monotonic time stands still while the process is stopped; see [`Clock::now_ms`].
#[derive(Debug, Clone)]
pub struct SystemClock {
    start_ms: u64,
}

impl SystemClock {
    /// Makes a clock whose monotonic time starts at 0 now.
    pub fn new() -> Self {
        Self { start_ms: running_time().now_ms }
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
        running_time().now_ms - self.start_ms
    }

    fn unix_ms(&self) -> u64 {
        // A clock set before 1970 reads as 0 rather than failing: epochs then go on from the last one.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
    }

    fn paused_ms(&self) -> u64 {
        running_time().paused_ms
    }

    fn resumed_ms(&self) -> Option<u64> {
        running_time().resumed_ms.map(|at| at.saturating_sub(self.start_ms))
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
