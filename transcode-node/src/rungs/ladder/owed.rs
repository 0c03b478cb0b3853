//! The segments that a rendition has yet to hand in, and those that it lacks.

use std::collections::{BTreeSet, VecDeque};

/// A rendition may be behind the source by so many segments: 12 s of the shortest. One that is further behind lacks its
/// oldest segment. The memory of a segment's numbers in [`FactBuilder`](super::super::facts::FactBuilder) reaches further.
const MAX_OWED: usize = 6;

/// The segments of one rendition whose outcome is open, in order, and those that are lost and not yet listed as GAP.
#[derive(Debug, Default)]
pub(super) struct Owed {
    open: VecDeque<u64>,
    lost: BTreeSet<u64>,
}

impl Owed {
    /// Adds a segment that the rendition is to have.
    pub(super) fn add(&mut self, msn: u64) {
        self.lost.remove(&msn);
        self.open.push_back(msn);
        if self.open.len() > MAX_OWED
            && let Some(oldest) = self.open.pop_front()
        {
            self.lost.insert(oldest);
        }
    }

    /// Adds a segment that the rendition will not have.
    pub(super) fn add_lost(&mut self, msn: u64) {
        self.lost.insert(msn);
    }

    /// Returns the oldest segment whose outcome is open.
    pub(super) fn first(&self) -> Option<u64> {
        self.open.front().copied()
    }

    /// True if the rendition is to have the segment and has not completed it.
    pub(super) fn is_open(&self, msn: u64) -> bool {
        self.open.contains(&msn)
    }

    /// Notes that the rendition has completed a segment: those before it that are open are lost.
    pub(super) fn complete(&mut self, msn: u64) {
        self.lose_before(msn);
        self.open.pop_front_if(|open| *open == msn);
    }

    /// Loses the open segments up to `msn`.
    pub(super) fn lose_through(&mut self, msn: u64) {
        while let Some(lost) = self.open.pop_front_if(|open| *open <= msn) {
            self.lost.insert(lost);
        }
    }

    /// Loses the open segments before `msn`.
    pub(super) fn lose_before(&mut self, msn: u64) {
        if let Some(last) = msn.checked_sub(1) {
            self.lose_through(last);
        }
    }

    /// Loses the open segments from `msn` on, up to the one before `end`.
    pub(super) fn lose_range(&mut self, msn: u64, end: u64) {
        let lost = self.open.iter().copied().filter(|open| (msn..end).contains(open));
        self.lost.extend(lost);
        self.open.retain(|open| !(msn..end).contains(open));
    }

    /// Removes and returns the lost segments that `is_known` accepts, in order.
    pub(super) fn take_lost(&mut self, is_known: impl Fn(u64) -> bool) -> Vec<u64> {
        let known: Vec<u64> = self.lost.iter().copied().filter(|msn| is_known(*msn)).collect();
        for msn in &known {
            self.lost.remove(msn);
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_completed_segment_loses_those_before_it_that_are_open() {
        let mut owed = Owed::default();
        (1..=4).for_each(|msn| owed.add(msn));
        owed.complete(1);
        owed.complete(3);
        assert_eq!(owed.take_lost(|_| true), [2]);
        assert!(owed.is_open(4) && !owed.is_open(3));
        assert!(owed.take_lost(|_| true).is_empty(), "each is listed once");
    }

    #[test]
    fn a_rendition_that_hands_nothing_in_loses_its_oldest_segments() {
        let mut owed = Owed::default();
        (0..100).for_each(|msn| owed.add(msn));
        assert_eq!(owed.take_lost(|_| true).len(), 100 - MAX_OWED);
        owed.lose_range(97, 99);
        assert_eq!(owed.take_lost(|msn| msn != 97), [98]);
        assert_eq!(owed.take_lost(|_| true), [97]);
    }
}
