//! The source as the transcoder takes it: media units in order, each once the part timing of its configuration is known.
//!
//! The timing is measured exactly as the copy rung measures it, by a packager that is given the frames without their bytes.
//! So the parts of all rungs lie on one grid, and every worker tells the transcoder the same frame rate.

use std::collections::{BTreeMap, VecDeque};

use millrace_buf::ByteChain;
use millrace_link::media_convert::{BadConfig, media_event};
use millrace_media::frame::{AudioConfig, MediaEvent, TrackConfig, VideoConfig};
use millrace_media::packager::{Output, Packager, PartSetup, PartTiming};
use millrace_media::time::Timescale;
use millrace_wire::ids::InitVersion;
use millrace_wire::message::media::{FrameUnit, MediaUnit, Track};

use super::part_starts::PartStarts;
use super::segments::{Place, Span};
use super::steps::{Picture, Sound, Step, VideoStart};

/// Configurations of a track that are remembered: the one in use, the next ones, and room for a publisher that changes often.
const MAX_CONFIGS: usize = 8;

/// The source of one epoch.
#[derive(Debug)]
pub(super) struct Source {
    meter: Packager,
    timing: Option<PartTiming>,
    /// Frames that wait for the timing of their configuration.
    held: VecDeque<FrameUnit>,
    video: BTreeMap<u32, (VideoConfig, u64)>,
    audio: BTreeMap<u32, AudioConfig>,
    part_starts: PartStarts,
    /// The newest segment, and that of the newest picture.
    span: Option<Span>,
    picture_msn: Option<u64>,
    /// The configuration of the newest picture.
    start: Option<VideoStart>,
    /// The version of the configuration of the newest audio frame.
    audio_version: Option<u32>,
    /// The end of the newest frame in 90 kHz ticks.
    end: i64,
    steps: VecDeque<Step>,
}

impl Source {
    /// Creates a source whose part timing follows from `setup`, as the copy rung's does. `part_starts` are the parts that
    /// must be independent.
    pub(super) fn new(setup: PartSetup, part_starts: PartStarts) -> Self {
        Self {
            meter: Packager::new(setup),
            timing: None,
            held: VecDeque::new(),
            video: BTreeMap::new(),
            audio: BTreeMap::new(),
            part_starts,
            span: None,
            picture_msn: None,
            start: None,
            audio_version: None,
            end: 0,
            steps: VecDeque::new(),
        }
    }

    /// Returns the end of the newest frame in 90 kHz ticks.
    pub(super) fn end(&self) -> i64 {
        self.end
    }

    /// Returns the part timing of the newest configuration, once it is known.
    pub(super) const fn timing(&self) -> Option<PartTiming> {
        self.timing
    }

    /// Takes the next unit. An error if it is a configuration that cannot be read.
    pub(super) fn push(&mut self, unit: MediaUnit) -> Result<(), BadConfig> {
        match unit {
            MediaUnit::Config(config) => {
                let (InitVersion(version), bit_rate) = (config.init_version, config.bit_rate);
                let event = media_event(MediaUnit::Config(config))?;
                if let MediaEvent::Init { config, .. } = &event {
                    self.configure(version, config.clone(), bit_rate);
                }
                self.meter.push(event);
            }
            MediaUnit::Frame(frame) => {
                if self.is_to_be_measured(&frame) {
                    let without_bytes = FrameUnit { data: ByteChain::new(), ..frame.clone() };
                    self.meter.push(media_event(MediaUnit::Frame(without_bytes))?);
                }
                self.held.push_back(frame);
            }
        }
        self.release();
        Ok(())
    }

    /// Ends the measurement with what has come: nothing more follows.
    pub(super) fn finish(&mut self) {
        self.meter.finish();
        self.release();
    }

    /// Returns the next step.
    pub(super) fn poll(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    fn configure(&mut self, version: u32, config: TrackConfig, bit_rate: u64) {
        match config {
            TrackConfig::Video(config) => {
                self.video.insert(version, (config, bit_rate));
                if self.video.len() > MAX_CONFIGS {
                    self.video.pop_first();
                }
            }
            TrackConfig::Audio(config) => {
                self.audio.insert(version, config);
                if self.audio.len() > MAX_CONFIGS {
                    self.audio.pop_first();
                }
            }
        }
    }

    fn is_to_be_measured(&self, frame: &FrameUnit) -> bool {
        !self.held.is_empty() || !self.is_measured(frame)
    }

    /// True if the part timing of the frame's configuration is known.
    fn is_measured(&self, frame: &FrameUnit) -> bool {
        let measured = self.timing.map(|timing| timing.init_version);
        match frame.track {
            Track::Video => measured == Some(Some(frame.init_version.0)),
            Track::Audio => measured.is_some(),
        }
    }

    /// Hands on the frames whose timing is known.
    fn release(&mut self) {
        while let Some(output) = self.meter.poll() {
            let Output::Timing { timing, .. } = output else { continue };
            // One measurement follows another if the configuration changed during the first.
            self.timing = Some(timing);
            self.hand_on();
        }
        self.hand_on();
    }

    fn hand_on(&mut self) {
        while let Some(frame) = self.held.front()
            && self.is_measured(frame)
            && let Some(frame) = self.held.pop_front()
        {
            match frame.track {
                Track::Video => self.picture(frame),
                Track::Audio => self.sound(frame),
            }
        }
    }

    fn picture(&mut self, frame: FrameUnit) {
        let (msn, version) = (frame.msn.0, frame.init_version.0);
        let Some(timing) = self.timing else { return };
        if frame.boundary {
            self.begin(&frame, frame.dts);
        }
        if self.start.as_ref().is_none_or(|start| start.version != version)
            && let Some((config, bit_rate)) = self.video.get(&version)
        {
            let (config, bit_rate) = (config.clone(), *bit_rate);
            let start = VideoStart { version, msn, config, bit_rate, timing };
            self.steps.push_back(Step::Video(Box::new(start.clone())));
            self.start = Some(start);
        }
        let Some(start) = &self.start else { return };
        let independent = self.part_starts.take(&frame, self.span, start);
        let place = Place {
            msn,
            dts: frame.dts,
            duration: frame.duration,
            starts_segment: self.picture_msn.replace(msn) != Some(msn),
            may_be_last: frame.may_be_last,
        };
        self.end = self.end.max(frame.dts + i64::from(frame.duration));
        let (pts, keyframe) = (frame.dts + i64::from(frame.cts), frame.keyframe);
        self.steps.push_back(Step::Picture(Picture { place, pts, keyframe, independent, data: frame.data }));
    }

    fn sound(&mut self, frame: FrameUnit) {
        let version = frame.init_version.0;
        let Some(config) = self.audio.get(&version).cloned() else { return };
        let ticks = config.timescale().convert(frame.dts, Timescale::VIDEO);
        if frame.boundary {
            self.begin(&frame, ticks);
        }
        self.end = self.end.max(ticks + i64::from(config.frame_ticks()));
        if self.audio_version.replace(version) != Some(version) {
            self.steps.push_back(Step::Audio(version, config));
        }
        self.steps.push_back(Step::Sound(Sound { pts: frame.dts, ticks, data: frame.data }));
    }

    fn begin(&mut self, frame: &FrameUnit, start: i64) {
        let (sequence, discontinuity) = (frame.discontinuity_sequence, frame.discontinuity);
        let span = Span { msn: frame.msn.0, start, discontinuity, sequence };
        self.span = Some(span);
        self.steps.push_back(Step::Segment(span));
    }
}
