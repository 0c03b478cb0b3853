//! The poll and timeout loop of a protocol machine.

use std::sync::Arc;
use std::time::Duration;

use millrace_protocol::{Machine, Millis};
use millrace_runtime::{Clock, CoalescingTimer};

/// Longest sleep of a task that drives a machine: bounds the effect of a timeout that was computed before the clock or the
/// machine changed. The machines' own times are multiples of it.
pub const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Shortest sleep: the machines count in milliseconds, so a timeout that is due within this one is due in the next.
const MIN_SLEEP: Duration = Duration::from_millis(1);

/// Returns how long to sleep until `timeout`: at least one millisecond and at most [`POLL_INTERVAL`]. `None`: the machine
/// waits for inputs only.
pub fn until_timeout(timeout: Option<Millis>, now: Millis) -> Duration {
    let wait = timeout.map_or(POLL_INTERVAL, |at| Duration::from_millis(at - now));
    wait.clamp(MIN_SLEEP, POLL_INTERVAL)
}

/// A protocol machine with the clock and the timer that it needs.
///
/// The task that owns a driver loops: it executes the outputs that [`Driver::poll_output`] gives until there are none, then
/// waits for whichever comes first, a message for [`Driver::handle`] or [`Driver::wait_timeout`].
///
/// ```text
/// while !driver.is_done() {
///     while let Some(output) = driver.poll_output() {
///         execute(output);
///     }
///     tokio::select! {
///         Some(message) = subscription.recv() => driver.handle(Input::Message(message))?,
///         () = driver.wait_timeout() => driver.handle_timeout()?,
///     }
/// }
/// ```
pub struct Driver<M> {
    machine: M,
    clock: Arc<dyn Clock>,
    timer: CoalescingTimer,
}

impl<M: Machine> Driver<M> {
    /// Takes over `machine`, which was made at a time of `clock`.
    pub fn new(machine: M, clock: Arc<dyn Clock>) -> Self {
        Self { machine, clock, timer: CoalescingTimer::default() }
    }

    /// Returns the time that inputs are handed to the machine with.
    pub fn now(&self) -> Millis {
        Millis(self.clock.now_ms())
    }

    /// Hands one input to the machine.
    pub fn handle(&mut self, input: M::Input) -> Result<(), M::Error> {
        let now = self.now();
        self.machine.handle(now, input)
    }

    /// Hands the passing of time to the machine.
    pub fn handle_timeout(&mut self) -> Result<(), M::Error> {
        let now = self.now();
        self.machine.handle_timeout(now)
    }

    /// Removes and returns the oldest output that has not been executed yet.
    pub fn poll_output(&mut self) -> Option<M::Output> {
        self.machine.poll_output()
    }

    /// True if the machine has finished its work.
    pub fn is_done(&self) -> bool {
        self.machine.is_done()
    }

    /// Waits until the machine's next timeout, at most [`POLL_INTERVAL`]; [`Driver::handle_timeout`] is due then. Cancel safe,
    /// and cheap to call again after each message: a timer that is set already is not moved to a later time.
    pub async fn wait_timeout(&mut self) {
        self.timer.fire_within(until_timeout(self.machine.next_timeout(), self.now()));
        self.timer.fired().await;
    }

    /// Returns the machine, to read its state.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// Returns the machine, for the calls that answer at once, such as a repair request.
    pub fn machine_mut(&mut self) -> &mut M {
        &mut self.machine
    }
}

impl<M: std::fmt::Debug> std::fmt::Debug for Driver<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("machine", &self.machine).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use millrace_runtime::SystemClock;
    use tokio::time::Instant;

    use super::*;

    #[test]
    fn until_timeout_stays_within_its_bounds() {
        let now = Millis(1_000);
        assert_eq!(until_timeout(None, now), POLL_INTERVAL);
        assert_eq!(until_timeout(Some(Millis(900)), now), MIN_SLEEP);
        assert_eq!(until_timeout(Some(Millis(1_000)), now), MIN_SLEEP);
        assert_eq!(until_timeout(Some(Millis(1_050)), now), Duration::from_millis(50));
        assert_eq!(until_timeout(Some(Millis(9_000)), now), POLL_INTERVAL);
    }

    /// Counts down one tick each 30 ms.
    struct Countdown {
        due: Millis,
        ticks: Vec<Millis>,
    }

    const STEP_MS: u64 = 30;

    impl Machine for Countdown {
        type Input = ();
        type Output = ();
        type Error = std::convert::Infallible;

        fn handle(&mut self, now: Millis, (): ()) -> Result<(), Self::Error> {
            self.handle_timeout(now)
        }

        fn handle_timeout(&mut self, now: Millis) -> Result<(), Self::Error> {
            if now >= self.due {
                self.ticks.push(now);
                self.due = now + STEP_MS;
            }
            Ok(())
        }

        fn poll_output(&mut self) -> Option<()> {
            None
        }

        fn next_timeout(&self) -> Option<Millis> {
            Some(self.due)
        }

        fn is_done(&self) -> bool {
            self.ticks.len() == 5
        }
    }

    #[tokio::test]
    async fn driver_wakes_at_each_timeout_of_its_machine_and_not_before() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let due = Millis(clock.now_ms()) + STEP_MS;
        let mut driver = Driver::new(Countdown { due, ticks: Vec::new() }, clock);
        let (started, mut wakes) = (Instant::now(), 0);
        while !driver.is_done() {
            driver.wait_timeout().await;
            wakes += 1;
            let Ok(()) = driver.handle_timeout();
        }
        let ticks = &driver.machine().ticks;
        assert!(ticks.windows(2).all(|pair| pair[1] - pair[0] >= STEP_MS), "{ticks:?}");
        assert!(started.elapsed() >= Duration::from_millis(4 * STEP_MS));
        // The timer's grain and the clock's may differ by a millisecond: then a wake comes early and is repeated.
        assert!(wakes <= 3 * ticks.len(), "{wakes} wakes for {ticks:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn driver_keeps_a_timeout_while_messages_interrupt_the_wait() {
        let clock: Arc<dyn Clock> = Arc::new(millrace_runtime::ManualClock::default());
        let machine = Countdown { due: Millis(clock.now_ms()) + 100, ticks: Vec::new() };
        let mut driver = Driver::new(machine, clock);
        let started = Instant::now();
        for _ in 0..9 {
            // A message every 10 ms cancels the wait.
            let interrupted = tokio::time::timeout(Duration::from_millis(10), driver.wait_timeout()).await;
            assert!(interrupted.is_err());
        }
        driver.wait_timeout().await;
        assert_eq!(started.elapsed(), Duration::from_millis(100));
    }
}
