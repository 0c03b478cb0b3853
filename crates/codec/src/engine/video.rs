//! Decoding of the source's pictures, and their way to the rungs.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use super::figures::CpuClock;
use super::ladder::{Ended, Ladder};
use super::order::{Plan, Slot, SourcePicture, VideoSource};
use super::pictures::Pictures;
use super::places::{Filled, Place, Places};
use super::product::{Condition, Part, Product, Refusal, RungReport};
use super::rates::refusal;
use crate::av::{Curve, Decoded, Picture, VideoDecoder};

/// Media without an error of the decoder, in 90 kHz ticks, after which its condition ends: as long as one would search for
/// the cause of a single lost frame, and longer than a keyframe interval.
const ERRORS_END_AFTER: u64 = 10 * 90_000;

/// The video half of a transcoder.
pub(super) struct Video {
    products: SyncSender<Product>,
    ladder: Ladder,
    source: Option<VideoSource>,
    decoder: Option<VideoDecoder>,
    places: Places,
    /// The picture that a lost one repeats.
    last: Option<Picture>,
    pictures: Option<Pictures>,
    /// The pictures to decode if there are no rungs; `None` if all are decoded.
    keyframes: Option<Keyframes>,
    pub(super) lost_pictures: u64,
    errors: Errors,
}

/// The choice of the keyframes that are decoded for the pictures alone.
#[derive(Debug, Default)]
struct Keyframes {
    /// Ticks of media since the last one.
    passed: u64,
    /// Microseconds of CPU time that the last one took; 0 before the first.
    spent: u64,
}

impl Keyframes {
    /// True if the media since the last one are a hundred times as long as it took, and no less than 2 s.
    const fn allows(&self) -> bool {
        const LEAST_US: u64 = 2_000_000;
        const SHARE: u64 = 100;
        let passed_us = self.passed * 100 / 9;
        self.spent == 0 || (passed_us >= LEAST_US && passed_us >= self.spent * SHARE)
    }
}

/// The condition of the decoder.
#[derive(Debug, Default)]
struct Errors {
    found: bool,
    told: bool,
    /// Ticks of media since the last error.
    calm: u64,
}

impl Video {
    pub(super) fn start(plan: Plan, products: SyncSender<Product>) -> std::io::Result<Self> {
        let pictures = plan.pictures.then(|| Pictures::new(products.clone()));
        let keyframes = plan.rungs.is_empty().then(Keyframes::default);
        let ladder = Ladder::start(plan, &products)?;
        let (source, decoder, last) = (None, None, None);
        let (places, errors) = (Places::default(), Errors::default());
        Ok(Self {
            products,
            ladder,
            source,
            decoder,
            places,
            last,
            pictures,
            keyframes,
            lost_pictures: 0,
            errors,
        })
    }

    /// Ends the source before and begins another.
    pub(super) fn configure(&mut self, source: VideoSource) -> Result<(), Ended> {
        self.finish()?;
        self.last = None;
        self.source = None;
        if let Some(reason) = refusal(&source) {
            return self.refuse(source.version, reason);
        }
        for rung in self.ladder.configure(&source) {
            self.product(Product::RungDropped { rung, source_version: source.version })?;
        }
        if let Some(pictures) = &mut self.pictures {
            pictures.configure(&source);
        }
        if let Some(keyframes) = &mut self.keyframes {
            *keyframes = Keyframes::default();
        }
        self.source = Some(source);
        self.open()
    }

    /// Decodes a picture and gives the rungs the pictures that are complete.
    pub(super) fn picture(&mut self, picture: &SourcePicture) -> Result<(), Ended> {
        if self.keyframes.is_some() {
            return self.keyframe(picture);
        }
        if self.decoder.is_none() {
            self.open()?;
        }
        let SourcePicture { slot, pts, duration, starts_segment, independent, encode, keyframe, .. } =
            *picture;
        self.errors.passes(u64::from(duration));
        if self.decoder.is_none() {
            return self.tell_errors();
        }
        self.ladder.order(slot, starts_segment || independent)?;
        let place = Place { slot, duration, starts_segment, independent, encode };
        let given_up = self.places.order(place, pts, keyframe);
        self.repeat(&given_up)?;
        let sent = self.decoder.as_mut().map(|decoder| decoder.send(&picture.data, slot.0 as i64, keyframe));
        if let Some(Err(error)) = sent {
            tracing::debug!(slot = slot.0, %error, "a picture was not decoded; the one before is repeated");
            self.errors.found = true;
        }
        self.receive()?;
        self.tell_errors()
    }

    /// Hands in everything that was ordered before.
    pub(super) fn finish(&mut self) -> Result<(), Ended> {
        if self.keyframes.is_some() {
            return Ok(());
        }
        if let Some(mut decoder) = self.decoder.take() {
            // What an ended decoder does not hand out is repeated.
            let _ = decoder.end();
            self.decoder = Some(decoder);
            self.receive()?;
            self.decoder = None;
            let open = self.places.flush();
            self.repeat(&open)?;
        }
        self.ladder.finish()
    }

    /// Decodes a keyframe for the pictures alone, if the budget allows it.
    fn keyframe(&mut self, picture: &SourcePicture) -> Result<(), Ended> {
        let (Some(keyframes), Some(pictures)) = (&mut self.keyframes, &mut self.pictures) else {
            return Ok(());
        };
        keyframes.passed += u64::from(picture.duration);
        if !picture.keyframe || !keyframes.allows() {
            return Ok(());
        }
        let ticks = std::mem::take(&mut keyframes.passed);
        let clock = CpuClock::start();
        let Some(decoder) = &mut self.decoder else { return Ok(()) };
        // A keyframe that cannot be decoded is one thumbnail less.
        let sent = decoder.send(&picture.data, picture.slot.0 as i64, true).and_then(|()| decoder.end());
        if sent.is_ok()
            && let Some(decoded) = decoder.receive()
        {
            pictures.look(picture.pts, ticks, &Arc::new(decoded.picture), None)?;
        }
        decoder.reset();
        keyframes.spent = clock.read();
        Ok(())
    }

    pub(super) fn encode_only(&mut self, rungs: Vec<super::order::RungIndex>) {
        self.ladder.encode_only(rungs);
    }

    pub(super) fn reports(&self) -> Vec<RungReport> {
        self.ladder.reports()
    }

    fn open(&mut self) -> Result<(), Ended> {
        let Some(source) = &self.source else { return Ok(()) };
        match VideoDecoder::open(source) {
            Ok(decoder) => self.decoder = Some(decoder),
            Err(error) => {
                let version = source.version;
                self.source = None;
                return self.refuse(version, error.to_string());
            }
        }
        Ok(())
    }

    fn refuse(&mut self, source_version: u32, reason: String) -> Result<(), Ended> {
        self.ladder.refuse();
        self.product(Product::Refused(Refusal { part: Part::Video, source_version, reason }))
    }

    /// Takes the pictures that the decoder has complete.
    fn receive(&mut self) -> Result<(), Ended> {
        while let Some(Decoded { ticket, picture, damaged }) =
            self.decoder.as_mut().and_then(VideoDecoder::receive)
        {
            self.errors.found |= damaged;
            let filled = self.places.decoded(Slot(ticket as u64));
            let Some((own, lost)) = filled.split_last() else { continue };
            self.repeat(lost)?;
            let picture: Picture = Arc::new(picture);
            self.last = Some(picture.clone());
            let small = self.ladder.place(own, Some(&picture))?;
            if let Some(pictures) = &mut self.pictures {
                // A picture of high dynamic range would look pale; its rungs are converted.
                let shown = small.as_ref().filter(|_| Curve::of(&picture).is_some()).unwrap_or(&picture);
                pictures.look(own.pts, u64::from(own.place.duration), shown, small.as_ref())?;
            }
        }
        Ok(())
    }

    /// Fills places with the picture before.
    fn repeat(&mut self, places: &[Filled]) -> Result<(), Ended> {
        for filled in places {
            self.lost_pictures += 1;
            self.errors.found = true;
            self.ladder.place(filled, self.last.as_ref())?;
        }
        Ok(())
    }

    fn tell_errors(&mut self) -> Result<(), Ended> {
        let Some(begins) = self.errors.change() else { return Ok(()) };
        self.product(Product::Condition { condition: Condition::DecodeErrors, begins })
    }

    fn product(&self, product: Product) -> Result<(), Ended> {
        self.products.send(product).map_err(|_| Ended)
    }
}

impl Errors {
    fn passes(&mut self, ticks: u64) {
        self.calm += ticks;
    }

    /// Returns whether the condition begins or ends now, if it changes.
    fn change(&mut self) -> Option<bool> {
        if std::mem::take(&mut self.found) {
            self.calm = 0;
            return (!std::mem::replace(&mut self.told, true)).then_some(true);
        }
        (self.told && self.calm >= ERRORS_END_AFTER).then(|| {
            self.told = false;
            false
        })
    }
}
