//! Readiness by named conditions: a node is ready when every condition holds, and says which do not.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use serde::Serialize;
use tokio::sync::watch;

/// The conditions of one process.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    conditions: Arc<RwLock<BTreeMap<String, Option<String>>>>,
}

/// One condition of [`Readiness`]; set by whoever knows.
#[derive(Debug, Clone)]
pub struct Condition {
    name: String,
    readiness: Readiness,
}

/// What `/readyz` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether the node may take work.
    pub ready: bool,
    /// The conditions that do not hold, with what is missing.
    pub failing: Vec<Failing>,
    /// The names of all conditions.
    pub conditions: Vec<String>,
}

/// A condition that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failing {
    /// Its name.
    pub name: String,
    /// What is missing.
    pub reason: String,
}

impl Readiness {
    /// No conditions: ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition that does not hold yet.
    pub fn condition(&self, name: &str, reason: &str) -> Condition {
        let condition = Condition { name: name.to_owned(), readiness: self.clone() };
        condition.fail(reason);
        condition
    }

    /// Adds a condition that holds while `up` says so, as a bus does of its connection.
    pub fn follow(&self, name: &str, mut up: watch::Receiver<bool>, missing: &'static str) {
        let condition = self.condition(name, missing);
        condition.set(*up.borrow_and_update(), missing);
        tokio::spawn(async move {
            while up.changed().await.is_ok() {
                condition.set(*up.borrow_and_update(), missing);
            }
        });
    }

    /// The state of all conditions.
    pub fn report(&self) -> Report {
        let conditions = self.conditions.read().unwrap_or_else(PoisonError::into_inner);
        let failing: Vec<Failing> = conditions
            .iter()
            .filter_map(|(name, reason)| {
                reason.as_ref().map(|reason| Failing { name: name.clone(), reason: reason.clone() })
            })
            .collect();
        Report { ready: failing.is_empty(), failing, conditions: conditions.keys().cloned().collect() }
    }

    /// Whether every condition holds.
    pub fn is_ready(&self) -> bool {
        self.report().ready
    }
}

impl Condition {
    /// The condition holds.
    pub fn hold(&self) {
        self.write(None);
    }

    /// The condition does not hold, because of `reason`.
    pub fn fail(&self, reason: &str) {
        self.write(Some(reason.to_owned()));
    }

    /// Holds or fails by `ok`.
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
    fn names_what_is_missing() {
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

    #[tokio::test]
    async fn follows_what_is_watched() {
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
