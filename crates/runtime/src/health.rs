//! Readiness by named conditions: a process is ready when every condition holds, and reports those that do not.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;

/// The interval at which conditions are read while a start waits for them.
const READY_POLL: Duration = Duration::from_millis(10);

/// The readiness conditions of one process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    conditions: Arc<RwLock<BTreeMap<String, Option<String>>>>,
    /// What runs with less than it should, with the reason.
    degraded: Arc<RwLock<BTreeMap<String, String>>>,
}

/// One condition of [`Readiness`], set by the part of the node that it is about.
#[derive(Debug, Clone)]
pub struct Condition {
    name: String,
    readiness: Readiness,
}

/// The state of all conditions, as `/readyz` answers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// True if the process may take work.
    pub ready: bool,
    /// The conditions that do not hold, each with its reason.
    pub failing: Vec<Failing>,
    /// What runs with less than it should, each with its reason. The process takes work all the same.
    pub degraded: Vec<Failing>,
    /// The names of all conditions.
    pub conditions: Vec<String>,
}

/// A condition that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failing {
    /// The name of the condition.
    pub name: String,
    /// The reason, as an operator can act on it.
    pub reason: String,
}

/// The conditions that did not hold in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not ready within {limit:?}: {}", named(failing))]
pub struct NotReady {
    /// The time that was waited.
    pub limit: Duration,
    /// The conditions that do not hold.
    pub failing: Vec<Failing>,
}

fn named(failing: &[Failing]) -> String {
    let each: Vec<String> = failing.iter().map(|one| format!("{}: {}", one.name, one.reason)).collect();
    each.join("; ")
}

impl Readiness {
    /// Makes an empty set of conditions, which is ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition that does not hold yet.
    pub fn condition(&self, name: &str, reason: &str) -> Condition {
        let condition = Condition { name: name.to_owned(), readiness: self.clone() };
        condition.fail(reason);
        condition
    }

    /// Adds a condition that holds while `up` is true, for example the connection of a bus.
    pub fn follow(&self, name: &str, mut up: watch::Receiver<bool>, missing: &'static str) {
        let condition = self.condition(name, missing);
        condition.set(*up.borrow_and_update(), missing);
        tokio::spawn(async move {
            while up.changed().await.is_ok() {
                condition.set(*up.borrow_and_update(), missing);
            }
        });
    }

    /// Marks the part `name` of the process as degraded because of `reason`, or as working for `None`. It does not change
    /// readiness: for example the live path goes on without storage.
    pub fn set_degraded(&self, name: &str, reason: Option<&str>) {
        let mut degraded = self.degraded.write().unwrap_or_else(PoisonError::into_inner);
        match reason {
            Some(reason) => drop(degraded.insert(name.to_owned(), reason.to_owned())),
            None => drop(degraded.remove(name)),
        }
    }

    /// Returns what runs with less than it should, each with its reason.
    pub fn degraded(&self) -> Vec<Failing> {
        let degraded = self.degraded.read().unwrap_or_else(PoisonError::into_inner);
        degraded.iter().map(|(name, reason)| Failing { name: name.clone(), reason: reason.clone() }).collect()
    }

    /// Returns the state of all conditions.
    pub fn report(&self) -> Report {
        let conditions = self.conditions.read().unwrap_or_else(PoisonError::into_inner);
        let failing: Vec<Failing> = conditions
            .iter()
            .filter_map(|(name, reason)| {
                reason.as_ref().map(|reason| Failing { name: name.clone(), reason: reason.clone() })
            })
            .collect();
        Report {
            ready: failing.is_empty(),
            failing,
            degraded: self.degraded(),
            conditions: conditions.keys().cloned().collect(),
        }
    }

    /// Waits until every condition holds.
    ///
    /// # Errors
    /// When some do not within `limit`.
    pub async fn until_ready(&self, limit: Duration) -> Result<(), NotReady> {
        let ready = async {
            while !self.is_ready() {
                tokio::time::sleep(READY_POLL).await;
            }
        };
        let waited = tokio::time::timeout(limit, ready).await;
        waited.map_err(|_| NotReady { limit, failing: self.report().failing })
    }

    /// Returns true if every condition holds.
    pub fn is_ready(&self) -> bool {
        self.report().ready
    }
}

impl Condition {
    /// Marks the condition as holding.
    pub fn hold(&self) {
        self.write(None);
    }

    /// Marks the condition as failing because of `reason`.
    pub fn fail(&self, reason: &str) {
        self.write(Some(reason.to_owned()));
    }

    /// Marks the condition as holding if `ok`, else as failing because of `reason`.
    pub fn set(&self, ok: bool, reason: &str) {
        if ok { self.hold() } else { self.fail(reason) }
    }

    fn write(&self, reason: Option<String>) {
        let mut all = self.readiness.conditions.write().unwrap_or_else(PoisonError::into_inner);
        let before = all.insert(self.name.clone(), reason.clone());
        match (before, reason) {
            (Some(Some(_)), None) => tracing::info!(condition = self.name, "readiness condition holds"),
            (Some(None), Some(reason)) => {
                tracing::warn!(condition = self.name, reason, "readiness condition no longer holds");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_report_names_each_failing_condition_and_its_reason() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        let bus = readiness.condition("bus", "not connected yet");
        let state = readiness.condition("state", "not connected yet");
        state.hold();
        let report = readiness.report();
        assert!(!report.ready);
        assert_eq!(report.failing, [Failing { name: "bus".into(), reason: "not connected yet".into() }]);
        assert_eq!(report.conditions, ["bus", "state"]);
        bus.hold();
        assert!(readiness.is_ready());
        state.set(false, "redis: connection refused");
        assert!(!readiness.is_ready());
    }

    #[test]
    fn degraded_part_is_reported_and_does_not_change_readiness() {
        let readiness = Readiness::new();
        readiness.set_degraded("storage", Some("No space left on device"));
        let report = readiness.report();
        let storage = Failing { name: "storage".into(), reason: "No space left on device".into() };
        assert_eq!((report.ready, report.degraded), (true, vec![storage]));
        readiness.set_degraded("storage", None);
        assert_eq!(readiness.report().degraded, []);
    }

    #[tokio::test]
    async fn until_ready_returns_when_all_conditions_hold_or_names_those_that_do_not() {
        let readiness = Readiness::new();
        let bus = readiness.condition("bus", "not connected");
        let late = readiness.until_ready(Duration::from_millis(1)).await.unwrap_err();
        assert_eq!(late.to_string(), "not ready within 1ms: bus: not connected");
        bus.hold();
        readiness.until_ready(Duration::from_secs(10)).await.unwrap();
    }

    #[tokio::test]
    async fn readiness_follows_a_watched_flag() {
        let readiness = Readiness::new();
        let (up, watched) = watch::channel(true);
        readiness.follow("bus", watched, "not connected");
        assert!(readiness.is_ready());
        for state in [false, true] {
            up.send_replace(state);
            while readiness.is_ready() != state {
                tokio::task::yield_now().await;
            }
        }
    }
}
