//! The media path of a session: source events go through the message builder and the session's machine onto the bus,
//! without waiting.

use std::sync::Arc;
use std::time::Duration;

use millrace_link::publisher_session::PublisherSession;
use millrace_media::frame::TrackKind;
use millrace_runtime::Clock;
use millrace_wire::close_reason::CloseReason;
use millrace_wire::message::control::ClaimGrant;

use super::message_builder::{FrameCounts, MessageBuilder};
use super::source::{MediaError, SourceEvent};
use crate::context::Context;
use crate::metrics::{GaugeGuard, IngestMetrics};

/// The media of one epoch on their way to the bus. Dropping it ends the epoch's media.
pub(crate) struct MediaPath {
    builder: MessageBuilder,
    session: PublisherSession,
    metrics: IngestMetrics,
    clock: Arc<dyn Clock>,
    ended: bool,
    synthetic_boundaries: u64,
    _publishing: GaugeGuard,
}

impl MediaPath {
    /// Begins the media of the granted epoch.
    pub(crate) fn new(context: &Context, grant: &ClaimGrant, session: PublisherSession) -> Self {
        Self {
            builder: MessageBuilder::new(grant, grant.limits.max_bitrate.min(context.config.max_bitrate)),
            session,
            metrics: context.metrics.clone(),
            clock: context.clock.clone(),
            ended: false,
            synthetic_boundaries: 0,
            _publishing: GaugeGuard::new(&context.metrics.publishers),
        }
    }

    /// Returns the frames sent so far.
    pub(crate) fn frames(&self) -> FrameCounts {
        self.builder.frames()
    }

    /// Returns the seconds of video since the last keyframe, or since the first picture if none came; `None` without
    /// video.
    pub(crate) fn since_keyframe_s(&self) -> Option<i64> {
        self.builder.since_keyframe_s()
    }

    /// Takes one event of the source and publishes the messages it completes.
    pub(crate) fn push(&mut self, event: SourceEvent) -> Result<(), MediaError> {
        let result = match event {
            SourceEvent::Frame(frame) => {
                let before = self.builder.frames();
                let track = frame.position.track;
                self.builder.frame(frame, Duration::from_millis(self.clock.now_ms()));
                let after = self.builder.frames();
                // Repair may drop a frame, or add silence.
                match track {
                    TrackKind::Video => self.metrics.video_frames.add(after.video - before.video),
                    TrackKind::Audio => self.metrics.audio_frames.add(after.audio - before.audio),
                }
                Ok(())
            }
            SourceEvent::Config { position, config } => {
                self.builder.config(config).map_err(|fault| MediaError { position, fault })
            }
            SourceEvent::Metadata(metadata) => {
                self.builder.metadata(&metadata);
                Ok(())
            }
            SourceEvent::End(end) => {
                self.end(end.reason);
                Ok(())
            }
        };
        self.publish();
        result
    }

    /// Ends the epoch's media: the last message is published.
    pub(crate) fn end(&mut self, reason: CloseReason) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.builder.finish();
        self.publish();
        self.session.end(reason);
    }

    fn publish(&mut self) {
        while let Some(units) = self.builder.poll() {
            self.session.publish(units);
        }
        let synthetic = self.builder.synthetic_boundaries();
        if synthetic != self.synthetic_boundaries {
            self.metrics.synthetic_boundaries.add(synthetic - self.synthetic_boundaries);
            self.synthetic_boundaries = synthetic;
        }
    }
}

impl Drop for MediaPath {
    fn drop(&mut self) {
        // Only a panic drops the media of a session that has not ended.
        self.end(CloseReason::Internal);
    }
}
