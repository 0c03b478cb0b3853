//! The policy for transcoders that end: when the next one may start.
//!
//! A death costs the rungs the rest of the open segment; the next transcoder starts at the next boundary. After
//! [`DEATHS_IN_A_ROW`] deaths without a complete segment between them the source is taken to be what kills it: the rungs are out
//! for a growing number of segments, and are tried again then.

use millrace_wire::ids::Msn;

/// Deaths without a complete segment between them after which the rungs are left out for longer.
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
    /// Segments that the rungs were left out last, 0 if they were not.
    spacing: u64,
    complete: u32,
    next: Msn,
}

impl CrashPolicy {
    /// True if a transcoder may start at the boundary before `msn`.
    pub fn may_start(&self, msn: Msn) -> bool {
        msn >= self.next
    }

    /// True while the rungs cannot be encoded: the last transcoders have died one after the other, without a complete segment.
    pub fn is_failing(&self) -> bool {
        self.deaths >= DEATHS_IN_A_ROW
    }

    /// Notes that the transcoder died while `msn` was open.
    pub fn died(&mut self, msn: Msn) {
        self.deaths = self.deaths.saturating_add(1);
        self.complete = 0;
        self.next = msn.next();
        if self.is_failing() {
            self.spacing = (self.spacing * 2).clamp(1, MAX_SPACING);
            self.next = Msn(self.next.0 + self.spacing);
        }
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
    fn transcoder_starts_at_the_next_boundary_after_a_death() {
        let mut policy = CrashPolicy::default();
        assert!(policy.may_start(Msn(10)) && !policy.is_failing());
        policy.died(Msn(10));
        assert!(!policy.may_start(Msn(10)) && policy.may_start(Msn(11)) && !policy.is_failing());
    }

    #[test]
    fn rungs_are_out_for_growing_numbers_of_segments_after_three_deaths_in_a_row() {
        let mut policy = CrashPolicy::default();
        let (mut msn, mut starts) = (Msn(100), Vec::new());
        while starts.len() < 12 {
            if policy.may_start(msn) {
                starts.push(msn.0);
                policy.died(msn);
            }
            msn = msn.next();
        }
        let left_out: Vec<u64> = starts.windows(2).map(|pair| pair[1] - pair[0] - 1).collect();
        assert_eq!(left_out, [0, 0, 1, 2, 4, 8, 16, 32, 32, 32, 32]);
        assert!(policy.is_failing());
    }

    #[test]
    fn complete_segment_ends_the_row_and_calm_ends_the_spacing() {
        let mut policy = CrashPolicy::default();
        (1..=4).for_each(|msn| policy.died(Msn(msn)));
        assert!(policy.is_failing() && !policy.may_start(Msn(6)) && policy.may_start(Msn(7)));
        policy.completed();
        assert!(!policy.is_failing());
        (10..=12).for_each(|msn| policy.died(Msn(msn)));
        assert!(policy.may_start(Msn(17)) && !policy.may_start(Msn(16)), "the spacing goes on from 2 to 4");
        (0..CALM_SEGMENTS).for_each(|_| policy.completed());
        (20..=22).for_each(|msn| policy.died(Msn(msn)));
        assert!(policy.may_start(Msn(24)) && !policy.may_start(Msn(23)), "and begins anew after a calm time");
    }

    #[test]
    fn falling_behind_is_no_death() {
        let mut policy = CrashPolicy::default();
        (1..=9).for_each(|msn| policy.fell_behind(Msn(msn)));
        assert!(!policy.is_failing() && !policy.may_start(Msn(13)) && policy.may_start(Msn(14)));
    }
}
