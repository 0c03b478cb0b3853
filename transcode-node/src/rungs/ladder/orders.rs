//! The steps of the source as orders to the transcoder.

use millrace_codec::engine::order::{AudioSource, Order, SourcePicture, SourceSound, VideoSource};
use millrace_media::codec::AudioCodec;
use millrace_media::frame::AudioConfig;
use millrace_wire::message::media::{FrameUnit, MediaUnit, Track};

use super::pre_roll;
use super::recent::Kept;
use super::segments::{Place, Span};
use super::sound::Sound;
use super::steps::{self, Picture, Step, VideoStart};
use super::{Configured, LadderRung, Transcoder};
use crate::encoders::Behind;

/// The codec string of AAC-LC, the one profile of AAC that every player plays.
const AAC_LC: &str = "mp4a.40.2";
/// Configurations of which a transcoder may still hand in pictures.
const MAX_CONFIGURED: usize = 8;

impl LadderRung {
    /// Takes the steps that the source has made.
    pub(super) fn take_steps(&mut self) {
        while let Some(step) = self.source.poll() {
            if self.take_step(step) == Err(Behind) {
                self.fall_behind();
            }
        }
    }

    fn take_step(&mut self, step: Step) -> Result<(), Behind> {
        match step {
            Step::Segment(span) => {
                self.begin_segment(&span);
                Ok(())
            }
            Step::Video(start) => {
                self.recent.push(Kept::Video((*start).clone()));
                for picture in self.pre_roll.take_pictures(start.version) {
                    self.recent.push(Kept::Picture(picture));
                }
                if self.transcoder == Transcoder::Runs { self.configure_video(*start) } else { Ok(()) }
            }
            Step::Picture(picture) => self.order_picture(picture),
            Step::Audio(version, config) => {
                self.recent.push(Kept::Audio(config.clone()));
                let sounds = self.pre_roll.take_sounds(version, &config);
                if self.transcoder == Transcoder::Runs {
                    let configured = self.configure_audio(config);
                    if let Some(msn) = self.segments.newest() {
                        self.owe_sound(msn);
                    }
                    configured?;
                }
                sounds.into_iter().try_for_each(|sound| self.decode_sound(sound))
            }
            Step::Sound(sound) => self.order_sound(sound),
        }
    }

    /// Takes the beginning of a segment.
    fn begin_segment(&mut self, span: &Span) {
        self.segments.begin(*span);
        for rung in &mut self.rungs {
            rung.track.segment(span);
        }
        self.sound.track.segment(span);
        let owed = self.rungs.iter().map(|rung| &rung.track).chain([&self.sound.track]);
        let oldest = owed.filter_map(|track| track.owed.first()).min().and_then(|msn| self.segments.get(msn));
        self.recent.forget_before(&oldest.unwrap_or(*span));
        self.owe_sound(span.msn);
    }

    pub(super) fn configure_video(&mut self, start: VideoStart) -> Result<(), Behind> {
        let VideoStart { version, msn: from_msn, config, bit_rate, timing } = start;
        let rate = timing.frame_rate_milli(config.frame_rate);
        self.configured.push_back(Configured { version, from_msn, timing, rate });
        if self.configured.len() > MAX_CONFIGURED {
            self.configured.pop_front();
        }
        for rung in &mut self.rungs {
            rung.is_dropped = false;
        }
        self.encoders.send(Order::VideoConfig(VideoSource {
            codec: config.codec,
            record: config.record,
            width: config.width,
            height: config.height,
            pixel_aspect: config.pixel_aspect,
            frame_rate_milli: rate,
            bitrate: bit_rate,
            version,
        }))
    }

    pub(super) fn configure_audio(&mut self, config: AudioConfig) -> Result<(), Behind> {
        // Players that have begun with the encoded audio stay with it.
        self.sound.is_wanted = self.sound.track.is_listed() || !plays_everywhere(&config);
        if !self.sound.is_wanted {
            return Ok(());
        }
        let AudioConfig { codec, record, rate, channels, .. } = config;
        self.encoders.send(Order::AudioConfig(AudioSource { codec, record, rate, channels }))
    }

    fn order_picture(&mut self, picture: Picture) -> Result<(), Behind> {
        let Place { msn, starts_segment, .. } = picture.place;
        if starts_segment {
            let started = self.start(msn, picture.keyframe).and_then(|()| self.shed());
            self.owe_pictures(msn);
            started?;
        }
        self.recent.push(Kept::Picture(picture.clone()));
        if self.transcoder == Transcoder::Runs { self.send_picture(picture, true) } else { Ok(()) }
    }

    pub(super) fn send_picture(&mut self, picture: Picture, encode: bool) -> Result<(), Behind> {
        let Picture { place, pts, keyframe, independent, data } = picture;
        let slot = self.places.add(place);
        let Place { dts, duration, starts_segment, .. } = place;
        let mut goes_on = false;
        for rung in &mut self.rungs {
            goes_on |= rung.ordered(slot, dts);
        }
        let independent = (independent || goes_on) && encode;
        self.encoders.send(Order::Picture(SourcePicture {
            slot,
            pts,
            duration,
            starts_segment,
            independent,
            encode,
            keyframe,
            data,
        }))
    }

    fn order_sound(&mut self, sound: steps::Sound) -> Result<(), Behind> {
        let msn = self.segments.newest().unwrap_or_default();
        if !self.recent.has_video() {
            self.start_for_sound(msn)?;
        }
        self.recent.push(Kept::Sound(sound.clone()));
        if self.transcoder == Transcoder::Runs { self.send_sound(sound, true) } else { Ok(()) }
    }

    /// Takes media from before the first segment: they are decoded only. Audio that is behind the pictures may come when a
    /// transcoder runs.
    pub(super) fn take_pre_roll(&mut self, units: &[MediaUnit]) {
        for frame in units.iter().filter_map(MediaUnit::frame) {
            let Some(sound) = self.late_sound(frame) else {
                self.pre_roll.push(frame);
                continue;
            };
            if self.decode_sound(sound) == Err(Behind) {
                self.fall_behind();
            }
        }
    }

    /// Returns a frame of the pre-roll as sound, if the configuration of the audio is known already.
    fn late_sound(&self, frame: &FrameUnit) -> Option<steps::Sound> {
        let config = self.recent.audio().filter(|_| frame.track == Track::Audio)?;
        Some(pre_roll::sound(frame, config))
    }

    /// Has an audio frame decoded and not encoded, by the transcoder that runs and by those that follow.
    fn decode_sound(&mut self, sound: steps::Sound) -> Result<(), Behind> {
        self.recent.push(Kept::Sound(sound.clone()));
        if self.transcoder == Transcoder::Runs { self.send_sound(sound, false) } else { Ok(()) }
    }

    pub(super) fn send_sound(&mut self, sound: steps::Sound, encode: bool) -> Result<(), Behind> {
        if !self.sound.is_wanted {
            return Ok(());
        }
        let steps::Sound { pts, ticks, data } = sound;
        if encode {
            self.sound.source(ticks);
        }
        self.encoders.send(Order::Sound(SourceSound { pts, encode, data }))?;
        self.sound.package(&self.segments, false, &mut self.out);
        Ok(())
    }

    /// Starts a transcoder for audio alone, if the audio is to be encoded.
    fn start_for_sound(&mut self, msn: u64) -> Result<(), Behind> {
        let is_wanted = self.recent.audio().is_some_and(|config| !plays_everywhere(config));
        if is_wanted || self.sound.track.is_listed() { self.start(msn, true) } else { Ok(()) }
    }

    /// Tells the transcoder which rungs to encode from the next place on, which starts a segment.
    fn shed(&mut self) -> Result<(), Behind> {
        if self.transcoder != Transcoder::Runs {
            return Ok(());
        }
        let Some(wish) = self.wish.take() else { return Ok(()) };
        for rung in &mut self.rungs {
            rung.is_shed = !wish.contains(&rung.index);
        }
        self.encoders.send(Order::Encode(wish))
    }

    /// Notes that each rung owes the pictures of a segment, or lacks them.
    fn owe_pictures(&mut self, msn: u64) {
        let runs = self.transcoder == Transcoder::Runs;
        for rung in &mut self.rungs {
            if runs && rung.is_wanted() { rung.track.owed.add(msn) } else { rung.track.owed.add_lost(msn) }
        }
    }

    /// Notes that the encoded audio owes a segment, or lacks it.
    pub(super) fn owe_sound(&mut self, msn: u64) {
        let Sound { track, is_wanted, .. } = &mut self.sound;
        if self.transcoder == Transcoder::Runs && *is_wanted {
            if !track.owed.is_open(msn) {
                track.owed.add(msn);
            }
        } else if track.is_listed() {
            track.owed.add_lost(msn);
        }
    }
}

/// True if every player plays this audio, so that it is copied.
fn plays_everywhere(config: &AudioConfig) -> bool {
    config.codec == AudioCodec::Aac
        && config.codecs == AAC_LC
        && (config.rate, config.channels) == AudioSource::PLAYS_EVERYWHERE
}
