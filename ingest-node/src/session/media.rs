//! The media path of a session: source events go through the message builder and the session's machine onto the bus,
//! without waiting.

use std::sync::Arc;
use std::time::Duration;

use millrace_link::publisher_session::PublisherSession;
use millrace_media::frame::TrackKind;
use millrace_media::repair::{Repair, RepairCounts};
use millrace_node::RepairReport;
use millrace_runtime::Clock;
use millrace_wire::close_reason::CloseReason;
use millrace_wire::message::control::ClaimGrant;

use super::health::{HealthJudge, Observation, SAMPLE};
use super::message_builder::{FrameCounts, MessageBuilder};
use super::source::{MediaError, PublishEnd, SourceEvent};
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
    received: FrameCounts,
    /// Repairs that were made before the timeline: by the source, and of messages that could not be read.
    source_repairs: RepairCounts,
    unreadable: u64,
    judge: HealthJudge,
    report: RepairReport,
    observe_at: Duration,
    _publishing: GaugeGuard,
}

impl MediaPath {
    /// Begins the media of the granted epoch.
    pub(crate) fn new(context: &Context, grant: &ClaimGrant, session: PublisherSession) -> Self {
        let longest = Duration::from_secs(u64::from(context.config.max_keyframe_interval_s));
        Self {
            judge: HealthJudge::new(grant.settings.target_duration, longest),
            report: RepairReport::new(&context.metrics.repairs),
            observe_at: context.now() + SAMPLE,
            received: FrameCounts::default(),
            source_repairs: RepairCounts::new(),
            unreadable: 0,
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
                self.received.count(track);
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
                self.end(&end);
                Ok(())
            }
        };
        self.publish();
        result
    }

    /// Ends the epoch's media: the last message is published.
    pub(crate) fn end(&mut self, end: &PublishEnd) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.builder.finish();
        self.publish();
        self.report.report(&self.repairs());
        self.session.end(end.reason, &end.text);
    }

    /// Counts a message of the source that could not be read.
    pub(crate) fn count_unreadable(&mut self, track: TrackKind) {
        self.received.count(track);
        self.unreadable += 1;
    }

    /// True if the media are to be judged now.
    pub(crate) fn is_observation_due(&self, now: Duration) -> bool {
        now >= self.observe_at
    }

    /// Judges the media up to `now`, with the repairs that the source has made: counts and logs the repairs, and reports what
    /// lasts to control. An error ends the publish.
    pub(crate) fn observe(&mut self, now: Duration, source: &RepairCounts) -> Result<(), PublishEnd> {
        self.observe_at = now + SAMPLE;
        self.note_repairs(source);
        let repairs = self.repairs();
        self.report.report(&repairs);
        let sent = self.builder.frames();
        let silence = repairs.get(Repair::SilenceInHole) + repairs.get(Repair::SilenceForAbsentAudio);
        let seen = Observation {
            received: self.received,
            usable: FrameCounts { audio: sent.audio.saturating_sub(silence), ..sent },
            repairs,
            keyframe_distance: self.builder.keyframe_distance(),
        };
        if self.judge.observe(now, &seen)? {
            let notes = self.judge.notes().to_vec();
            tracing::info!(?notes, "the stream's health has changed");
            self.session.health(notes);
        }
        Ok(())
    }

    /// Notes the repairs that the source has made so far.
    pub(crate) fn note_repairs(&mut self, source: &RepairCounts) {
        self.source_repairs = *source;
    }

    /// Returns the repairs of all stages of the publish.
    fn repairs(&self) -> RepairCounts {
        let mut repairs = self.builder.repairs();
        repairs.merge(&self.source_repairs);
        repairs.add(Repair::UnreadableMessage, self.unreadable);
        repairs
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
        self.end(&CloseReason::Internal.into());
    }
}
