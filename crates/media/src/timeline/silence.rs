//! Silence in place of audio that was announced and stays away, and the bound of all silence.

use super::{AUDIO_STALL_LIMIT, AUDIO_START_LIMIT, MAX_SILENCE, Timeline, TimelineEvent, audio::LATE_LIMIT};
use crate::frame::{AudioFrame, MediaFrame};
use crate::repair::Repair;
use crate::time::Timescale;

/// Seconds of silence that may be made up in a second of arrivals. A file pushed without its sound at eight
/// times its speed still gets all of it; a sender of times that run away gets no more.
const SILENCE_SPEED: i64 = 8;

/// Silence that may be made up at once beyond that, in 90 kHz ticks (30 s): a file pushed as fast as the
/// network takes it, without its sound.
const SILENCE_BURST: i64 = 2_700_000;
/// Audio that lags is not absent while a frame has come within this long, in 90 kHz ticks (1 s).
const HEARD_LIMIT: i64 = 90_000;

/// The silence that may still be made up.
#[derive(Debug)]
pub(super) struct SilenceBudget {
    /// Silence left, in 90 kHz ticks.
    left: i64,
    /// The arrival up to which `left` has grown, in 90 kHz ticks.
    arrival: Option<i64>,
}

impl Default for SilenceBudget {
    fn default() -> Self {
        Self { left: SILENCE_BURST, arrival: None }
    }
}

impl SilenceBudget {
    /// Takes silence of `wanted` 90 kHz ticks out of the budget at this arrival; returns how much of it is
    /// left to take. Without a clock only the bound of one step holds.
    fn take(&mut self, wanted: i64, arrival: Option<i64>) -> i64 {
        let wanted = wanted.clamp(0, MAX_SILENCE);
        let Some(now) = arrival else { return wanted };
        let passed = now.saturating_sub(self.arrival.replace(now).unwrap_or(now)).max(0);
        self.left = self.left.saturating_add(passed.saturating_mul(SILENCE_SPEED)).min(SILENCE_BURST);
        let taken = wanted.min(self.left);
        self.left -= taken;
        taken
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_grows_with_arrivals_up_to_its_bound() {
        let mut budget = SilenceBudget::default();
        for _ in 0..SILENCE_BURST / MAX_SILENCE {
            assert_eq!(budget.take(MAX_SILENCE + 1, Some(0)), MAX_SILENCE, "the bound of one step");
        }
        assert_eq!(budget.take(90_000, Some(0)), 0);
        assert_eq!(budget.take(90_000, Some(900)), 900 * SILENCE_SPEED);
        assert_eq!(budget.take(i64::MAX, Some(i64::MAX)), MAX_SILENCE);
        assert_eq!(budget.take(i64::MAX, None), MAX_SILENCE);
    }
}
