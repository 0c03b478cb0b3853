//! Waiting for conditions instead of times.

use std::panic::Location;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// The interval between two checks of a condition. It is short because it is also the error of a measurement
/// that waits with it.
const POLL: Duration = Duration::from_millis(10);

/// Waits until `condition` gives true; panics at the caller's line after `timeout`.
#[track_caller]
pub fn until(timeout: Duration, mut condition: impl AsyncFnMut() -> bool) -> impl Future<Output = ()> {
    some(timeout, async move || condition().await.then_some(()))
}

/// Waits until `look` gives something, and gives that; panics at the caller's line after `timeout`.
#[track_caller]
pub fn some<T>(timeout: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> impl Future<Output = T> {
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

/// Calls `check` until it returns a value, and returns that value.
///
/// # Errors
/// After `limit` it fails with a message that names `what` was waited for.
pub async fn value<T, F, Fut>(what: &str, limit: Duration, mut check: F) -> anyhow::Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = check().await {
            return Ok(value);
        }
        anyhow::ensure!(Instant::now() < deadline, "waited {limit:?} in vain for {what}");
        sleep(POLL).await;
    }
}
