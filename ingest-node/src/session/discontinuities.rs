//! The discontinuity sequence numbers of the newest segments (RFC 8216bis §4.4.3.3).

use std::collections::VecDeque;

use millrace_wire::ids::{DiscontinuitySeq, Msn};

/// Discontinuities remembered: audio lies at most one segment behind the pictures.
const REMEMBERED: usize = 4;

/// Maps media sequence numbers to discontinuity sequence numbers.
#[derive(Debug)]
pub(super) struct Discontinuities {
    /// The first segment of each discontinuity sequence number, oldest first; never empty.
    starts: VecDeque<(Msn, DiscontinuitySeq)>,
}

impl Discontinuities {
    /// Begins with the grant's numbers.
    pub(super) fn new(first: Msn, sequence: DiscontinuitySeq) -> Self {
        Self { starts: VecDeque::from([(first, sequence)]) }
    }

    /// Records that segment `msn` follows a discontinuity.
    pub(super) fn begin(&mut self, msn: Msn) {
        let next = self.sequence_of(msn).next();
        self.starts.push_back((msn, next));
        if self.starts.len() > REMEMBERED {
            self.starts.pop_front();
        }
    }

    /// Returns the discontinuity sequence number of a segment; that of the oldest one remembered if it is older.
    pub(super) fn sequence_of(&self, msn: Msn) -> DiscontinuitySeq {
        let known = self.starts.iter().rev().find(|(first, _)| *first <= msn);
        known.or(self.starts.front()).map_or(DiscontinuitySeq(0), |(_, sequence)| *sequence)
    }

    /// Returns the first segment of the newest discontinuity sequence number.
    pub(super) fn newest(&self) -> Msn {
        self.starts.back().map(|(msn, _)| *msn).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_keep_their_discontinuity_sequence_after_a_later_one_begins() {
        let mut discontinuities = Discontinuities::new(Msn(10), DiscontinuitySeq(3));
        discontinuities.begin(Msn(12));
        assert_eq!(discontinuities.sequence_of(Msn(11)), DiscontinuitySeq(3));
        assert_eq!(discontinuities.sequence_of(Msn(12)), DiscontinuitySeq(4));
        assert_eq!(discontinuities.newest(), Msn(12));
    }

    #[test]
    fn discontinuities_remember_a_bounded_number() {
        let mut discontinuities = Discontinuities::new(Msn(0), DiscontinuitySeq(0));
        for msn in 1..100 {
            discontinuities.begin(Msn(msn));
        }
        assert_eq!(discontinuities.sequence_of(Msn(99)), DiscontinuitySeq(99));
        assert_eq!(discontinuities.sequence_of(Msn(0)), DiscontinuitySeq(96), "the oldest one remembered");
        assert_eq!(discontinuities.starts.len(), REMEMBERED);
    }
}
