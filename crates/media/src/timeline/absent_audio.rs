//! Silence in place of audio that was announced and stays away.

use super::audio::LATE_LIMIT;
use super::limits::{AUDIO_STALL_LIMIT, AUDIO_START_LIMIT};
use super::{Timeline, TimelineEvent};
use crate::frame::{AudioFrame, MediaFrame};
use crate::repair::Repair;
use crate::time::Timescale;

/// Audio that lags is not absent while a frame has come within this long, in 90 kHz ticks (1 s).
const HEARD_LIMIT: i64 = 90_000;

impl Timeline {
    /// Adds silence up to the picture at `dts` if announced audio stays away.
    pub(super) fn replace_absent_audio(&mut self, dts: i64) {
        let (Some(config), Some(first)) = (&self.audio_config, self.first_keyframe) else { return };
        let scale = config.timescale();
        let first = first.max(self.audio_announced);
        let is_absent = match self.next_audio {
            _ if self.is_silent => true,
            None => dts - first > AUDIO_START_LIMIT,
            Some(next) => {
                let behind = dts - scale.convert(next, Timescale::VIDEO);
                // Audio that comes late is still audio.
                let is_heard = self.heard_at.is_some_and(|heard| dts - heard <= HEARD_LIMIT);
                behind > AUDIO_STALL_LIMIT && (!is_heard || behind > AUDIO_STALL_LIMIT + LATE_LIMIT)
            }
        };
        if !is_absent || config.silent_frame().is_none() {
            return;
        }
        let limit = Timescale::VIDEO.convert(dts, scale) - i64::from(config.frame_samples);
        self.is_silent = true;
        self.next_audio.get_or_insert(Timescale::VIDEO.convert(first, scale));
        self.add_silence_until(limit, Repair::SilenceForAbsentAudio);
    }

    /// Adds silent frames while they start at or before `limit`, in samples, as far back as the budget
    /// reaches: a hole that begins earlier stays a hole up to there. Returns false if no silent frame is
    /// known.
    pub(super) fn add_silence_until(&mut self, limit: i64, repair: Repair) -> bool {
        let (Some(config), Some(next)) = (&self.audio_config, self.next_audio) else { return false };
        let Some(data) = config.silent_frame() else { return false };
        let (scale, samples) = (config.timescale(), i64::from(config.frame_samples));
        let frames = if next <= limit { (limit - next) / samples + 1 } else { 0 };
        let wanted = scale.convert(frames * samples, Timescale::VIDEO);
        let taken = self.silence.take(wanted, self.clock.arrival());
        let mut next = next;
        if taken < wanted {
            self.repairs.add(Repair::SilenceLimit, 1);
            let fitting = Timescale::VIDEO.convert(taken, scale) / samples;
            next += (frames - fitting) * samples;
        }
        while next <= limit {
            let frame = MediaFrame::Audio(AudioFrame { pts: next, data: data.clone().into() });
            self.events.push_back(TimelineEvent::Frame { frame, discontinuity: false });
            self.repairs.add(repair, 1);
            next += samples;
        }
        self.next_audio = Some(next);
        true
    }
}
