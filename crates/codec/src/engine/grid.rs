//! Decoded sound on the grid of AAC frames: frame k has the samples from 1024 k to 1024 (k + 1) of the source's own time.

use crate::av::{FRAME, RATE, Stereo};

/// The longest gap that is filled with silence, in samples; beyond it the grid goes on behind the gap. Ingest fills the
/// gaps of a source that goes on, so that a longer one is an end and a beginning.
const MOST_SILENCE: i64 = 10 * RATE;

/// Samples that wait until they make a frame.
#[derive(Debug, Default)]
pub(super) struct Grid {
    /// The position of the first sample that waits; `None` before the first.
    start: Option<i64>,
    samples: Stereo,
}

impl Grid {
    /// Appends samples that begin at a position. What overlaps the samples before is dropped, a gap becomes silence.
    pub(super) fn append(&mut self, at: i64, samples: &Stereo) {
        let frame = FRAME as i64;
        let mut end = match self.start {
            Some(start) => start + self.samples[0].len() as i64,
            // The first frame begins before the sound, on the grid.
            None => *self.start.insert(at.div_euclid(frame) * frame),
        };
        if at - end > MOST_SILENCE {
            self.pad(at.rem_euclid(frame) as usize);
            let next = at.div_euclid(frame) * frame;
            self.samples.iter_mut().for_each(Vec::clear);
            self.start = Some(next);
            end = next;
        }
        let silence = (at - end).max(0) as usize;
        let drop = (end - at).max(0) as usize;
        for (channel, new) in self.samples.iter_mut().zip(samples) {
            channel.resize(channel.len() + silence, 0.0);
            channel.extend_from_slice(new.get(drop..).unwrap_or_default());
        }
    }

    /// Takes the next whole frame and its position.
    pub(super) fn frame(&mut self) -> Option<(i64, Stereo)> {
        let start = self.start?;
        if self.samples[0].len() < FRAME {
            return None;
        }
        self.start = Some(start + FRAME as i64);
        Some((start, self.samples.each_mut().map(|channel| channel.drain(..FRAME).collect())))
    }

    /// Fills the last frame up with silence.
    pub(super) fn finish(&mut self) {
        let over = self.samples[0].len() % FRAME;
        if over > 0 {
            self.pad(FRAME - over);
        }
    }

    fn pad(&mut self, count: usize) {
        self.samples.iter_mut().for_each(|channel| channel.resize(channel.len() + count, 0.0));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ramp(at: i64, count: usize) -> Stereo {
        let channel: Vec<f32> = (0..count as i64).map(|n| (at + n) as f32).collect();
        [channel.clone(), channel]
    }

    proptest! {
        #[test]
        fn frames_lie_on_the_grid_and_hold_the_samples_of_their_time(
            first in -5_000i64..5_000, pieces in proptest::collection::vec((-300i64..3_000, 1usize..2_500), 1..40),
        ) {
            let (mut grid, mut at, mut end, mut present) = (Grid::default(), first, i64::MIN, Vec::new());
            for (shift, count) in pieces {
                at += shift;
                grid.append(at, &ramp(at, count));
                present.push(at.max(end)..at + count as i64);
                at += count as i64;
                end = end.max(at);
            }
            grid.finish();
            let mut expected = None;
            while let Some((start, samples)) = grid.frame() {
                prop_assert_eq!(start.rem_euclid(1024), 0);
                prop_assert!(expected.is_none_or(|next| next == start));
                expected = Some(start + 1024);
                for (n, sample) in (start..).zip(&samples[0]) {
                    let sounds = present.iter().any(|piece| piece.contains(&n));
                    let wanted = if sounds { n as f32 } else { 0.0 };
                    prop_assert_eq!(sample.to_bits(), wanted.to_bits());
                }
            }
            prop_assert!(expected.is_some_and(|reached| reached >= end));
        }
    }

    #[test]
    fn gap_that_is_too_long_for_silence_begins_the_grid_anew() {
        let mut grid = Grid::default();
        grid.append(0, &ramp(0, 2048));
        while grid.frame().is_some() {}
        grid.append(100_000_000, &ramp(100_000_000, 2048));
        let (start, samples) = grid.frame().unwrap();
        assert_eq!(start, 100_000_000 / 1024 * 1024);
        assert_eq!(samples[0][1023].to_bits(), ((start + 1023) as f32).to_bits());
    }
}
