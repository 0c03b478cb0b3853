//! Media from before the first segment, which a session gives a successor to decode. They wait until the configurations are
//! known that the first segment repeats, and become the beginning of what the rung keeps of its source.

use millrace_media::frame::AudioConfig;
use millrace_media::time::Timescale;
use millrace_wire::message::media::{FrameUnit, Track};

use super::segments::Place;
use super::steps::{Picture, Sound};

/// The most frames that wait: twelve seconds of 120 pictures a second with their audio. More is not what a session gives.
const MAX_FRAMES: usize = 4_000;

/// Frames that wait for their configurations.
#[derive(Debug, Default)]
pub(super) struct PreRoll {
    frames: Vec<FrameUnit>,
}

impl PreRoll {
    /// Adds a frame. Its bytes are shared.
    pub(super) fn push(&mut self, frame: &FrameUnit) {
        if self.frames.len() < MAX_FRAMES {
            self.frames.push(frame.clone());
        }
    }

    /// Removes the pictures, and returns those that have the configuration `version` of the pictures that follow.
    pub(super) fn take_pictures(&mut self, version: u32) -> Vec<Picture> {
        let frames = self.take(Track::Video, version);
        frames.map(|frame| picture(&frame)).collect()
    }

    /// Removes the audio frames, and returns those that have the configuration of the audio that follows, which is `config`
    /// of `version`.
    pub(super) fn take_sounds(&mut self, version: u32, config: &AudioConfig) -> Vec<Sound> {
        let frames = self.take(Track::Audio, version);
        frames.map(|frame| sound(&frame, config)).collect()
    }

    fn take(&mut self, track: Track, version: u32) -> impl Iterator<Item = FrameUnit> {
        let frames = self.frames.extract_if(.., move |frame| frame.track == track);
        let own: Vec<FrameUnit> = frames.filter(|frame| frame.init_version.0 == version).collect();
        own.into_iter()
    }
}

/// Returns an audio frame with the configuration `config`.
pub(super) fn sound(frame: &FrameUnit, config: &AudioConfig) -> Sound {
    let ticks = config.timescale().convert(frame.dts, Timescale::VIDEO);
    Sound { pts: frame.dts, ticks, data: frame.data.clone() }
}

fn picture(frame: &FrameUnit) -> Picture {
    let FrameUnit { msn, dts, cts, duration, keyframe, .. } = *frame;
    let place = Place { msn: msn.0, dts, duration, starts_segment: false, may_be_last: false };
    Picture { place, pts: dts + i64::from(cts), keyframe, independent: false, data: frame.data.clone() }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use millrace_wire::ids::{DiscontinuitySeq, InitVersion, Msn};

    use super::*;

    fn frame(track: Track, version: u32) -> FrameUnit {
        FrameUnit {
            track,
            msn: Msn(1),
            discontinuity_sequence: DiscontinuitySeq(0),
            init_version: InitVersion(version),
            dts: 44_100,
            cts: 0,
            keyframe: true,
            boundary: false,
            independent: true,
            discontinuity: false,
            duration: 3_000,
            may_be_last: false,
            data: Bytes::from_static(b"x").into(),
        }
    }

    #[test]
    fn pre_roll_gives_what_has_the_configuration_of_the_media_that_follow() {
        let mut pre_roll = PreRoll::default();
        for (track, version) in [(Track::Video, 1), (Track::Audio, 1), (Track::Audio, 2), (Track::Video, 2)] {
            pre_roll.push(&frame(track, version));
        }
        assert_eq!(pre_roll.take_pictures(2).len(), 1);
        let sounds = pre_roll.take_sounds(1, &AudioConfig::aac_lc(44_100, 1).unwrap());
        assert_eq!(sounds.iter().map(|sound| sound.ticks).collect::<Vec<_>>(), [90_000]);
        assert!(pre_roll.frames.is_empty());
        (0..MAX_FRAMES * 2).for_each(|_| pre_roll.push(&frame(Track::Video, 1)));
        assert_eq!(pre_roll.frames.len(), MAX_FRAMES);
    }
}
