//! The reconciler: what time changes. One control leads at a time, by a lease in the state store.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use millrace_runtime::Backoff;
use millrace_state::{StateError, Tx};
use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::{NodeId, StreamId, UnixMillis};
use millrace_wire::state_keys;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::closing::Closing;
use crate::domain::claim::{Claim, Due, LEASE_MS, due};
use crate::domain::stream::IllegalMove;
use crate::repo::{Loaded, RepoError};
use crate::service::Core;

/// How often time is looked at: readers expect an announcement about every second.
const TICK: Duration = Duration::from_millis(500);

/// Every second tick announces.
const TICKS_PER_ANNOUNCEMENT: u64 = 2;

/// A leader that is not heard of for this long is replaced.
const LEADER_TTL: Duration = Duration::from_secs(5);

/// A new leader gives sessions the time of two leases to renew before it counts anybody as away: the
/// controls may all have been down, with every session still publishing.
const GRACE_MS: u64 = 2 * LEASE_MS as u64;

/// An event is said again by the leader once it is this old, and not when it is older than that: whoever wrote it may have
/// died before it was kept. Ids are remembered for longer.
const SAY_AGAIN_MS: std::ops::Range<u64> = 3_000..600_000;

/// Claims looked at in one tick; far above what one cluster carries.
const MAX_CLAIMS: usize = 100_000;

/// Leads when nobody else does, and then keeps time.
pub(crate) struct Reconciler {
    core: Arc<Core>,
    node: NodeId,
    closing: Closing,
    leading_since: Option<u64>,
    /// Events said again, of the claims there are.
    said_again: HashMap<StreamId, UnixMillis>,
    ticks: u64,
}

impl Reconciler {
    pub(crate) fn new(core: Arc<Core>, node: NodeId) -> Self {
        let closing = Closing::new(core.clone());
        Self { core, node, closing, leading_since: None, said_again: HashMap::new(), ticks: 0 }
    }

    /// Runs until told to stop, then hands the lead over.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut backoff = Backoff::new(TICK, Duration::from_secs(5));
        loop {
            let pause = match self.tick(&stop).await {
                Ok(()) => {
                    backoff.reset();
                    TICK
                }
                Err(error) => {
                    warn!(%error, "the state could not be looked at");
                    backoff.next_delay()
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => break,
            }
        }
        self.resign().await;
        Ok(())
    }

    async fn tick(&mut self, stop: &CancellationToken) -> Result<(), RepoError> {
        if !self.lead().await? {
            return Ok(());
        }
        self.ticks += 1;
        let announce = self.ticks.is_multiple_of(TICKS_PER_ANNOUNCEMENT);
        let settled = self.leading_since.is_some_and(|since| self.core.clock.now_ms() - since >= GRACE_MS);
        let claims = self.core.repo.claims(MAX_CLAIMS).await?;
        self.say_again(&claims);
        for claim in claims {
            if announce {
                self.core.announce(&claim.value);
            }
            if settled {
                self.settle(claim, stop).await?;
            }
        }
        Ok(())
    }

    fn say_again(&mut self, claims: &[Loaded<Claim>]) {
        let now = self.core.clock.unix_ms();
        let mut said = HashMap::new();
        for Loaded { value: claim, .. } in claims {
            let Some(at) = claim.event.as_ref().map(|event| event.at) else { continue };
            let before = self.said_again.get(&claim.stream) == Some(&at);
            let due = SAY_AGAIN_MS.contains(&now.saturating_sub(at.0));
            if due && !before {
                self.core.event(claim);
            }
            if due || before {
                said.insert(claim.stream, at);
            }
        }
        self.said_again = said;
    }

    async fn settle(
        &self,
        Loaded { value: claim, version }: Loaded<Claim>,
        stop: &CancellationToken,
    ) -> Result<(), RepoError> {
        let core = &self.core;
        let done = match due(crate::unix(&*core.clock), &claim) {
            Due::Nothing => Ok(()),
            Due::Lapsed(away) => core.repo.put_claim(&away, version).await.map(|()| {
                info!(stream = %away.stream, session = %away.session, epoch = %away.epoch,
                    window_s = away.settings.reconnect_window, "lease ran out: publisher away");
                core.event(&away);
                core.announce(&away);
            }),
            Due::Gaps(away) => core.repo.put_claim(&away, version).await.map(|()| core.announce(&away)),
            Due::Over => core.stop(claim.stream, CloseReason::StreamEnded).await.map(drop),
            Due::Close => {
                self.closing.see_to(Loaded { value: claim, version }, stop);
                return Ok(());
            }
            Due::Forget => {
                core.event(&claim);
                core.repo.forget_claim(claim.stream, version).await
            }
        };
        match done {
            // Somebody else was faster, or the operator moved it: the next tick sees what is left to do.
            Err(RepoError::State(StateError::Conflict { .. }) | RepoError::Illegal(IllegalMove { .. })) => {
                Ok(())
            }
            Err(RepoError::NotFound) => core.repo.forget_claim(claim.stream, version).await,
            done => done,
        }
    }

    /// Takes or keeps the lead; `false` while somebody else has it.
    async fn lead(&mut self) -> Result<bool, RepoError> {
        let state = self.core.repo.state();
        let current = state.get(state_keys::LEADER).await?;
        let mine = current.as_ref().is_some_and(|leader| *leader.value == *self.node.as_str().as_bytes());
        if current.is_some() && !mine {
            self.leading_since = None;
            return Ok(false);
        }
        let tx = Tx::new().check(state_keys::LEADER, current.map(|leader| leader.version)).put_ttl(
            state_keys::LEADER,
            self.node.as_str().to_owned(),
            LEADER_TTL,
        );
        match state.commit(tx).await {
            Ok(_) => {
                if self.leading_since.is_none() {
                    info!(node = %self.node, "this control leads");
                    self.leading_since = Some(self.core.clock.now_ms());
                }
                Ok(true)
            }
            Err(StateError::Conflict { .. }) => {
                self.leading_since = None;
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn resign(&self) {
        let state = self.core.repo.state();
        if let Ok(Some(leader)) = state.get(state_keys::LEADER).await
            && *leader.value == *self.node.as_str().as_bytes()
        {
            let tx = Tx::new().check(state_keys::LEADER, Some(leader.version)).delete(state_keys::LEADER);
            if let Err(error) = state.commit(tx).await {
                debug!(%error, "the lead was not handed over: it runs out by itself");
            }
        }
    }
}
