//! The log that control writes in place of a dead log writer.

use std::sync::Arc;
use std::time::Duration;

use millrace_link::driver::until_timeout;
use millrace_link::{LogRequest, LogServer, TypedSubscription};
use millrace_protocol::job;
use millrace_protocol::state::checkpoint::checkpoint_of;
use millrace_protocol::takeover::{self, GENERATION, OrphanLog, TakeoverParams};
use millrace_protocol::{Machine, Millis};
use millrace_runtime::CoalescingTimer;
use millrace_wire::fact::{SegmentSlot, StreamState};
use millrace_wire::message::announce::{EpochAnnouncement, EpochPhase};
use millrace_wire::topics;
use tokio::time::Instant;
use tracing::warn;

use super::error::TakeoverError;
use crate::context::Services;
use crate::domain::claim::{Claim, END_ANNOUNCED_MS};

/// Announcements, repair and snapshot requests that may wait.
const CAPACITY: usize = 128;

/// The log is served for longer than the claim announces it, so that no announcement names a log without a server.
const LINGER: Duration = Duration::from_millis(END_ANNOUNCED_MS + 5_000);

/// A log that a newer epoch follows is served for this long, because the next session builds on it.
const LINGER_AFTER_NEXT_EPOCH: Duration = Duration::from_millis(job::LINGER_MS);

/// Time limit for writing a checkpoint to the state store.
const CHECKPOINT_LIMIT: Duration = Duration::from_secs(1);

/// Writes and serves the log that control took over.
pub(super) struct OrphanLogTask<'a> {
    services: &'a Arc<Services>,
    claim: &'a Claim,
    log: OrphanLog,
    server: LogServer,
    epochs: TypedSubscription<EpochAnnouncement>,
    /// The time after which no reader needs the log.
    until: Option<Instant>,
}

impl<'a> OrphanLogTask<'a> {
    /// Writes the log as far as it goes, without publishing it.
    pub(super) async fn open(
        services: &'a Arc<Services>,
        claim: &'a Claim,
        base: StreamState,
    ) -> Result<Self, TakeoverError> {
        let wall = services.wall_clock();
        let params = TakeoverParams {
            epoch: claim.epoch,
            over: !claim.is_away(),
            used: claim.used_through(wall),
            wall,
            window_s: claim.settings.window_s(),
        };
        let now = Millis(services.clock.now_ms());
        let position = (claim.epoch, GENERATION);
        let server = LogServer::open(&services.link, claim.stream, position, CAPACITY).await?;
        Ok(Self {
            services,
            claim,
            log: OrphanLog::open(now, params, base, services.link.max_payload())?,
            // No publisher session supervises a log that control writes.
            server: server.without_digest(),
            epochs: services.link.subscribe(&topics::epoch(claim.stream), CAPACITY).await?,
            until: (!claim.is_away()).then(|| Instant::now() + LINGER),
        })
    }

    /// Writes the checkpoint, publishes the log, and answers repair and snapshot requests until no reader needs it.
    pub(super) async fn serve(&mut self) -> Result<(), TakeoverError> {
        let mut checkpointed = None;
        let mut timer = CoalescingTimer::default();
        loop {
            let written = Some(self.log.state().seq);
            if checkpointed != written {
                checkpointed = written;
                self.checkpoint().await;
            }
            while let Some(message) = self.log.poll_output() {
                self.server.publish(message);
            }
            timer.fire_within(until_timeout(self.log.next_timeout(), self.now()));
            let until = self.until;
            tokio::select! {
                request = self.server.recv() => match request {
                    Some(request) => self.answer(request),
                    None => return Ok(()),
                },
                announcement = self.epochs.recv() => match announcement {
                    Some(announcement) => self.on_announcement(announcement)?,
                    None => return Ok(()),
                },
                () = timer.fired() => self.log.handle_timeout(self.now())?,
                () = over(until) => return Ok(()),
            }
        }
    }

    fn now(&self) -> Millis {
        Millis(self.services.clock.now_ms())
    }

    /// Handles an epoch announcement, of this control or of the one that leads by now.
    fn on_announcement(&mut self, announcement: EpochAnnouncement) -> Result<(), TakeoverError> {
        if announcement.epoch > self.claim.epoch {
            let linger = Instant::now() + LINGER_AFTER_NEXT_EPOCH;
            self.until = Some(self.until.map_or(linger, |until| until.min(linger)));
        }
        if announcement.epoch == self.claim.epoch && announcement.phase == EpochPhase::Ended {
            self.until.get_or_insert_with(|| Instant::now() + LINGER);
        }
        Ok(self.log.handle(self.now(), takeover::Input::Epoch(announcement))?)
    }

    fn answer(&mut self, request: LogRequest) {
        match request {
            LogRequest::Repair(request) => {
                let reply = self.log.repair(self.now(), &request.message);
                request.respond(&reply);
            }
            LogRequest::Snapshot(request) => request.respond(self.log.state()),
        }
    }

    /// Persists the state before it is published, so that a successor starts at or above what viewers saw. An unavailable
    /// state store delays the log by the time limit and does not stop it.
    async fn checkpoint(&self) {
        let (stream, view) = (self.claim.stream, self.log.state());
        // The worker died, so segments that are not stored yet never will be.
        let unstored = |slot: &Arc<SegmentSlot>| {
            let tracks = slot.tracks.iter().filter(|(_, track)| !track.stored);
            tracks.map(|(rendition, _)| (rendition.clone(), slot.msn)).collect::<Vec<_>>()
        };
        let lost = view.slots.iter().flat_map(unstored).collect();
        let checkpoint = checkpoint_of(view, &lost, self.claim.settings.window_s());
        match tokio::time::timeout(CHECKPOINT_LIMIT, self.services.repo.put_checkpoint(stream, &checkpoint))
            .await
        {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                warn!(%stream, %error, "failed to write checkpoint of orphaned log; the next change is written again");
            }
            Err(_) => {
                warn!(%stream, "writing checkpoint of orphaned log timed out; the next change is written again");
            }
        }
    }
}

/// Resolves at `until`; never without one.
async fn over(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}
