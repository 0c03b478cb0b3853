//! The reconciler makes the changes that time alone makes: a lease lapses, a reconnect window passes, an orphaned log is
//! taken over, an announcement is due. One control leads at a time, by a lease in the state store; only the leader
//! reconciles. The leader also runs retention; purging runs on every control.

pub(crate) mod audience;
pub(crate) mod purge;
pub(crate) mod retention;
mod takeover;

use std::sync::Arc;
use std::time::Duration;

use millrace_runtime::{ActorContext, Backoff, Supervisor};
use millrace_state::{StateError, Tx};
use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::{NodeId, UnixMillis};
use millrace_wire::state_keys;
use tracing::{debug, info, warn};

use self::takeover::TakeoverManager;
use crate::context::Services;
use crate::domain::claim::{Claim, Due, LEASE_MS, due};
use crate::livestreams::{Caller, CommandError, Livestreams, Principal};
use crate::repo::{RepoError, Versioned};

/// Pause between two scans of the claims: readers expect an announcement about every second.
const TICK: Duration = Duration::from_millis(500);

/// Epochs are announced in every second tick.
const TICKS_PER_ANNOUNCEMENT: u64 = 2;

/// The outbox is swept in every fourth tick.
const TICKS_PER_SWEEP: u64 = 4;

/// Age of an event in the outbox at which the leader relays it: longer than its own control needs.
const SWEPT_AFTER_MS: u64 = 3_000;

/// A leader that does not renew its lease for this long is replaced.
const LEADER_TTL: Duration = Duration::from_secs(5);

/// Longest pause after failed ticks.
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// A new leader gives sessions the time of two leases to renew before it lets a lease lapse: all controls may have been
/// down, with every session still publishing. So does a leader whose process was stopped and goes on.
const GRACE_MS: u64 = 2 * LEASE_MS as u64;

/// Claims read in one tick; far above the live streams of one cluster.
const MAX_CLAIMS: usize = 100_000;

/// Competes for the leader's lease, and reconciles while it holds the lease.
pub(crate) struct Reconciler {
    livestreams: Arc<Livestreams>,
    services: Arc<Services>,
    caller: Caller,
    node: NodeId,
    takeovers: TakeoverManager,
    /// The time since which this control leads, and the state store takes its changes.
    leading_since: Option<u64>,
    ticks: u64,
}

impl Reconciler {
    pub(crate) fn new(livestreams: Arc<Livestreams>, supervisor: Supervisor, node: NodeId) -> Self {
        let services = livestreams.shared_services();
        Self {
            takeovers: TakeoverManager::new(services.clone(), supervisor),
            caller: Caller::internal(Principal::Reconciler(node.clone())),
            livestreams,
            services,
            node,
            leading_since: None,
            ticks: 0,
        }
    }

    /// Reconciles until the actor is stopped, then gives up the lease.
    pub(crate) async fn run(mut self, actor: ActorContext) -> anyhow::Result<()> {
        let mut backoff = Backoff::new(TICK, MAX_BACKOFF);
        loop {
            let ticked = self.tick().await;
            actor.status.set_state(if self.leading_since.is_some() { "leading" } else { "standby" });
            let pause = match ticked {
                Ok(()) => {
                    backoff.reset();
                    TICK
                }
                Err(error) => {
                    warn!(%error, "failed to scan claims; will retry");
                    backoff.next_delay()
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = actor.stop.cancelled() => break,
            }
        }
        self.resign().await;
        Ok(())
    }

    async fn tick(&mut self) -> Result<(), RepoError> {
        if !self.lead().await? {
            return Ok(());
        }
        self.ticks += 1;
        let announce = self.ticks.is_multiple_of(TICKS_PER_ANNOUNCEMENT);
        let settled = self.leading_since.is_some_and(|since| self.is_settled(since));
        if self.ticks.is_multiple_of(TICKS_PER_SWEEP) {
            self.sweep_outbox().await?;
        }
        let claims = self.services.repo.claims(MAX_CLAIMS).await?;
        for claim in claims {
            if announce {
                self.services.announcer.epoch(&claim.value);
            }
            if settled {
                self.apply_due(claim).await?;
            }
        }
        Ok(())
    }

    /// Relays lifecycle events that the control which wrote them has not relayed: it may have died before.
    async fn sweep_outbox(&self) -> Result<(), RepoError> {
        let repo = &self.services.repo;
        let before = self.services.wall_clock().0.saturating_sub(SWEPT_AFTER_MS);
        for stream in repo.streams_in_outbox(UnixMillis(before)).await? {
            repo.unrelayed().add(stream);
        }
        Ok(())
    }

    /// True if sessions have had the time to renew since this control leads and its process runs.
    fn is_settled(&self, leading_since: u64) -> bool {
        let clock = &self.services.clock;
        let now = clock.now_ms();
        // Read after the time, whose reading finds the pause.
        let since = leading_since.max(clock.resumed_ms().unwrap_or_default());
        now.saturating_sub(since) >= GRACE_MS
    }

    /// Makes the change that is due for a claim, if any.
    async fn apply_due(&self, current: Versioned<Claim>) -> Result<(), RepoError> {
        let services = &self.services;
        let due = due(services.wall_clock(), &current.value);
        if due == Due::Close {
            self.takeovers.spawn_takeover(current).await;
            return Ok(());
        }
        let (claim, version) = (&current.value, current.version);
        let done = match due {
            Due::Nothing | Due::Close => Ok(()),
            Due::Lapsed(away) => self.livestreams.lapsed(&current, &away).await.map(|()| {
                info!(stream = %away.stream, session = %away.session, epoch = %away.epoch,
                    window_s = away.settings.reconnect_window, "lease lapsed; publisher away, reconnect window began");
                services.announcer.epoch(&away);
            }),
            Due::Gaps(away) => {
                let put = services.repo.put_claim(&away, version, services.wall_clock()).await;
                put.map(|()| services.announcer.epoch(&away))
            }
            Due::Over => {
                let stopped = self.livestreams.stop(&self.caller, claim.stream, CloseReason::StreamEnded).await;
                match stopped {
                    Ok(_) | Err(CommandError::Invalid(_)) => Ok(()),
                    Err(CommandError::Repo(error)) => Err(error),
                }
            }
            Due::Withdraw => self.livestreams.withdraw(&current).await.map(|()| {
                info!(stream = %claim.stream, session = %claim.session,
                    "publisher vanished before usable media came; the livestream stays as it was");
            }),
            Due::Forget => services.repo.forget_claim(claim, version, services.wall_clock()).await,
        };
        match done {
            // Another writer changed the record first; the next tick decides anew.
            Err(RepoError::State(StateError::Conflict { .. }) | RepoError::InvalidTransition(_)) => Ok(()),
            Err(RepoError::NotFound) => {
                services.repo.forget_claim(claim, version, services.wall_clock()).await
            }
            done => done,
        }
    }

    /// Acquires or renews the leader's lease; returns false while another control holds it.
    async fn lead(&mut self) -> Result<bool, RepoError> {
        let leads = self.renew_lease().await;
        if leads.is_err() {
            // Sessions could not renew either: they get the time of a new leader once the store takes changes again.
            let now = self.services.clock.now_ms();
            self.leading_since = self.leading_since.map(|_| now);
        }
        let leads = match leads {
            // No other control can have got the lease: readers go on to hear of the epochs that are stored.
            Err(RepoError::State(StateError::NotWritable { .. })) if self.leading_since.is_some() => Ok(true),
            leads => leads,
        };
        self.services.leading.send_replace(matches!(leads, Ok(true)));
        leads
    }

    async fn renew_lease(&mut self) -> Result<bool, RepoError> {
        let state = self.services.repo.state();
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
                    info!(node = %self.node, "leader lease acquired; this control reconciles");
                    self.leading_since = Some(self.services.clock.now_ms());
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

    /// Deletes the leader's lease, so that another control leads without waiting for it to expire.
    async fn resign(&self) {
        self.services.leading.send_replace(false);
        let state = self.services.repo.state();
        if let Ok(Some(leader)) = state.get(state_keys::LEADER).await
            && *leader.value == *self.node.as_str().as_bytes()
        {
            let tx = Tx::new().check(state_keys::LEADER, Some(leader.version)).delete(state_keys::LEADER);
            if let Err(error) = state.commit(tx).await {
                debug!(%error, "leader lease not deleted; it expires by itself");
            }
        }
    }
}
