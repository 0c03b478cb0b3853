//! How long a task sleeps before it asks its protocol machine again.

use std::time::Duration;

use millrace_protocol::Millis;

/// Longest sleep of a task that drives a machine: bounds the effect of a timeout that was computed before the clock or the
/// machine changed. The machines' own times are multiples of it.
pub const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Shortest sleep: the machines count in milliseconds, so a timeout that is due within this one is due in the next.
const MIN_SLEEP: Duration = Duration::from_millis(1);

/// Returns how long to sleep until `timeout`, as [`MIN_SLEEP`] and [`POLL_INTERVAL`] bound it. `None`: the machine waits
/// for inputs only.
pub fn until_timeout(timeout: Option<Millis>, now: Millis) -> Duration {
    let wait = timeout.map_or(POLL_INTERVAL, |at| Duration::from_millis(at - now));
    wait.clamp(MIN_SLEEP, POLL_INTERVAL)
}

#[cfg(test)]
mod tests {
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
}
