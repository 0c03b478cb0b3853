//! One publisher session: its media on the way to the bus, and beside it, each in a task of its own, the session's
//! machine (lease, kicks, workers' supervision) and the repairs.
//!
//! The session outlives its publisher: until what was received is stored, the ring answers and workers are supervised.

mod bandwidth;
mod core;
mod media;
mod mux;
mod tasks;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use millrace_bus::{BusError, Subscription};
use millrace_media::pieces::Pieces;
use millrace_rtmp::{StreamInfo, StreamName};
use millrace_runtime::supervisor::Policy;
use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::{SessionId, UnixMillis};
use millrace_wire::message::control::ClaimGrant;
use millrace_wire::subjects;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::claim::{self, Applicant};
use crate::closing::Closing;
use crate::limits;
use crate::metrics::Held;
use crate::node::Shared;
use core::Core;
use media::Media;
pub(crate) use mux::{Frames, MediaError};
use tasks::SessionTask;

/// A publisher with an epoch.
pub(crate) struct Publisher {
    grant: ClaimGrant,
    media: Media,
    closing: Closing,
    span: tracing::Span,
}

impl Publisher {
    /// Claims the key and starts the session's tasks.
    pub(crate) async fn open(
        shared: &Arc<Shared>,
        key: &StreamName,
        addr: IpAddr,
        protocol: &'static str,
    ) -> Result<Self, CloseReason> {
        let Some(hash) = claim::key_hash(shared.key_secret.expose(), key) else {
            return Err(CloseReason::UnknownKey);
        };
        let session = SessionId::generate(UnixMillis(shared.clock.unix_ms()), &mut rand::rng());
        let unavailable = |error: BusError| {
            tracing::warn!(%error, "the bus is not available: the publisher is refused");
            CloseReason::Unavailable
        };
        // Before the claim: control may kick as soon as it has granted.
        let kicks = shared.bus.subscribe(&subjects::control_kick(session), 16).await.map_err(unavailable)?;
        let applicant = Applicant { session, node: &shared.node, addr, protocol };
        let limit = Duration::from_secs(u64::from(shared.config.publish_timeout_s));
        let asked = tokio::time::Instant::now();
        let grant = claim::claim(&shared.bus, &applicant, hash, limit).await?;
        shared.metrics.claim.observe(asked.elapsed().as_secs_f64());
        let span = tracing::info_span!("session", stream = %grant.stream, epoch = grant.epoch.0, %session);
        Self::begin(shared, grant, session, kicks, span.clone()).instrument(span).await.map_err(unavailable)
    }

    async fn begin(
        shared: &Arc<Shared>,
        grant: ClaimGrant,
        session: SessionId,
        kicks: Subscription,
        span: tracing::Span,
    ) -> Result<Self, BusError> {
        // Before the first message: a worker may ask as soon as it is granted.
        let ring_subject = subjects::ring_media(grant.stream, grant.epoch);
        let requests = shared.bus.subscribe(&ring_subject, limits::REPAIR_QUEUE).await?;
        let closing = Closing::new(&shared.cutoff);
        let core = Arc::new(Core::new(shared, &grant, session, closing.clone()));
        let task = SessionTask::new(shared, &grant, session, core.clone(), kicks).await?;
        let tasks = Tasks { shared: shared.clone(), closing: closing.clone(), span: span.clone() };
        let held = (Held::new(&shared.metrics.sessions), shared.drain.guard());
        let over = CancellationToken::new();
        let repairs = tasks::answer_repairs(
            core.clone(),
            shared.bus.clone(),
            shared.metrics.clone(),
            requests,
            over.clone(),
        );
        tasks.start("repair", |_| repairs).await;
        tasks
            .start("session", |stop| async move {
                // Once it is over nobody asks for repairs any more.
                let _over = over.drop_guard();
                task.run(stop).await;
                drop(held);
            })
            .await;
        let media = Media::new(shared, &grant, core);
        Ok(Self { grant, media, closing, span })
    }

    pub(crate) fn grant(&self) -> &ClaimGrant {
        &self.grant
    }

    pub(crate) fn span(&self) -> &tracing::Span {
        &self.span
    }

    pub(crate) fn frames(&self) -> Frames {
        self.media.mux().frames()
    }

    /// Seconds of video since the last keyframe.
    pub(crate) fn since_keyframe_s(&self) -> Option<i64> {
        self.media.mux().since_keyframe_s()
    }

    pub(crate) fn metadata(&mut self, info: &StreamInfo) -> Result<(), MediaError> {
        self.media.metadata(info)
    }

    pub(crate) fn video(&mut self, timestamp: u32, body: Pieces) -> Result<(), MediaError> {
        self.media.video(timestamp, body)
    }

    pub(crate) fn audio(&mut self, timestamp: u32, body: Pieces) -> Result<(), MediaError> {
        self.media.audio(timestamp, body)
    }

    /// Ends the session for somebody else than the publisher.
    pub(crate) fn closing(&self) -> &Closing {
        &self.closing
    }

    /// The publisher is gone.
    pub(crate) fn end(mut self, reason: CloseReason) {
        let span = self.span.clone();
        let _entered = span.enter();
        self.media.end(reason);
    }
}

/// Starts the tasks of a session; a panic in one closes the session.
struct Tasks {
    shared: Arc<Shared>,
    closing: Closing,
    span: tracing::Span,
}

impl Tasks {
    async fn start<W: Future<Output = ()> + Send + 'static>(
        &self,
        kind: &'static str,
        make: impl FnOnce(CancellationToken) -> W + Send + 'static,
    ) {
        let (mut make, span) = (Some(make), self.span.clone());
        let closing = self.closing.clone();
        let child = self.shared.supervisor.spawn(kind, Policy::once(), move |stop| {
            let work = make.take().map(|make| make(stop).instrument(span.clone()));
            let guard = CloseOnPanic(closing.clone());
            async move {
                let _guard = guard;
                if let Some(work) = work {
                    work.await;
                }
                Ok(())
            }
        });
        if let Err(error) = child.await {
            tracing::error!(%error, kind, "a session's task could not be started");
            self.closing.close(CloseReason::Internal);
        }
    }
}

/// Tells the connection when its task unwinds.
struct CloseOnPanic(Closing);

impl Drop for CloseOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.close(CloseReason::Internal);
        }
    }
}
