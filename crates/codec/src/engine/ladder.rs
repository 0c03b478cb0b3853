//! The rungs of one source: which place each of them takes, in which size, and when an encoder begins and ends.

use std::collections::VecDeque;
use std::sync::mpsc::{SyncSender, sync_channel};

use super::order::{Plan, RungIndex, VideoSource};
use super::places::Filled;
use super::product::{Product, RungReport};
use super::rates::{Ahead, Divider, Shape, shapes};
use super::rung::{Begin, RungThread, Task, Work};
use crate::av::{Colour, Curve, Picture, Scaler, ToneMap};
use crate::encoder::Settings;

/// The engine's threads have ended: the products' reader is gone.
#[derive(Debug)]
pub(super) struct Ended;

/// The encoded rungs of a job.
pub(super) struct Ladder {
    plan: Plan,
    rungs: Vec<Rung>,
    ahead: Ahead,
    /// Decoding time of the places so far in 90 kHz ticks.
    time: i64,
    source_version: u32,
    /// The rungs that are to encode from the next segment on, if that changes.
    wish: Option<Vec<RungIndex>>,
}

struct Rung {
    index: RungIndex,
    thread: RungThread,
    shape: Option<Shape>,
    divider: Divider,
    /// False while the rung is shed.
    wanted: bool,
    /// True while an encoder is to run; false makes the next picture begin one.
    begun: bool,
    scaler: Option<Scaler>,
    /// The conversion from high dynamic range, at the size of the rung.
    tone: Option<(Curve, ToneMap)>,
    /// The picture that the rung's scaler made of the picture of the place before.
    scaled: Option<(Picture, Picture)>,
    /// Pictures whose distance to the rung's next one is not known yet.
    held: VecDeque<Task>,
    /// True until the rung's first picture since a start, a configuration, or its shedding.
    needs_idr: bool,
}

impl Ladder {
    pub(super) fn start(plan: Plan, products: &SyncSender<Product>) -> std::io::Result<Self> {
        let start = |index: usize| {
            let index = RungIndex(index as u8);
            let thread = RungThread::start(index, plan.encoders.clone(), products.clone())?;
            let (divider, held) = (Divider::new(1), VecDeque::new());
            let (shape, scaler, scaled, tone) = (None, None, None, None);
            let (wanted, begun, needs_idr) = (true, false, true);
            Ok(Rung { index, thread, shape, divider, wanted, begun, scaler, tone, scaled, held, needs_idr })
        };
        let rungs =
            (0..plan.rungs.len().min(usize::from(u8::MAX))).map(start).collect::<std::io::Result<_>>()?;
        Ok(Self { plan, rungs, ahead: Ahead::default(), time: 0, source_version: 0, wish: None })
    }

    /// Begins a source. Returns the rungs that are larger than it.
    pub(super) fn configure(&mut self, source: &VideoSource) -> Vec<RungIndex> {
        self.source_version = source.version;
        let mut dropped = Vec::new();
        for (rung, shape) in self.rungs.iter_mut().zip(shapes(&self.plan, source)) {
            rung.divider = Divider::new(shape.map_or(1, |shape| shape.division));
            rung.tone = None;
            rung.scaler = shape.map(|shape| Scaler::new(shape.width, shape.height));
            (rung.shape, rung.begun, rung.scaled, rung.needs_idr) = (shape, false, None, true);
            if shape.is_none() {
                dropped.push(rung.index);
            }
        }
        dropped
    }

    /// Makes nothing of the source.
    pub(super) fn refuse(&mut self) {
        self.rungs.iter_mut().for_each(|rung| rung.shape = None);
    }

    /// Encodes only `rungs` from the next segment on.
    pub(super) fn encode_only(&mut self, rungs: Vec<RungIndex>) {
        self.wish = Some(rungs);
    }

    /// Learns of a place before its picture is decoded.
    pub(super) fn order(&mut self, slot: super::order::Slot, begins: bool) -> Result<(), Ended> {
        self.ahead.order(slot, begins);
        self.release(false)
    }

    /// Gives each rung that takes the place its picture. `picture` is absent if none has been decoded so far. Returns the
    /// smallest picture that was scaled.
    pub(super) fn place(
        &mut self,
        filled: &Filled,
        picture: Option<&Picture>,
    ) -> Result<Option<Picture>, Ended> {
        let place = filled.place;
        if place.starts_segment {
            self.apply_wish()?;
        }
        let begins = place.starts_segment || place.independent;
        let takes: Vec<bool> = self.rungs.iter_mut().map(|rung| rung.divider.takes(begins)).collect();
        let (time, duration) = (self.time, u64::from(place.duration.max(1)));
        self.time += duration as i64;
        // A picture that waits for its distance still looks at the places behind it.
        let oldest = self.rungs.iter().filter_map(|rung| rung.held.front()).map(|task| task.slot).min();
        self.ahead.passed(oldest.map_or(place.slot, |oldest| oldest.min(place.slot)));
        let Some(picture) = picture.filter(|_| place.encode) else { return Ok(None) };
        let (mut above, mut chained, curve) = (picture.clone(), false, Curve::of(picture));
        // The lowest rung that takes the place decides how far down the chain scales.
        let lowest = self.rungs.iter().zip(&takes).rposition(|(rung, takes)| *takes && rung.encodes());
        let Some(lowest) = lowest else { return Ok(None) };
        for (at, takes) in takes.into_iter().enumerate().take(lowest + 1) {
            let rung = &mut self.rungs[at];
            if !rung.encodes() {
                continue;
            }
            // The first picture of the chain is converted if the source has high dynamic range; the others follow from it.
            let curve = if chained { None } else { curve };
            chained = true;
            above = match rung.scale(&above, curve) {
                Ok(scaled) => scaled,
                Err(error) => {
                    tracing::warn!(rung = at, %error, "a picture was not scaled; the rung lacks it");
                    continue;
                }
            };
            if !takes {
                continue;
            }
            if !rung.begun {
                rung.begin(&self.plan, at, self.source_version, Colour::of(picture))?;
            }
            let idr = begins || rung.needs_idr;
            rung.needs_idr = false;
            let (slot, pts, repeats) = (place.slot, filled.pts, filled.repeats);
            let division = rung.shape.map_or(1, |shape| shape.division);
            let duration = duration * u64::from(division);
            rung.held.push_back(Task {
                picture: above.clone(),
                slot,
                slots: 0,
                pts,
                time,
                duration,
                idr,
                repeats,
            });
        }
        self.release(false)?;
        Ok(Some(above))
    }

    /// Hands in everything, and waits for it. The next picture begins new encoders.
    pub(super) fn finish(&mut self) -> Result<(), Ended> {
        self.release(true)?;
        let waits: Vec<_> = self.rungs.iter_mut().filter_map(Rung::end).collect();
        waits.into_iter().try_for_each(|done| done.recv().map_err(|_| Ended))
    }

    /// Returns the figures of the rungs that encode, since the last call.
    pub(super) fn reports(&self) -> Vec<RungReport> {
        let report = |rung: &Rung| {
            let figures = &rung.thread.figures;
            RungReport {
                rung: rung.index,
                pictures: figures.pictures.take(),
                bytes: figures.bytes.take(),
                encode_us: figures.encode_us.take(),
                waiting_ms: figures.waiting.millis(),
            }
        };
        self.rungs.iter().filter(|rung| rung.begun).map(report).collect()
    }

    fn apply_wish(&mut self) -> Result<(), Ended> {
        let Some(wish) = self.wish.take() else { return Ok(()) };
        self.release(true)?;
        for rung in &mut self.rungs {
            rung.wanted = wish.contains(&rung.index);
            if !rung.wanted
                && let Some(done) = rung.end()
            {
                done.recv().map_err(|_| Ended)?;
            }
        }
        Ok(())
    }

    /// Gives the encoders the pictures whose distance to the next one is known; `all` gives the others too.
    fn release(&mut self, all: bool) -> Result<(), Ended> {
        for rung in &mut self.rungs {
            let division = rung.shape.map_or(1, |shape| shape.division);
            while let Some(mut task) = rung.held.pop_front() {
                // The places of a picture that waits for its distance are still ahead, save for those that were passed.
                task.slots = match self.ahead.distance(task.slot, division) {
                    Ok(distance) => distance,
                    Err(known) if all => known,
                    Err(_) => {
                        rung.held.push_front(task);
                        break;
                    }
                };
                if !rung.thread.give(Work::Encode(task)) {
                    return Err(Ended);
                }
            }
        }
        Ok(())
    }
}

impl Rung {
    fn encodes(&self) -> bool {
        self.wanted && self.shape.is_some()
    }

    /// Returns the picture in the rung's size. A picture that was scaled for the place before is not scaled again.
    fn scale(&mut self, above: &Picture, curve: Option<Curve>) -> Result<Picture, crate::CodecError> {
        if let Some((from, scaled)) = &self.scaled
            && std::sync::Arc::ptr_eq(from, above)
        {
            return Ok(scaled.clone());
        }
        let Some(scaler) = &mut self.scaler else { return Ok(above.clone()) };
        let mut scaled = scaler.scale(above)?;
        if let Some(curve) = curve {
            let (width, height) = (scaled.width(), scaled.height());
            if self.tone.as_ref().is_none_or(|(known, _)| *known != curve) {
                self.tone = Some((curve, ToneMap::new(curve, width, height)));
            }
            if let Some((_, tone)) = &mut self.tone {
                scaled = tone.map(&scaled)?;
            }
        }
        self.scaled = Some((above.clone(), scaled.clone()));
        Ok(scaled)
    }

    fn begin(&mut self, plan: &Plan, at: usize, source_version: u32, colour: Colour) -> Result<(), Ended> {
        let Some(Shape { width, height, bitrate, frame_rate_milli, .. }) = self.shape else { return Ok(()) };
        let preset = plan.rungs.get(at).and_then(|rung| rung.preset.clone());
        let threads = (plan.threads / plan.rungs.len().max(1) as u32).max(1);
        let settings = Settings { width, height, bitrate, frame_rate_milli, preset, threads, colour };
        self.begun = true;
        let begin = Work::Begin(Box::new(Begin { settings, source_version }));
        if self.thread.give(begin) { Ok(()) } else { Err(Ended) }
    }

    /// Ends the encoder, if one runs. The receiver tells when its pictures are handed in.
    fn end(&mut self) -> Option<std::sync::mpsc::Receiver<()>> {
        self.needs_idr = true;
        if !std::mem::take(&mut self.begun) {
            return None;
        }
        let (confirm, done) = sync_channel(1);
        // A thread that has ended drops the sender, which the receiver sees.
        let _ = self.thread.give(Work::Finish(confirm));
        Some(done)
    }
}
