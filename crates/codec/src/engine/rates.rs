//! The rungs that a source allows, and the places that they take.

use super::order::{Plan, RungPlan, Slot, VideoSource};
use crate::av::MAX_PIXELS;

/// The smallest side of a picture that is encoded: a macroblock of H.264.
const SMALLEST_SIDE: u32 = 16;
/// A frame rate may exceed a rung's limit by this many thousandths before pictures are dropped: 30 allows 30.001.
const RATE_TOLERANCE: u64 = 5;
/// The frame rate if the source tells none and its pictures last no time.
const USUAL_RATE_MILLI: u32 = 30_000;

/// A rung as the source allows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) width: u32,
    pub(super) height: u32,
    /// Bits per second.
    pub(super) bitrate: u64,
    /// Thousandths of frames per second.
    pub(super) frame_rate_milli: u32,
    /// The rung takes one of so many places.
    pub(super) division: u32,
}

/// Returns the reason why a source cannot be decoded, if there is one.
pub(super) fn refusal(source: &VideoSource) -> Option<String> {
    let VideoSource { width, height, .. } = *source;
    let pixels = u64::from(width) * u64::from(height);
    if pixels > MAX_PIXELS {
        return Some(format!("the picture of {width}x{height} has more than {MAX_PIXELS} pixels"));
    }
    (width == 0 || height == 0).then(|| "the source has no picture size".to_owned())
}

/// Returns the shape of each rung of the plan; `None` for those that are larger than the source.
pub(super) fn shapes(plan: &Plan, source: &VideoSource) -> Vec<Option<Shape>> {
    plan.rungs.iter().map(|rung| shape(rung, source)).collect()
}

fn shape(rung: &RungPlan, source: &VideoSource) -> Option<Shape> {
    let even = |side: u64| u32::try_from(side / 2 * 2).unwrap_or(u32::MAX);
    if rung.height > source.height || rung.height < SMALLEST_SIDE {
        return None;
    }
    let height = even(u64::from(rung.height));
    // Pixels become square: browsers ignore the aspect of pixels in some of their pipelines.
    let (across, down) = source.pixel_aspect;
    let (across, down) = if across == 0 || down == 0 { (1, 1) } else { (u64::from(across), u64::from(down)) };
    let lines = u64::from(source.height) * down;
    let halves = (u64::from(source.width) * across * u64::from(height) + lines) / (2 * lines).max(1);
    let width = even(2 * halves).max(SMALLEST_SIDE);
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return None;
    }
    let bitrate = if source.bitrate == 0 { rung.bitrate } else { rung.bitrate.min(source.bitrate) };
    let rate = if source.frame_rate_milli == 0 { USUAL_RATE_MILLI } else { source.frame_rate_milli };
    let division = rung.fps.map_or(1, |fps| {
        let most = u64::from(fps.max(1)) * (1000 + RATE_TOLERANCE);
        u64::from(rate).div_ceil(most).max(1) as u32
    });
    let frame_rate_milli = (rate + division / 2) / division;
    Some(Shape { width, height, bitrate, frame_rate_milli, division })
}

/// The choice of the places that a rung of a divided frame rate takes: the first of each segment, then every n-th.
#[derive(Debug, Clone, Copy)]
pub(super) struct Divider {
    division: u32,
    passed: u32,
}

impl Divider {
    pub(super) const fn new(division: u32) -> Self {
        Self { division, passed: 0 }
    }

    /// True if the rung takes the next place; `begins` if the place begins a segment or an independent part.
    pub(super) const fn takes(&mut self, begins: bool) -> bool {
        if begins || self.passed >= self.division {
            self.passed = 0;
        }
        self.passed += 1;
        self.passed == 1
    }
}

/// The places that were ordered and not taken yet, for the distance from one that a rung takes to its next.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    first: u64,
    /// True for a place that begins a segment or an independent part.
    begins: std::collections::VecDeque<bool>,
}

impl Ahead {
    pub(super) fn order(&mut self, slot: Slot, begins: bool) {
        if self.begins.is_empty() || slot.0 != self.first + self.begins.len() as u64 {
            self.begins.clear();
            self.first = slot.0;
        }
        self.begins.push_back(begins);
    }

    /// Forgets the places before `slot`.
    pub(super) fn passed(&mut self, slot: Slot) {
        while self.first < slot.0 && self.begins.pop_front().is_some() {
            self.first += 1;
        }
    }

    /// Returns the number of places from `slot`, which a rung takes, to the next that it takes; as an error the number
    /// of known places if those do not decide it yet.
    pub(super) fn distance(&self, slot: Slot, division: u32) -> Result<u32, u32> {
        for step in 1..division {
            let at = (slot.0 + u64::from(step)).checked_sub(self.first);
            match at.and_then(|at| self.begins.get(at as usize)) {
                Some(true) => return Ok(step),
                Some(false) => {}
                None => return Err(step),
            }
        }
        Ok(division)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use millrace_media::codec::VideoCodec;

    use super::*;

    fn source(width: u32, height: u32, pixel_aspect: (u32, u32), frame_rate_milli: u32) -> VideoSource {
        let (codec, record) = (VideoCodec::H264, Bytes::new());
        VideoSource {
            codec,
            record,
            width,
            height,
            pixel_aspect,
            frame_rate_milli,
            bitrate: 2_000_000,
            version: 1,
        }
    }

    fn rung(height: u32, fps: Option<u32>) -> RungPlan {
        RungPlan { height, bitrate: 2_800_000, fps, preset: None }
    }

    #[test]
    fn shapes_keep_the_display_aspect_with_even_sides_and_square_pixels() {
        let cases = [
            ((1920, 1080, (1, 1)), 720, Some((1280, 720))),
            ((1920, 1080, (1, 1)), 480, Some((854, 480))),
            ((854, 480, (1, 1)), 360, Some((640, 360))),
            ((1440, 1080, (4, 3)), 720, Some((1280, 720))),
            ((720, 576, (16, 11)), 576, Some((1048, 576))),
            ((1080, 1920, (1, 1)), 720, Some((406, 720))),
            ((853, 481, (1, 1)), 481, Some((852, 480))),
            ((1280, 720, (0, 0)), 720, Some((1280, 720))),
            ((1280, 720, (1, 1)), 1080, None),
            ((16, 16, (1, 1)), 16, Some((16, 16))),
            ((4096, 16, (16, 1)), 16, Some((65536, 16))),
        ];
        for ((width, height, aspect), lines, expected) in cases {
            let found = shape(&rung(lines, None), &source(width, height, aspect, 30_000));
            assert_eq!(
                found.map(|shape| (shape.width, shape.height)),
                expected,
                "{width}x{height} at {lines}"
            );
        }
    }

    #[test]
    fn bitrate_is_capped_by_the_source_and_rates_are_divided_above_the_limit() {
        let found = shape(&rung(480, Some(30)), &source(1280, 720, (1, 1), 59_940)).unwrap();
        assert_eq!((found.bitrate, found.division, found.frame_rate_milli), (2_000_000, 2, 29_970));
        for (rate, fps, division) in [
            (60_000, 30, 2),
            (50_000, 30, 2),
            (30_000, 30, 1),
            (30_001, 30, 1),
            (120_000, 30, 4),
            (1_000, 30, 1),
        ] {
            let found = shape(&rung(480, Some(fps)), &source(1280, 720, (1, 1), rate)).unwrap();
            assert_eq!(found.division, division, "{rate} at most {fps}");
        }
    }

    #[test]
    fn divider_takes_the_first_place_of_each_segment_and_every_second_after_it() {
        let mut divider = Divider::new(2);
        let begins = [false, false, false, true, false, false, false, true, false, true, true, false];
        let taken: Vec<bool> = begins.iter().map(|begins| divider.takes(*begins)).collect();
        assert_eq!(taken, [true, false, true, true, false, true, false, true, false, true, true, false]);
    }

    #[test]
    fn distance_is_known_once_the_next_places_are_ordered() {
        let mut ahead = Ahead::default();
        ahead.order(Slot(4), true);
        assert_eq!(ahead.distance(Slot(4), 1), Ok(1));
        assert_eq!(ahead.distance(Slot(4), 2), Err(1));
        ahead.order(Slot(5), false);
        assert_eq!(ahead.distance(Slot(4), 2), Ok(2));
        assert_eq!(ahead.distance(Slot(4), 3), Err(2));
        ahead.order(Slot(6), true);
        assert_eq!(ahead.distance(Slot(4), 3), Ok(2));
        ahead.passed(Slot(6));
        assert_eq!(ahead.distance(Slot(6), 2), Err(1));
    }
}
