//! Admission: which jobs a worker node bids for. Cost units are counted against the node's capacity, of which a share is
//! reserved for jobs that only copy, so that encoded rungs are shed before a stream is refused.

use std::collections::BTreeMap;

use millrace_wire::ids::{Epoch, Generation, StreamId};
use millrace_wire::message::job::COPY_COST;

/// The key of an admitted job.
pub type JobKey = (StreamId, Epoch, Generation);

/// The bounds of a worker node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// The most jobs that run at once, regardless of their cost.
    pub jobs: usize,
    /// Cost units of all jobs together.
    pub capacity: u64,
    /// Those of the cost units that only jobs of [`COPY_COST`] may take.
    pub copy_reserve: u64,
}

/// The jobs of a worker node and what each costs.
#[derive(Debug)]
pub struct Admission {
    limits: AdmissionLimits,
    used: BTreeMap<JobKey, u64>,
}

impl Admission {
    /// Creates the admission of a node without jobs.
    pub const fn new(limits: AdmissionLimits) -> Self {
        Self { limits, used: BTreeMap::new() }
    }

    /// Replaces the bounds; jobs that run go on.
    pub const fn set_limits(&mut self, limits: AdmissionLimits) {
        self.limits = limits;
    }

    /// Returns the cost units in use.
    pub fn used(&self) -> u64 {
        self.used.values().fold(0, |sum, cost| sum.saturating_add(*cost))
    }

    /// Returns the free cost units to bid with for a job of `cost`; `None` if the node does not bid.
    pub fn bid(&self, cost: u64) -> Option<u64> {
        let AdmissionLimits { jobs, capacity, copy_reserve } = self.limits;
        let reserve = if cost <= COPY_COST { 0 } else { copy_reserve };
        let free = capacity.saturating_sub(reserve).saturating_sub(self.used());
        (self.used.len() < jobs && free >= cost.max(COPY_COST)).then_some(free)
    }

    /// Takes a granted job, even if other jobs were taken since the bid: the session has chosen. False if the job was taken
    /// before.
    pub fn take(&mut self, job: JobKey, cost: u64) -> bool {
        self.used.insert(job, cost.max(COPY_COST)).is_none()
    }

    /// Gives a job's cost units back. True if it had any.
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
    fn admission_keeps_the_reserve_for_copy_jobs() {
        let mut admission = Admission::new(AdmissionLimits { jobs: 100, capacity: 10, copy_reserve: 4 });
        assert_eq!((admission.bid(6), admission.bid(7)), (Some(6), None));
        assert!(admission.take(job(1), 6));
        assert!(!admission.take(job(1), 6), "the same grant again");
        assert_eq!((admission.bid(2), admission.bid(1)), (None, Some(4)));
        for n in 2..6 {
            admission.take(job(n), 1);
        }
        assert_eq!((admission.bid(1), admission.used()), (None, 10));
        assert!(admission.give_back(&job(1)) && !admission.give_back(&job(1)));
        assert_eq!((admission.bid(2), admission.bid(1)), (Some(2), Some(6)));
    }

    #[test]
    fn admission_bounds_the_number_of_jobs_whatever_they_cost() {
        let mut admission = Admission::new(AdmissionLimits { jobs: 2, capacity: 100, copy_reserve: 0 });
        admission.take(job(1), 0);
        assert_eq!((admission.bid(0), admission.used()), (Some(99), 1), "nothing is free");
        admission.take(job(2), 1);
        assert_eq!(admission.bid(1), None);
        admission.give_back(&job(1));
        assert_eq!(admission.bid(1), Some(99));
    }

    proptest! {
        #[test]
        fn admission_stays_within_its_limits_if_only_jobs_it_bid_for_are_taken(
            jobs in 1usize..20, capacity in 1u64..50, reserve in 0u64..60,
            ops in proptest::collection::vec((0u128..30, 0u64..20, any::<bool>()), 1..100),
        ) {
            let limits = AdmissionLimits { jobs, capacity, copy_reserve: reserve };
            let mut admission = Admission::new(limits);
            for (n, cost, leave) in ops {
                if leave {
                    admission.give_back(&job(n));
                } else if let Some(free) = admission.bid(cost) {
                    prop_assert!(free >= cost);
                    admission.take(job(n), cost);
                }
                prop_assert!(admission.used() <= capacity);
                prop_assert!(admission.used.len() <= jobs);
                let encoded: u64 = admission.used.values().filter(|cost| **cost > COPY_COST).sum();
                prop_assert!(encoded <= capacity.saturating_sub(reserve));
            }
        }
    }
}
