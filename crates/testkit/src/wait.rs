//! Waiting for conditions instead of times.

use std::panic::Location;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Between looks at a condition: short, for it is also the error of what a test measures with it.
const POLL: Duration = Duration::from_millis(10);

/// Waits until `condition` gives true; panics at the caller's line after `timeout`.
#[track_caller]
pub fn until<F, Fut>(timeout: Duration, mut condition: F) -> impl Future<Output = ()>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let wait = some(timeout, move || {
        let looking = condition();
        async move { looking.await.then_some(()) }
    });
    async move { wait.await }
}

/// Waits until `look` gives something, and gives that; panics at the caller's line after `timeout`.
#[track_caller]
pub fn some<T, F, Fut>(timeout: Duration, mut look: F) -> impl Future<Output = T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let caller = Location::caller();
    async move {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(found) = look().await {
                return found;
            }
            assert!(Instant::now() < deadline, "condition at {caller} did not hold within {timeout:?}");
            sleep(POLL).await;
        }
    }
}
