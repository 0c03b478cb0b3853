//! The verdict on an attempt: delivered, attempted again after a pause, or dead.

use millrace_wire::ids::UnixMillis;

use super::Progress;

/// A delivery is attempted for a day: an endpoint may be away over a night and its repair.
pub const LIFETIME_MS: u64 = 24 * 60 * 60 * 1_000;

/// The pause after the first failure, before jitter; it doubles with each further one.
const FIRST_PAUSE_MS: u64 = 1_000;

/// The longest pause: an endpoint that is back is reached within an hour.
pub const LONGEST_PAUSE_MS: u64 = 60 * 60 * 1_000;

/// The outcome of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint took the event.
    Taken,
    /// The endpoint refused it, or did not answer in time.
    Failed {
        /// The pause that the endpoint asked for.
        retry_after_ms: Option<u64>,
    },
}

/// The verdict on an attempt, which is stored before the next delivery of the lane starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The delivery is done: its record is deleted.
    Delivered,
    /// The delivery is attempted again.
    Again(Progress),
    /// The delivery is given up: its record moves to the dead letters.
    Dead,
}

/// Judges an attempt that ended at `now`. `roll` is a random number from 0 to 1: pauses are jittered down to their half, so that
/// endpoints are not asked by all livestreams at once. The last attempt is made when the lifetime is over.
pub fn judge(now: UnixMillis, progress: &Progress, outcome: Outcome, roll: f64) -> Verdict {
    let retry_after_ms = match outcome {
        Outcome::Taken => return Verdict::Delivered,
        Outcome::Failed { retry_after_ms } => retry_after_ms,
    };
    let end = progress.since.0.saturating_add(LIFETIME_MS);
    if now.0 >= end {
        return Verdict::Dead;
    }
    let doublings = progress.attempts.min(32);
    let pause = FIRST_PAUSE_MS.saturating_mul(1 << doublings).min(LONGEST_PAUSE_MS);
    let jittered = (pause as f64 * (0.5 + 0.5 * roll.clamp(0.0, 1.0))) as u64;
    let pause = jittered.max(retry_after_ms.unwrap_or(0)).min(LONGEST_PAUSE_MS);
    let due = UnixMillis(now.0.saturating_add(pause).min(end));
    Verdict::Again(Progress { since: progress.since, attempts: progress.attempts.saturating_add(1), due })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FAILED: Outcome = Outcome::Failed { retry_after_ms: None };

    #[test]
    fn judge_doubles_the_pause_up_to_an_hour_and_ends_with_an_attempt_after_a_day() {
        let start = UnixMillis(1_700_000_000_000);
        let (mut progress, mut now, mut pauses) = (Progress::new(start), start, Vec::new());
        while let Verdict::Again(next) = judge(now, &progress, FAILED, 1.0) {
            pauses.push(next.due.0 - now.0);
            now = next.due;
            progress = next;
        }
        assert_eq!(pauses[..4], [1_000, 2_000, 4_000, 8_000]);
        assert_eq!(pauses.iter().max(), Some(&LONGEST_PAUSE_MS));
        assert_eq!(now.0 - start.0, LIFETIME_MS, "the last attempt is made when the day is over");
        assert!(pauses.len() < 60, "{} attempts", pauses.len());
        let asked = Outcome::Failed { retry_after_ms: Some(90_000) };
        let Verdict::Again(later) = judge(start, &Progress::new(start), asked, 0.0) else { panic!("again") };
        assert_eq!(later.due.0 - start.0, 90_000);
    }

    proptest! {
        #[test]
        fn judge_keeps_every_pause_between_half_a_second_and_an_hour(
            late in 0..LIFETIME_MS, attempts in 0..100_u32, roll in 0.0..=1.0_f64,
            asked in proptest::option::of(0..u64::MAX),
        ) {
            let since = UnixMillis(5_000);
            let now = UnixMillis(since.0 + late);
            let progress = Progress { since, attempts, due: now };
            match judge(now, &progress, Outcome::Failed { retry_after_ms: asked }, roll) {
                Verdict::Again(next) => {
                    let pause = next.due.0 - now.0;
                    prop_assert!(pause <= LONGEST_PAUSE_MS);
                    prop_assert!(pause >= 500 || next.due.0 == since.0 + LIFETIME_MS);
                    prop_assert_eq!((next.attempts, next.since), (attempts + 1, since));
                }
                verdict => prop_assert!(false, "{verdict:?}"),
            }
            prop_assert_eq!(judge(now, &progress, Outcome::Taken, roll), Verdict::Delivered);
        }
    }
}
