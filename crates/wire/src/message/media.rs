//! Media messages: one video access unit with the audio since the last one, or 40 ms of audio alone.
//!
//! The body of a message is: flags u8, unit count u16, then per unit a 43-byte record, then the data of all units:
//! ```text
//! code u8 · flags u8 · msn u64 · discontinuity sequence u64 · init version u32 · dts i64 · cts i32 · duration u32 · length u32
//! ```
//! The code of a frame is its track (0 video, 1 audio); the code of a configuration is its [`Codec`]. Configurations travel
//! as units too, again in the first message of every segment, so that a worker can start at any segment. A configuration
//! has no time: its dts field holds the declared bits per second.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use millrace_buf::{Arena, ByteChain};

use crate::fragment::{self, FragmentError, FragmentReader, Fragmented, Kind, Position};
use crate::ids::{DiscontinuitySeq, Epoch, Generation, InitVersion, MediaSeq, Msn};

/// Most units in one message: 40 ms hold 2 AAC frames; a burst of late audio is split over messages.
pub const MAX_UNITS: usize = 512;
/// Times beyond this, either way, are nonsense (3 000 years of 90 kHz ticks) and refused: sums and differences of accepted
/// times stay far from overflow.
pub const MAX_TIME: i64 = 1 << 53;
/// Composition offsets beyond this, either way, are refused: 93 s of 90 kHz ticks, ten times what ingest lets through.
pub const MAX_CTS: i32 = 1 << 23;
/// A track declared with more bits per second than this is refused: 1 Gb/s, twenty times any publisher's limit.
pub const MAX_BANDWIDTH: u64 = 1_000_000_000;
/// Bytes of a unit's record.
const RECORD: usize = 1 + 1 + 8 + 8 + 4 + 8 + 4 + 4 + 4;
/// Bit of the record's flags that marks a configuration.
const IS_CONFIG: u8 = 1 << 0;

/// The elementary stream that a unit belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Track {
    /// Video; times in 1/90000 s.
    Video,
    /// Audio; times in samples of the track's rate.
    Audio,
}

/// The codec of a track. The numbers are the codes on the wire and do not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Codec {
    /// H.264; the record is an AVCDecoderConfigurationRecord (ISO/IEC 14496-15 §5.3.3.1).
    H264 = 1,
    /// H.265; the record is an HEVCDecoderConfigurationRecord (ISO/IEC 14496-15 §8.3.3.1).
    Hevc = 2,
    /// AV1; the record is an AV1CodecConfigurationRecord (AV1-ISOBMFF §2.3).
    Av1 = 3,
    /// AAC; the record is an AudioSpecificConfig (ISO/IEC 14496-3 §1.6.2.1).
    Aac = 16,
    /// Opus; the record is an identification header (RFC 7845 §5.1).
    Opus = 17,
    /// MP3; the record is the header of one frame (ISO/IEC 11172-3 §2.4.1.3).
    Mp3 = 18,
}

impl Codec {
    /// All codecs, those of video first.
    pub const ALL: [Self; 6] = [Self::H264, Self::Hevc, Self::Av1, Self::Aac, Self::Opus, Self::Mp3];

    /// Returns the kind of track that the codec encodes.
    pub const fn track(self) -> Track {
        match self {
            Self::H264 | Self::Hevc | Self::Av1 => Track::Video,
            Self::Aac | Self::Opus | Self::Mp3 => Track::Audio,
        }
    }

    /// Returns the code on the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Returns the codec with this code on the wire, if there is one.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.code() == code)
    }
}

/// The decoder configuration of a track, from this unit on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigUnit {
    /// The codec of the unit's track.
    pub codec: Codec,
    /// Segment that is open when the configuration comes.
    pub msn: Msn,
    /// That segment's absolute discontinuity sequence number.
    pub discontinuity_sequence: DiscontinuitySeq,
    /// The initialisation section that the configuration makes.
    pub init_version: InitVersion,
    /// Peak bits per second of the track (BANDWIDTH): as the publisher declared it, within what its limit allows and no
    /// less than what was measured; at most [`MAX_BANDWIDTH`].
    pub bit_rate: u64,
    /// The configuration record that the codec defines.
    pub record: ByteChain,
}

/// One access unit or audio frame with ingest's segment assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent flags of the record")]
pub struct FrameUnit {
    /// The track that the frame belongs to.
    pub track: Track,
    /// Segment that the frame belongs to.
    pub msn: Msn,
    /// That segment's absolute discontinuity sequence number.
    pub discontinuity_sequence: DiscontinuitySeq,
    /// The initialisation section that the frame is decoded with.
    pub init_version: InitVersion,
    /// Decode time (audio: presentation time) in the track's timescale, within [`MAX_TIME`].
    pub dts: i64,
    /// Composition offset in the track's timescale, within [`MAX_CTS`]; 0 for audio.
    pub cts: i32,
    /// Decoding time to the next picture in the track's timescale; 0 for audio.
    pub duration: u32,
    /// True for a random access point; one that is not `independent` begins a gradual refresh.
    pub keyframe: bool,
    /// True for the first frame of its segment, over both tracks.
    pub boundary: bool,
    /// True if a decoder can start at this frame: on a boundary, if the segment is independent.
    pub independent: bool,
    /// True if the segment is the first after a discontinuity.
    pub discontinuity: bool,
    /// True if the next frame of the track may begin another segment.
    pub may_be_last: bool,
    /// The coded bytes: length-prefixed NAL units, or one raw audio frame.
    pub data: ByteChain,
}

/// One unit of a media message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaUnit {
    /// The decoder configuration of a track.
    Config(ConfigUnit),
    /// A coded picture or audio frame.
    Frame(FrameUnit),
}

impl MediaUnit {
    /// Returns the track that the unit belongs to.
    pub const fn track(&self) -> Track {
        match self {
            Self::Config(config) => config.codec.track(),
            Self::Frame(frame) => frame.track,
        }
    }

    /// Returns the segment that the unit belongs to.
    pub const fn msn(&self) -> Msn {
        match self {
            Self::Config(config) => config.msn,
            Self::Frame(frame) => frame.msn,
        }
    }

    /// Returns the absolute discontinuity sequence number of the unit's segment.
    pub const fn discontinuity_sequence(&self) -> DiscontinuitySeq {
        match self {
            Self::Config(config) => config.discontinuity_sequence,
            Self::Frame(frame) => frame.discontinuity_sequence,
        }
    }

    /// Returns the frame, unless the unit is a configuration.
    pub const fn frame(&self) -> Option<&FrameUnit> {
        match self {
            Self::Config(_) => None,
            Self::Frame(frame) => Some(frame),
        }
    }

    /// Returns the configuration, unless the unit is a frame.
    pub const fn config(&self) -> Option<&ConfigUnit> {
        match self {
            Self::Config(config) => Some(config),
            Self::Frame(_) => None,
        }
    }

    /// True for the first frame of a segment.
    pub const fn is_boundary(&self) -> bool {
        matches!(self, Self::Frame(FrameUnit { boundary: true, .. }))
    }

    /// Returns the configuration record or the coded bytes.
    pub const fn data(&self) -> &ByteChain {
        match self {
            Self::Config(config) => &config.record,
            Self::Frame(frame) => &frame.data,
        }
    }
}

/// One numbered message of an epoch's media.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaMessage {
    /// The epoch that the media belong to.
    pub epoch: Epoch,
    /// Number in the epoch, from 0.
    pub seq: MediaSeq,
    /// True if the publisher has left: this is the epoch's last message, and its last segment closes here.
    pub end: bool,
    /// Units in decode order per track.
    pub units: Vec<MediaUnit>,
}

impl MediaMessage {
    /// Returns the highest segment number of the units.
    pub fn last_msn(&self) -> Option<Msn> {
        self.units.iter().map(MediaUnit::msn).max()
    }
    /// Returns the lowest segment number of the units.
    pub fn first_msn(&self) -> Option<Msn> {
        self.units.iter().map(MediaUnit::msn).min()
    }

    /// Encodes into frames of at most `max_payload` bytes, copying unit data once, into memory of `arena`.
    pub fn encode(&self, max_payload: usize, arena: &mut Arena) -> Result<Vec<Bytes>, FragmentError> {
        if self.units.len() > MAX_UNITS {
            return Err(FragmentError::Body("too many units"));
        }
        let mut head = BytesMut::with_capacity(3 + RECORD * self.units.len());
        head.put_u8(u8::from(self.end));
        head.put_u16_le(self.units.len() as u16);
        for unit in &self.units {
            unit.put_record(&mut head)?;
        }
        let mut body: Vec<&[u8]> = vec![&head];
        body.extend(self.units.iter().flat_map(|unit| unit.data().iter()).map(|piece| &piece[..]));
        let at = Position { epoch: self.epoch, generation: Generation(0), seq: self.seq.0 };
        fragment::encode(Kind::Media, at, &body, max_payload, |len| arena.buffer(len))
    }

    /// Reads a reassembled body; unit data are slices of it.
    pub fn decode(at: Position, mut body: Bytes) -> Result<Self, FragmentError> {
        need(&body, 3)?;
        let end = match body.get_u8() {
            0 => false,
            1 => true,
            _ => return Err(FragmentError::Body("unknown message flags")),
        };
        let count = usize::from(body.get_u16_le());
        if count > MAX_UNITS {
            return Err(FragmentError::Body("too many units"));
        }
        need(&body, count * RECORD)?;
        let mut records = body.split_to(count * RECORD);
        let mut units = Vec::with_capacity(count);
        for _ in 0..count {
            units.push(MediaUnit::get(&mut records, &mut body)?);
        }
        if !body.is_empty() {
            return Err(FragmentError::Body("bytes after the last unit"));
        }
        Ok(Self { epoch: at.epoch, seq: MediaSeq(at.seq), end, units })
    }
}

impl MediaUnit {
    fn put_record(&self, out: &mut BytesMut) -> Result<(), FragmentError> {
        let len = u32::try_from(self.data().len()).map_err(|_| FragmentError::Body("too long"))?;
        let (code, flags, init_version, time, cts, duration) = match self {
            Self::Config(config) => {
                let bit_rate = config.bit_rate.min(MAX_BANDWIDTH) as i64;
                (config.codec.code(), IS_CONFIG, config.init_version, bit_rate, 0, 0)
            }
            Self::Frame(frame) => {
                check_times(frame.dts, frame.cts)?;
                let FrameUnit { init_version, dts, cts, duration, .. } = *frame;
                (track_code(frame.track), frame.flags(), init_version, dts, cts, duration)
            }
        };
        out.put_u8(code);
        out.put_u8(flags);
        out.put_u64_le(self.msn().0);
        out.put_u64_le(self.discontinuity_sequence().0);
        out.put_u32_le(init_version.0);
        out.put_i64_le(time);
        out.put_i32_le(cts);
        out.put_u32_le(duration);
        out.put_u32_le(len);
        Ok(())
    }

    fn get(records: &mut Bytes, data: &mut Bytes) -> Result<Self, FragmentError> {
        let (code, flags) = (records.get_u8(), records.get_u8());
        if flags >= 1 << 6 {
            return Err(FragmentError::Body("unknown unit flags"));
        }
        let is_set = |bit: u8| flags & 1 << bit != 0;
        let msn = Msn(records.get_u64_le());
        let discontinuity_sequence = DiscontinuitySeq(records.get_u64_le());
        let init_version = InitVersion(records.get_u32_le());
        let (time, cts) = (records.get_i64_le(), records.get_i32_le());
        let (duration, len) = (records.get_u32_le(), records.get_u32_le() as usize);
        if flags & IS_CONFIG != 0 {
            let codec = Codec::from_code(code).ok_or(FragmentError::Body("unknown codec"))?;
            if flags != IS_CONFIG || cts != 0 || duration != 0 {
                return Err(FragmentError::Body("a configuration with the fields of a frame"));
            }
            let bit_rate = u64::try_from(time).ok().filter(|bits| *bits <= MAX_BANDWIDTH);
            let bit_rate = bit_rate.ok_or(FragmentError::Body("bit rate out of range"))?;
            need(data, len)?;
            let record = data.split_to(len).into();
            return Ok(Self::Config(ConfigUnit {
                codec,
                msn,
                discontinuity_sequence,
                init_version,
                bit_rate,
                record,
            }));
        }
        let track = match code {
            0 => Track::Video,
            1 => Track::Audio,
            _ => return Err(FragmentError::Body("unknown track")),
        };
        check_times(time, cts)?;
        need(data, len)?;
        Ok(Self::Frame(FrameUnit {
            track,
            msn,
            discontinuity_sequence,
            init_version,
            dts: time,
            cts,
            duration,
            keyframe: is_set(1),
            boundary: is_set(2),
            independent: is_set(3),
            discontinuity: is_set(4),
            may_be_last: is_set(5),
            data: data.split_to(len).into(),
        }))
    }
}

impl FrameUnit {
    fn flags(&self) -> u8 {
        u8::from(self.keyframe) << 1
            | u8::from(self.boundary) << 2
            | u8::from(self.independent) << 3
            | u8::from(self.discontinuity) << 4
            | u8::from(self.may_be_last) << 5
    }
}

const fn track_code(track: Track) -> u8 {
    match track {
        Track::Video => 0,
        Track::Audio => 1,
    }
}

fn check_times(time: i64, cts: i32) -> Result<(), FragmentError> {
    let sane = (-MAX_TIME..=MAX_TIME).contains(&time) && (-MAX_CTS..=MAX_CTS).contains(&cts);
    if sane { Ok(()) } else { Err(FragmentError::Body("time out of range")) }
}

fn need(bytes: &Bytes, need: usize) -> Result<(), FragmentError> {
    if bytes.len() < need { Err(FragmentError::Truncated { need, have: bytes.len() }) } else { Ok(()) }
}

impl Fragmented for MediaMessage {
    const KIND: Kind = Kind::Media;

    fn decode(position: Position, body: Bytes) -> Result<Self, FragmentError> {
        Self::decode(position, body)
    }
}

/// Turns the fragments received on one subject into media messages.
pub type MediaReader = FragmentReader<MediaMessage>;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    prop_compose! {
        fn frame()(flags: u8, msn: u64, disc: u64, init: u32, dts in -MAX_TIME..=MAX_TIME, cts in -MAX_CTS..=MAX_CTS,
                   duration: u32, may_be_last: bool,
                   data in proptest::collection::vec(any::<u8>(), 0..3000)) -> FrameUnit {
            FrameUnit {
                track: if flags & 64 == 0 { Track::Video } else { Track::Audio },
                msn: Msn(msn), discontinuity_sequence: DiscontinuitySeq(disc), init_version: InitVersion(init),
                dts, cts, keyframe: flags & 2 != 0, boundary: flags & 4 != 0, independent: flags & 8 != 0,
                discontinuity: flags & 16 != 0, duration, may_be_last, data: Bytes::from(data).into(),
            }
        }
    }

    prop_compose! {
        fn config()(codec in 0..Codec::ALL.len(), msn: u64, disc: u64, init: u32, bit_rate in 0..=MAX_BANDWIDTH,
                    record in proptest::collection::vec(any::<u8>(), 0..200)) -> ConfigUnit {
            ConfigUnit {
                codec: Codec::ALL[codec], msn: Msn(msn), discontinuity_sequence: DiscontinuitySeq(disc),
                init_version: InitVersion(init), bit_rate, record: Bytes::from(record).into(),
            }
        }
    }

    fn unit() -> impl Strategy<Value = MediaUnit> {
        prop_oneof![frame().prop_map(MediaUnit::Frame), config().prop_map(MediaUnit::Config)]
    }

    proptest! {
        #[test]
        fn messages_round_trip(units in proptest::collection::vec(unit(), 0..5), epoch: u64, seq: u64, end: bool) {
            let message = MediaMessage { epoch: Epoch(epoch), seq: MediaSeq(seq), end, units };
            let mut reader = MediaReader::default();
            let mut got = Vec::new();
            for f in message.encode(1024, &mut Arena::default()).unwrap() { got.extend(reader.push(f).unwrap()); }
            prop_assert_eq!(got, vec![message]);
        }

        #[test]
        fn times_out_of_range_are_neither_written_nor_read(
            dts in prop_oneof![any::<i64>(), -MAX_TIME - 9..=9 - MAX_TIME, MAX_TIME - 9..=MAX_TIME + 9, 0..MAX_TIME],
            cts in prop_oneof![any::<i32>(), -MAX_CTS - 9..=9 - MAX_CTS, MAX_CTS - 9..=MAX_CTS + 9, 0..MAX_CTS],
            frame in frame(), config in config(),
        ) {
            let sane = (-MAX_TIME..=MAX_TIME).contains(&dts) && (-MAX_CTS..=MAX_CTS).contains(&cts);
            let at = Position { epoch: Epoch(1), generation: Generation(0), seq: 1 };
            let message = |unit| MediaMessage { epoch: Epoch(1), seq: MediaSeq(1), end: false, units: vec![unit] };
            let zeroed = message(MediaUnit::Frame(FrameUnit { dts: 0, cts: 0, ..frame.clone() }));
            // The record as a faulty sender would write it: the times are its bytes 22 to 34.
            let mut body = zeroed.encode(1 << 20, &mut Arena::default()).unwrap()[0].slice(fragment::HEADER..).to_vec();
            body[3 + 22..3 + 30].copy_from_slice(&dts.to_le_bytes());
            body[3 + 30..3 + 34].copy_from_slice(&cts.to_le_bytes());
            let message = message(MediaUnit::Frame(FrameUnit { dts, cts, ..frame }));
            let read = MediaMessage::decode(at, body.clone().into());
            prop_assert_eq!(read.is_ok(), sane);
            prop_assert_eq!(message.encode(1 << 20, &mut Arena::default()).is_ok(), sane);
            if let Ok(read) = read { prop_assert_eq!(read, message); }
            // The same field of a configuration is a bit rate.
            let configured = MediaMessage { epoch: Epoch(1), seq: MediaSeq(1), end: false, units: vec![MediaUnit::Config(config)] };
            let mut body = configured.encode(1 << 20, &mut Arena::default()).unwrap()[0].slice(fragment::HEADER..).to_vec();
            body[3 + 22..3 + 30].copy_from_slice(&dts.to_le_bytes());
            let read = MediaMessage::decode(at, body.into());
            prop_assert_eq!(read.is_ok(), (0..=MAX_BANDWIDTH as i64).contains(&dts));
        }

        #[test]
        fn damaged_bodies_are_refused_or_read(units in proptest::collection::vec(unit(), 0..3), cut: u16, flip: u16, to: u8) {
            let message = MediaMessage { epoch: Epoch(1), seq: MediaSeq(1), end: false, units };
            let frames = message.encode(1 << 20, &mut Arena::default()).unwrap();
            let mut body = frames[0].slice(fragment::HEADER..).to_vec();
            let at = Position { epoch: Epoch(1), generation: Generation(0), seq: 1 };
            let i = usize::from(flip) % body.len();
            body[i] = to;
            body.truncate(body.len() - usize::from(cut) % body.len());
            let _ = MediaMessage::decode(at, body.into());
        }

        #[test]
        fn decode_reads_known_codec_codes_only(code: u8, config in config()) {
            let codec = Codec::from_code(code);
            let message = MediaMessage { epoch: Epoch(1), seq: MediaSeq(1), end: false, units: vec![MediaUnit::Config(config)] };
            let mut body = message.encode(1 << 20, &mut Arena::default()).unwrap()[0].slice(fragment::HEADER..).to_vec();
            body[3] = code;
            let read = MediaMessage::decode(Position { epoch: Epoch(1), generation: Generation(0), seq: 1 }, body.into());
            prop_assert_eq!(read.ok().and_then(|read| read.units[0].config().map(|config| config.codec)), codec);
        }

        #[test]
        fn garbage_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let at = Position { epoch: Epoch(1), generation: Generation(0), seq: 1 };
            let _ = MediaMessage::decode(at, bytes.clone().into());
            let _ = MediaReader::default().push(bytes.into());
        }
    }
}
