//! The state the first grant builds on: an epoch that continues a broadcast waits a moment for what its predecessor's
//! author sealed, so that readers lose no part they were shown.

use millrace_wire::fact::StreamState;
use millrace_wire::message::control::ClaimGrant;

use crate::Millis;
use crate::state::apply;

/// How long the earlier epoch's sealed state is awaited before the first grant; its author may be dead.
pub const BASE_MS: u64 = 1000;
/// The state is asked for at this interval meanwhile.
pub const BASE_ASK_MS: u64 = 60;

#[derive(Debug)]
pub(super) struct Base {
    state: StreamState,
    until: Option<Millis>,
    ask_at: Millis,
}

impl Base {
    pub(super) fn new(now: Millis, claim: &ClaimGrant) -> Self {
        Self {
            state: apply::empty(claim.broadcast),
            until: claim.continues.then_some(now + BASE_MS),
            ask_at: now,
        }
    }
    pub(super) fn state(&self) -> &StreamState {
        &self.state
    }
    /// Takes the state of an author that is replaced.
    pub(super) fn set(&mut self, state: StreamState) {
        self.state = state;
    }
    /// No grant yet: a better state may come.
    pub(super) fn is_awaited(&self) -> bool {
        self.until.is_some()
    }
    /// Takes the state of an epoch before the claim's while one is awaited.
    pub(super) fn on_snapshot(&mut self, claim: &ClaimGrant, s: StreamState) {
        let rank = |s: &StreamState| (s.epoch, s.generation, s.seq);
        if self.until.is_some() && s.epoch < claim.epoch && rank(&s) > rank(&self.state) {
            self.state = s;
            // Only a sealed state has every part that readers were shown; an author of an epoch before that one may still
            // complete its recording and answer too.
            if self.state.sealed && claim.follows.is_none_or(|newest| newest == self.state.epoch) {
                self.until = None;
            }
        }
    }
    /// Whether to ask for the state now.
    pub(super) fn poll_ask(&mut self, now: Millis) -> bool {
        self.until.take_if(|at| *at <= now);
        let due = self.until.is_some() && now >= self.ask_at;
        if due {
            self.ask_at = now + BASE_ASK_MS;
        }
        due
    }
    /// When to poll again.
    pub(super) fn next_timeout(&self) -> Option<Millis> {
        self.until.map(|at| at.min(self.ask_at))
    }
}
