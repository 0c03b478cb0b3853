//! Habits of encoders' clocks. Each changes the stamps and, where the habit is a late message, the sending time.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::{Tag, Tape};

impl Tape {
    /// Stamps pictures up to `spread_ms` early or late, at random from `seed`, in order of their decoding.
    #[must_use]
    pub fn jitter_pictures(self, spread_ms: i64, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut last = -1;
        self.map_pictures(|_, tag| {
            tag.stamp_ms = (tag.true_ms + random.random_range(-spread_ms..=spread_ms)).max(last + 1);
            last = tag.stamp_ms;
        })
    }

    /// Sends every `bundle` audio frames together, at the last one's time.
    #[must_use]
    pub fn bundle_sounds(self, bundle: usize, same_stamp: bool) -> Self {
        let times: Vec<i64> = self.sounds().map(|tag| tag.due_ms).collect();
        let stamps: Vec<i64> = self.sounds().map(|tag| tag.stamp_ms).collect();
        let bundled = self.map_sounds(|number, tag| {
            let first = number / bundle * bundle;
            tag.due_ms = times[(first + bundle - 1).min(times.len() - 1)];
            if same_stamp {
                tag.stamp_ms = stamps[first];
            }
        });
        bundled.in_sending_order()
    }

    /// Stamps audio frames by steps that repeat, in milliseconds, from the first one's time.
    #[must_use]
    pub fn step_sounds(self, steps_ms: &[i64]) -> Self {
        let first = self.sounds().next().map_or(0, |tag| tag.stamp_ms);
        let mut at = first;
        self.map_sounds(|number, tag| {
            tag.stamp_ms = at;
            at += steps_ms[number % steps_ms.len()];
        })
    }

    /// Runs the audio clock at `rate` of the true one.
    #[must_use]
    pub fn skew_sounds(self, rate: f64) -> Self {
        self.map_sounds(|_, tag| tag.stamp_ms = (tag.true_ms as f64 * rate).round() as i64)
    }

    /// Moves the stamps of the messages that `choose` takes by `by_ms` from `at_ms` on.
    #[must_use]
    pub fn step_clock(self, at_ms: i64, by_ms: i64, choose: impl Fn(&Tag) -> bool) -> Self {
        self.map(|tag| {
            if tag.true_ms >= at_ms && choose(tag) {
                tag.stamp_ms += by_ms;
            }
        })
    }

    /// Stamps pictures with their presentation time and sends no composition offset.
    #[must_use]
    pub fn stamp_presentation_times(self) -> Self {
        self.map_pictures(|_, tag| {
            tag.stamp_ms += tag.offset_ms();
            // The true presentation time stays; the decoding time that was true is lost to the receiver.
            tag.true_ms += tag.offset_ms();
            let mut body = tag.body.to_vec();
            body[2..5].fill(0);
            tag.body = body.into();
        })
    }

    /// Stamps each picture `frame_ms` after the one before it, and keeps what was true and when it is sent.
    #[must_use]
    pub fn retime_pictures(self, mut time: impl FnMut(usize) -> i64) -> Self {
        self.map_pictures(|number, tag| {
            tag.true_ms = time(number);
            tag.stamp_ms = tag.true_ms;
            tag.due_ms = tag.true_ms;
        })
        .in_sending_order()
    }

    /// Begins the clock of all messages at `at_ms`.
    #[must_use]
    pub fn begin_at(self, at_ms: i64) -> Self {
        self.map(|tag| tag.stamp_ms += at_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::super::TagKind;
    use super::*;

    fn tag(at: i64) -> Tag {
        let body = vec![0x27, 1, 0, 0, 66, 9].into();
        Tag { kind: TagKind::Video, true_ms: at, stamp_ms: at, due_ms: at, body }
    }

    #[test]
    fn jitter_is_bounded_in_order_and_repeats_by_its_seed() {
        let tape = Tape { tags: (0..300).map(|n| tag(n * 100 / 3)).collect() };
        let once = tape.clone().jitter_pictures(15, 7);
        assert_eq!(once, tape.clone().jitter_pictures(15, 7));
        assert_ne!(once, tape.jitter_pictures(15, 8));
        assert!(once.tags.iter().all(|tag| (tag.stamp_ms - tag.true_ms).abs() <= 15));
        assert!(once.tags.windows(2).all(|pair| pair[0].stamp_ms < pair[1].stamp_ms));
    }

    #[test]
    fn presentation_times_replace_composition_offsets() {
        let tape = Tape { tags: vec![tag(0)] }.stamp_presentation_times();
        assert_eq!((tape.tags[0].stamp_ms, tape.tags[0].offset_ms()), (66, 0));
    }
}
