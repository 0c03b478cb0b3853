//! One rendition of the ladder: its packager, its facts, and the segments that it owes.

use std::collections::{BTreeMap, VecDeque};

use millrace_media::frame::{MediaEvent, TaggedFrame, TrackConfig, TrackKind};
use millrace_media::packager::{Output, Packager, PartSetup, PartTiming};
use millrace_media::time::Timescale;
use millrace_protocol::job::Packaged;
use millrace_wire::fact::{EpochOpen, StreamState};
use millrace_wire::ids::{InitVersion, Rendition};

use super::super::facts::{FactBuilder, TrackRenditions};
use super::owed::Owed;
use super::part_starts::{Announced, announced};
use super::segments::{Segments, Span};

/// Bits of the version of an initialisation section that tell sections of one configuration of the source apart.
const DIGEST_BITS: u32 = 20;

/// The description of a rendition that its frames need.
#[derive(Debug, Clone)]
struct Described {
    version: u32,
    config: TrackConfig,
    timing: PartTiming,
}

/// One rendition at work.
#[derive(Debug)]
pub(super) struct Track {
    rendition: Rendition,
    kind: TrackKind,
    packager: Packager,
    facts: FactBuilder,
    described: Option<Described>,
    /// True once the rendition is described in the log: only then it has gaps.
    is_listed: bool,
    /// PART-TARGET in 90 kHz ticks, once it is known: it does not change.
    part_target: Option<u32>,
    /// The segments that a predecessor has begun.
    begun: BTreeMap<u64, Announced>,
    pub(super) owed: Owed,
    /// The newest segment that was completed since the last look.
    completed: Option<u64>,
}

impl Track {
    /// Creates the track of a rendition in the epoch that `open` describes, which goes on from `base`.
    pub(super) fn new(rendition: Rendition, kind: TrackKind, open: &EpochOpen, base: &StreamState) -> Self {
        let known = base.renditions.get(&rendition);
        let part_target = known.and_then(|known| known.part_target);
        let per_second = u64::from(Timescale::VIDEO.ticks_per_second());
        let part_target = part_target.and_then(|target| {
            u32::try_from(target.ticks.saturating_mul(per_second) / u64::from(target.timescale.max(1))).ok()
        });
        let other = Rendition::audio();
        let renditions = match kind {
            TrackKind::Video => TrackRenditions { video: rendition.clone(), audio: other },
            TrackKind::Audio => TrackRenditions { video: other, audio: rendition.clone() },
        };
        let unknown = PartSetup::Measure { part_ms: 0 };
        Self {
            packager: Packager::new(unknown),
            facts: FactBuilder::new(renditions, open, unknown),
            described: None,
            is_listed: known.is_some_and(|known| !known.inits.is_empty()),
            part_target,
            begun: announced(base, base.epoch, &rendition),
            owed: Owed::default(),
            completed: None,
            kind,
            rendition,
        }
    }

    /// Returns the rendition's name.
    pub(super) const fn rendition(&self) -> &Rendition {
        &self.rendition
    }

    /// Returns the parts that a predecessor would have made next: segment and index. The second one is for readers that
    /// have one part more than the session had folded.
    pub(super) fn next_parts(&self) -> impl Iterator<Item = (u64, u32)> {
        let next =
            |(msn, announced): (&u64, &Announced)| [(*msn, announced.parts), (*msn, announced.parts + 1)];
        self.begun.iter().flat_map(next)
    }

    /// Returns PART-TARGET in 90 kHz ticks, if it is known.
    pub(super) const fn part_target(&self) -> Option<u32> {
        self.part_target
    }

    /// True if the rendition is described in the log.
    pub(super) const fn is_listed(&self) -> bool {
        self.is_listed
    }

    /// Takes the beginning of a segment of the source.
    pub(super) fn segment(&mut self, span: &Span) {
        self.facts.begin_segment(millrace_wire::ids::Msn(span.msn), span.sequence);
    }

    /// Describes the frames from here on: their configuration, for the source's version `source_version`, the part timing,
    /// and the peak of bits per second. True if that is another initialisation section than the one before.
    ///
    /// The version of the section follows from the source's version and the bytes of the configuration alone, so that all
    /// workers give one section one name, and two sections two.
    pub(super) fn describe(
        &mut self,
        source_version: u32,
        config: TrackConfig,
        timing: PartTiming,
        bandwidth: u64,
        out: &mut VecDeque<Packaged>,
    ) -> bool {
        let version = section_version(source_version, &config);
        let is_new = self.described.as_ref().is_none_or(|known| known.version != version);
        let timing = PartTiming { init_version: Some(version), ..timing };
        self.part_target = Some(timing.part_target);
        self.facts.declare(config.track(), InitVersion(version), bandwidth);
        self.described = Some(Described { version, config, timing });
        self.configure();
        self.drain(out);
        is_new
    }

    /// Begins the segment of the next frame.
    pub(super) fn begin(&mut self, span: &Span, out: &mut VecDeque<Packaged>) {
        self.packager.begin_segment(span.msn, span.start, span.discontinuity);
        self.drain(out);
    }

    /// Takes a frame of a segment that has begun. Its initialisation section is the one described last.
    pub(super) fn push(&mut self, mut frame: TaggedFrame, out: &mut VecDeque<Packaged>) {
        let Some(described) = &self.described else { return };
        frame.tag.init_version = described.version;
        self.packager.push(MediaEvent::Frame(frame));
        self.drain(out);
    }

    /// Closes the open segment as it is.
    pub(super) fn close(&mut self, out: &mut VecDeque<Packaged>) {
        self.packager.finish();
        self.drain(out);
    }

    /// Drops what has been packaged of the open segment: frames of it are lost.
    pub(super) fn drop_open(&mut self) {
        self.packager = Packager::new(PartSetup::Measure { part_ms: 0 });
        self.configure();
        // What the new packager says again is known.
        while self.packager.poll().is_some() {}
    }

    /// Drops the frames that no part has yet: they come again. Returns the open segment and the time at which its next part
    /// begins, in ticks of the track's timescale; `None` if no segment is open that the rendition owes.
    pub(super) fn rewind(&mut self) -> Option<(u64, i64)> {
        self.packager.drop_open_part(self.kind).filter(|(msn, _)| self.owed.is_open(*msn))
    }

    /// Lists the segments that are lost and over as GAP.
    pub(super) fn list_gaps(&mut self, segments: &Segments, out: &mut VecDeque<Packaged>) {
        for msn in self.owed.take_lost(|msn| segments.is_over(msn)) {
            if let Some(gap) = segments.gap(&self.rendition, msn).filter(|_| self.is_listed) {
                out.push_back(Packaged::Gap(gap));
            }
        }
    }

    /// Returns the newest segment that was completed since the last call.
    pub(super) fn take_completed(&mut self) -> Option<u64> {
        self.completed.take()
    }

    fn configure(&mut self) {
        let Some(Described { version, config, timing }) = &self.described else { return };
        self.packager.adopt(0, *timing);
        self.packager.push(MediaEvent::Init { version: *version, config: config.clone() });
    }

    /// Turns what the packager made into facts.
    fn drain(&mut self, out: &mut VecDeque<Packaged>) {
        while let Some(output) = self.packager.poll() {
            match &output {
                Output::Part(part) if !self.fits_predecessor(part.msn, part.part, part.independent) => {
                    self.lose(part.msn);
                    return;
                }
                Output::SegmentEnd(end) if end.gap => continue,
                Output::SegmentEnd(end) if !self.owed.is_open(end.head.msn) => continue,
                Output::SegmentEnd(end) => {
                    self.owed.complete(end.head.msn);
                    self.completed = Some(end.head.msn);
                }
                Output::Init(_) => self.is_listed = true,
                Output::Timing { .. } | Output::SegmentStart(_) | Output::Part(_) => {}
            }
            self.facts.take(output);
            out.extend(std::iter::from_fn(|| self.facts.next()));
        }
    }

    fn lose(&mut self, msn: u64) {
        tracing::warn!(rendition = %self.rendition, msn, "the parts of a segment do not fit behind those of the worker before; it becomes a gap");
        self.owed.lose_through(msn);
        self.drop_open();
    }

    /// True unless the part is the first behind those of a predecessor and no player could go on with it.
    fn fits_predecessor(&self, msn: u64, part: u32, independent: bool) -> bool {
        let Some(begun) = self.begun.get(&msn) else { return true };
        let version = self.described.as_ref().map(|described| InitVersion(described.version));
        Some(begun.init_version) == version && (part != begun.parts || independent)
    }
}

/// Returns the version of an initialisation section: the source's version, which grows, and a digest of the configuration.
fn section_version(source_version: u32, config: &TrackConfig) -> u32 {
    let record: &[u8] = match config {
        TrackConfig::Video(video) => &video.record,
        TrackConfig::Audio(audio) => &audio.record,
    };
    // FNV-1a: any hash that never changes will do.
    let hash =
        record.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    let digest = (hash ^ (hash >> DIGEST_BITS)) & ((1 << DIGEST_BITS) - 1);
    let most = (1 << (u32::BITS - DIGEST_BITS)) - 1;
    (source_version.min(most) << DIGEST_BITS) | digest
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use millrace_media::frame::AudioConfig;

    use super::*;

    #[test]
    fn version_of_a_section_grows_with_the_source_s_and_tells_records_apart() {
        let config = |rate| TrackConfig::Audio(AudioConfig::aac_lc(rate, 2).unwrap());
        let versions = [section_version(0, &config(48_000)), section_version(0, &config(44_100))];
        assert_ne!(versions[0], versions[1]);
        assert!(versions.iter().all(|version| *version < section_version(1, &config(48_000))));
        assert_eq!(section_version(u32::MAX, &config(48_000)) >> DIGEST_BITS, 4095);
        let TrackConfig::Audio(mut longer) = config(48_000) else { panic!() };
        longer.record = Bytes::from([&longer.record[..], &[0]].concat());
        assert_ne!(section_version(0, &TrackConfig::Audio(longer)), versions[0]);
    }
}
