//! What a worker node may take on: cost units against its capacity, with a share reserved for jobs that only copy, so
//! that encoded rungs are shed before a stream is refused.

use std::collections::BTreeMap;

use millrace_wire::ids::{Epoch, Generation, StreamId};
use millrace_wire::message::job::COPY_COST;

/// Key of an admitted job.
pub type JobKey = (StreamId, Epoch, Generation);

/// Bounds of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// Jobs at once, whatever they cost.
    pub jobs: usize,
    /// Cost units of all jobs together.
    pub capacity: u64,
    /// Of these, the units that only jobs of [`COPY_COST`] may take.
    pub copy_reserve: u64,
}

/// A node's jobs and what they cost.
#[derive(Debug)]
pub struct Admission {
    limits: AdmissionLimits,
    used: BTreeMap<JobKey, u64>,
}

impl Admission {
    /// A node without jobs.
    pub const fn new(limits: AdmissionLimits) -> Self {
        Self { limits, used: BTreeMap::new() }
    }
    /// Cost units in use.
    pub fn used(&self) -> u64 {
        self.used.values().fold(0, |sum, cost| sum.saturating_add(*cost))
    }
    /// The free units to bid with for a job of `cost`; `None`: do not bid.
    pub fn bid(&self, cost: u64) -> Option<u64> {
        let AdmissionLimits { jobs, capacity, copy_reserve } = self.limits;
        let reserve = if cost <= COPY_COST { 0 } else { copy_reserve };
        let free = capacity.saturating_sub(reserve).saturating_sub(self.used());
        (self.used.len() < jobs && free >= cost.max(COPY_COST)).then_some(free)
    }
    /// Takes a granted job; false when it is known. A grant is taken even when others were taken since the bid: the
    /// session has chosen.
    pub fn take(&mut self, job: JobKey, cost: u64) -> bool {
        self.used.insert(job, cost.max(COPY_COST)).is_none()
    }
    /// Gives a job's units back; true when there were any.
    pub fn give_back(&mut self, job: &JobKey) -> bool {
        self.used.remove(job).is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn job(n: u128) -> JobKey {
        (StreamId::from_u128(n), Epoch(1), Generation(1))
    }

    #[test]
    fn encoded_jobs_leave_the_reserve_to_copies() {
        let mut a = Admission::new(AdmissionLimits { jobs: 100, capacity: 10, copy_reserve: 4 });
        assert_eq!((a.bid(6), a.bid(7)), (Some(6), None));
        assert!(a.take(job(1), 6));
        assert!(!a.take(job(1), 6), "the same grant again");
        assert_eq!((a.bid(2), a.bid(1)), (None, Some(4)));
        for n in 2..6 {
            a.take(job(n), 1);
        }
        assert_eq!((a.bid(1), a.used()), (None, 10));
        assert!(a.give_back(&job(1)) && !a.give_back(&job(1)));
        assert_eq!((a.bid(2), a.bid(1)), (Some(2), Some(6)));
    }

    #[test]
    fn jobs_are_counted_whatever_they_cost() {
        let mut a = Admission::new(AdmissionLimits { jobs: 2, capacity: 100, copy_reserve: 0 });
        a.take(job(1), 0);
        assert_eq!((a.bid(0), a.used()), (Some(99), 1), "nothing is free");
        a.take(job(2), 1);
        assert_eq!(a.bid(1), None);
        a.give_back(&job(1));
        assert_eq!(a.bid(1), Some(99));
    }

    proptest! {
        #[test]
        fn who_takes_only_what_it_bid_for_stays_within_its_limits(
            jobs in 1usize..20, capacity in 1u64..50, reserve in 0u64..60,
            ops in proptest::collection::vec((0u128..30, 0u64..20, any::<bool>()), 1..100),
        ) {
            let limits = AdmissionLimits { jobs, capacity, copy_reserve: reserve };
            let mut a = Admission::new(limits);
            for (n, cost, leave) in ops {
                if leave {
                    a.give_back(&job(n));
                } else if let Some(free) = a.bid(cost) {
                    prop_assert!(free >= cost);
                    a.take(job(n), cost);
                }
                prop_assert!(a.used() <= capacity);
                prop_assert!(a.used.len() <= jobs);
                let encoded: u64 = a.used.values().filter(|cost| **cost > COPY_COST).sum();
                prop_assert!(encoded <= capacity.saturating_sub(reserve));
            }
        }
    }
}
