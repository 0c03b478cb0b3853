//! The newest media of the source: a new transcoder decodes them first, and encodes again those that the rungs still owe.
//!
//! They begin with a keyframe no later than the first picture of the oldest segment that is owed, and with some audio before, so
//! that sound begins without a click.

use std::collections::VecDeque;

use millrace_media::frame::AudioConfig;
use millrace_media::time::Timescale;
use millrace_protocol::session::PRE_ROLL_SOUNDS;

use super::segments::Span;
use super::steps::{Picture, Sound, VideoStart};

/// Audio frames before the first picture that are decoded, as many as a session gives a successor.
const MAX_SOUNDS: usize = PRE_ROLL_SOUNDS as usize;
/// The most that is kept: bytes, steps (pictures and audio frames, fewer than [`Places`](super::segments::Places) remembers), and
/// 90 kHz ticks. It is the ten seconds that may be owed and the thirty that ingest allows between keyframes, at 6 Mb/s and
/// 50 pictures a second. More of both leaves a new transcoder without rungs until the next keyframe.
const MAX_BYTES: usize = 32 << 20;
const MAX_STEPS: usize = 4_000;
const MAX_TICKS: i64 = 42 * Timescale::VIDEO.ticks_per_second() as i64;

/// One step of the source that is kept.
#[derive(Debug, Clone)]
pub(super) enum Kept {
    Video(VideoStart),
    Picture(Picture),
    Audio(AudioConfig),
    Sound(Sound),
}

impl Kept {
    /// Returns its time in 90 kHz ticks and its bytes; `None` for a configuration.
    fn size(&self) -> Option<(i64, usize)> {
        match self {
            Self::Picture(picture) => Some((picture.place.dts, picture.data.len())),
            Self::Sound(sound) => Some((sound.ticks, sound.data.len())),
            Self::Video(_) | Self::Audio(_) => None,
        }
    }

    const fn picture(&self) -> Option<&Picture> {
        if let Self::Picture(picture) = self { Some(picture) } else { None }
    }
}

/// The newest media of the source. Their bytes are shared.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// The configurations at the beginning, and the newest audio frames before it.
    video: Option<VideoStart>,
    audio: Option<AudioConfig>,
    sounds: VecDeque<Sound>,
    steps: VecDeque<Kept>,
    bytes: usize,
    has_video: bool,
    newest_audio: Option<AudioConfig>,
}

impl Recent {
    /// True once the source's pictures have a configuration.
    pub(super) const fn has_video(&self) -> bool {
        self.has_video
    }

    /// Returns the newest configuration of the audio.
    pub(super) const fn audio(&self) -> Option<&AudioConfig> {
        self.newest_audio.as_ref()
    }

    /// Adds a step of the source. Pictures that no keyframe precedes cannot be decoded and are left out.
    pub(super) fn push(&mut self, step: Kept) {
        match &step {
            Kept::Picture(picture) if !picture.keyframe && self.first_picture().is_none() => return,
            Kept::Video(_) => self.has_video = true,
            Kept::Audio(config) => self.newest_audio = Some(config.clone()),
            Kept::Picture(_) | Kept::Sound(_) => {}
        }
        let size = step.size();
        self.bytes += size.map_or(0, |(_, bytes)| bytes);
        self.steps.push_back(step);
        let first = self.steps.iter().find_map(Kept::size);
        let ticks = size.zip(first).map_or(0, |((newest, _), (oldest, _))| newest - oldest);
        if self.bytes > MAX_BYTES || self.steps.len() > MAX_STEPS || ticks > MAX_TICKS {
            self.drop_oldest();
        }
    }

    /// Forgets what no transcoder needs that begins with the segment `span` or a later one.
    pub(super) fn forget_before(&mut self, span: &Span) {
        let may_begin = |step: &Kept| match step {
            Kept::Picture(picture) => picture.keyframe && precedes(picture, span),
            Kept::Sound(sound) => !self.has_video && sound.ticks <= span.start,
            Kept::Video(_) | Kept::Audio(_) => false,
        };
        let beginning = self.steps.iter().rposition(may_begin);
        (0..beginning.unwrap_or(0)).for_each(|_| self.pop());
    }

    /// Forgets all media: what follows needs none of it, save for the newest audio frames.
    pub(super) fn forget_all(&mut self) {
        while !self.steps.is_empty() {
            self.pop();
        }
    }

    /// True if a transcoder that is given these media can encode the segment from its beginning on.
    pub(super) fn covers(&self, span: &Span) -> bool {
        if self.has_video {
            return self.first_picture().is_some_and(|first| precedes(first, span));
        }
        self.steps.iter().find_map(Kept::size).is_some_and(|(ticks, _)| ticks <= span.start)
    }

    /// Returns the audio frames to be decoded first.
    pub(super) fn sounds(&self) -> Vec<Sound> {
        self.sounds.iter().cloned().collect()
    }

    /// Returns the steps for a new transcoder in order, the configurations that they begin with first.
    pub(super) fn steps(&self) -> Vec<Kept> {
        let video = self.video.clone().map(Kept::Video);
        let audio = self.audio.clone().map(Kept::Audio);
        video.into_iter().chain(audio).chain(self.steps.iter().cloned()).collect()
    }

    fn first_picture(&self) -> Option<&Picture> {
        self.steps.iter().find_map(Kept::picture)
    }

    /// Drops the oldest media up to the next keyframe.
    fn drop_oldest(&mut self) {
        let is_keyframe = |step: &Kept| step.picture().is_some_and(|picture| picture.keyframe);
        self.pop();
        while self.steps.front().is_some_and(|step| !is_keyframe(step)) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        let Some(step) = self.steps.pop_front() else { return };
        self.bytes -= step.size().map_or(0, |(_, bytes)| bytes);
        match step {
            Kept::Video(start) => self.video = Some(start),
            Kept::Picture(_) => {}
            Kept::Audio(config) => {
                self.audio = Some(config);
                self.sounds.clear();
            }
            Kept::Sound(sound) => {
                self.sounds.push_back(sound);
                if self.sounds.len() > MAX_SOUNDS {
                    self.sounds.pop_front();
                }
            }
        }
    }
}

/// True if a picture is the first of the segment, or is one of a segment before.
const fn precedes(picture: &Picture, span: &Span) -> bool {
    picture.place.msn < span.msn || (picture.place.msn == span.msn && picture.place.starts_segment)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use millrace_wire::ids::DiscontinuitySeq;

    use super::super::segments::Place;
    use super::*;

    /// Ticks of a picture; a segment has ten.
    const FRAME: i64 = 3_000;

    fn picture(number: i64, keyframe: bool, bytes: usize) -> Kept {
        let (msn, starts_segment) = (number as u64 / 10, number % 10 == 0);
        let place = Place { msn, dts: number * FRAME, duration: 3000, starts_segment, may_be_last: false };
        let data = Bytes::from(vec![0; bytes]).into();
        Kept::Picture(Picture { place, pts: 0, keyframe, independent: false, data })
    }

    fn sound(number: i64) -> Kept {
        let data = Bytes::from_static(b"x").into();
        Kept::Sound(Sound { pts: number * 1024, ticks: number * 1920, data })
    }

    fn span(msn: u64) -> Span {
        let (start, sequence) = (msn as i64 * 10 * FRAME, DiscontinuitySeq(0));
        Span { msn, start, discontinuity: false, sequence }
    }

    fn numbers(recent: &Recent) -> Vec<i64> {
        recent.steps.iter().filter_map(Kept::picture).map(|picture| picture.place.dts / FRAME).collect()
    }

    #[test]
    fn media_begin_with_the_keyframe_that_the_oldest_segment_needs() {
        let mut recent = Recent { has_video: true, ..Recent::default() };
        recent.push(picture(3, false, 1));
        assert!(numbers(&recent).is_empty(), "it cannot be decoded");
        // Keyframes where segment 1 begins, and in the middle of segment 2.
        for number in 5..40 {
            recent.push(picture(number, [5, 10, 25].contains(&number), 1));
            recent.push(sound(number));
        }
        assert!(recent.covers(&span(1)) && !recent.covers(&span(0)));
        recent.forget_before(&span(1));
        assert_eq!(numbers(&recent), (10..40).collect::<Vec<_>>());
        assert_eq!(recent.sounds().iter().map(|sound| sound.pts / 1024).collect::<Vec<_>>(), [5, 6, 7, 8, 9]);
        recent.forget_before(&span(2));
        assert_eq!(numbers(&recent)[0], 10, "the keyframe of segment 2 lies behind its beginning");
        recent.forget_before(&span(3));
        assert_eq!(numbers(&recent), (25..40).collect::<Vec<_>>());
        assert!(recent.covers(&span(3)) && !recent.covers(&span(2)));
        recent.forget_all();
        assert!(numbers(&recent).is_empty() && recent.sounds().len() == MAX_SOUNDS && recent.bytes == 0);
    }

    #[test]
    fn media_are_bounded_in_bytes_time_and_number_and_then_begin_with_the_next_keyframe() {
        let filled = |step: i64, bytes: usize, count: i64| {
            let mut recent = Recent { has_video: true, ..Recent::default() };
            for number in 0..count {
                recent.push(picture(number * step, number % 100 == 0, bytes));
                assert!(recent.bytes <= MAX_BYTES && recent.steps.len() <= MAX_STEPS);
            }
            recent
        };
        assert_eq!(numbers(&filled(1, 1 << 20, 120)), (100..120).collect::<Vec<_>>());
        assert_eq!(numbers(&filled(20, 1, 120)).len(), 20);
        assert!(numbers(&filled(0, 1, MAX_STEPS as i64 + 50)).len() > MAX_STEPS - 100);
        let mut sparse = filled(1, 1, 1);
        sparse.push(picture(1, false, MAX_BYTES));
        sparse.push(picture(2, false, 1));
        assert!(numbers(&sparse).is_empty(), "until the next keyframe");
    }

    #[test]
    fn audio_alone_begins_with_the_segment() {
        let mut recent = Recent::default();
        (0..40).for_each(|number| recent.push(sound(number)));
        recent.forget_before(&span(2));
        let Some(Kept::Sound(first)) = recent.steps.front() else { panic!("no sound") };
        assert_eq!((first.ticks, recent.sounds().len()), (59_520, MAX_SOUNDS));
        assert!(recent.covers(&span(2)));
    }
}
