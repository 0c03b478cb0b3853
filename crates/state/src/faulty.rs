//! A state store that goes wrong on purpose.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::{Record, SharedState, Sighting, StateError, StateStore, Tx, Version, Versioned};

/// The faults that a wrapped store injects.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StateFaults {
    /// True if every call fails.
    pub away: bool,
    /// A call fails, with this probability.
    pub fail: f64,
    /// A failing commit was made all the same (its answer was lost), with this probability.
    pub lost_answer: f64,
    /// Every call takes this long more.
    pub delay: Duration,
    /// True if reads succeed and every change is refused, as with a full disk.
    pub full: bool,
}

struct Inner {
    state: SharedState,
    faults: Mutex<StateFaults>,
    dice: Mutex<StdRng>,
}

/// Wraps a state store and harms calls, by seed.
#[derive(Clone)]
pub struct FaultyState {
    inner: Arc<Inner>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn injected() -> StateError {
    StateError::unavailable("injected fault")
}

enum Verdict {
    Pass,
    Fail,
    FailAfter,
}

impl FaultyState {
    /// Wraps `state`; nothing goes wrong until faults are set.
    pub fn new(state: SharedState, seed: u64) -> Self {
        let dice = Mutex::new(StdRng::seed_from_u64(seed));
        Self { inner: Arc::new(Inner { state, faults: Mutex::default(), dice }) }
    }

    /// Replaces the faults that are injected from now on.
    pub fn set(&self, faults: StateFaults) {
        *lock(&self.inner.faults) = faults;
    }

    async fn verdict(&self) -> Verdict {
        let delay = lock(&self.inner.faults).delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let faults = lock(&self.inner.faults).clone();
        let mut dice = lock(&self.inner.dice);
        let (fail, lost) = (dice.random::<f64>() < faults.fail, dice.random::<f64>() < faults.lost_answer);
        match (faults.away, fail) {
            (false, false) => Verdict::Pass,
            (false, true) if lost => Verdict::FailAfter,
            _ => Verdict::Fail,
        }
    }

    fn check_room(&self) -> Result<(), StateError> {
        if lock(&self.inner.faults).full {
            return Err(StateError::NotWritable { reason: "No space left on device".to_owned() });
        }
        Ok(())
    }

    async fn check(&self) -> Result<(), StateError> {
        match self.verdict().await {
            Verdict::Pass => Ok(()),
            Verdict::Fail | Verdict::FailAfter => Err(injected()),
        }
    }
}

#[async_trait]
impl StateStore for FaultyState {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, StateError> {
        self.check().await?;
        self.inner.state.get(key).await
    }

    async fn commit(&self, tx: Tx) -> Result<Version, StateError> {
        self.check_room()?;
        match self.verdict().await {
            Verdict::Pass => self.inner.state.commit(tx).await,
            Verdict::Fail => Err(injected()),
            Verdict::FailAfter => self.inner.state.commit(tx).await.and(Err(injected())),
        }
    }

    async fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Record>, StateError> {
        self.check().await?;
        self.inner.state.scan(prefix, after, limit).await
    }

    async fn audience_note(
        &self,
        audience: &str,
        uniques: Option<&str>,
        sightings: &[Sighting],
    ) -> Result<u64, StateError> {
        self.check().await?;
        self.inner.state.audience_note(audience, uniques, sightings).await
    }

    async fn audience_count(&self, audience: &str) -> Result<u64, StateError> {
        self.check().await?;
        self.inner.state.audience_count(audience).await
    }

    async fn audience_uniques(&self, uniques: &str) -> Result<u64, StateError> {
        self.check().await?;
        self.inner.state.audience_uniques(uniques).await
    }

    async fn ready(&self) -> Result<(), StateError> {
        self.check_room()?;
        self.check().await?;
        self.inner.state.ready().await
    }
}
