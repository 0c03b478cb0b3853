//! The orders that a transcoder has not answered yet, and the check of each product against them.
//!
//! The child that decodes a publisher's bytes may be broken by them, so that what it hands in is checked as if a stranger had
//! written it: its rungs and places were ordered, in order and once; times lie beside those of the source; sizes are bounded.
//! The bits of a coded picture are not checked beyond their division into NAL units: players decode them, the worker does not.

mod media;

use std::collections::VecDeque;

use millrace_codec::engine::order::{Order, Plan, RungIndex, Slot};
use millrace_codec::engine::product::{CodedPicture, Part, Product, Refusal, RungStart};

use self::media::{is_jpeg, is_length_prefixed};

/// Places that are remembered: 40 s at 120 pictures a second, more than may wait.
pub const MAX_PLACES: usize = 4800;
/// 90 kHz ticks by which a rung's presentation time may differ from its place's: pictures are reordered by a few places, of a
/// second each at the lowest rate.
const MAX_REORDERING: i64 = 20 * 90_000;
/// The most places that one picture stands for: a rung of one picture in this many.
const MAX_SLOTS: u32 = 120;
/// The largest description of a decoder.
const MAX_RECORD: usize = 4096;
/// The largest AAC frame: 6144 bits for each of two channels, and room.
const MAX_SOUND: usize = 2048;
/// The largest thumbnail: a JPEG of 640 pixels is a tenth of it.
const MAX_JPEG: usize = 512 << 10;
/// Samples of an AAC frame, which sound lies on a grid of.
const SOUND_GRID: i64 = 1024;
/// 90 kHz ticks in a millisecond.
const TICKS_PER_MS: i64 = 90;

/// A product that no order allows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a {product} that no order allows: {reason}")]
pub struct Violation {
    product: &'static str,
    reason: String,
}

fn refuse<T>(product: &'static str, reason: impl Into<String>) -> Result<T, Violation> {
    Err(Violation { product, reason: reason.into() })
}

/// A place that was ordered.
#[derive(Debug, Clone, Copy)]
struct Place {
    pts: i64,
    /// The sum of the durations of all places before this one, in 90 kHz ticks.
    at: i64,
    encode: bool,
}

/// One rung as its products have shown it.
#[derive(Debug, Clone, Copy, Default)]
struct RungState {
    started: bool,
    /// The newest place that the rung has handed in.
    newest: Option<Slot>,
    /// The place after which the rung is not encoded.
    shed: bool,
}

/// The orders of one transcoder that are not answered, and the state of its rungs.
#[derive(Debug)]
pub struct Ledger {
    plan: Plan,
    rungs: Vec<RungState>,
    /// The place that the first entry of `places` is.
    first: Slot,
    places: VecDeque<Place>,
    end_at: i64,
    flushes: u32,
    has_audio: bool,
    last_sound: Option<i64>,
}

impl Ledger {
    /// Creates the ledger of a transcoder that was started with `plan`.
    pub fn new(plan: &Plan) -> Self {
        Self {
            plan: plan.clone(),
            rungs: vec![RungState::default(); plan.rungs.len()],
            first: Slot(0),
            places: VecDeque::new(),
            end_at: 0,
            flushes: 0,
            has_audio: false,
            last_sound: None,
        }
    }

    /// Notes an order that was handed to the transcoder.
    pub fn note(&mut self, order: &Order) {
        match order {
            Order::Picture(picture) => {
                if self.places.is_empty() || picture.slot.0 != self.first.0 + self.places.len() as u64 {
                    self.places.clear();
                    self.first = picture.slot;
                }
                let place = Place { pts: picture.pts, at: self.end_at, encode: picture.encode };
                self.places.push_back(place);
                self.end_at = self.end_at.saturating_add(i64::from(picture.duration));
                if self.places.len() > MAX_PLACES {
                    self.places.pop_front();
                    self.first.0 += 1;
                }
            }
            Order::Encode(rungs) => {
                let last = self.last_slot();
                for (index, rung) in self.rungs.iter_mut().enumerate() {
                    let was_shed = rung.shed;
                    rung.shed = !rungs.iter().any(|listed| usize::from(listed.0) == index);
                    if was_shed && !rung.shed {
                        // It starts behind this place: the media that it was not to encode are no lag.
                        rung.newest = rung.newest.max(last);
                    }
                }
            }
            Order::Flush => self.flushes = self.flushes.saturating_add(1),
            Order::Sound(_) | Order::Start(_) | Order::VideoConfig(_) | Order::AudioConfig(_) => {}
        }
    }

    /// True if a flush waits for its answer.
    pub const fn is_flushing(&self) -> bool {
        self.flushes > 0
    }

    /// Returns the lag in milliseconds: the media from the newest place that the slowest encoded rung has handed in, or from the
    /// first that is to be encoded, to the newest that was ordered. 0 while no rung has started.
    pub fn lag_ms(&self) -> u64 {
        let last = self.places.back().map_or(0, |place| place.at);
        let behind = |rung: &&RungState| rung.started && !rung.shed;
        let lag = |rung: &RungState| {
            let first = || self.places.iter().find(|place| place.encode);
            let newest = rung.newest.and_then(|slot| self.place(slot)).or_else(first);
            newest.map_or(0, |place| (last - place.at) / TICKS_PER_MS)
        };
        self.rungs.iter().filter(behind).map(lag).max().unwrap_or(0).max(0) as u64
    }

    /// Checks a product.
    ///
    /// # Errors
    /// When no order allows it.
    pub fn check(&mut self, product: &Product) -> Result<(), Violation> {
        match product {
            Product::RungStarted(start) => self.check_start(start),
            Product::RungDropped { rung, .. } => {
                self.rung("dropped rung", *rung).map(|rung| rung.started = false)
            }
            Product::Picture(picture) => self.check_picture(picture),
            Product::AudioStarted(start) => {
                if !self.plan.audio || start.record.is_empty() || start.record.len() > MAX_RECORD {
                    return refuse("start of audio", format!("a record of {} bytes", start.record.len()));
                }
                self.has_audio = true;
                Ok(())
            }
            Product::Sound { pts, data } => self.check_sound(*pts, data),
            Product::Thumbnail { jpeg, .. } | Product::Sheet { jpeg, .. } => {
                let fits = self.plan.pictures && jpeg.len() <= MAX_JPEG && is_jpeg(jpeg);
                if fits { Ok(()) } else { refuse("thumbnail", format!("{} bytes", jpeg.len())) }
            }
            Product::Report(report) => {
                report.rungs.iter().try_for_each(|rung| self.rung("report", rung.rung).map(drop))
            }
            Product::Refused(Refusal { part: Part::Rung(rung), .. }) => {
                self.rung("refused rung", *rung).map(|rung| rung.started = false)
            }
            Product::Refused(_) | Product::Condition { .. } => Ok(()),
            Product::Flushed => match self.flushes.checked_sub(1) {
                Some(rest) => {
                    self.flushes = rest;
                    Ok(())
                }
                None => refuse("end of a flush", "none was ordered"),
            },
        }
    }

    fn rung(&mut self, product: &'static str, index: RungIndex) -> Result<&mut RungState, Violation> {
        let count = self.rungs.len();
        match self.rungs.get_mut(usize::from(index.0)) {
            Some(rung) => Ok(rung),
            None => refuse(product, format!("rung {} of {count}", index.0)),
        }
    }

    fn last_slot(&self) -> Option<Slot> {
        let count = self.places.len() as u64;
        count.checked_sub(1).map(|last| Slot(self.first.0 + last))
    }

    fn place(&self, slot: Slot) -> Option<&Place> {
        let index = slot.0.checked_sub(self.first.0)?;
        self.places.get(usize::try_from(index).ok()?)
    }

    fn check_start(&mut self, start: &RungStart) -> Result<(), Violation> {
        const PRODUCT: &str = "start of a rung";
        if start.record.is_empty() || start.record.len() > MAX_RECORD {
            return refuse(PRODUCT, format!("a record of {} bytes", start.record.len()));
        }
        if !self.plan.encoders.contains(&start.encoder) {
            return refuse(PRODUCT, format!("the encoder {:?} is not in the plan", start.encoder));
        }
        self.rung(PRODUCT, start.rung)?.started = true;
        Ok(())
    }

    fn check_picture(&mut self, picture: &CodedPicture) -> Result<(), Violation> {
        const PRODUCT: &str = "picture";
        let CodedPicture { rung, slot, slots, pts, .. } = *picture;
        let Some(place) = self.place(slot).copied().filter(|place| place.encode) else {
            return refuse(PRODUCT, format!("the place {} is not to be encoded", slot.0));
        };
        if slots == 0 || slots > MAX_SLOTS {
            return refuse(PRODUCT, format!("it stands for {slots} places"));
        }
        if pts.checked_sub(place.pts).is_none_or(|apart| apart.abs() > MAX_REORDERING) {
            return refuse(PRODUCT, format!("its time {pts} is far from its place's, {}", place.pts));
        }
        if !is_length_prefixed(&picture.data) {
            return refuse(PRODUCT, "its bytes are no NAL units with lengths");
        }
        let rung = self.rung(PRODUCT, rung)?;
        if !rung.started || rung.newest.is_some_and(|newest| slot <= newest) {
            return refuse(PRODUCT, format!("the place {} comes twice, late, or before the start", slot.0));
        }
        rung.newest = Some(slot);
        Ok(())
    }

    fn check_sound(&mut self, pts: i64, data: &[u8]) -> Result<(), Violation> {
        let is_new = self.last_sound.is_none_or(|last| pts > last);
        let on_grid = pts.rem_euclid(SOUND_GRID) == 0;
        if !self.has_audio || !is_new || !on_grid || data.is_empty() || data.len() > MAX_SOUND {
            return refuse("sound", format!("{} bytes at {pts}", data.len()));
        }
        self.last_sound = Some(pts);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use millrace_codec::engine::order::{EncoderKind, RungPlan, SourcePicture};
    use millrace_codec::engine::product::{AudioStart, Condition, Report, RungReport};
    use proptest::prelude::*;

    use super::*;

    const FRAME: u32 = 3_000;

    fn plan() -> Plan {
        let rung = RungPlan { height: 360, bitrate: 800_000, fps: None, preset: None };
        Plan {
            rungs: vec![rung.clone(), rung],
            audio: true,
            pictures: true,
            encoders: vec![EncoderKind::X264],
            ..Plan::default()
        }
    }

    fn ordered(slot: u64) -> Order {
        Order::Picture(SourcePicture {
            slot: Slot(slot),
            pts: slot as i64 * i64::from(FRAME),
            duration: FRAME,
            starts_segment: slot.is_multiple_of(60),
            independent: false,
            encode: slot >= 10,
            keyframe: slot.is_multiple_of(60),
            data: Bytes::from_static(b"x").into(),
        })
    }

    fn started(rung: u8) -> Product {
        Product::RungStarted(RungStart {
            rung: RungIndex(rung),
            source_version: 1,
            record: Bytes::from_static(b"record"),
            bitrate: 800_000,
            frame_rate_milli: 30_000,
            encoder: EncoderKind::X264,
        })
    }

    fn made(rung: u8, slot: u64) -> CodedPicture {
        CodedPicture {
            rung: RungIndex(rung),
            slot: Slot(slot),
            slots: 1,
            pts: slot as i64 * i64::from(FRAME),
            idr: false,
            repeats: false,
            data: Bytes::from_static(&[0, 0, 0, 1, 9]),
        }
    }

    /// A ledger with 100 places, of which the first ten are decoded only, and both rungs started.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::new(&plan());
        (0..100).for_each(|slot| ledger.note(&ordered(slot)));
        (0..2).for_each(|rung| ledger.check(&started(rung)).unwrap());
        ledger
    }

    #[test]
    fn pictures_of_ordered_places_are_taken_in_order() {
        let mut ledger = ledger();
        for slot in [10, 11, 13, 99] {
            assert_eq!(ledger.check(&Product::Picture(made(0, slot))), Ok(()));
        }
        assert_eq!(ledger.check(&Product::Picture(made(1, 10))), Ok(()), "the rungs are apart");
    }

    #[test]
    fn pictures_that_no_order_allows_are_refused() {
        let good = made(0, 20);
        let far = i64::from(FRAME) * 20 + MAX_REORDERING + 1;
        let bad = [
            CodedPicture { slot: Slot(9), ..good.clone() },
            CodedPicture { slot: Slot(100), ..good.clone() },
            CodedPicture { slot: Slot(u64::MAX), ..good.clone() },
            CodedPicture { rung: RungIndex(2), ..good.clone() },
            CodedPicture { slots: 0, ..good.clone() },
            CodedPicture { slots: u32::MAX, ..good.clone() },
            CodedPicture { pts: far, ..good.clone() },
            CodedPicture { pts: i64::MIN, ..good.clone() },
            CodedPicture { data: Bytes::from_static(&[0, 0, 0, 9, 9]), ..good.clone() },
            CodedPicture { data: Bytes::new(), ..good.clone() },
        ];
        for picture in bad {
            assert!(ledger().check(&Product::Picture(picture.clone())).is_err(), "{picture:?}");
        }
        let mut ledger = ledger();
        ledger.check(&Product::Picture(good.clone())).unwrap();
        for slot in [10, 20] {
            assert!(ledger.check(&Product::Picture(made(0, slot))).is_err(), "{slot} comes late or twice");
        }
        let mut fresh = Ledger::new(&plan());
        fresh.note(&ordered(10));
        assert!(fresh.check(&Product::Picture(made(0, 10))).is_err(), "the rung has not started");
    }

    #[test]
    fn other_products_that_no_order_allows_are_refused() {
        let jpeg = Bytes::from_static(&[0xff, 0xd8, 0, 0xff, 0xd9]);
        let sound = |pts, bytes: usize| Product::Sound { pts, data: vec![1; bytes].into() };
        let mut ledger = ledger();
        assert!(ledger.check(&sound(1024, 9)).is_err(), "audio has not started");
        let start = AudioStart { record: Bytes::from_static(&[0x11, 0x90]), bitrate: 128_000 };
        ledger.check(&Product::AudioStarted(start)).unwrap();
        ledger.check(&sound(1024, 9)).unwrap();
        for (pts, bytes) in [(1024, 9), (0, 9), (2049, 9), (2048, 0), (2048, MAX_SOUND + 1)] {
            assert!(ledger.check(&sound(pts, bytes)).is_err(), "{bytes} bytes at {pts}");
        }
        ledger.check(&Product::Thumbnail { pts: 0, jpeg }).unwrap();
        let bad = [
            Product::Thumbnail { pts: 0, jpeg: Bytes::from_static(b"GIF89a") },
            Product::RungDropped { rung: RungIndex(2), source_version: 1 },
            started(2),
            Product::Flushed,
            Product::Report(Report {
                rungs: vec![RungReport {
                    rung: RungIndex(9),
                    pictures: 0,
                    bytes: 0,
                    encode_us: 0,
                    waiting_ms: 0,
                }],
                ..Report::default()
            }),
        ];
        for product in bad {
            assert!(ledger.check(&product).is_err(), "{product:?}");
        }
        ledger.note(&Order::Flush);
        assert!(ledger.is_flushing());
        assert_eq!(ledger.check(&Product::Flushed), Ok(()));
        assert!(!ledger.is_flushing() && ledger.check(&Product::Flushed).is_err());
        assert_eq!(ledger.check(&Product::Condition { condition: Condition::Black, begins: true }), Ok(()));
    }

    #[test]
    fn lag_is_that_of_the_slowest_rung_that_is_encoded() {
        let mut ledger = ledger();
        ledger.check(&Product::Picture(made(0, 99))).unwrap();
        assert_eq!(ledger.lag_ms(), 89 * 100 / 3, "places that are only decoded are no lag");
        ledger.check(&Product::Picture(made(1, 39))).unwrap();
        assert_eq!(ledger.lag_ms(), 2000);
        ledger.note(&Order::Encode(vec![RungIndex(0)]));
        assert_eq!(ledger.lag_ms(), 0);
        (100..160).for_each(|slot| ledger.note(&ordered(slot)));
        ledger.check(&Product::Picture(made(0, 159))).unwrap();
        ledger.note(&Order::Encode(vec![RungIndex(0), RungIndex(1)]));
        assert_eq!(ledger.lag_ms(), 0, "a rung that is taken back is not behind for what it left out");
        ledger.check(&Product::RungDropped { rung: RungIndex(0), source_version: 1 }).unwrap();
        (160..190).for_each(|slot| ledger.note(&ordered(slot)));
        assert_eq!(ledger.lag_ms(), 1000);
    }

    #[test]
    fn ledger_remembers_a_bounded_number_of_places() {
        let mut ledger = Ledger::new(&plan());
        (0..MAX_PLACES as u64 * 2).for_each(|slot| ledger.note(&ordered(slot)));
        ledger.check(&started(0)).unwrap();
        assert_eq!(ledger.places.len(), MAX_PLACES);
        assert!(ledger.check(&Product::Picture(made(0, MAX_PLACES as u64 - 1))).is_err());
        ledger.check(&Product::Picture(made(0, MAX_PLACES as u64))).unwrap();
    }

    proptest! {
        #[test]
        fn no_picture_is_taken_twice_or_before_an_earlier_one(
            pictures in proptest::collection::vec((0u8..4, 0u64..120), 0..200),
        ) {
            let mut ledger = ledger();
            let mut newest = [None; 2];
            for (rung, slot) in pictures {
                if ledger.check(&Product::Picture(made(rung, slot))).is_ok() {
                    prop_assert!(rung < 2 && (10..100).contains(&slot));
                    prop_assert!(newest[usize::from(rung)] < Some(slot));
                    newest[usize::from(rung)] = Some(slot);
                }
            }
        }
    }
}
