//! Audio from before the first keyframe.

use super::{AUDIO_ONLY_WAIT, KEYFRAME_WAIT, NO_TAG, Segmenter, WAITING_AUDIO};
use crate::frame::{AudioFrame, MediaFrame, SegmentTag, TrackConfig};
use crate::repair::Repair;
use crate::time::Timescale;

impl Segmenter {
    /// Keeps audio until the first keyframe, or until it is clear that none comes: then audio
    /// starts the first segment.
    pub(super) fn wait(&mut self, frame: AudioFrame, time: i64) {
        let first = *self.waiting_since.get_or_insert(time);
        let limit = if self.video.config.is_some() { KEYFRAME_WAIT } else { AUDIO_ONLY_WAIT };
        if time - first < limit {
            self.waiting_audio.push_back(frame);
            self.drop_old_audio(time);
            return;
        }
        let start = self.waiting_audio.front().map_or(time, |frame| self.audio_time(frame));
        self.waiting_audio.push_back(frame);
        let discontinuity = self.start_segment(start, true);
        let mut boundary = true;
        self.audio.started = true;
        while let Some(frame) = self.waiting_audio.pop_front() {
            let discontinuity = boundary && discontinuity;
            self.emit(
                MediaFrame::Audio(frame),
                SegmentTag { discontinuity, boundary, independent: true, ..NO_TAG },
            );
            boundary = false;
        }
    }

    /// Drops waiting audio that is too old to be of use.
    fn drop_old_audio(&mut self, now: i64) {
        let keep = if self.video.config.is_some() { WAITING_AUDIO } else { AUDIO_ONLY_WAIT };
        while self.waiting_audio.front().is_some_and(|front| now - self.audio_time(front) > keep) {
            self.waiting_audio.pop_front();
            self.repairs.add(Repair::EarlyAudio, 1);
        }
    }

    /// Returns the time of an audio frame in 90 kHz ticks.
    fn audio_time(&self, frame: &AudioFrame) -> i64 {
        match &self.audio.config {
            Some(TrackConfig::Audio(config)) => config.timescale().convert(frame.pts, Timescale::VIDEO),
            _ => 0,
        }
    }
}
