//! The steps of the source as orders to the transcoder.

use millrace_codec::engine::order::{AudioSource, Order, SourcePicture, SourceSound, VideoSource};
use millrace_media::codec::AudioCodec;
use millrace_media::frame::AudioConfig;
use millrace_wire::ids::Msn;

use super::segments::{Place, Places, Span};
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
                self.newest.video = Some(*start);
                self.newest.pre_roll.forget_pictures();
                if self.transcoder == Transcoder::Runs { self.configure_video() } else { Ok(()) }
            }
            Step::Picture(picture) => self.order_picture(picture),
            Step::Audio(config) => {
                self.newest.audio = Some(config);
                self.newest.pre_roll.forget_sounds();
                if self.transcoder == Transcoder::Runs { self.configure_audio() } else { Ok(()) }
            }
            Step::Sound(sound) => self.order_sound(sound),
        }
    }

    /// Takes the beginning of a segment: a transcoder starts here if there is none.
    fn begin_segment(&mut self, span: &Span) {
        self.segments.begin(*span);
        for rung in &mut self.rungs {
            rung.track.segment(span);
        }
        self.sound.track.segment(span);
        self.owe_sound(span.msn);
    }

    /// Starts a transcoder before the first frame of a segment, if none runs and the policy allows it. Unless that frame is a
    /// keyframe, the transcoder first decodes the pictures since the newest one.
    fn start(&mut self, msn: u64, keyframe: bool) -> Result<(), Behind> {
        if self.transcoder != Transcoder::Absent || !self.policy.may_start(Msn(msn)) {
            return Ok(());
        }
        self.transcoder = Transcoder::Runs;
        self.places = Places::default();
        self.configured.clear();
        self.encoders.send(Order::Start(self.plan.clone()))?;
        self.configure_video()?;
        self.configure_audio()?;
        let shed: Vec<_> = self.rungs.iter().filter(|rung| rung.is_shed).map(|rung| rung.index).collect();
        if !shed.is_empty() && self.wish.is_none() {
            let kept = self.rungs.iter().filter(|rung| !rung.is_shed).map(|rung| rung.index);
            self.wish = Some(kept.collect());
        }
        let pictures = if keyframe { Vec::new() } else { self.newest.pre_roll.pictures() };
        for picture in pictures {
            self.send_picture(picture, false)?;
        }
        let sounds = if self.sound.is_wanted { self.newest.pre_roll.sounds() } else { Vec::new() };
        for steps::Sound { pts, data, .. } in sounds {
            self.encoders.send(Order::Sound(SourceSound { pts, encode: false, data }))?;
        }
        Ok(())
    }

    fn configure_video(&mut self) -> Result<(), Behind> {
        let Some(VideoStart { version, config, bit_rate, timing }) = self.newest.video.clone() else {
            return Ok(());
        };
        let rate = timing.frame_rate_milli(config.frame_rate);
        let from_msn = self.segments.newest().unwrap_or_default();
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

    fn configure_audio(&mut self) -> Result<(), Behind> {
        let Some(config) = self.newest.audio.clone() else { return Ok(()) };
        // Players that have begun with the encoded audio stay with it.
        self.sound.is_wanted = self.sound.track.is_listed() || !plays_everywhere(&config);
        if !self.sound.is_wanted {
            return Ok(());
        }
        if let Some(msn) = self.segments.newest() {
            self.owe_sound(msn);
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
        self.newest.pre_roll.picture(&picture);
        if self.transcoder == Transcoder::Runs { self.send_picture(picture, true) } else { Ok(()) }
    }

    fn send_picture(&mut self, picture: Picture, encode: bool) -> Result<(), Behind> {
        let Picture { place, pts, keyframe, independent, data } = picture;
        let slot = self.places.add(place);
        let Place { duration, starts_segment, .. } = place;
        let independent = independent && encode;
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
        if self.newest.video.is_none() {
            self.start_for_sound(msn)?;
        }
        if self.transcoder == Transcoder::Runs && self.sound.is_wanted {
            self.sound.source(sound.ticks);
            let data = sound.data.clone();
            self.encoders.send(Order::Sound(SourceSound { pts: sound.pts, encode: true, data }))?;
            self.sound.package(&self.segments, false, &mut self.out);
        }
        self.newest.pre_roll.sound(sound);
        Ok(())
    }

    /// Starts a transcoder for audio alone, if the audio is to be encoded.
    fn start_for_sound(&mut self, msn: u64) -> Result<(), Behind> {
        let is_wanted = self.newest.audio.as_ref().is_some_and(|config| !plays_everywhere(config));
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
    fn owe_sound(&mut self, msn: u64) {
        let Sound { track, is_wanted, .. } = &mut self.sound;
        if self.transcoder == Transcoder::Runs && *is_wanted {
            if !track.owed.is_open(msn) {
                track.owed.add(msn);
            }
        } else if track.is_listed() {
            track.owed.add_lost(msn);
        }
    }

    /// Gives the transcoder up, because it is too far behind.
    fn fall_behind(&mut self) {
        let msn = self.segments.newest().unwrap_or_default();
        tracing::warn!(
            msn,
            "the encoders are too far behind: the encoded rungs are left out for some segments"
        );
        self.policy.fell_behind(Msn(msn));
        self.lose_transcoder();
    }

    /// Loses everything that the transcoder has not handed in.
    pub(super) fn lose_transcoder(&mut self) {
        self.transcoder = Transcoder::Absent;
        self.health.ended();
        for rung in &mut self.rungs {
            rung.wait();
            rung.track.owed.lose_through(u64::MAX);
        }
        self.sound.reset();
        self.sound.track.owed.lose_through(u64::MAX);
    }
}

/// True if every player plays this audio, so that it is copied.
fn plays_everywhere(config: &AudioConfig) -> bool {
    config.codec == AudioCodec::Aac
        && config.codecs == AAC_LC
        && (config.rate, config.channels) == AudioSource::PLAYS_EVERYWHERE
}
