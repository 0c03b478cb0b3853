//! Stand-ins for the encoder and the packager: a unit is its number, a part is a list of numbers.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use millrace_protocol::job::Packaged;
use millrace_wire::fact::{MediaDuration, Part, RenditionGap, Segment, TrackInfo, TrackMedia};
use millrace_wire::ids::*;
use millrace_wire::message::media::{FrameUnit, MediaUnit, Track};

use super::control::WALL;

pub const UNIT_MS: u64 = 40;
pub const SEGMENT_UNITS: u64 = 50;
const PART_UNITS: usize = 5;
const PART_TARGET_MS: u64 = PART_UNITS as u64 * UNIT_MS;

/// The rendition that the packager of a ladder makes of the video track beside the source's own.
pub fn low() -> Rendition {
    "low".parse().unwrap()
}

/// Returns the renditions that are made of a track.
pub fn renditions_of(track: Track, has_ladder: bool) -> Vec<Rendition> {
    match track {
        Track::Video if has_ladder => vec![Rendition::video(), low()],
        Track::Video => vec![Rendition::video()],
        Track::Audio => vec![Rendition::audio()],
    }
}

/// Returns a unit that carries its number and was taken at `now`.
pub fn unit(
    track: Track,
    number: u64,
    now: u64,
    msn: Msn,
    discontinuity: DiscontinuitySeq,
    boundary: bool,
) -> MediaUnit {
    MediaUnit::Frame(FrameUnit {
        track,
        msn,
        discontinuity_sequence: discontinuity,
        init_version: InitVersion(0),
        dts: now as i64,
        cts: 0,
        // Some segments begin without a keyframe.
        keyframe: boundary && !msn.0.is_multiple_of(3),
        boundary,
        independent: true,
        discontinuity: false,
        duration: 0,
        may_be_last: false,
        data: Bytes::copy_from_slice(&number.to_le_bytes()).into(),
    })
}

/// Bits of a unit's number; the low rung's encoder writes its worker's generation above them.
const NUMBER_BITS: u32 = 48;

/// Returns the numbers in a part or segment.
pub fn numbers(bytes: &[u8]) -> Vec<u64> {
    let units = bytes.chunks_exact(8).map(|chunk| u64::from_le_bytes(chunk.try_into().unwrap()));
    units.map(|unit| unit & ((1 << NUMBER_BITS) - 1)).collect()
}

/// Returns a unit as the low rung's encoder writes it: no two generations write the same bytes.
fn encoded(data: &Bytes, generation: Generation) -> Bytes {
    let number = numbers(data)[0];
    Bytes::copy_from_slice(&(number | generation.0 << NUMBER_BITS).to_le_bytes())
}

/// The state of the encoder of the low rung.
#[derive(Debug, Clone, Copy, Default)]
pub struct LowRung {
    /// The ladder has the rung.
    pub exists: bool,
    /// The encoder produces nothing at the moment.
    pub is_failing: bool,
    /// The last segment that the rung produces.
    pub last: Option<Msn>,
    /// The generation of the worker, which the bytes of the rung hold.
    pub generation: Generation,
}

#[derive(Default)]
struct OpenSegment {
    msn: Msn,
    discontinuity: DiscontinuitySeq,
    part: u32,
    pending: Vec<Bytes>,
    units: u64,
    started: u64,
    /// The encoder has produced nothing of some unit.
    is_incomplete: bool,
}

/// A packager that makes the same parts of the same units, except where the low rung's encoder fails.
#[derive(Default)]
pub struct ToyPackager {
    open: BTreeMap<Rendition, OpenSegment>,
    has_started: bool,
    has_ended_low: bool,
    /// It packages the low rung alone, or else the source's own renditions.
    is_low: bool,
}

impl ToyPackager {
    /// Creates the packager of a rung.
    pub fn of(rung: &RungId) -> Self {
        Self { is_low: *rung != RungId::copy(), ..Self::default() }
    }

    fn makes(&self, rendition: &Rendition) -> bool {
        (*rendition == low()) == self.is_low
    }

    /// Packages units, and appends what they complete to `made`.
    pub fn push(&mut self, units: &[MediaUnit], rung: LowRung, made: &mut Vec<Packaged>) {
        for unit in units.iter().filter_map(MediaUnit::frame) {
            if !std::mem::replace(&mut self.has_started, true) {
                self.describe(rung.exists, made);
            }
            for rendition in renditions_of(unit.track, rung.exists) {
                if self.makes(&rendition) {
                    self.push_to(unit, rendition, rung, made);
                }
            }
        }
    }

    /// Closes the open segments as they are.
    pub fn flush(&mut self, made: &mut Vec<Packaged>) {
        for rendition in [Rendition::video(), low(), Rendition::audio()] {
            self.close(&rendition, made);
        }
    }

    fn describe(&self, has_ladder: bool, made: &mut Vec<Packaged>) {
        let all = [Track::Video, Track::Audio].into_iter().flat_map(|track| renditions_of(track, has_ladder));
        for rendition in all.filter(|rendition| self.makes(rendition)) {
            made.push(init(&rendition, 1));
            let target = MediaDuration::from_millis(PART_TARGET_MS);
            made.push(Packaged::PartTarget { rendition, target });
        }
    }

    fn push_to(&mut self, unit: &FrameUnit, rendition: Rendition, rung: LowRung, made: &mut Vec<Packaged>) {
        if self.open.get(&rendition).is_some_and(|open| open.msn != unit.msn) {
            self.close(&rendition, made);
        }
        let is_low = rendition == low();
        if let Some(last) = rung.last.filter(|last| is_low && unit.msn > *last) {
            if !std::mem::replace(&mut self.has_ended_low, true) {
                made.push(Packaged::RenditionEnd { rendition, last });
            }
            return;
        }
        let open = self.open.entry(rendition.clone()).or_insert_with(|| OpenSegment {
            msn: unit.msn,
            discontinuity: unit.discontinuity_sequence,
            started: WALL + unit.dts as u64,
            ..OpenSegment::default()
        });
        open.units += 1;
        open.is_incomplete |= is_low && rung.is_failing;
        if open.is_incomplete {
            open.pending.clear();
            return;
        }
        let data = unit.data.contiguous();
        open.pending.push(if is_low { encoded(&data, rung.generation) } else { data });
        if open.pending.len() == PART_UNITS {
            push_part(&rendition, open, made);
        }
    }

    fn close(&mut self, rendition: &Rendition, made: &mut Vec<Packaged>) {
        let Some(mut open) = self.open.remove(rendition) else { return };
        let duration = MediaDuration::from_millis(open.units * UNIT_MS);
        if open.is_incomplete {
            made.push(Packaged::Gap(RenditionGap {
                rendition: rendition.clone(),
                msn: open.msn,
                duration,
                discontinuity_sequence: open.discontinuity,
                program_date_time: UnixMillis(open.started),
            }));
            return;
        }
        push_part(rendition, &mut open, made);
        // Segments turn out bigger than declared now and then; a successor does not know what was declared before.
        made.push(init(rendition, open.msn.0 / 4));
        made.push(Packaged::Segment(Segment {
            rendition: rendition.clone(),
            msn: open.msn,
            parts: open.part,
            duration,
            independent: true,
            bytes: open.units * 8,
            discontinuity_sequence: open.discontinuity,
            program_date_time: UnixMillis(open.started),
            init_version: InitVersion(0),
        }));
    }
}

fn init(rendition: &Rendition, bandwidth: u64) -> Packaged {
    let info = TrackInfo {
        media: TrackMedia::Audio { channels: 2, sample_rate: 48_000 },
        codecs: "x".into(),
        bandwidth,
        timescale: 1000,
    };
    let bytes = Bytes::from_static(b"init");
    Packaged::Init { rendition: rendition.clone(), version: InitVersion(0), info, bytes }
}

fn push_part(rendition: &Rendition, open: &mut OpenSegment, made: &mut Vec<Packaged>) {
    if open.pending.is_empty() {
        return;
    }
    let mut bytes = BytesMut::new();
    let units = open.pending.len() as u64;
    open.pending.drain(..).for_each(|unit| bytes.put(unit));
    let part = Part {
        rendition: rendition.clone(),
        msn: open.msn,
        part: PartIndex(open.part),
        duration: MediaDuration::from_millis(units * UNIT_MS),
        independent: open.part == 0,
        bytes: bytes.len() as u64,
        discontinuity_sequence: open.discontinuity,
        program_date_time: UnixMillis(open.started),
        init_version: InitVersion(0),
        gap: false,
        last: false,
    };
    open.part += 1;
    made.push(Packaged::Part(part, bytes.freeze().into()));
}
