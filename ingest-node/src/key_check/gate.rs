//! The decision about a presented key: accepted keys that are remembered, the breaker, and the policy while the service is
//! down. Knows no clock and no key: the caller passes the times and the key's hash.

use std::collections::HashMap;
use std::time::Duration;

use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::{KeyHash, UnixMillis};
use millrace_wire::message::control::AcceptedKey;

use super::answer::{Answer, Failure};
use super::breaker::Breaker;
use super::options::{GateOptions, WhenDown};
use crate::limits;

/// The next step for a presented key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// The service accepted the key a moment ago.
    Accept(AcceptedKey),
    /// The service is down; it accepted the key lately, and the policy is to accept it.
    AcceptWhileDown(AcceptedKey),
    /// The service is to be asked; the answer goes to [`Gate::answered`].
    Ask,
    /// The service is down, and failed for this reason last.
    Refuse(Failure),
}

/// An accepted key.
#[derive(Debug, Clone)]
struct Remembered {
    key: AcceptedKey,
    at: Duration,
    expires: Option<UnixMillis>,
}

/// The accepted keys and the state of the service.
#[derive(Debug)]
pub(super) struct Gate {
    options: GateOptions,
    accepted: HashMap<KeyHash, Remembered>,
    breaker: Breaker,
    last_failure: Option<Failure>,
}

impl Gate {
    /// Creates a gate that has seen nothing.
    pub(super) fn new(options: GateOptions) -> Self {
        Self { options, accepted: HashMap::new(), breaker: Breaker::default(), last_failure: None }
    }

    /// Returns true while the service counts as down.
    pub(super) fn is_open(&self) -> bool {
        self.breaker.is_open()
    }

    /// Decides what to do with a key that is presented now.
    pub(super) fn begin(&mut self, hash: KeyHash, now: Duration, wall_clock: UnixMillis) -> Step {
        if let Some(key) = self.remembered(&hash, self.options.fresh, now, wall_clock) {
            return Step::Accept(key);
        }
        if self.breaker.admit(now) {
            return Step::Ask;
        }
        match self.while_down(&hash, now, wall_clock) {
            Some(key) => Step::AcceptWhileDown(key),
            None => Step::Refuse(self.last_failure.clone().unwrap_or(Failure::Slow)),
        }
    }

    /// Decides by the service's answer about a key.
    pub(super) fn answered(
        &mut self,
        hash: KeyHash,
        answer: &Answer,
        now: Duration,
        wall_clock: UnixMillis,
    ) -> Result<AcceptedKey, CloseReason> {
        match answer {
            Answer::Accepted { key, expires } => {
                self.breaker.succeeded();
                self.remember(hash, Remembered { key: key.clone(), at: now, expires: *expires });
                Ok(key.clone())
            }
            Answer::Refused(refusal) => {
                self.breaker.succeeded();
                self.accepted.remove(&hash);
                Err(refusal.reason())
            }
            Answer::Failed(failure) => {
                self.breaker.failed(now);
                self.last_failure = Some(failure.clone());
                self.while_down(&hash, now, wall_clock).ok_or(failure.reason())
            }
        }
    }

    fn while_down(&self, hash: &KeyHash, now: Duration, wall_clock: UnixMillis) -> Option<AcceptedKey> {
        match self.options.when_down {
            WhenDown::Refuse => None,
            WhenDown::AcceptRecent => self.remembered(hash, self.options.recent, now, wall_clock),
        }
    }

    /// Returns an accepted key that is not older than `age` and has not expired.
    fn remembered(
        &self,
        hash: &KeyHash,
        age: Duration,
        now: Duration,
        wall_clock: UnixMillis,
    ) -> Option<AcceptedKey> {
        let found = self.accepted.get(hash)?;
        let is_young = now.saturating_sub(found.at) < age;
        let is_valid = found.expires.is_none_or(|at| wall_clock.0 < at.0);
        (is_young && is_valid).then(|| found.key.clone())
    }

    /// Keeps an accepted key; beyond the bound the keys too old to count are removed, else the oldest.
    fn remember(&mut self, hash: KeyHash, key: Remembered) {
        let full = |accepted: &HashMap<_, _>| accepted.len() >= limits::MAX_ACCEPTED_KEYS;
        if full(&self.accepted) && !self.accepted.contains_key(&hash) {
            let longest = self.options.fresh.max(self.options.recent);
            self.accepted.retain(|_, kept| key.at.saturating_sub(kept.at) < longest);
            if full(&self.accepted) {
                let oldest = self.accepted.iter().min_by_key(|(_, kept)| kept.at).map(|(hash, _)| *hash);
                oldest.and_then(|hash| self.accepted.remove(&hash));
            }
        }
        self.accepted.insert(hash, key);
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer::Refusal;
    use super::*;

    const WALL: UnixMillis = UnixMillis(1_785_299_200_000);

    fn gate(when_down: WhenDown) -> Gate {
        let (fresh, recent) = (Duration::from_secs(30), Duration::from_hours(1));
        Gate::new(GateOptions { fresh, recent, when_down })
    }

    fn hash(key: &str) -> KeyHash {
        KeyHash::of_text(b"secret", key).unwrap()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn accepted(expires: Option<UnixMillis>) -> Answer {
        Answer::Accepted { key: AcceptedKey { title: Some("Show".into()), owner: None }, expires }
    }

    fn down() -> Answer {
        Answer::Failed(Failure::Unreachable("connection refused".into()))
    }

    #[test]
    fn accepted_key_is_not_asked_for_again_until_it_is_no_longer_fresh() {
        let mut gate = gate(WhenDown::Refuse);
        assert_eq!(gate.begin(hash("a"), at(0), WALL), Step::Ask);
        gate.answered(hash("a"), &accepted(None), at(0), WALL).unwrap();
        assert!(
            matches!(gate.begin(hash("a"), at(29), WALL), Step::Accept(key) if key.title.as_deref() == Some("Show"))
        );
        assert_eq!(gate.begin(hash("b"), at(29), WALL), Step::Ask);
        assert_eq!(gate.begin(hash("a"), at(30), WALL), Step::Ask);
        // A refusal is not remembered, and takes the key's acceptance away.
        let refused = Answer::Refused(Refusal::Expired);
        assert_eq!(gate.answered(hash("a"), &refused, at(30), WALL), Err(CloseReason::ExpiredKey));
        assert_eq!(gate.begin(hash("a"), at(31), WALL), Step::Ask);
    }

    #[test]
    fn fresh_key_that_expires_meanwhile_is_asked_for_again() {
        let mut gate = gate(WhenDown::AcceptRecent);
        gate.answered(hash("a"), &accepted(Some(UnixMillis(WALL.0 + 5_000))), at(0), WALL).unwrap();
        assert!(matches!(gate.begin(hash("a"), at(4), UnixMillis(WALL.0 + 4_999)), Step::Accept(_)));
        assert_eq!(gate.begin(hash("a"), at(5), UnixMillis(WALL.0 + 5_000)), Step::Ask);
        let failed = gate.answered(hash("a"), &down(), at(5), UnixMillis(WALL.0 + 5_000));
        assert_eq!(failed, Err(CloseReason::KeyCheckUnreachable));
    }

    #[test]
    fn service_that_is_down_is_left_alone_and_its_fault_refuses_at_once() {
        let mut gate = gate(WhenDown::Refuse);
        gate.answered(hash("a"), &accepted(None), at(0), WALL).unwrap();
        for _ in 0..3 {
            assert_eq!(gate.begin(hash("a"), at(100), WALL), Step::Ask);
            let failed = gate.answered(hash("a"), &down(), at(100), WALL);
            assert_eq!(failed, Err(CloseReason::KeyCheckUnreachable));
        }
        assert!(gate.is_open());
        assert!(matches!(gate.begin(hash("a"), at(100), WALL), Step::Refuse(Failure::Unreachable(_))));
        assert_eq!(gate.begin(hash("a"), at(101), WALL), Step::Ask);
        gate.answered(hash("a"), &accepted(None), at(101), WALL).unwrap();
        assert!(!gate.is_open());
    }

    #[test]
    fn key_accepted_lately_is_accepted_while_the_service_is_down_if_the_policy_says_so() {
        let mut gate = gate(WhenDown::AcceptRecent);
        gate.answered(hash("a"), &accepted(None), at(0), WALL).unwrap();
        // The first publisher that meets the failure is accepted as well.
        assert_eq!(gate.begin(hash("a"), at(60), WALL), Step::Ask);
        assert!(gate.answered(hash("a"), &down(), at(60), WALL).is_ok());
        for _ in 0..2 {
            assert!(gate.answered(hash("b"), &down(), at(60), WALL).is_err());
        }
        assert!(matches!(gate.begin(hash("a"), at(60), WALL), Step::AcceptWhileDown(_)));
        assert!(matches!(gate.begin(hash("b"), at(60), WALL), Step::Refuse(_)));
        // An hour after it was accepted the key counts as any other.
        assert_eq!(gate.begin(hash("a"), at(3_600), WALL), Step::Ask);
        assert!(gate.answered(hash("a"), &down(), at(3_600), WALL).is_err());
    }

    #[test]
    fn gate_remembers_a_bounded_number_of_keys_and_forgets_the_oldest() {
        let mut gate = gate(WhenDown::Refuse);
        for number in 0..limits::MAX_ACCEPTED_KEYS + 10 {
            let now = Duration::from_millis(number as u64);
            gate.answered(hash(&format!("k{number}")), &accepted(None), now, WALL).unwrap();
        }
        assert_eq!(gate.accepted.len(), limits::MAX_ACCEPTED_KEYS);
        assert_eq!(gate.begin(hash("k0"), at(1), WALL), Step::Ask);
        let last = format!("k{}", limits::MAX_ACCEPTED_KEYS + 9);
        assert!(matches!(gate.begin(hash(&last), at(10), WALL), Step::Accept(_)));
    }
}
