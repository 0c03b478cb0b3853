//! The products of the transcoder, on their way to the renditions.

use millrace_codec::engine::order::RungIndex;
use millrace_codec::engine::product::{AudioStart, CodedPicture, Part, Product, Refusal, RungStart};

use super::{LadderRung, Transcoder};
use crate::encoders::Event;
use crate::rungs::Sheet;

impl LadderRung {
    /// Takes an event of the transcoder.
    pub(super) fn take_event(&mut self, event: Event) {
        match event {
            Event::Product(product) => self.take_product(product),
            Event::Ended(ended) => {
                self.transcoder_ended(&ended);
                if self.transcoder == Transcoder::Done {
                    return;
                }
            }
            Event::Encode(rungs) => self.wish = Some(rungs),
        }
        self.settle();
    }

    fn take_product(&mut self, product: Product) {
        if !matches!(self.transcoder, Transcoder::Runs | Transcoder::Flushes) {
            // The transcoder was given up.
            return;
        }
        match product {
            Product::RungStarted(start) => self.start_rung(start),
            Product::RungDropped { rung, source_version } => self.drop_rung(rung, source_version),
            Product::Refused(refusal) => self.take_refusal(&refusal),
            Product::Picture(picture) => self.take_picture(picture),
            Product::AudioStarted(start) => self.start_audio(start),
            Product::Sound { pts, data } => {
                self.sound.frame(pts, data);
                self.sound.package(&self.segments, false, &mut self.out);
            }
            Product::Flushed => self.flushed(),
            Product::Thumbnail { jpeg, .. } => self.thumbnail = Some(jpeg),
            // A storyboard is not published.
            Product::Sheet { number, tiles, first_pts, jpeg } => {
                let first = self.segments.wall_clock(first_pts);
                self.sheet = Some(Sheet { number, tiles, first, jpeg });
            }
            Product::Condition { condition, begins } => self.health.condition(condition, begins),
            Product::Report(report) => self.health.report(&report),
        }
    }

    fn start_rung(&mut self, start: RungStart) {
        let of_version = |configured: &&super::Configured| configured.version == start.source_version;
        let Some(configured) = self.configured.iter().rev().find(of_version).copied() else { return };
        let Some(rung) = self.rungs.iter_mut().find(|rung| rung.index == start.rung) else { return };
        self.health.started(start.rung, start.encoder.name());
        let name = rung.track.rendition().clone();
        if let Err(error) = rung.start(start, configured.timing, configured.rate, &mut self.out) {
            tracing::warn!(rendition = %name, %error, "the encoder's parameter sets cannot be read; the rung is left out");
            rung.is_dropped = true;
        }
    }

    /// Notes that the transcoder makes nothing of a configuration for a rung.
    fn drop_rung(&mut self, index: RungIndex, version: u32) {
        let mut later = self.configured.iter().skip_while(|configured| configured.version != version);
        let Some(from) = later.next().map(|configured| configured.from_msn) else { return };
        let until = later.next().map(|configured| configured.from_msn);
        if let Some(rung) = self.rungs.iter_mut().find(|rung| rung.index == index) {
            rung.is_dropped |= until.is_none();
            rung.track.owed.lose_range(from, until.unwrap_or(u64::MAX));
        }
    }

    /// Leaves out what the transcoder cannot make.
    fn take_refusal(&mut self, refusal: &Refusal) {
        let reason = &refusal.reason;
        match refusal.part {
            Part::Rung(rung) => {
                tracing::warn!(rung = rung.0, reason, "no encoder opens for the rung; it is left out");
                self.drop_rung(rung, refusal.source_version);
            }
            Part::Video => {
                tracing::warn!(reason, "the video is not decoded; the encoded rungs are left out");
                let rungs: Vec<RungIndex> = self.rungs.iter().map(|rung| rung.index).collect();
                for rung in rungs {
                    self.drop_rung(rung, refusal.source_version);
                }
            }
            Part::Audio => {
                tracing::warn!(reason, "the audio is not decoded; the encoded audio is left out");
                self.sound.refuse();
            }
        }
    }

    fn take_picture(&mut self, picture: CodedPicture) {
        let Self { rungs, places, segments, out, .. } = self;
        if let Some(rung) = rungs.iter_mut().find(|rung| rung.index == picture.rung) {
            rung.picture(picture, places, segments, out);
        }
    }

    fn start_audio(&mut self, start: AudioStart) {
        let timing = self.source.timing();
        let Some(timing) = timing else { return };
        if let Err(error) = self.sound.start(start, timing, &mut self.out) {
            tracing::warn!(%error, "the encoder's audio configuration cannot be read; the audio is left out");
        }
    }

    fn flushed(&mut self) {
        if self.transcoder != Transcoder::Flushes {
            return;
        }
        self.sound.package(&self.segments, true, &mut self.out);
        for rung in &mut self.rungs {
            rung.close(&mut self.out);
        }
        self.sound.track.close(&mut self.out);
        self.end();
    }
}
