//! The media that a new transcoder decodes before the first that it encodes: the pictures since the newest keyframe, so
//! that it can start at any boundary, and some audio, so that its sound begins without a click.

use std::collections::VecDeque;

use millrace_media::frame::AudioConfig;

use super::steps::{Picture, Sound, VideoStart};

/// Audio frames that are decoded first: the overlap of AAC and the delay of SBR are less.
const MAX_SOUNDS: usize = 4;
/// Pictures and bytes since a keyframe that are kept: 10 s of 120 pictures a second, and of 13 Mb/s. Keyframes that are
/// further apart leave a new transcoder without rungs until the next one.
const MAX_PICTURES: usize = 1200;
const MAX_BYTES: usize = 16 << 20;

/// The newest configurations of the source, and its newest media.
#[derive(Debug, Default)]
pub(super) struct Newest {
    pub(super) video: Option<VideoStart>,
    pub(super) audio: Option<AudioConfig>,
    pub(super) pre_roll: PreRoll,
}

/// The newest media of the source.
#[derive(Debug, Default)]
pub(super) struct PreRoll {
    /// The pictures since the newest keyframe; none if they were too many.
    pictures: VecDeque<Picture>,
    bytes: usize,
    sounds: VecDeque<Sound>,
}

impl PreRoll {
    /// Notes a picture. Its bytes are shared.
    pub(super) fn picture(&mut self, picture: &Picture) {
        if picture.keyframe {
            self.forget_pictures();
        } else if self.pictures.is_empty() {
            return;
        }
        self.bytes += picture.data.len();
        self.pictures.push_back(picture.clone());
        if self.pictures.len() > MAX_PICTURES || self.bytes > MAX_BYTES {
            self.forget_pictures();
        }
    }

    /// Notes an audio frame.
    pub(super) fn sound(&mut self, sound: Sound) {
        self.sounds.push_back(sound);
        if self.sounds.len() > MAX_SOUNDS {
            self.sounds.pop_front();
        }
    }

    /// Returns the pictures since the newest keyframe, that one first.
    pub(super) fn pictures(&self) -> Vec<Picture> {
        self.pictures.iter().cloned().collect()
    }

    /// Returns the newest audio frames.
    pub(super) fn sounds(&self) -> Vec<Sound> {
        self.sounds.iter().cloned().collect()
    }

    /// Forgets the pictures: those that follow have another configuration.
    pub(super) fn forget_pictures(&mut self) {
        (self.bytes, self.pictures) = (0, VecDeque::new());
    }

    /// Forgets the audio frames: those that follow have another configuration.
    pub(super) fn forget_sounds(&mut self) {
        self.sounds.clear();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::segments::Place;
    use super::*;

    fn picture(keyframe: bool, bytes: usize) -> Picture {
        let place = Place { msn: 1, dts: 0, duration: 3000, starts_segment: false, may_be_last: false };
        Picture { place, pts: 0, keyframe, independent: false, data: Bytes::from(vec![0; bytes]).into() }
    }

    #[test]
    fn pre_roll_begins_with_the_newest_keyframe_and_is_bounded() {
        let mut pre_roll = PreRoll::default();
        pre_roll.picture(&picture(false, 1));
        assert!(pre_roll.pictures().is_empty(), "nothing can be decoded");
        for keyframe in [true, false, true, false, false] {
            pre_roll.picture(&picture(keyframe, 1));
        }
        assert_eq!(pre_roll.pictures().iter().map(|p| p.keyframe).collect::<Vec<_>>(), [true, false, false]);
        pre_roll.picture(&picture(false, MAX_BYTES));
        assert!(pre_roll.pictures().is_empty());
        pre_roll.picture(&picture(false, 1));
        assert!(pre_roll.pictures().is_empty(), "until the next keyframe");
        pre_roll.picture(&picture(true, 1));
        (0..MAX_PICTURES * 2).for_each(|_| pre_roll.picture(&picture(false, 1)));
        assert!(pre_roll.pictures().is_empty());
    }
}
