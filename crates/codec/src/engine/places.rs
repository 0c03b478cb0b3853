//! Pairing of decoded pictures with the places of the source's pictures.
//!
//! Coded pictures come in decoding order, and each has a place there. A decoder hands pictures out in the order of
//! presentation. The n-th picture of that order takes the n-th place, at the n-th presentation time. A picture that
//! the decoder never hands out is repeated by the one before, so that no place is left out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::order::Slot;

/// A place of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its number in decoding order.
    pub slot: Slot,
    /// Decoding time from this place to the next one, in 90 kHz ticks.
    pub duration: u32,
    /// True if it begins a segment.
    pub starts_segment: bool,
    /// True if it begins a part that must be independent.
    pub independent: bool,
    /// True if the rungs are to encode a picture for it.
    pub encode: bool,
}

/// A place that has its picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filled {
    /// The place.
    pub place: Place,
    /// Presentation time in 90 kHz ticks.
    pub pts: i64,
    /// True if the picture before is repeated, because the one for this place was not decoded.
    pub repeats: bool,
}

/// Most places without a picture: the 16 pictures that H.264 and HEVC may reorder, and as many again for the fields of
/// interlaced ones and for what a decoder holds. Beyond that the first is given up for lost.
const MOST_OPEN: usize = 32;

/// The places whose pictures the decoder has not handed out yet.
#[derive(Debug, Default)]
pub struct Places {
    /// The places in decoding order.
    open: VecDeque<Place>,
    /// The coded pictures that were not handed out: presentation time and whether a decoder can start at it.
    coded: BTreeMap<Slot, (i64, bool)>,
    /// The presentation times of the open places in order, the slots to tell equal ones apart. Holds as many as `open`.
    times: BTreeSet<(i64, Slot)>,
    /// True once a picture came after one with a later time: the source's times contradict the decoder's order, and a
    /// picture is no longer taken for lost because a later one came.
    times_lie: bool,
    last_pts: Option<i64>,
}

impl Places {
    /// Takes a coded picture's place on, before the picture goes to the decoder. Returns the places that are given up
    /// because too many wait.
    pub fn order(&mut self, place: Place, pts: i64, keyframe: bool) -> Vec<Filled> {
        self.open.push_back(place);
        self.coded.insert(place.slot, (pts, keyframe));
        self.times.insert((pts, place.slot));
        let mut given_up = Vec::new();
        while self.open.len() > MOST_OPEN {
            self.lose_first(&mut given_up);
        }
        given_up
    }

    /// Takes a decoded picture: `slot` is the place of its coded picture. Returns the places that are filled now, those
    /// of lost pictures before it and its own last; nothing if the picture is one that was given up or handed out already.
    pub fn decoded(&mut self, slot: Slot) -> Vec<Filled> {
        let Some((pts, keyframe)) = self.coded.remove(&slot) else {
            self.times_lie = true;
            return Vec::new();
        };
        let lost: Vec<Slot> = if !self.times_lie {
            let earlier = |(_, (time, _)): &(&Slot, &(i64, bool))| *time < pts;
            self.coded.iter().filter(earlier).map(|(slot, _)| *slot).collect()
        } else if keyframe {
            // What was coded before a keyframe is also shown before it.
            self.coded.range(..slot).map(|(slot, _)| *slot).collect()
        } else {
            Vec::new()
        };
        let mut filled = Vec::with_capacity(lost.len() + 1);
        for slot in lost {
            self.coded.remove(&slot);
            filled.extend(self.fill(true));
        }
        filled.extend(self.fill(false));
        filled
    }

    /// Returns the places that the decoder has no pictures for, once it has handed out everything. The next coded
    /// picture begins anew.
    pub fn flush(&mut self) -> Vec<Filled> {
        let mut filled = Vec::with_capacity(self.open.len());
        self.coded.clear();
        while let Some(place) = self.fill(true) {
            filled.push(place);
        }
        *self = Self { last_pts: self.last_pts, ..Self::default() };
        filled
    }

    /// Gives up the coded picture that is to be shown first.
    fn lose_first(&mut self, out: &mut Vec<Filled>) {
        let first = self.coded.iter().min_by_key(|(slot, (pts, _))| (*pts, **slot)).map(|(slot, _)| *slot);
        if let Some(first) = first {
            self.coded.remove(&first);
        }
        out.extend(self.fill(true));
    }

    /// Gives the first place its picture, at the first presentation time.
    fn fill(&mut self, repeats: bool) -> Option<Filled> {
        let place = self.open.pop_front()?;
        let (pts, _) = self.times.pop_first()?;
        // Times rise, even if a picture is ordered that is to be shown before one that is already shown.
        let pts = self.last_pts.map_or(pts, |last| pts.max(last + 1));
        self.last_pts = Some(pts);
        Some(Filled { place, pts, repeats })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(slot: u64) -> Place {
        Place {
            slot: Slot(slot),
            duration: 3000,
            starts_segment: slot.is_multiple_of(30),
            independent: false,
            encode: true,
        }
    }

    /// Presentation times of groups of `b` reordered pictures behind each reference picture.
    fn reordered(count: u64, b: u64) -> Vec<i64> {
        let pts = |slot: u64| match slot {
            0 => 0,
            slot => {
                let (group, within) = ((slot - 1) / (b + 1), (slot - 1) % (b + 1));
                group * (b + 1) + if within == 0 { b + 1 } else { within }
            }
        };
        (0..count).map(|slot| (pts(slot) * 3000) as i64).collect()
    }

    /// Runs a decoder that hands pictures out by time, `delay` pictures late, and loses some.
    fn run(pts: &[i64], lost: &[u64], delay: usize) -> Vec<Filled> {
        let (mut places, mut out, mut held) = (Places::default(), Vec::new(), BTreeSet::new());
        for (slot, time) in (0u64..).zip(pts) {
            out.extend(places.order(place(slot), *time, slot.is_multiple_of(30)));
            if !lost.contains(&slot) {
                held.insert((*time, slot));
            }
            if held.len() > delay
                && let Some((_, slot)) = held.pop_first()
            {
                out.extend(places.decoded(Slot(slot)));
            }
        }
        for (_, slot) in held {
            out.extend(places.decoded(Slot(slot)));
        }
        out.extend(places.flush());
        out
    }

    proptest! {
        #[test]
        fn each_place_is_filled_once_in_order_with_the_times_in_order(
            b in 0u64..4, count in 1u64..150, lost in proptest::collection::btree_set(0u64..150, 0..20),
        ) {
            let (pts, lost) = (reordered(count, b), lost.into_iter().filter(|slot| *slot < count).collect::<Vec<_>>());
            let filled = run(&pts, &lost, usize::from(b > 0));
            let slots: Vec<u64> = filled.iter().map(|filled| filled.place.slot.0).collect();
            prop_assert_eq!(slots, (0..count).collect::<Vec<_>>());
            let mut sorted = pts.clone();
            sorted.sort_unstable();
            let times: Vec<i64> = filled.iter().map(|filled| filled.pts).collect();
            prop_assert_eq!(times, sorted.clone());
            // Exactly the lost pictures are repeats, at their own times.
            let mut repeated: Vec<i64> = lost.iter().map(|slot| pts[*slot as usize]).collect();
            repeated.sort_unstable();
            let found: Vec<i64> = filled.iter().filter(|f| f.repeats).map(|f| f.pts).collect();
            prop_assert_eq!(found, repeated);
        }

        #[test]
        fn times_that_contradict_the_decoder_lose_no_place(seed in proptest::collection::vec(0i64..20, 1..120)) {
            let pts: Vec<i64> = seed.iter().scan(0, |at, step| { *at += step - 5; Some(*at) }).collect();
            let (mut places, mut out) = (Places::default(), Vec::new());
            for (slot, time) in (0u64..).zip(&pts) {
                out.extend(places.order(place(slot), *time, slot == 0));
                out.extend(places.decoded(Slot(slot)));
            }
            out.extend(places.flush());
            let slots: Vec<u64> = out.iter().map(|filled| filled.place.slot.0).collect();
            prop_assert_eq!(slots, (0..pts.len() as u64).collect::<Vec<_>>());
            prop_assert!(out.windows(2).all(|pair| pair[0].pts < pair[1].pts));
        }
    }

    #[test]
    fn decoder_that_hands_nothing_out_gives_up_the_oldest_places() {
        let mut places = Places::default();
        let filled: Vec<Filled> =
            (0..100).flat_map(|slot| places.order(place(slot), slot as i64 * 3000, false)).collect();
        assert_eq!(filled.len(), 100 - MOST_OPEN);
        assert!(filled.iter().all(|filled| filled.repeats));
        assert_eq!(places.flush().len(), MOST_OPEN);
        // The pictures that come late after all change nothing.
        assert_eq!(places.decoded(Slot(3)), []);
    }
}
