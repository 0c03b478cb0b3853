//! Figures that the threads of a transcoder share.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that one thread adds to and another takes.
#[derive(Debug, Default)]
pub(super) struct Sum(AtomicU64);

impl Sum {
    pub(super) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Relaxed);
    }

    /// Takes what was added since the last call.
    pub(super) fn take(&self) -> u64 {
        self.0.swap(0, Relaxed)
    }
}

/// Media on its way from one thread to another, in 90 kHz ticks.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    came: AtomicU64,
    went: AtomicU64,
}

impl Waiting {
    pub(super) fn comes(&self, ticks: u64) {
        self.came.fetch_add(ticks, Relaxed);
    }

    pub(super) fn goes(&self, ticks: u64) {
        self.went.fetch_add(ticks, Relaxed);
    }

    pub(super) fn millis(&self) -> u64 {
        let went = self.went.load(Relaxed);
        self.came.load(Relaxed).saturating_sub(went) / 90
    }
}

/// The figures of one rung since the last report.
#[derive(Debug, Default)]
pub(super) struct RungFigures {
    pub(super) pictures: Sum,
    pub(super) bytes: Sum,
    pub(super) encode_us: Sum,
    pub(super) waiting: Waiting,
}

/// A clock of the CPU time that the calling thread takes.
#[derive(Debug)]
pub(super) struct CpuClock(u64);

impl CpuClock {
    pub(super) fn start() -> Self {
        Self(thread_us())
    }

    /// Returns the microseconds since the start or the last lap.
    pub(super) fn read(&self) -> u64 {
        thread_us().saturating_sub(self.0)
    }

    /// Returns the microseconds since the last call.
    pub(super) fn lap(&mut self) -> u64 {
        let now = thread_us();
        now.saturating_sub(std::mem::replace(&mut self.0, now))
    }
}

fn thread_us() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes the structure that it is given; the clock exists on Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
}
