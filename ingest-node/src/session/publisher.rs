//! A publisher with an epoch: its claim, its media path, and the actors of its session on the bus.

use std::sync::Arc;
use std::time::Duration;

use millrace_bus::BusError;
use millrace_link::TypedSubscription;
use millrace_link::publisher_session::{PublisherSession, SessionSetup, subscribe_kicks};
use millrace_media::frame::TrackKind;
use millrace_media::repair::RepairCounts;
use millrace_protocol::log::replay_buffer::ReplayLimits;
use millrace_runtime::ActorId;
use millrace_runtime::actors::ActorContext;
use millrace_runtime::supervisor::Policy;
use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::{SessionId, StreamId, UnixMillis};
use millrace_wire::message::control::{ClaimGrant, ClaimRequest, Kick, OutsideCheck, PublishLimits};
use millrace_wire::message::job::job_cost;
use tracing::Instrument;

use super::actor::run_session;
use super::claim::{Claimed, claim};
use super::disconnect::DisconnectSignal;
use super::media::MediaPath;
use super::message_builder::FrameCounts;
use super::refusal::RefusedBy;
use super::source::{Identity, MediaError, PublishEnd, SourceEvent};
use crate::context::Context;
use crate::metrics::GaugeGuard;

/// A publisher whose key was granted.
pub(crate) struct Publisher {
    grant: ClaimGrant,
    /// Boxed: the state of its machines takes several kilobytes, which every future that holds the publisher would take.
    media: Box<MediaPath>,
    disconnect: DisconnectSignal,
    span: tracing::Span,
}

/// The result of a first claim.
pub(crate) enum Opening {
    /// The publisher has an epoch.
    Granted(Publisher),
    /// Another session publishes the livestream: the claim takes it over once usable media have come.
    Held {
        /// The claim, to be repeated.
        claim: Claim,
        /// The livestream.
        stream: StreamId,
        /// The limits that the media must keep.
        limits: PublishLimits,
    },
}

/// A session's claim of a key, from the first request to its grant.
pub(crate) struct Claim {
    context: Arc<Context>,
    request: ClaimRequest,
    kicks: TypedSubscription<Kick>,
}

impl Claim {
    /// Takes the livestream over from the session that publishes it.
    pub(crate) async fn take_over(mut self) -> Result<Publisher, CloseReason> {
        self.request.takes_over = true;
        match self.ask().await? {
            Claimed::Granted(grant) => self.begin(*grant).await,
            // A control that repeats itself has lost the request's last field.
            Claimed::Held(..) | Claimed::CheckKey => Err(CloseReason::Internal),
        }
    }

    async fn ask(&self) -> Result<Claimed, CloseReason> {
        let limit = Duration::from_secs(u64::from(self.context.config.publish_timeout_s));
        let asked = tokio::time::Instant::now();
        let claimed = claim(&self.context.link, &self.request, limit).await?;
        self.context.metrics.claim.observe(asked.elapsed().as_secs_f64());
        Ok(claimed)
    }

    async fn begin(self, grant: ClaimGrant) -> Result<Publisher, CloseReason> {
        let session = self.request.session;
        let span = tracing::info_span!("session", stream = %grant.stream, epoch = grant.epoch.0, %session);
        let begun = Publisher::begin(&self.context, grant, session, self.kicks, span.clone());
        begun.instrument(span).await.map_err(|error| unavailable(&error))
    }
}

fn unavailable(error: &BusError) -> CloseReason {
    tracing::warn!(%error, "the bus is not available; the publisher is refused");
    CloseReason::Unavailable
}

impl Publisher {
    /// Claims the key and starts the session's actors, if no other session publishes the livestream.
    pub(crate) async fn open(context: &Arc<Context>, identity: &Identity) -> Result<Opening, RefusedBy> {
        let (secret, check) =
            (context.key_secret.expose(), context.key_check.as_ref().filter(|_| identity.may_ask_outside));
        // Without a service outside, every key is one of the cluster's own form.
        let hash = match check {
            Some(_) => identity.credential.any_key_hash(secret),
            None => identity.credential.key_hash(secret),
        };
        let Some(key_hash) = hash else { return Err(CloseReason::UnknownKey.into()) };
        let session = SessionId::generate(UnixMillis(context.clock.unix_ms()), &mut rand::rng());
        let kicks = subscribe_kicks(&context.link, session).await.map_err(|error| unavailable(&error))?;
        let request = ClaimRequest {
            key_hash,
            session,
            node: context.node.clone(),
            addr: Some(identity.address),
            protocol: identity.protocol.to_owned(),
            takes_over: false,
            outside: if check.is_some() { OutsideCheck::Available } else { OutsideCheck::Absent },
        };
        let mut claim = Claim { context: context.clone(), request, kicks };
        let mut claimed = claim.ask().await?;
        if let (Claimed::CheckKey, Some(check)) = (&claimed, check) {
            let key = identity.credential.text();
            let decided = check.decide(key, key_hash, &*context.clock, &context.metrics).await;
            let accepted = decided.map_err(|reason| RefusedBy::Node(reason.into()))?;
            claim.request.outside = OutsideCheck::Accepted(accepted);
            claimed = claim.ask().await?;
        }
        match claimed {
            Claimed::Granted(grant) => Ok(Opening::Granted(claim.begin(*grant).await?)),
            Claimed::Held(stream, limits) => Ok(Opening::Held { claim, stream, limits }),
            // A control that asks again has lost the verdict.
            Claimed::CheckKey => Err(CloseReason::Internal.into()),
        }
    }

    async fn begin(
        context: &Arc<Context>,
        grant: ClaimGrant,
        session: SessionId,
        kicks: TypedSubscription<Kick>,
        span: tracing::Span,
    ) -> Result<Self, BusError> {
        let disconnect = DisconnectSignal::new(&context.cutoff);
        let signal = disconnect.clone();
        let setup = SessionSetup {
            grant: grant.clone(),
            session,
            job_cost: job_cost(&grant.settings.plan),
            replay: ReplayLimits {
                bytes: context.config.ring_bytes,
                age_ms: u64::from(context.config.ring_s) * 1_000,
            },
            clock: context.clock.clone(),
            metrics: context.session_metrics.clone(),
            on_close: Box::new(move |reason| {
                signal.close(reason);
            }),
        };
        let (published, task, repairs) = PublisherSession::open(&context.link, setup, kicks).await?;
        let id = format!("{}.{}", grant.stream, grant.epoch);
        let actors =
            Actors { context: context.clone(), id, disconnect: disconnect.clone(), span: span.clone() };
        let open = (GaugeGuard::new(&context.metrics.sessions), context.drain.guard());
        let signal = disconnect.clone();
        actors.start("repair", |_| repairs.run()).await;
        actors
            .start("publisher", |actor| async move {
                run_session(task, actor, signal).await;
                drop(open);
            })
            .await;
        let media = Box::new(MediaPath::new(context, &grant, published));
        Ok(Self { grant, media, disconnect, span })
    }

    /// Returns control's grant: the epoch, its first numbers, limits and settings.
    pub(crate) fn grant(&self) -> &ClaimGrant {
        &self.grant
    }

    /// Returns the span that log lines of the session belong to.
    pub(crate) fn span(&self) -> &tracing::Span {
        &self.span
    }

    /// Returns the signal that ends the publish for another reason than the publisher's will.
    pub(crate) fn disconnect(&self) -> &DisconnectSignal {
        &self.disconnect
    }

    /// Returns the frames sent so far.
    pub(crate) fn frames(&self) -> FrameCounts {
        self.media.frames()
    }

    /// Returns the seconds of video since the last keyframe, or since the first picture if none came; `None` without
    /// video.
    pub(crate) fn since_keyframe_s(&self) -> Option<i64> {
        self.media.since_keyframe_s()
    }

    /// Takes one event of the source. An error costs that message alone.
    pub(crate) fn push(&mut self, event: SourceEvent) -> Result<(), MediaError> {
        self.media.push(event)
    }

    /// Counts a message of the source that could not be read.
    pub(crate) fn count_unreadable(&mut self, track: TrackKind) {
        self.media.count_unreadable(track);
    }

    /// True if the media are to be judged now.
    pub(crate) fn is_observation_due(&self, now: Duration) -> bool {
        self.media.is_observation_due(now)
    }

    /// Judges the media up to `now`, with the repairs that the source has made. An error ends the publish.
    pub(crate) fn observe(&mut self, now: Duration, source: &RepairCounts) -> Result<(), PublishEnd> {
        let Self { media, span, .. } = self;
        span.in_scope(|| media.observe(now, source))
    }

    /// Notes the repairs that the source has made, for the report at the publish's end.
    pub(crate) fn note_repairs(&mut self, source: &RepairCounts) {
        self.media.note_repairs(source);
    }

    /// Ends the media of the epoch.
    pub(crate) fn end(mut self, end: &PublishEnd) {
        let span = self.span.clone();
        let _entered = span.enter();
        self.disconnect.close(end.clone());
        self.media.end(end);
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        // Only a panic drops a publisher that has not ended.
        self.disconnect.close(CloseReason::Internal);
    }
}

/// Starts the actors of a session; a panic in one of them disconnects the publisher.
struct Actors {
    context: Arc<Context>,
    /// The stream and epoch: a stream may have two sessions, one that publishes and one whose media are being stored.
    id: String,
    disconnect: DisconnectSignal,
    span: tracing::Span,
}

impl Actors {
    async fn start<W: Future<Output = ()> + Send + 'static>(
        &self,
        kind: &'static str,
        make: impl FnOnce(ActorContext) -> W + Send + 'static,
    ) {
        let (mut make, span) = (Some(make), self.span.clone());
        let disconnect = self.disconnect.clone();
        let id = ActorId::new(kind, &self.id);
        let child = self.context.supervisor.spawn(id, Policy::once(), move |actor| {
            let work = make.take().map(|make| make(actor).instrument(span.clone()));
            let guard = DisconnectOnPanic(disconnect.clone());
            async move {
                let _guard = guard;
                if let Some(work) = work {
                    work.await;
                }
                Ok(())
            }
        });
        if let Err(error) = child.await {
            tracing::error!(%error, kind, "an actor of the session cannot be started; the publisher is disconnected");
            self.disconnect.close(CloseReason::Internal);
        }
    }
}

/// Disconnects the publisher when the loop that holds it unwinds.
struct DisconnectOnPanic(DisconnectSignal);

impl Drop for DisconnectOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.close(CloseReason::Internal);
        }
    }
}
