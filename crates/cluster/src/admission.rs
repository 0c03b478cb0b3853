//! What a worker node may take on: cost units against its capacity, with a share reserved for copy-only jobs, so that
//! encoded rungs are shed before a stream is refused.

use std::collections::BTreeMap;

use millrace_wire::ids::{Epoch, Generation, StreamId};

/// Key of an admitted job.
pub type JobKey = (StreamId, Epoch, Generation);

/// A node's cost units.
#[derive(Debug)]
pub struct Admission {
    capacity: u64,
    copy_reserve: u64,
    used: BTreeMap<JobKey, u64>,
    draining: bool,
}

impl Admission {
    /// `capacity` cost units, of which `copy_reserve` are for copy-only jobs.
    pub fn new(capacity: u64, copy_reserve: u64) -> Self {
        let copy_reserve = copy_reserve.min(capacity);
        Self { capacity, copy_reserve, used: BTreeMap::new(), draining: false }
    }
    /// Cost units in use.
    pub fn used(&self) -> u64 {
        self.used.values().fold(0, |sum, cost| sum.saturating_add(*cost))
    }
    /// The free units to bid with for a job of `cost`; `None`: do not bid.
    pub fn bid(&self, cost: u64, copy_only: bool) -> Option<u64> {
        let reserve = if copy_only { 0 } else { self.copy_reserve };
        let free = self.capacity.saturating_sub(reserve).saturating_sub(self.used());
        (!self.draining && free >= cost).then_some(free)
    }
    /// Takes a granted job. A grant is taken even when others were taken since the bid: the session has chosen.
    pub fn take(&mut self, job: JobKey, cost: u64) {
        self.used.insert(job, cost);
    }
    /// Gives a job's units back; true when the node should say on `jobs.free` that it has capacity again.
    pub fn give_back(&mut self, job: &JobKey) -> bool {
        self.used.remove(job).is_some() && !self.draining
    }
    /// Bids no more.
    pub fn drain(&mut self) {
        self.draining = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_jobs_leave_the_reserve_to_copies() {
        let job = |n| (StreamId::from_u128(n), Epoch(1), Generation(1));
        let mut a = Admission::new(10, 4);
        assert_eq!((a.bid(6, false), a.bid(7, false)), (Some(6), None));
        a.take(job(1), 6);
        assert_eq!((a.bid(1, false), a.bid(4, true), a.bid(5, true)), (None, Some(4), None));
        assert!(a.give_back(&job(1)));
        assert!(!a.give_back(&job(1)));
        a.drain();
        assert_eq!(a.bid(1, true), None);
    }
}
