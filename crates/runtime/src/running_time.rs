//! The time for which this process has been running: monotonic time without the pauses in which the whole process was
//! stopped, by a signal or with its virtual machine.
//!
//! While a process is stopped its peers go on, and what they send waits in its sockets. Deadlines that count the pause
//! would all pass before the first byte is read.

use std::pin::Pin;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

/// The longest time between two readings of the clock while the process runs, on an idle process too.
const TICK: Duration = Duration::from_millis(250);
/// A longer time between two readings is a pause: the thread of the ticks has nothing else to do, and a machine that is
/// busy delays it by some hundred milliseconds.
const PAUSE_MS: u64 = 2_000;

/// One reading of the running time.
#[allow(clippy::struct_field_names, reason = "the unit of each time is part of its name")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Milliseconds for which the process has been running since the first reading.
    pub(crate) now_ms: u64,
    /// Milliseconds of all pauses together.
    pub(crate) paused_ms: u64,
    /// The running time at the end of the last pause.
    pub(crate) resumed_ms: Option<u64>,
}

/// The pauses found so far.
#[derive(Debug, Default)]
struct Pauses {
    /// Monotonic milliseconds at the last reading.
    last_ms: u64,
    reading: Reading,
}

impl Pauses {
    /// Takes a reading at a monotonic time in milliseconds; returns the pause that it has found.
    fn read(&mut self, monotonic_ms: u64) -> Option<u64> {
        let passed = monotonic_ms.saturating_sub(self.last_ms);
        self.last_ms = self.last_ms.max(monotonic_ms);
        if passed < PAUSE_MS {
            self.reading.now_ms += passed;
            return None;
        }
        self.reading.paused_ms += passed;
        self.reading.resumed_ms = Some(self.reading.now_ms);
        Some(passed)
    }
}

static STATE: LazyLock<(Instant, Mutex<Pauses>)> = LazyLock::new(|| {
    let ticks = || loop {
        std::thread::sleep(TICK);
        running_time();
    };
    // Without the thread a pause is found only if something else reads the clock often.
    if let Err(error) = std::thread::Builder::new().name("clock".to_owned()).spawn(ticks) {
        tracing::warn!(%error, "the clock's thread did not start; pauses of the process may end deadlines");
    }
    (Instant::now(), Mutex::default())
});

/// Reads the running time of this process.
pub(crate) fn running_time() -> Reading {
    let (start, pauses) = &*STATE;
    let mut pauses = pauses.lock().unwrap_or_else(PoisonError::into_inner);
    // The time is read under the lock, so that readings are in order: without it a thread that was stopped between the two
    // would find the pause a second time. A u64 of milliseconds lasts 584 million years.
    let found = pauses.read(start.elapsed().as_millis() as u64);
    let reading = pauses.reading;
    drop(pauses);
    if let Some(pause_ms) = found {
        tracing::warn!(
            pause_ms,
            "the process was stopped and goes on; its deadlines are put off by the pause"
        );
    }
    reading
}

/// The time limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the time limit was reached")]
pub struct Elapsed;

/// Waits for `future` for at most `limit`, not counting time for which the process is stopped.
///
/// # Errors
/// When the limit is reached first.
pub async fn timeout<F: Future>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = std::pin::pin!(future);
    let limit_ms = limit.as_millis() as u64;
    let began = running_time().now_ms;
    let mut left = limit;
    loop {
        if let Ok(output) = tokio::time::timeout(left, &mut future).await {
            return Ok(output);
        }
        let ran_ms = running_time().now_ms - began;
        if ran_ms >= limit_ms {
            return Err(Elapsed);
        }
        left = Duration::from_millis(limit_ms - ran_ms);
    }
}

/// Waits for `time`, not counting time for which the process is stopped.
pub async fn running_sleep(time: Duration) {
    // The future never ends before the limit.
    let _ = timeout(time, std::future::pending::<()>()).await;
}

/// A timer that is ready once the process has been running for a time.
pub(crate) struct RunningTimer {
    sleep: Pin<Box<Sleep>>,
    end_ms: u64,
}

impl RunningTimer {
    /// Starts a timer that is ready after `time`.
    pub(crate) fn after(time: Duration) -> Self {
        let end_ms = running_time().now_ms + time.as_millis() as u64;
        Self { sleep: Box::pin(tokio::time::sleep(time)), end_ms }
    }

    /// Ready once the time has passed.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.sleep.as_mut().poll(context));
            let left = Duration::from_millis(self.end_ms.saturating_sub(running_time().now_ms));
            if left.is_zero() {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(tokio::time::Instant::now() + left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_left_out_of_the_running_time() {
        let mut pauses = Pauses::default();
        assert_eq!((pauses.read(250), pauses.read(2_200)), (None, None));
        assert_eq!(pauses.reading, Reading { now_ms: 2_200, paused_ms: 0, resumed_ms: None });
        assert_eq!(pauses.read(22_200), Some(20_000));
        assert_eq!(pauses.read(22_450), None);
        assert_eq!(pauses.reading, Reading { now_ms: 2_450, paused_ms: 20_000, resumed_ms: Some(2_200) });
        // A reading that another thread has overtaken.
        assert_eq!((pauses.read(22_400), pauses.reading.now_ms), (None, 2_450));
    }

    #[test]
    fn idle_process_finds_no_pause() {
        let before = running_time();
        std::thread::sleep(Duration::from_millis(PAUSE_MS + 500));
        let after = running_time();
        assert_eq!(after.paused_ms, before.paused_ms);
        assert!(after.now_ms >= before.now_ms + PAUSE_MS);
    }

    #[tokio::test]
    async fn timeout_ends_a_future_that_takes_longer() {
        assert_eq!(timeout(Duration::from_millis(20), std::future::pending::<()>()).await, Err(Elapsed));
        assert_eq!(timeout(Duration::from_mins(1), async { 7 }).await, Ok(7));
    }
}
