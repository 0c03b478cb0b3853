//! Claims, renewals, releases and seal reports over the bus, shared by all controls through a queue group.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use millrace_bus::{JournalConfig, JournalWriter, Message, Outcome, SharedBus};
use millrace_runtime::metrics::{Counter, Counters, Histogram, LATENCY_BUCKETS_S, Metrics, Unit};
use millrace_runtime::{Clock, Ready};
use millrace_store::SharedStore;
use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::{BroadcastId, SessionId, StreamId};
use millrace_wire::message::control::{
    self, ClaimReply, ClaimRequest, Kick, LeaseReply, ReleaseRequest, RenewRequest, SealReport,
};
use millrace_wire::{state_keys, subjects};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::Deps;
use crate::domain::claim::{self, Claim, Lease, Presence};
use crate::domain::stream::{Move, Status};
use crate::repo::{Changed, KeyRecord, Loaded, Repo, RepoError, retry};

/// Requests waiting in one subscription: a burst of reconnects of a large cluster. What is dropped is asked again.
const CAPACITY: usize = 4_096;

/// Requests answered at the same time; each is a few round trips to the store.
const CONCURRENCY: usize = 64;

/// Ids of lifecycle events are remembered for this long: a new leader says again what is younger than ten minutes.
const EVENT_IDS_KEPT: Duration = Duration::from_mins(15);

/// What the parts of a control share.
pub(crate) struct Core {
    pub(crate) repo: Repo,
    pub(crate) bus: SharedBus,
    pub(crate) store: SharedStore,
    /// Lifecycle events leave through it.
    pub(crate) events: JournalWriter,
    pub(crate) clock: Arc<dyn Clock>,
    /// Logs that control closed itself.
    pub(crate) closed: Counter,
    /// A livestream was deleted: its objects are to go.
    pub(crate) deleted: Notify,
    pub(crate) objects_deleted: Counter,
    claims: Counters,
    answer_time: Histogram,
}

impl Core {
    pub(crate) fn new(repo: Repo, deps: &Deps, metrics: &Metrics) -> Self {
        let kept = metrics.counters("events", Unit::Count, "Lifecycle events by outcome", &["outcome"]);
        let journal = JournalConfig {
            dedup_window: EVENT_IDS_KEPT,
            ..JournalConfig::new(subjects::EVENTS_STREAM, subjects::EVENTS_SUBJECTS)
        };
        let told = move |outcome: Outcome| kept.with(&[outcome.name()]).inc();
        Self {
            repo,
            bus: deps.bus.clone(),
            store: deps.store.clone(),
            events: JournalWriter::start(deps.bus.clone(), journal, told),
            clock: deps.clock.clone(),
            closed: metrics.counter(
                "logs_closed",
                Unit::Count,
                "Logs sealed or ended by control for want of an author",
            ),
            deleted: Notify::new(),
            objects_deleted: metrics.counter(
                "objects_deleted",
                Unit::Count,
                "Objects of deleted livestreams that were deleted",
            ),
            claims: metrics.counters("claims", Unit::Count, "Claims by outcome", &["outcome"]),
            answer_time: metrics.histogram(
                "answer",
                Unit::Seconds,
                "Time to answer on the bus",
                LATENCY_BUCKETS_S,
            ),
        }
    }

    /// Answers one kind of request until told to stop.
    pub(crate) async fn serve(
        self: Arc<Self>,
        subject: &'static str,
        ready: Ready,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut requests = self.bus.queue_subscribe(subject, subjects::CONTROL_QUEUE, CAPACITY).await?;
        ready.tell();
        let permits = Arc::new(Semaphore::new(CONCURRENCY));
        loop {
            let message = tokio::select! {
                message = requests.recv() => message,
                () = stop.cancelled() => return Ok(()),
            };
            let Some(message) = message else { anyhow::bail!("the bus is closed") };
            let permit = permits.clone().acquire_owned().await?;
            let core = self.clone();
            tokio::spawn(async move {
                core.answer(subject, &message).await;
                drop(permit);
            });
        }
    }

    async fn answer(&self, subject: &str, message: &Message) {
        let start = Instant::now();
        let answer = match subject {
            subjects::CONTROL_CLAIM => self.reply(message, |request| self.claim(request)).await,
            subjects::CONTROL_RENEW => self.reply(message, |request| self.renew(request)).await,
            subjects::CONTROL_RELEASE => self.reply(message, |request| self.release(request)).await,
            _ => self.reply(message, |request| self.sealed(request)).await,
        };
        self.answer_time.observe(start.elapsed().as_secs_f64());
        if let (Some(answer), Some(reply)) = (answer, &message.reply)
            && let Err(error) = self.bus.respond(reply, answer)
        {
            debug!(subject, %error, "an answer was lost: it will be asked again");
        }
    }

    /// No answer at all when the request cannot be read or the store is away: errors are never evidence, so
    /// the asker tries again and goes on meanwhile.
    async fn reply<Q, A, F>(&self, message: &Message, handle: impl FnOnce(Q) -> F) -> Option<Bytes>
    where
        Q: DeserializeOwned,
        A: Serialize,
        F: Future<Output = Result<A, RepoError>>,
    {
        let request = match control::decode::<Q>(&message.payload) {
            Ok(request) => request,
            Err(error) => {
                warn!(subject = &*message.subject, %error, "a request could not be read");
                return None;
            }
        };
        match handle(request).await {
            Ok(answer) => control::encode(&answer).ok().map(Bytes::from),
            Err(error) => {
                warn!(subject = &*message.subject, %error, "a request could not be answered");
                None
            }
        }
    }

    async fn claim(&self, request: ClaimRequest) -> Result<ClaimReply, RepoError> {
        let reply = retry!({ self.try_claim(&request).await })?;
        match &reply {
            ClaimReply::Granted(grant) => {
                self.claims.with(&["granted"]).inc();
                info!(stream = %grant.stream, session = %request.session, node = %request.node, epoch = %grant.epoch,
                    protocol = request.protocol, "publisher accepted");
            }
            ClaimReply::Refused { reason } => {
                self.claims.with(&[reason.code()]).inc();
                info!(session = %request.session, node = %request.node, reason = reason.code(), "publisher refused");
            }
        }
        Ok(reply)
    }

    async fn try_claim(&self, request: &ClaimRequest) -> Result<ClaimReply, RepoError> {
        let refused = |reason| Ok(ClaimReply::Refused { reason });
        let Some(key) = self.repo.load::<KeyRecord>(&state_keys::key_hash(&request.key_hash)).await? else {
            return refused(CloseReason::UnknownKey);
        };
        if key.value.revoked {
            return refused(CloseReason::RevokedKey);
        }
        let Loaded { value: stream, version } = match self.repo.stream(key.value.stream).await {
            Err(RepoError::NotFound) => return refused(CloseReason::RevokedKey),
            found => found?,
        };
        if stream.key_hash != request.key_hash {
            return refused(CloseReason::RevokedKey);
        }
        let current = self.repo.claim(stream.id).await?;
        let now = crate::unix(&*self.clock);
        let fresh = BroadcastId::generate(now, &mut rand::rng());
        let held = current.as_ref().map(|current| &current.value);
        let decision = match claim::decide(now, &stream, held, request, fresh) {
            Ok(decision) => decision,
            Err(reason) => return refused(reason),
        };
        if !decision.repeated {
            let claim_version = current.as_ref().map(|current| current.version);
            self.repo.put_grant((&decision.stream, version), (&decision.claim, claim_version)).await?;
            if let Some(session) = decision.kick {
                self.kick(session, CloseReason::TakenOver);
            }
            self.event(&decision.claim);
        }
        self.announce(&decision.claim);
        Ok(ClaimReply::Granted(Box::new(decision.claim.to_grant())))
    }

    async fn renew(&self, request: RenewRequest) -> Result<LeaseReply, RepoError> {
        retry!({
            let Some(current) = self.repo.claim(request.stream).await? else {
                return self.without_claim(request.stream).await;
            };
            match claim::renew(crate::unix(&*self.clock), &current.value, &request) {
                Lease::Kept(Some(claim)) => {
                    let back = current.value.presence != Presence::Publishing;
                    self.repo.put_claim(&claim, current.version).await?;
                    if back {
                        self.event(&claim);
                        self.announce(&claim);
                    }
                    Ok(LeaseReply::Ok)
                }
                Lease::Kept(None) | Lease::Unknown => Ok(LeaseReply::Ok),
                Lease::Lost(reason) => Ok(LeaseReply::Superseded { reason }),
            }
        })
    }

    /// A session of a stream whose claim is gone: over, if the stream says so; lost state stops nobody.
    async fn without_claim(&self, stream: StreamId) -> Result<LeaseReply, RepoError> {
        match self.repo.stream(stream).await {
            Ok(Loaded { value, .. }) if !matches!(value.status, Status::Live | Status::Scheduled) => {
                Ok(LeaseReply::Superseded { reason: CloseReason::StreamEnded })
            }
            Ok(_) | Err(RepoError::NotFound) => Ok(LeaseReply::Ok),
            Err(error) => Err(error),
        }
    }

    async fn release(&self, request: ReleaseRequest) -> Result<LeaseReply, RepoError> {
        self.update(
            request.stream,
            |claim| claim.released(crate::unix(&*self.clock), &request),
            |claim| {
                info!(stream = %claim.stream, session = %claim.session, epoch = %claim.epoch,
                reason = request.reason.code(), window_s = claim.settings.reconnect_window, "publisher away");
                self.event(claim);
            },
        )
        .await
    }

    async fn sealed(&self, report: SealReport) -> Result<LeaseReply, RepoError> {
        self.update(report.stream, |claim| claim.sealed(&report), |claim| {
            info!(stream = %claim.stream, epoch = %report.epoch, last = ?report.last, ended = report.ended, "epoch sealed");
        })
        .await
    }

    async fn update(
        &self,
        stream: StreamId,
        change: impl Fn(&Claim) -> Option<Claim> + Sync,
        then: impl Fn(&Claim) + Sync,
    ) -> Result<LeaseReply, RepoError> {
        retry!({
            if let Some(current) = self.repo.claim(stream).await?
                && let Some(claim) = change(&current.value)
            {
                self.repo.put_claim(&claim, current.version).await?;
                then(&claim);
                self.announce(&claim);
            }
            Ok(LeaseReply::Ok)
        })
    }

    /// Ends a live stream: by the operator, or because its publisher did not come back.
    pub(crate) async fn stop(&self, id: StreamId, reason: CloseReason) -> Result<Changed, RepoError> {
        let changed = self.repo.apply(id, Move::Stop, &*self.clock).await?;
        info!(stream = %id, reason = reason.code(), "stream ended");
        if let Some(claim) = &changed.claim {
            self.announce(claim);
            self.kick(claim.session, reason);
            self.event(claim);
        }
        Ok(changed)
    }

    /// Tells a session to stop. A lost kick is made good by the answer to its next renewal.
    pub(crate) fn kick(&self, session: SessionId, reason: CloseReason) {
        info!(%session, reason = reason.code(), "session is disconnected");
        self.send(&subjects::control_kick(session), &Kick { session, reason });
    }

    /// Tells readers and authors about the newest epoch; repeated by the reconciler.
    pub(crate) fn announce(&self, claim: &Claim) {
        self.send(&subjects::epoch(claim.stream), &claim.announcement());
    }

    /// Has the claim's event kept, for as long as facts are; nobody waits for it.
    pub(crate) fn event(&self, claim: &Claim) {
        let Some(event) = &claim.event else { return };
        match control::encode(event) {
            Ok(bytes) => self.events.append(subjects::events(event.stream), event.id(), bytes.into()),
            Err(error) => warn!(stream = %event.stream, %error, "a lifecycle event was not written"),
        }
    }

    fn send<T: Serialize>(&self, subject: &str, body: &T) {
        let sent = control::encode(body).map(|bytes| self.bus.publish(subject, bytes.into()));
        if let Ok(Err(error)) = sent {
            warn!(subject, %error, "a message was not sent");
        }
    }
}
