//! The part that samples are being collected for.

use bytes::Bytes;
use millrace_buf::ByteChain;

use crate::container::cmaf::{Sample, fragment_header};

/// The part being collected. Its two tables are used again for the next part.
#[derive(Debug, Default)]
pub(super) struct OpenPart {
    /// Decoding time of the first sample.
    start: i64,
    /// Decoding time of the last sample.
    last: i64,
    /// The end of the last sample.
    end: i64,
    /// True if a decoder can start at the first sample and shows what follows undamaged.
    independent: bool,
    samples: Vec<Sample>,
    data: Vec<Bytes>,
}

/// One sample on its way into a part; times in ticks of the track's timescale.
#[derive(Debug)]
pub(super) struct IncomingSample {
    pub(super) dts: i64,
    /// Presentation time, which is exact whatever happens to `dts`.
    pub(super) pts: i64,
    pub(super) duration: u32,
    /// True if the sample is marked as a sync sample: a player may start here.
    pub(super) sync: bool,
    /// True if a player that starts here shows what follows undamaged.
    pub(super) independent: bool,
    pub(super) data: ByteChain,
}

/// A part whose samples have all been collected.
pub(super) struct FinishedPart {
    pub(super) independent: bool,
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) samples: u32,
    pub(super) body: ByteChain,
}

impl OpenPart {
    /// True before the first sample.
    pub(super) const fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Returns the decoding time of the first sample.
    pub(super) const fn start(&self) -> i64 {
        self.start
    }

    /// Returns the decoding time of the last sample.
    pub(super) const fn last(&self) -> i64 {
        self.last
    }

    /// Returns the end of the last sample.
    pub(super) const fn end(&self) -> i64 {
        self.end
    }

    /// Appends a sample to the part.
    pub(super) fn add(&mut self, sample: IncomingSample) {
        if self.samples.is_empty() {
            self.start = sample.dts;
            self.independent = sample.independent;
        }
        self.last = sample.dts;
        self.end = sample.dts + i64::from(sample.duration);
        self.samples.push(Sample {
            duration: sample.duration,
            size: sample.data.len() as u32,
            cts: (sample.pts - sample.dts) as i32,
            sync: sample.sync,
        });
        self.data.extend(sample.data);
    }

    /// Lets the last sample last until `end`, the start of the next one.
    pub(super) fn end_last_at(&mut self, end: i64) {
        let Some(last) = self.samples.last_mut() else { return };
        self.end = end.max(self.last + 1);
        last.duration = (self.end - self.last) as u32;
    }

    /// Drops the samples.
    pub(super) fn clear(&mut self) {
        self.samples.clear();
        self.data.clear();
    }

    /// Takes the part out as a fragment with this sequence number; `None` without samples.
    pub(super) fn finish(&mut self, sequence: u32) -> Option<FinishedPart> {
        if self.samples.is_empty() {
            return None;
        }
        let independent = self.independent;
        let mut body = ByteChain::with_capacity(1 + self.data.len());
        body.push(fragment_header(sequence, self.start, &self.samples));
        body.extend(self.data.drain(..));
        let samples = self.samples.len() as u32;
        self.samples.clear();
        Some(FinishedPart { independent, start: self.start, end: self.end, samples, body })
    }
}
