//! Decoding of the source's sound, and its way onto the grid of encoded frames.

use std::sync::mpsc::SyncSender;

use ffmpeg_next::frame;
use millrace_media::codec::aac::AudioSpecificConfig;

use super::grid::Grid;
use super::ladder::Ended;
use super::order::{AudioSource, SourceSound};
use super::product::{AudioStart, Condition, Part, Product, Refusal};
use super::watch::Steady;
use crate::CodecError;
use crate::av::{AacEncoder, AudioDecoder, FRAME, RATE, Resampler};

/// Bits per second of encoded sound: where AAC-LC in stereo is taken for transparent.
const BITRATE: u64 = 128_000;
/// Samples by which a frame's time may miss the end of the frame before: roundings between two rates.
const TOLERANCE: i64 = 2;
/// Frames in a row that cannot be decoded, after which the audio is refused: about a second.
const MOST_FAILURES: u32 = 50;
/// The longest repetition of the positions that two rates share; rates that share fewer are not aligned.
const LONGEST_PERIOD: i64 = 1024;
/// The loudest sample of silence: −60 dB of full scale, below what microphones hear in a quiet room.
const SILENCE: f32 = 0.001;

/// The audio half of a transcoder.
pub(super) struct Audio {
    products: SyncSender<Product>,
    /// True to encode; false to listen for silence alone.
    encodes: bool,
    /// Notes silence, if the plan watches.
    silent: Option<Steady>,
    source: Option<AudioSource>,
    decoder: Option<AudioDecoder>,
    resampling: Option<Resampling>,
    grid: Grid,
    encoder: Option<AacEncoder>,
    /// The time in samples of 48 kHz that the first frame handed in reaches beyond.
    from: Option<i64>,
    /// The time of the next frame to hand in: none comes twice.
    next: i64,
    failures: u32,
}

/// Sound that goes through a resampler without a gap.
struct Resampling {
    resampler: Resampler,
    rate: i64,
    form: (ffmpeg_next::format::Sample, u16),
    /// The position behind the last frame, in samples of the decoded rate.
    expected: i64,
    /// The position of the resampler's next sample, in samples of 48 kHz.
    out: i64,
}

impl Audio {
    pub(super) fn new(products: SyncSender<Product>, encodes: bool, watches: bool) -> Self {
        let (source, decoder, resampling, encoder, from) = (None, None, None, None, None);
        let silent = watches.then(|| Steady::new(Condition::Silent));
        let (grid, next, failures) = (Grid::default(), i64::MIN, 0);
        Self { products, encodes, silent, source, decoder, resampling, grid, encoder, from, next, failures }
    }

    /// Begins a source. The frames stay on the grid of the source before.
    pub(super) fn configure(&mut self, source: AudioSource) -> Result<(), Ended> {
        self.drain()?;
        (self.decoder, self.source, self.failures) = (None, None, 0);
        if !self.encodes && self.silent.is_none() {
            return Ok(());
        }
        if self.encodes && self.encoder.is_none() {
            match AudioSpecificConfig::aac_lc(RATE as u32, 2) {
                Ok(record) => self.product(Product::AudioStarted(AudioStart { record, bitrate: BITRATE }))?,
                Err(error) => return self.refuse(error.to_string()),
            }
        }
        match AudioDecoder::open(&source) {
            Ok(decoder) => self.decoder = Some(decoder),
            Err(error) => return self.refuse(error.to_string()),
        }
        self.source = Some(source);
        Ok(())
    }

    /// Decodes a frame, and hands in the encoded frames that it completes.
    pub(super) fn sound(&mut self, sound: &SourceSound) -> Result<(), Ended> {
        let Some(source) = &self.source else { return Ok(()) };
        if self.decoder.is_none() {
            self.decoder = AudioDecoder::open(source).ok();
        }
        if sound.encode && self.from.is_none() {
            self.from = Some(rescale(sound.pts, i64::from(source.rate.max(1)), RATE));
        }
        let Some(decoder) = &mut self.decoder else { return Ok(()) };
        let sent = decoder.send(&sound.data, sound.pts);
        let decoded = self.receive()?;
        self.failures = if sent.is_ok() && decoded { 0 } else { self.failures + 1 };
        if self.failures == MOST_FAILURES {
            (self.decoder, self.source) = (None, None);
            let error = sent.err().map_or_else(|| "it has no samples".to_owned(), |error| error.to_string());
            return self.refuse(format!("{MOST_FAILURES} frames in a row cannot be decoded: {error}"));
        }
        Ok(())
    }

    /// Hands in everything that was ordered before, the last frame filled up with silence.
    pub(super) fn finish(&mut self) -> Result<(), Ended> {
        self.drain()?;
        self.grid.finish();
        self.encode()?;
        if let Some(mut encoder) = self.encoder.take() {
            let coded = encoder.finish();
            self.hand_in(coded)?;
        }
        self.grid = Grid::default();
        Ok(())
    }

    /// Takes what the decoder and the resampler hold.
    fn drain(&mut self) -> Result<(), Ended> {
        if let Some(decoder) = &mut self.decoder {
            decoder.end();
            self.receive()?;
            self.decoder = None;
        }
        self.end_resampling();
        self.encode()
    }

    /// Takes the frames that the decoder has complete. True if there was one.
    fn receive(&mut self) -> Result<bool, Ended> {
        let mut any = false;
        while let Some(frame) = self.decoder.as_mut().and_then(AudioDecoder::receive) {
            any = true;
            if let Err(error) = self.resample(&frame) {
                tracing::debug!(%error, "an audio frame is replaced by silence");
            }
            self.encode()?;
        }
        Ok(any)
    }

    fn resample(&mut self, frame: &frame::Audio) -> Result<(), CodecError> {
        let rate = i64::from(frame.rate());
        let form = (frame.format(), frame.channels());
        let source_rate = self.source.as_ref().map_or(rate, |source| i64::from(source.rate.max(1)));
        let goes_on = self.resampling.as_ref().filter(|now| now.rate == rate && now.form == form);
        let expected = goes_on.map(|now| now.expected);
        let at = frame.pts().map(|pts| rescale(pts, source_rate, rate)).or(expected).unwrap_or(0);
        let overlap = match expected {
            Some(expected) if (at - expected).abs() <= TOLERANCE => 0,
            Some(expected) if at < expected => expected - at,
            _ => {
                self.end_resampling();
                return self.begin_resampling(frame, at, form);
            }
        };
        let skip = (overlap as usize).min(frame.samples());
        self.convert(frame, skip)
    }

    /// Begins at a position that both rates share, so that the samples do not depend on the beginning.
    fn begin_resampling(
        &mut self,
        frame: &frame::Audio,
        at: i64,
        form: (ffmpeg_next::format::Sample, u16),
    ) -> Result<(), CodecError> {
        let rate = i64::from(frame.rate());
        let period = rate / gcd(rate, RATE);
        let period = if period > LONGEST_PERIOD { 1 } else { period };
        let skip = (-at).rem_euclid(period);
        if skip >= frame.samples() as i64 {
            return Ok(());
        }
        let out = rescale(at + skip, rate, RATE);
        let resampler = Resampler::of(frame)?;
        self.resampling = Some(Resampling { resampler, rate, form, expected: at + skip, out });
        self.convert(frame, skip as usize)
    }

    fn convert(&mut self, frame: &frame::Audio, skip: usize) -> Result<(), CodecError> {
        let Some(now) = &mut self.resampling else { return Ok(()) };
        now.expected += (frame.samples() - skip) as i64;
        let samples = now.resampler.convert(frame, skip)?;
        self.grid.append(now.out, &samples);
        now.out += samples[0].len() as i64;
        Ok(())
    }

    fn end_resampling(&mut self) {
        let Some(mut now) = self.resampling.take() else { return };
        if let Ok(samples) = now.resampler.drain() {
            self.grid.append(now.out, &samples);
        }
    }

    /// Encodes the frames that are whole.
    fn encode(&mut self) -> Result<(), Ended> {
        while let Some((pts, samples)) = self.grid.frame() {
            if let Some(silent) = &mut self.silent {
                let sounds = samples.iter().flatten().any(|sample| sample.abs() > SILENCE);
                let change = silent.observe(!sounds, FRAME as u64 * 90_000 / RATE as u64);
                change.map_or(Ok(()), |change| self.product(change))?;
            }
            if !self.encodes || pts < self.next {
                continue;
            }
            if self.encoder.is_none() {
                match AacEncoder::open(BITRATE) {
                    Ok(encoder) => self.encoder = Some(encoder),
                    Err(error) => {
                        self.encodes = false;
                        return self.refuse(error.to_string());
                    }
                }
            }
            let coded = self.encoder.as_mut().map(|encoder| encoder.encode(pts, &samples));
            match coded {
                Some(Ok(coded)) => self.hand_in(coded)?,
                Some(Err(error)) => {
                    tracing::warn!(pts, %error, "an audio frame was not encoded; it is missing");
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Hands in coded frames, save those before the first that is asked for.
    fn hand_in(&mut self, coded: Vec<(i64, bytes::Bytes)>) -> Result<(), Ended> {
        for (pts, data) in coded {
            let end = pts + FRAME as i64;
            let wanted = self.from.is_some_and(|from| end > from) && pts >= self.next;
            if wanted {
                self.next = end;
                self.product(Product::Sound { pts, data })?;
            }
        }
        Ok(())
    }

    fn refuse(&self, reason: String) -> Result<(), Ended> {
        self.product(Product::Refused(Refusal { part: Part::Audio, source_version: 0, reason }))
    }

    fn product(&self, product: Product) -> Result<(), Ended> {
        self.products.send(product).map_err(|_| Ended)
    }
}

/// Returns a position in samples of one rate as one of another, rounded down.
fn rescale(at: i64, from: i64, to: i64) -> i64 {
    (i128::from(at) * i128::from(to)).div_euclid(i128::from(from)) as i64
}

const fn gcd(mut left: i64, mut right: i64) -> i64 {
    while right != 0 {
        (left, right) = (right, left % right);
    }
    left
}
