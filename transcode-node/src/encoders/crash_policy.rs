//! The policy for transcoders that end: when the next one may start.
//!
//! The next transcoder starts at once and encodes again what the ended one owed. After [`DEATHS_IN_A_ROW`] deaths without a
//! complete segment between them the source is taken to be what kills it: what is owed is lost, and the rungs are tried again at
//! the next boundary. Each further death leaves them out for a growing number of segments.

use millrace_wire::ids::Msn;

/// Deaths without a complete segment between them after which nothing is encoded again.
pub const DEATHS_IN_A_ROW: u32 = 3;
/// The most segments that the rungs are left out at a time: a minute or two, so that a source that has become readable again is
/// soon encoded.
pub const MAX_SPACING: u64 = 32;
/// Complete segments after which earlier deaths no longer count for the spacing.
pub const CALM_SEGMENTS: u32 = 16;
/// Segments that the rungs are left out after a transcoder fell too far behind: what made it slow seldom passes at once.
pub const BEHIND_SPACING: u64 = 4;

/// The deaths of one job's transcoders, and the segment from which on the next one may start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CrashPolicy {
    deaths: u32,
    /// Segments that the rungs are left out after the next death.
    spacing: u64,
    complete: u32,
    next: Msn,
}

impl CrashPolicy {
    /// True if a transcoder may start at the boundary before `msn`.
    pub fn may_start(&self, msn: Msn) -> bool {
        msn >= self.next
    }

    /// True while the source is taken for the cause: the last transcoders have died one after the other, without a complete segment.
    pub fn is_failing(&self) -> bool {
        self.deaths >= DEATHS_IN_A_ROW
    }

    /// Notes that the transcoder died while `msn` was open; `flushes` is true if it was to hand in the rest. True if the next one
    /// is to start at once. The end of a stream waits for a flush, so it is tried again once.
    pub fn died(&mut self, msn: Msn, flushes: bool) -> bool {
        self.deaths = self.deaths.saturating_add(1);
        self.complete = 0;
        self.next = msn.next();
        if self.is_failing() {
            self.next = Msn(self.next.0 + self.spacing);
            self.spacing = (self.spacing * 2).clamp(1, MAX_SPACING);
        }
        self.deaths < if flushes { 2 } else { DEATHS_IN_A_ROW }
    }

    /// Notes that the transcoder was given up while `msn` was open, because it was too far behind. That is no death.
    pub fn fell_behind(&mut self, msn: Msn) {
        self.next = Msn(msn.next().0 + BEHIND_SPACING);
    }

    /// Notes that every rung that is to be encoded has a complete segment.
    pub fn completed(&mut self) {
        self.deaths = 0;
        self.complete = self.complete.saturating_add(1);
        if self.complete >= CALM_SEGMENTS {
            self.spacing = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transcoder_is_started_anew_at_once_twice_and_at_the_next_boundary_after_the_third_death() {
        let mut policy = CrashPolicy::default();
        assert!(policy.may_start(Msn(10)) && !policy.is_failing());
        assert!(policy.died(Msn(10), false) && policy.died(Msn(10), false) && !policy.is_failing());
        assert!(!policy.died(Msn(10), false) && policy.is_failing());
        assert!(!policy.may_start(Msn(10)) && policy.may_start(Msn(11)));
        policy.completed();
        assert!(policy.died(Msn(20), true), "a flush is tried again once");
        assert!(!policy.died(Msn(20), true));
    }

    #[test]
    fn rungs_are_out_for_growing_numbers_of_segments_after_each_further_death() {
        let mut policy = CrashPolicy::default();
        let (mut msn, mut starts) = (Msn(100), Vec::new());
        while starts.len() < 10 {
            if policy.may_start(msn) {
                starts.push(msn.0);
                while policy.died(msn, false) {}
            }
            msn = msn.next();
        }
        let left_out: Vec<u64> = starts.windows(2).map(|pair| pair[1] - pair[0] - 1).collect();
        assert_eq!(left_out, [0, 1, 2, 4, 8, 16, 32, 32, 32]);
        assert!(policy.is_failing());
    }

    #[test]
    fn complete_segment_ends_the_row_and_calm_ends_the_spacing() {
        let mut policy = CrashPolicy::default();
        let die = |policy: &mut CrashPolicy, msn, deaths: u32| {
            let again = (0..deaths).filter(|_| policy.died(Msn(msn), false)).count();
            assert_eq!(again, 2);
        };
        die(&mut policy, 4, 4);
        assert!(policy.is_failing() && !policy.may_start(Msn(5)) && policy.may_start(Msn(6)));
        policy.completed();
        assert!(!policy.is_failing());
        die(&mut policy, 12, 3);
        assert!(policy.may_start(Msn(15)) && !policy.may_start(Msn(14)), "the spacing goes on from 1 to 2");
        (0..CALM_SEGMENTS).for_each(|_| policy.completed());
        die(&mut policy, 22, 3);
        assert!(policy.may_start(Msn(23)), "and begins anew after a calm time");
    }

    #[test]
    fn falling_behind_is_no_death() {
        let mut policy = CrashPolicy::default();
        (1..=9).for_each(|msn| policy.fell_behind(Msn(msn)));
        assert!(!policy.is_failing() && !policy.may_start(Msn(13)) && policy.may_start(Msn(14)));
    }
}
