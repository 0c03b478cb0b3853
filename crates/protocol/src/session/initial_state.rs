//! The state that the first grant builds on. An epoch that continues a broadcast waits a moment for the state that its
//! predecessor's log writer sealed, so that readers lose no part they were shown.

use millrace_wire::fact::StreamState;
use millrace_wire::message::control::ClaimGrant;

use crate::state::apply;
use crate::state::position::Position;
use crate::time::Millis;

/// The earlier epoch's sealed state is awaited this long before the first grant; its log writer may be dead.
pub const INITIAL_STATE_MS: u64 = 1000;
/// The state is requested at this interval meanwhile.
pub const INITIAL_STATE_ASK_MS: u64 = 60;

/// The newest state of earlier epochs, and whether a newer one is still awaited.
#[derive(Debug)]
pub(super) struct InitialState {
    state: StreamState,
    await_until: Option<Millis>,
    ask_at: Millis,
}

impl InitialState {
    /// Creates the initial state of a claimed epoch; it is awaited only if the epoch continues a broadcast.
    pub(super) fn new(now: Millis, claim: &ClaimGrant) -> Self {
        Self {
            state: apply::empty(claim.broadcast),
            await_until: claim.continues.then_some(now + INITIAL_STATE_MS),
            ask_at: now,
        }
    }

    /// Returns the newest state so far.
    pub(super) fn state(&self) -> &StreamState {
        &self.state
    }

    /// Replaces the state by the one of a primary that is being replaced.
    pub(super) fn set(&mut self, state: StreamState) {
        self.state = state;
    }

    /// True if a newer state may still come, so that nothing is granted yet.
    pub(super) fn is_awaited(&self) -> bool {
        self.await_until.is_some()
    }

    /// Takes the state of an epoch before the claim's, while one is awaited.
    pub(super) fn on_snapshot(&mut self, claim: &ClaimGrant, snapshot: StreamState) {
        let is_newer = Position::of(&snapshot) > Position::of(&self.state);
        if self.await_until.is_some() && snapshot.epoch < claim.epoch && is_newer {
            self.state = snapshot;
            // Only a sealed state has every part that readers were shown. The log writer of an epoch before the last one
            // may still be completing its recording and answer too.
            let is_last_epoch = claim.follows.is_none_or(|newest| newest == self.state.epoch);
            if self.state.sealed && is_last_epoch {
                self.await_until = None;
            }
        }
    }

    /// True, once per interval, if the state is to be requested now.
    pub(super) fn poll_ask(&mut self, now: Millis) -> bool {
        self.await_until.take_if(|at| *at <= now);
        let due = self.await_until.is_some() && now >= self.ask_at;
        if due {
            self.ask_at = now + INITIAL_STATE_ASK_MS;
        }
        due
    }

    /// Returns when to poll again; `None` if no state is awaited.
    pub(super) fn next_timeout(&self) -> Option<Millis> {
        self.await_until.map(|at| at.min(self.ask_at))
    }
}
