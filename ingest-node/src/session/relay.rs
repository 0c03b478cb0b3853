//! The loop between a source and its session, and the limits that hold for every protocol: bitrate, unusable
//! messages in a row, distance of keyframes.

use std::convert::Infallible;
use std::time::Duration;

use millrace_media::repair::RepairCounts;
use millrace_wire::close_reason::CloseReason;

use super::bitrate::BitrateMeter;
use super::config_changes::ConfigChanges;
use super::disconnect::Disconnected;
use super::newcomer::Proven;
use super::publisher::Publisher;
use super::source::{MediaError, PublishEnd, Source, SourceEvent};
use crate::context::Context;
use crate::limits;

/// The work of a connection's task since it last let others run.
#[derive(Debug, Default)]
struct Turn {
    bytes: usize,
    events: u32,
}

impl Turn {
    async fn received(&mut self, bytes: usize) {
        self.bytes += bytes;
        if self.bytes >= limits::TURN_BYTES {
            self.end().await;
        }
    }

    async fn event(&mut self) {
        self.events += 1;
        if self.events >= limits::TURN_EVENTS {
            self.end().await;
        }
    }

    async fn end(&mut self) {
        *self = Self::default();
        tokio::task::yield_now().await;
    }
}

/// One accepted publish: relays its source's events to its session.
pub(crate) struct Relay<'a> {
    context: &'a Context,
    publisher: Publisher,
    disconnected: Disconnected,
    meter: BitrateMeter,
    configs: ConfigChanges,
    started: Duration,
    received_bytes: u64,
    bad_media: u32,
    keyframe_requested: bool,
    /// Frames that were left out before the publisher took the livestream over.
    left_out: RepairCounts,
    turn: Turn,
    /// The pauses of the process that the meter has allowed for, in milliseconds.
    paused_ms: u64,
}

impl<'a> Relay<'a> {
    /// Begins to relay for `publisher`.
    pub(crate) fn new(context: &'a Context, publisher: Publisher) -> Self {
        let limit = publisher.grant().limits.max_bitrate.min(context.config.max_bitrate);
        Self {
            context,
            disconnected: publisher.disconnect().fired(),
            publisher,
            meter: BitrateMeter::new(limit),
            configs: ConfigChanges::default(),
            started: context.now(),
            received_bytes: 0,
            bad_media: 0,
            keyframe_requested: false,
            left_out: RepairCounts::new(),
            turn: Turn::default(),
            paused_ms: context.clock.paused_ms(),
        }
    }

    /// Relays until the source, a limit or the session ends the publish. `proven` is what has been read already of a source
    /// that has been accepted.
    pub(crate) async fn run<S: Source>(&mut self, source: &mut S, proven: Option<Proven>) -> PublishEnd {
        let end = match self.relay(source, proven).await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        self.publisher.note_repairs(&self.repairs(source));
        end
    }

    /// Returns the repairs that were made before the session's timeline.
    fn repairs<S: Source>(&self, source: &S) -> RepairCounts {
        let mut repairs = source.repairs();
        repairs.merge(&self.left_out);
        repairs
    }

    async fn relay<S: Source>(
        &mut self,
        source: &mut S,
        proven: Option<Proven>,
    ) -> Result<Infallible, PublishEnd> {
        match proven {
            None => source.accept()?,
            Some(Proven { events, left_out, bytes }) => {
                self.left_out = left_out;
                self.received_bytes += bytes as u64;
                for event in events {
                    self.on_event(event, source)?;
                    self.turn.event().await;
                }
            }
        }
        loop {
            self.relay_arrived(source).await?;
            self.check_health(source)?;
            let received = tokio::select! {
                // The signal is polled only when no data is waiting.
                biased;
                received = source.receive() => received,
                () = &mut self.disconnected => {
                    let end = self.publisher.disconnect().end();
                    self.relay_waiting(source, &end).await;
                    return Err(end);
                }
            };
            self.on_received(received)?;
            self.turn.received(received).await;
        }
    }

    /// Relays what has been received.
    async fn relay_arrived<S: Source>(&mut self, source: &mut S) -> Result<(), PublishEnd> {
        while let Some(event) = source.next_event() {
            self.on_event(event, source)?;
            self.turn.event().await;
        }
        Ok(())
    }

    /// Relays what waits in the socket of a publish that is ended by an order: the publisher had sent it before. A
    /// publish that another has taken over from relays no more.
    async fn relay_waiting<S: Source>(&mut self, source: &mut S, end: &PublishEnd) {
        if matches!(end.reason, CloseReason::TakenOver | CloseReason::Internal) {
            return;
        }
        let waiting = async {
            let mut left = limits::LAST_READ_BYTES;
            while left > 0 {
                let received = source.receive().await;
                left = left.saturating_sub(received.max(1));
                if self.on_received(received).is_err() || self.relay_arrived(source).await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(limits::LAST_READ, waiting).await;
    }

    /// Ends the media of the epoch. The session goes on until they are stored.
    pub(crate) fn end(self, end: &PublishEnd) {
        let frames = self.publisher.frames();
        let seconds = self.context.now().saturating_sub(self.started).as_secs();
        self.publisher.span().in_scope(|| {
            tracing::info!(
                reason = %end.reason,
                detail = end.text,
                seconds,
                bytes = self.received_bytes,
                video = frames.video,
                audio = frames.audio,
                "publish ended; the session waits until its media are stored"
            );
        });
        self.publisher.end(end);
    }

    fn on_event<S: Source>(
        &mut self,
        event: Result<SourceEvent, MediaError>,
        source: &mut S,
    ) -> Result<(), PublishEnd> {
        match event {
            Ok(SourceEvent::End(end)) => Err(end),
            Ok(SourceEvent::Metadata(metadata)) => {
                self.publisher.span().in_scope(|| tracing::debug!(?metadata, "metadata"));
                self.publisher
                    .push(SourceEvent::Metadata(metadata))
                    .or_else(|error| self.on_bad_media(&error))
            }
            Ok(SourceEvent::Config { ref config, .. }) if !self.configs.add(self.context.now(), config) => {
                Err(too_many_configs())
            }
            Ok(event) => match self.publisher.push(event) {
                Ok(()) => {
                    self.bad_media = 0;
                    self.check_keyframes(source)
                }
                Err(error) => self.on_bad_media(&error),
            },
            Err(error) => self.on_bad_media(&error),
        }
    }

    fn on_received(&mut self, bytes: usize) -> Result<(), PublishEnd> {
        if bytes == 0 {
            return Ok(());
        }
        self.context.metrics.received.add(bytes as u64);
        self.received_bytes += bytes as u64;
        let paused_ms = self.context.clock.paused_ms();
        if paused_ms > self.paused_ms {
            let pause = Duration::from_millis(paused_ms - self.paused_ms);
            self.paused_ms = paused_ms;
            self.meter.allow_pause(self.context.now(), pause);
        }
        if self.meter.add(self.context.now(), bytes) {
            return Ok(());
        }
        let rate = self.meter.bits_per_second() / 1_000;
        let text = format!("{rate} kb/s over ten seconds exceed the stream's bitrate limit");
        Err(PublishEnd { reason: CloseReason::BitrateExceeded, text })
    }

    /// Counts an unusable message. One is the encoder's hiccup; many in a row, or a fault that no later message can
    /// make good, end the publish.
    fn on_bad_media(&mut self, error: &MediaError) -> Result<(), PublishEnd> {
        self.context.metrics.bad_media.inc();
        self.bad_media += 1;
        tracing::debug!(%error, "media message dropped");
        let too_many = (self.bad_media > limits::MAX_BAD_MEDIA).then_some(CloseReason::UnreadableMedia);
        if let Some(reason) = error.fault.ends_publish().or(too_many) {
            return Err(PublishEnd { reason, text: error.to_string() });
        }
        self.publisher.count_unreadable(error.position.track);
        Ok(())
    }

    /// Judges the media once a second.
    fn check_health<S: Source>(&mut self, source: &S) -> Result<(), PublishEnd> {
        let now = self.context.now();
        if self.publisher.is_observation_due(now) {
            let repairs = self.repairs(source);
            self.publisher.observe(now, &repairs)
        } else {
            Ok(())
        }
    }

    /// Asks for a keyframe after half the longest distance, and ends the publish after the whole one.
    fn check_keyframes<S: Source>(&mut self, source: &mut S) -> Result<(), PublishEnd> {
        let limit = self.context.config.max_keyframe_interval_s;
        let since = self.publisher.since_keyframe_s().unwrap_or_default();
        if since > i64::from(limit) {
            let text = format!("no keyframe for {limit} s: set the encoder's keyframe interval to 2 s");
            return Err(PublishEnd { reason: CloseReason::KeyframeInterval, text });
        }
        if since < i64::from(limit / 2) {
            self.keyframe_requested = false;
        } else if !self.keyframe_requested {
            self.keyframe_requested = true;
            let sent = source.request_keyframe();
            self.publisher
                .span()
                .in_scope(|| tracing::debug!(since, sent, "no keyframe for long; one is requested"));
        }
        Ok(())
    }
}

/// Returns the end of a publish whose codec configuration changes too often.
fn too_many_configs() -> PublishEnd {
    let (limit, window) = (limits::MAX_CONFIG_CHANGES, limits::CONFIG_CHANGE_WINDOW.as_secs());
    let text = format!(
        "the codec configuration changed more than {limit} times within {window} s: keep picture size and codec settings as \
         they are while the encoder is live"
    );
    PublishEnd { reason: CloseReason::ConfigurationChanges, text }
}
