//! Decoding times for senders that send presentation times in their place.
//!
//! An RTMP message carries the decoding time, and the composition offset beside the coded bytes. Some senders
//! with B-frames send the presentation time as the message's time and 0 as the offset: in decoding order,
//! their times go back and forth. [`DecodingOrder`] notices it by a B picture that lies before a picture sent
//! earlier, and from then on gives each picture a decoding time: pictures are decoded in the order in which
//! they came, at the times of all pictures in ascending order, earlier by as many pictures as are reordered.

/// Smallest step back of a B picture that tells of presentation times, in 90 kHz ticks (5 ms).
const MIN_REORDER: i64 = 450;
/// Most pictures that are sent before one that is shown before them (H.264 §A.3.1: 16 frames are kept).
const MAX_DEPTH: usize = 16;
/// Longest distance of a time from those before it, in 90 kHz ticks (1.5 s), that continues their order;
/// beyond it the order begins anew.
const MAX_DISTANCE: i64 = 135_000;

/// The order of the latest pictures; the module describes the rules.
#[derive(Debug, Default)]
pub(super) struct DecodingOrder {
    /// The latest presentation times in ascending order, at most [`MAX_DEPTH`] + 1.
    times: Vec<i64>,
    /// The number of pictures sent before one that is shown before them.
    depth: usize,
    /// True once a B picture has shown that times are presentation times.
    is_recovering: bool,
}

impl DecodingOrder {
    /// Returns the decoding time and the composition offset of the picture with this `time` and offset `cts`.
    /// `is_bidirectional` tells if the picture has B slices; it is asked only if the time steps back.
    pub(super) fn place(
        &mut self,
        time: i64,
        cts: i64,
        is_bidirectional: impl FnOnce() -> bool,
    ) -> (i64, i64) {
        if cts != 0 {
            *self = Self::default();
            return (time, cts);
        }
        let is_far = |known: i64| (time - known).abs() > MAX_DISTANCE;
        let lead = match (self.times.first(), self.times.last()) {
            (Some(first), Some(last)) if is_far(*first) && is_far(*last) => {
                // A first picture after a jump is decoded as early before its time as the others are.
                let step = (last - first) / (self.times.len() as i64 - 1).max(1);
                self.times.clear();
                self.is_recovering.then_some(step)
            }
            _ => None,
        };
        if !self.is_recovering {
            let steps_back = self.times.last().is_some_and(|last| time < last - MIN_REORDER);
            self.is_recovering = steps_back && is_bidirectional();
        }
        let later = self.times.partition_point(|known| *known <= time);
        self.depth = self.depth.max(if self.is_recovering { self.times.len() - later } else { 0 });
        self.times.insert(later, time);
        if let Some(step) = lead {
            let before = (1..=self.depth.min(MAX_DEPTH) as i64).map(|number| time - number * step.max(0));
            self.times.splice(0..0, before.rev());
        }
        if self.times.len() > MAX_DEPTH + 1 {
            self.times.remove(0);
        }
        if !self.is_recovering {
            return (time, 0);
        }
        let place = self.times.len().saturating_sub(1 + self.depth);
        let dts = self.times[place];
        (dts, time - dts)
    }

    /// True while decoding times are recovered, so that presentation times are exact.
    pub(super) const fn is_recovering(&self) -> bool {
        self.is_recovering
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Presentation times in decoding order of groups of one P picture and two B pictures, in frames.
    fn groups(count: i64) -> impl Iterator<Item = (i64, bool)> {
        let group = |first: i64| [(first + 3, false), (first + 1, true), (first + 2, true)];
        [(0, false)].into_iter().chain((0..count).flat_map(move |number| group(number * 3)))
    }

    #[test]
    fn order_recovers_decoding_times_one_frame_before_presentation() {
        let mut order = DecodingOrder::default();
        let mut times = Vec::new();
        for (shown, is_b) in groups(20) {
            let (dts, cts) = order.place(shown * 3_000, 0, || is_b);
            assert_eq!(dts + cts, shown * 3_000);
            times.push(dts);
        }
        let expected: Vec<i64> = (1..=59).map(|number| number * 3_000).collect();
        assert_eq!(times[2..], expected, "steady from the first B picture on");
    }

    #[test]
    fn order_goes_on_behind_a_jump_with_the_same_depth() {
        let mut order = DecodingOrder::default();
        for (shown, is_b) in groups(5) {
            order.place(shown * 3_000, 0, || is_b);
        }
        let after: Vec<i64> =
            groups(3).map(|(shown, is_b)| order.place(9_000_000 + shown * 3_000, 0, || is_b).0).collect();
        let expected: Vec<i64> = (-1..9).map(|number| 9_000_000 + number * 3_000).collect();
        assert_eq!(after, expected);
    }

    #[test]
    fn order_leaves_offsets_and_steps_back_without_b_pictures_alone() {
        let mut order = DecodingOrder::default();
        for (time, cts) in [(0, 3_000), (3_000, 9_000), (6_000, 0), (9_000, 0), (5_000, 0)] {
            assert_eq!(order.place(time, cts, || false), (time, cts));
        }
        assert!(!order.is_recovering());
    }
}
