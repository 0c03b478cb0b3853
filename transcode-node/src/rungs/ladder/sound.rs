//! The encoded audio of a source whose audio not every player plays.
//!
//! Frames lie on the grid of n × 1024 samples of 48 kHz. A frame belongs to the segment in whose time it starts, and is
//! packaged once the source is known up to its end, so that the segment of the next frame is known too.

use std::collections::VecDeque;

use bytes::Bytes;
use millrace_codec::engine::product::AudioStart;
use millrace_media::codec::CodecError;
use millrace_media::frame::{
    AudioConfig, AudioFrame, MediaFrame, SegmentTag, TaggedFrame, TrackConfig, TrackKind,
};
use millrace_media::packager::PartTiming;
use millrace_media::time::Timescale;
use millrace_protocol::job::Packaged;
use millrace_wire::fact::{EpochOpen, StreamState};

use super::names::encoded_audio;
use super::segments::{Segments, Span};
use super::track::Track;

/// Samples of a frame, and 90 kHz ticks of it at 48 kHz.
const FRAME_SAMPLES: i64 = 1024;
const FRAME_TICKS: i64 = 1920;
/// Frames that wait for the source, or for a boundary: 5 s. The encoder is behind the source, so there are a few at most.
const MAX_WAITING: usize = 256;

/// The progress of the frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// The next frame is to be the first of a segment.
    Waits,
    /// The next frame is to begin at this sample.
    Next(i64),
}

/// The encoded audio at work.
#[derive(Debug)]
pub(super) struct Sound {
    pub(super) track: Track,
    frames: VecDeque<(i64, Bytes)>,
    progress: Progress,
    /// The segment that frames belong to.
    span: Option<Span>,
    /// The start of the newest audio frame of the source in 90 kHz ticks; `None` since the transcoder started.
    source: Option<i64>,
    /// The start of the first audio frame that this transcoder was given, in 90 kHz ticks.
    first: Option<i64>,
    /// True while the transcoder is to encode audio.
    pub(super) is_wanted: bool,
}

impl Sound {
    /// Creates the encoded audio of the epoch that `open` describes, which goes on from `base`.
    pub(super) fn new(open: &EpochOpen, base: &StreamState) -> Self {
        Self {
            track: Track::new(encoded_audio(), TrackKind::Audio, open, base),
            frames: VecDeque::new(),
            progress: Progress::Waits,
            span: None,
            source: None,
            first: None,
            is_wanted: false,
        }
    }

    /// Takes the start of the encoder, beside pictures whose part timing is `source`.
    pub(super) fn start(
        &mut self,
        start: AudioStart,
        source: PartTiming,
        out: &mut VecDeque<Packaged>,
    ) -> Result<(), CodecError> {
        let config = TrackConfig::Audio(AudioConfig::from_asc(start.record)?);
        let frame = FRAME_TICKS.unsigned_abs() as u32;
        // Audio parts end at the first frame boundary at or after the end of the video part.
        let part_target = self.track.part_target().unwrap_or(source.part_target.div_ceil(frame) * frame);
        let timing = PartTiming { part_target, ..source };
        self.track.describe(0, config, timing, start.bitrate, out);
        Ok(())
    }

    /// Notes an audio frame of the source that the transcoder was given, which starts at `ticks`.
    pub(super) fn source(&mut self, ticks: i64) {
        self.source = Some(ticks);
        self.first.get_or_insert(ticks);
    }

    /// Takes a frame of the encoder.
    pub(super) fn frame(&mut self, pts: i64, data: Bytes) {
        if self.frames.len() < MAX_WAITING {
            self.frames.push_back((pts, data));
        }
    }

    /// Packages the frames that the source has passed, or all if it has ended.
    pub(super) fn package(&mut self, segments: &Segments, ended: bool, out: &mut VecDeque<Packaged>) {
        let passed = if ended { i64::MAX } else { self.source.unwrap_or(i64::MIN) };
        while let Some((pts, data)) =
            self.frames.pop_front_if(|(pts, _)| ticks(*pts + FRAME_SAMPLES) <= passed)
        {
            self.take(pts, data, segments, out);
        }
    }

    /// Drops what is open, because the transcoder has ended.
    pub(super) fn reset(&mut self) {
        self.frames.clear();
        (self.source, self.first) = (None, None);
        self.wait();
    }

    /// Goes on behind the parts that are packaged, because another transcoder encodes again what the ended one had not handed
    /// in. Segments before `first` are lost.
    pub(super) fn rewind(&mut self, first: u64) {
        self.frames.clear();
        (self.source, self.first) = (None, None);
        self.track.owed.lose_before(first);
        if self.progress == Progress::Waits {
            return;
        }
        match self.track.rewind() {
            Some((_, at)) => self.progress = Progress::Next(at),
            None => self.wait(),
        }
    }

    /// Leaves the audio out until its next configuration: it cannot be decoded.
    pub(super) fn refuse(&mut self) {
        self.is_wanted = false;
        self.track.owed.lose_through(u64::MAX);
    }

    fn wait(&mut self) {
        if std::mem::replace(&mut self.progress, Progress::Waits) != Progress::Waits {
            self.track.drop_open();
        }
    }

    fn take(&mut self, pts: i64, data: Bytes, segments: &Segments, out: &mut VecDeque<Packaged>) {
        if matches!(self.progress, Progress::Next(next) if pts < next) {
            // Another transcoder has encoded it, and it is packaged.
            return;
        }
        let start = ticks(pts);
        let Some(span) = segments.at(start) else { return };
        let before = self.span.replace(span);
        let enters = before.is_none_or(|before| before.msn != span.msn);
        if self.progress != Progress::Next(pts) {
            if let (Progress::Next(_), Some(before)) = (self.progress, before) {
                // Frames are missing before this one.
                self.track.owed.lose_through(before.msn);
            }
            self.wait();
            // The first frame starts in the first frame time of its segment, or audio begins with it.
            let earliest = span.start.max(self.first.unwrap_or(i64::MIN));
            if start >= earliest + 2 * FRAME_TICKS || !self.track.owed.is_open(span.msn) {
                return self.track.owed.lose_through(span.msn);
            }
        } else if !self.track.owed.is_open(span.msn) {
            return self.wait();
        }
        if enters || self.progress == Progress::Waits {
            self.track.begin(&span, out);
        }
        let tag = SegmentTag {
            msn: span.msn,
            discontinuity: false,
            boundary: false,
            independent: true,
            init_version: 0,
            duration: 0,
            may_be_last: segments.at(start + FRAME_TICKS).is_some_and(|next| next.msn != span.msn),
        };
        let frame = MediaFrame::Audio(AudioFrame { pts, data: data.into() });
        self.track.push(TaggedFrame { tag, frame }, out);
        if enters {
            self.track.owed.lose_through(span.msn.saturating_sub(1));
        }
        self.progress = Progress::Next(pts + FRAME_SAMPLES);
    }
}

/// Returns samples of 48 kHz in 90 kHz ticks; those of frames on the grid are whole.
const fn ticks(samples: i64) -> i64 {
    match Timescale::new(48_000) {
        Some(rate) => rate.convert(samples, Timescale::VIDEO),
        None => samples,
    }
}
