//! The intake of H.264.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::{Buf, Bytes};
use millrace_buf::ByteChain;

use crate::codec::framing::{self, Framing};
use crate::codec::h264::{self, H264Error, NAL_PPS, NAL_SPS, ParameterSets};
use crate::codec::nal::nal_units;
use crate::codec::sync::SyncKind;
use crate::codec::{CodecError, VideoCodec};
use crate::frame::VideoConfig;
use crate::repair::{Repair, RepairCounts};

/// Most bytes of NAL units that wait for the next picture: parameter sets and SEI messages.
const MAX_WAITING: usize = 64 * 1024;
/// Size of the length prefixes of every access unit that leaves the intake, in bytes.
const LENGTH_SIZE: u8 = 4;

/// One step of the video track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VideoStep {
    /// A configuration that differs from the one before, and that the pictures behind it need.
    Config(VideoConfig),
    /// A picture.
    Picture {
        /// The way in which a decoder can start at it.
        sync: SyncKind,
        /// NAL units with 4-byte length prefixes.
        data: ByteChain,
    },
    /// Further slices of the picture before, which the encoder sends in a message of their own.
    Rest {
        /// NAL units with 4-byte length prefixes.
        data: ByteChain,
    },
}

/// The intake of one publish's H.264 video.
///
/// - Parameter sets come in a configuration record, in a record of start codes, or among the
///   pictures. A set among the pictures replaces the one of its number; what has changed becomes a new
///   configuration with the next picture that a decoder can start at. A record that repeats the one
///   before changes nothing, so that sets among the pictures stay in force.
/// - Access units with start codes, with another length size, with zero bytes or empty NAL units
///   between the others are given plain 4-byte lengths. NAL units are shared, not copied.
/// - NAL units without a picture are joined to the next picture.
/// - If the first picture of a configuration is no IDR picture, the pictures that follow it and are
///   shown before it are left out, because they refer to pictures that no decoder has.
#[derive(Debug)]
pub struct H264Intake {
    sets: ParameterSets,
    /// The size of length prefixes that the record states.
    length_size: u8,
    /// The newest configuration record as sent.
    record: Option<Bytes>,
    config: Option<VideoConfig>,
    /// True if `sets` have changed since `config` was made.
    has_new_sets: bool,
    /// True if the latest access unit that was split had start codes. A length of 256 to 511 bytes reads like a start
    /// code of three bytes, so that only the other access units tell which of the two it is.
    has_start_codes: bool,
    /// NAL units with lengths that wait for the next picture.
    waiting: ByteChain,
    /// True until a picture comes that a decoder can start at with `config`.
    awaits_start: bool,
    /// Presentation time of the first picture if that is no IDR picture.
    leading_before: Option<i64>,
    repairs: RepairCounts,
    steps: VecDeque<VideoStep>,
}

impl Default for H264Intake {
    fn default() -> Self {
        Self {
            sets: ParameterSets::default(),
            length_size: LENGTH_SIZE,
            record: None,
            config: None,
            has_new_sets: false,
            has_start_codes: false,
            waiting: ByteChain::new(),
            awaits_start: true,
            leading_before: None,
            repairs: RepairCounts::new(),
            steps: VecDeque::new(),
        }
    }
}

impl H264Intake {
    /// Returns the counts of all repairs so far.
    pub const fn repairs(&self) -> &RepairCounts {
        &self.repairs
    }

    /// Returns the oldest step that was not returned yet.
    pub fn poll(&mut self) -> Option<VideoStep> {
        self.steps.pop_front()
    }

    /// Takes a configuration record: an AVCDecoderConfigurationRecord, or parameter sets behind start
    /// codes. An error if it is malformed; the configuration before it stays in force then.
    pub fn record(&mut self, record: Bytes) -> Result<(), CodecError> {
        if self.record.as_ref() == Some(&record) {
            return Ok(());
        }
        let chain = ByteChain::from(record.clone());
        let (sets, length_size) = if framing::begins_with_start_code(&chain) {
            let (_, places) = framing::split(&chain, LENGTH_SIZE, true).map_err(|_| truncated())?;
            let mut sets = ParameterSets::default();
            for place in places {
                sets.insert(&record.slice(place))?;
            }
            (sets, LENGTH_SIZE)
        } else if record.is_empty() {
            (ParameterSets::default(), self.length_size)
        } else {
            ParameterSets::of_record(&record)?
        };
        self.record = Some(record);
        self.length_size = length_size;
        if sets == ParameterSets::default() {
            self.repairs.add(Repair::EmptyConfig, 1);
            return Ok(());
        }
        self.sets = sets;
        self.configure(None)
    }

    /// Takes an access unit with its presentation time in any unit. `flagged` is the container's flag of
    /// a keyframe. An error if its NAL units cannot be told apart; it is left out then.
    pub fn picture(&mut self, pts: i64, flagged: bool, data: ByteChain) -> Result<(), CodecError> {
        let Some(data) = self.with_lengths(data)? else { return Ok(()) };
        if h264::continues_picture(&data, LENGTH_SIZE) {
            // Parameter sets or SEI messages between the slices of a picture would end it (H.264 §7.4.1.2.3).
            self.steps.push_back(VideoStep::Rest { data: slices(&data) });
            return Ok(());
        }
        let sync = h264::sync_kind(&data, LENGTH_SIZE, flagged)?;
        if self.config.is_none() || (self.has_new_sets && sync.is_join()) {
            self.configure(h264::active_pps(&data, LENGTH_SIZE))?;
        }
        if sync.is_join() {
            let is_start = std::mem::take(&mut self.awaits_start);
            self.leading_before = Some(pts).filter(|_| is_start && sync != SyncKind::Idr);
        } else if self.leading_before.is_some_and(|first| pts < first) {
            self.repairs.add(Repair::LeadingPicture, 1);
            return Ok(());
        }
        self.steps.push_back(VideoStep::Picture { sync, data });
        Ok(())
    }

    /// Returns an access unit with 4-byte lengths, its parameter sets taken; `None` if it holds no
    /// picture.
    fn with_lengths(&mut self, data: ByteChain) -> Result<Option<ByteChain>, CodecError> {
        let is_coded = self.has_start_codes && framing::begins_with_start_code(&data);
        let scan = if is_coded { None } else { Scan::of(&data, self.length_size) };
        if let Some(Scan { has_picture: true, has_sets, has_empty: false }) = scan
            && self.length_size == LENGTH_SIZE
            && self.waiting.is_empty()
        {
            if has_sets {
                for mut unit in nal_units(&data, LENGTH_SIZE).filter_map(Result::ok) {
                    if is_set(unit.chunk().first()) {
                        let nal = unit.copy_to_bytes(unit.remaining());
                        self.take_set(&nal);
                    }
                }
            }
            return Ok(Some(data));
        }
        let malformed = |_| truncated();
        let (framing, mut places) =
            framing::split(&data, self.length_size, self.has_start_codes).map_err(malformed)?;
        self.has_start_codes = framing == Framing::StartCodes;
        let has_empty = scan.is_some_and(|scan| scan.has_empty);
        match framing {
            Framing::StartCodes => self.repairs.add(Repair::StartCodesReplaced, 1),
            Framing::LengthsAndZeros => self.repairs.add(Repair::StrayBytesRemoved, 1),
            Framing::Lengths => self.repairs.add(Repair::StrayBytesRemoved, u64::from(has_empty)),
        }
        let mut has_picture = false;
        for place in &places {
            let unit = data.slice(place.clone());
            let header = unit.first_chunk::<1>().map(|[header]| header);
            has_picture |= is_picture(header.as_ref());
            if is_set(header.as_ref()) {
                self.take_set(&unit.contiguous());
            }
        }
        if !has_picture {
            self.wait(&data, &mut places);
            return Ok(None);
        }
        let mut joined = std::mem::take(&mut self.waiting);
        joined.extend(framing::join(&data, &places));
        Ok(Some(joined))
    }

    /// Keeps parameter sets and SEI messages of a message without a picture for the next picture.
    fn wait(&mut self, data: &ByteChain, places: &mut Vec<Range<usize>>) {
        places.retain(|place| {
            let header = data.slice(place.start..place.start + 1).first_chunk::<1>();
            header.is_some_and(|[header]| matches!(header & 0x1f, 6..=9))
        });
        let units = framing::join(data, places);
        if units.is_empty() {
            self.repairs.add(Repair::EmptyMessage, 1);
            return;
        }
        self.repairs.add(Repair::MessageWithoutPicture, 1);
        if self.waiting.len() + units.len() <= MAX_WAITING {
            // A copy: a few bytes must not keep the read buffer that they came in.
            self.waiting.push(Bytes::copy_from_slice(&units.contiguous()));
        }
    }

    /// Takes a parameter set. A malformed one is left to the decoder, which may not need it.
    fn take_set(&mut self, nal: &Bytes) {
        self.has_new_sets |= self.sets.insert(nal).unwrap_or(false);
    }

    /// Makes a configuration of the parameter sets if they are complete and it differs from the newest
    /// one. `active` is the number of the picture parameter set that the next picture refers to.
    fn configure(&mut self, active: Option<u32>) -> Result<(), CodecError> {
        let Some(made) = self.sets.record(active) else { return Ok(()) };
        self.has_new_sets = false;
        let sent = self.record.as_ref().filter(|sent| is_equivalent(sent, &made, &self.sets));
        let record = sent.unwrap_or(&made).clone();
        if self.config.as_ref().is_some_and(|config| config.record == record) {
            return Ok(());
        }
        self.repairs.add(Repair::ConfigFromPictures, u64::from(active.is_some() && sent.is_none()));
        let config = VideoConfig::parse(VideoCodec::H264, record)?;
        self.config = Some(config.clone());
        self.awaits_start = true;
        self.steps.push_back(VideoStep::Config(config));
        Ok(())
    }
}

/// True if the record that the encoder sent says the same as the one `made` of `sets`, and may be used
/// as it is: it has 4-byte lengths, one SPS, and the profile and level of that.
fn is_equivalent(sent: &Bytes, made: &Bytes, sets: &ParameterSets) -> bool {
    sent.get(1..4) == made.get(1..4)
        && made.get(5) == Some(&0xe1)
        && ParameterSets::of_record(sent).is_ok_and(|(own, size)| own == *sets && size == LENGTH_SIZE)
        && VideoConfig::parse(VideoCodec::H264, sent.clone()).is_ok()
}

/// The kinds of NAL units in an access unit with length prefixes.
#[derive(Debug, Clone, Copy, Default)]
struct Scan {
    has_picture: bool,
    has_sets: bool,
    has_empty: bool,
}

impl Scan {
    /// Walks an access unit with prefixes of `length_size` bytes; `None` if they do not add up.
    fn of(data: &ByteChain, length_size: u8) -> Option<Self> {
        nal_units(data, length_size).try_fold(Self::default(), |scan, unit| {
            let unit = unit.ok()?;
            let header = unit.chunk().first();
            Some(Self {
                has_picture: scan.has_picture || is_picture(header),
                has_sets: scan.has_sets || is_set(header),
                has_empty: scan.has_empty || header.is_none(),
            })
        })
    }
}

/// Returns the slices of an access unit with 4-byte lengths.
fn slices(data: &ByteChain) -> ByteChain {
    let (mut kept, mut at) = (ByteChain::new(), 0);
    for unit in nal_units(data, LENGTH_SIZE).filter_map(Result::ok) {
        let end = at + usize::from(LENGTH_SIZE) + unit.remaining();
        if is_picture(unit.chunk().first()) {
            kept.extend(data.slice(at..end));
        }
        at = end;
    }
    kept
}

/// True for slices and their partitions (H.264 table 7-1, types 1 to 5).
fn is_picture(header: Option<&u8>) -> bool {
    header.is_some_and(|header| matches!(header & 0x1f, 1..=5))
}

fn is_set(header: Option<&u8>) -> bool {
    header.is_some_and(|header| matches!(header & 0x1f, NAL_SPS | NAL_PPS))
}

const fn truncated() -> CodecError {
    CodecError::H264(H264Error::Truncated("access unit"))
}
