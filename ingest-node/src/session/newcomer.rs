//! A second publisher of a livestream that is on the air. Its media are looked at before its claim takes the livestream over,
//! so that one whose media are refused costs the running publisher no frame.

use std::collections::VecDeque;
use std::time::Duration;

use millrace_media::frame::{TrackConfig, TrackKind};
use millrace_media::repair::{Repair, RepairCounts};
use millrace_wire::close_reason::CloseReason;
use millrace_wire::message::control::PublishLimits;

use super::acceptance::{check_codec, check_picture};
use super::bitrate::BitrateMeter;
use super::source::{MediaError, MediaFault, PublishEnd, Source, SourceEvent, SourceFrame};
use crate::context::Context;
use crate::limits;

/// An event of the newcomer's source, or the fault of one message.
pub(super) type Event = Result<SourceEvent, MediaError>;

/// The media of a newcomer that have been found usable.
#[derive(Debug)]
pub(super) struct Proven {
    /// The events in the order of their arrival, without those in `left_out`.
    pub(super) events: VecDeque<Event>,
    /// Counts of the frames from before the first picture at which a decoder can start.
    pub(super) left_out: RepairCounts,
    /// The bytes received.
    pub(super) bytes: usize,
}

/// The tracks that the newcomer has configured, and what it has said of its pictures.
#[derive(Debug, Default)]
struct Tracks {
    has_video_config: bool,
    has_audio_config: bool,
    /// True once a video message has come, or metadata that declare pictures.
    expects_video: bool,
}

/// A publisher that has to show usable media before it takes a livestream over.
pub(super) struct Newcomer<'a> {
    context: &'a Context,
    limits: PublishLimits,
    meter: BitrateMeter,
    proven: Proven,
    /// Bytes of the audio frames in `proven`.
    audio_bytes: usize,
    tracks: Tracks,
    /// True once metadata have come.
    is_declared: bool,
    bad_media: u32,
    /// The time of the first audio frame that can be decoded.
    audio_since: Option<Duration>,
    is_usable: bool,
}

impl<'a> Newcomer<'a> {
    /// Creates a newcomer whose media have to keep `limits`.
    pub(super) fn new(context: &'a Context, limits: PublishLimits) -> Self {
        let bitrate = limits.max_bitrate.min(context.config.max_bitrate);
        Self {
            context,
            limits,
            meter: BitrateMeter::new(bitrate),
            proven: Proven { events: VecDeque::new(), left_out: RepairCounts::new(), bytes: 0 },
            audio_bytes: 0,
            tracks: Tracks::default(),
            is_declared: false,
            bad_media: 0,
            audio_since: None,
            is_usable: false,
        }
    }

    /// Reads the source until its media are usable: a picture at which a decoder can start, or audio of a publish without
    /// pictures. An error is the end of the publish; the running publisher has noticed nothing.
    pub(super) async fn prove<S: Source>(mut self, source: &mut S) -> Result<Proven, PublishEnd> {
        source.accept()?;
        let longest = Duration::from_secs(u64::from(self.context.config.publish_timeout_s));
        let deadline = self.context.now() + longest;
        loop {
            while let Some(event) = source.next_event() {
                self.take(event)?;
                if self.is_usable {
                    return Ok(self.proven);
                }
            }
            let now = self.context.now();
            if self.is_audio_alone(now) {
                return Ok(self.proven);
            }
            if now >= deadline {
                return Err(nothing_usable(longest));
            }
            let wait = deadline.saturating_sub(now).min(limits::AUDIO_ALONE);
            let received = tokio::select! {
                biased;
                received = tokio::time::timeout(wait, source.receive()) => received.unwrap_or_default(),
                () = self.context.cutoff.cancelled() => return Err(CloseReason::Draining.into()),
            };
            self.received(received)?;
        }
    }

    fn received(&mut self, bytes: usize) -> Result<(), PublishEnd> {
        self.context.metrics.received.add(bytes as u64);
        self.proven.bytes += bytes;
        if self.meter.add(self.context.now(), bytes) {
            Ok(())
        } else {
            Err(CloseReason::BitrateExceeded.into())
        }
    }

    fn take(&mut self, event: Event) -> Result<(), PublishEnd> {
        match &event {
            Ok(SourceEvent::End(end)) => return Err(end.clone()),
            Ok(SourceEvent::Metadata(metadata)) => {
                self.is_declared = true;
                self.tracks.expects_video |= metadata.width.is_some() || metadata.video_bitrate.is_some();
            }
            Ok(SourceEvent::Config { config, .. }) => self.config(config).map_err(|fault| refused(&fault))?,
            Ok(SourceEvent::Frame(frame)) if !self.frame(frame) => return Ok(()),
            Ok(SourceEvent::Frame(_)) => {}
            Err(error) => self.bad_media(error)?,
        }
        if event.is_ok() {
            self.bad_media = 0;
        }
        self.proven.events.push_back(event);
        if self.proven.events.len() > limits::MAX_NEWCOMER_EVENTS {
            let text = "the encoder sends configurations and metadata in place of media";
            return Err(PublishEnd { reason: CloseReason::NoUsableMedia, text: text.to_owned() });
        }
        Ok(())
    }

    fn config(&mut self, config: &TrackConfig) -> Result<(), MediaFault> {
        check_codec(config, &self.limits)?;
        match config {
            TrackConfig::Video(video) => {
                self.tracks.expects_video = true;
                check_picture(video.width, video.height, &self.limits)?;
                self.tracks.has_video_config = true;
            }
            TrackConfig::Audio(_) => self.tracks.has_audio_config = true,
        }
        Ok(())
    }

    /// Returns true if the frame is kept: the session counts and packages it later. The others are counted here.
    fn frame(&mut self, frame: &SourceFrame) -> bool {
        if frame.position.track == TrackKind::Video {
            self.tracks.expects_video = true;
            self.is_usable = self.tracks.has_video_config && frame.sync.is_join();
            if !self.is_usable {
                self.proven.left_out.add(Repair::PictureBeforeKeyframe, 1);
            }
            return self.is_usable;
        }
        if self.audio_since.is_none() && self.tracks.has_audio_config {
            self.audio_since = Some(self.context.now());
        }
        self.audio_bytes += frame.data.len();
        let keeps = self.audio_bytes <= limits::MAX_NEWCOMER_AUDIO_BYTES;
        if !keeps {
            self.proven.left_out.add(Repair::EarlyAudio, 1);
        }
        keeps
    }

    /// True if the publish is one of sound alone: its metadata declare no pictures, or none have come for a while.
    fn is_audio_alone(&self, now: Duration) -> bool {
        !self.tracks.expects_video
            && self.audio_since.is_some_and(|since| self.is_declared || now >= since + limits::AUDIO_ALONE)
    }

    fn bad_media(&mut self, error: &MediaError) -> Result<(), PublishEnd> {
        self.bad_media += 1;
        let too_many = (self.bad_media > limits::MAX_BAD_MEDIA).then_some(CloseReason::UnreadableMedia);
        match error.fault.ends_publish().or(too_many) {
            Some(reason) => Err(PublishEnd { reason, text: error.to_string() }),
            None => Ok(()),
        }
    }
}

fn refused(fault: &MediaFault) -> PublishEnd {
    let reason = fault.ends_publish().unwrap_or(CloseReason::UnreadableMedia);
    PublishEnd { reason, text: fault.to_string() }
}

fn nothing_usable(longest: Duration) -> PublishEnd {
    let text = format!(
        "no usable media for {} s, and another publisher is on the air: the livestream stays with it",
        longest.as_secs()
    );
    PublishEnd { reason: CloseReason::NoUsableMedia, text }
}
