//! The repairs of one publish or one job for the operator: the node's metric, and a log line for each kind.

use std::collections::HashMap;

use millrace_media::repair::{Repair, RepairClass, RepairCounts};
use millrace_runtime::LogLimit;
use millrace_runtime::metrics::Counters;

/// Hands the repairs of one publish or one job to the metric and to the log.
#[derive(Debug)]
pub struct RepairReport {
    metric: Counters,
    reported: RepairCounts,
    logged: HashMap<Repair, Logged>,
}

/// The log lines about one kind of repair.
#[derive(Debug, Default)]
struct Logged {
    limit: LogLimit,
    /// The repairs up to the last line.
    count: u64,
}

impl RepairReport {
    /// Creates a report that counts into `metric`.
    pub fn new(metric: &Counters) -> Self {
        Self { metric: metric.clone(), reported: RepairCounts::new(), logged: HashMap::new() }
    }

    /// Reports what came since the last call: a kind is logged when it first occurs, then at most once a minute. It is
    /// called in the span of the publish or job.
    pub fn report(&mut self, repairs: &RepairCounts) {
        let new = repairs.since(&self.reported);
        self.reported = *repairs;
        for (repair, count) in new.iter() {
            self.metric.with(&[repair.code()]).add(count);
            let logged = self.logged.entry(repair).or_default();
            if logged.limit.due().is_some() {
                let total = repairs.get(repair);
                let since_last_line = total - logged.count;
                logged.count = total;
                let effect = match repair.class() {
                    RepairClass::Moved => "moved",
                    RepairClass::Dropped => "dropped",
                    RepairClass::Invented => "added",
                };
                tracing::warn!(
                    reason = repair.code(),
                    effect,
                    count = since_last_line,
                    total,
                    "{}",
                    repair.text()
                );
            }
        }
    }
}
