//! Media messages: one video access unit with the audio since the last one, or 40 ms of audio alone.
//!
//! The body of the frame is: flags u8, unit count u16, then per unit a 39-byte record, then all unit data:
//! ```text
//! track u8 · flags u8 · msn u64 · discontinuity sequence u64 · init version u32 · dts i64 · cts i32 · length u32
//! ```
//! Codec configurations travel as units too, again in the first message of every segment, so that a worker can
//! start at any segment. A configuration has no time: its dts field holds the declared bits per second.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use millrace_buf::ByteChain;

use crate::fragment::{self, FragmentError, FragmentReader, Fragmented, Kind, Position};
use crate::ids::{DiscontinuitySeq, Epoch, Generation, InitVersion, MediaSeq, Msn};
use millrace_buf::Arena;

/// Most units in one message: 40 ms hold 2 AAC frames; a burst of late audio is split over messages.
pub const MAX_UNITS: usize = 512;
/// Times beyond this, either way, are nonsense (3 000 years of 90 kHz ticks) and refused: sums and differences of what
/// is let through stay far from overflow.
pub const MAX_TIME: i64 = 1 << 53;
/// Composition offsets beyond this, either way, are refused: 93 s of 90 kHz ticks, ten times what ingest lets through.
pub const MAX_CTS: i32 = 1 << 23;
/// A track declared with more than this is refused: 1 Gb/s, twenty times any publisher's limit.
pub const MAX_BANDWIDTH: u64 = 1_000_000_000;
const RECORD: usize = 1 + 1 + 8 + 8 + 4 + 8 + 4 + 4;

/// The track a unit belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Track {
    /// Video; times in 1/90000 s.
    Video,
    /// Audio; times in samples.
    Audio,
}

/// What a unit's data is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnitKind {
    /// An access unit (AVCC) or a raw audio frame.
    Frame,
    /// The decoder configuration (avcC record, AudioSpecificConfig) from here on.
    Config {
        /// Peak bits per second of the track (BANDWIDTH): as the publisher declared it, within what its limit allows and
        /// no less than what was measured.
        bandwidth: u64,
    },
}

impl UnitKind {
    /// A decoder configuration.
    pub const fn is_config(self) -> bool {
        matches!(self, Self::Config { .. })
    }
}

/// One access unit, audio frame or configuration with ingest's stamp.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // independent flags of the record
pub struct MediaUnit {
    /// Track.
    pub track: Track,
    /// Frame or configuration.
    pub kind: UnitKind,
    /// Segment the unit belongs to.
    pub msn: Msn,
    /// That segment's absolute discontinuity sequence number.
    pub discontinuity_sequence: DiscontinuitySeq,
    /// The initialisation section the unit is decoded with.
    pub init_version: InitVersion,
    /// Decode time (audio: presentation time) in the track's timescale, within [`MAX_TIME`]; 0 for a configuration.
    pub dts: i64,
    /// Composition offset in the track's timescale, within [`MAX_CTS`]; 0 for audio.
    pub cts: i32,
    /// A random access point.
    pub keyframe: bool,
    /// First unit of its track in its segment.
    pub boundary: bool,
    /// The segment starts with a random access point.
    pub independent: bool,
    /// The segment is the first after a discontinuity.
    pub discontinuity: bool,
    /// Unit data.
    pub data: ByteChain,
}

/// One numbered message of an epoch's media.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaMessage {
    /// Epoch.
    pub epoch: Epoch,
    /// Number in the epoch, from 0.
    pub seq: MediaSeq,
    /// The publisher is gone: this is the epoch's last message and its last segment closes here.
    pub end: bool,
    /// Units in decode order per track.
    pub units: Vec<MediaUnit>,
}

impl MediaMessage {
    /// The highest segment number any unit carries.
    pub fn last_msn(&self) -> Option<Msn> {
        self.units.iter().map(|u| u.msn).max()
    }
    /// The lowest segment number any unit carries.
    pub fn first_msn(&self) -> Option<Msn> {
        self.units.iter().map(|u| u.msn).min()
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
        body.extend(self.units.iter().flat_map(|unit| unit.data.iter()).map(|piece| &piece[..]));
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
        let len = u32::try_from(self.data.len()).map_err(|_| FragmentError::Body("too long"))?;
        let time = match self.kind {
            UnitKind::Frame => self.dts,
            UnitKind::Config { bandwidth } => bandwidth.min(MAX_BANDWIDTH) as i64,
        };
        check_times(time, self.cts)?;
        let flag = |on: bool, bit: u8| if on { 1 << bit } else { 0 };
        out.put_u8(match self.track {
            Track::Video => 0,
            Track::Audio => 1,
        });
        out.put_u8(
            flag(self.kind.is_config(), 0)
                | flag(self.keyframe, 1)
                | flag(self.boundary, 2)
                | flag(self.independent, 3)
                | flag(self.discontinuity, 4),
        );
        out.put_u64_le(self.msn.0);
        out.put_u64_le(self.discontinuity_sequence.0);
        out.put_u32_le(self.init_version.0);
        out.put_i64_le(time);
        out.put_i32_le(self.cts);
        out.put_u32_le(len);
        Ok(())
    }

    fn get(records: &mut Bytes, data: &mut Bytes) -> Result<Self, FragmentError> {
        let track = match records.get_u8() {
            0 => Track::Video,
            1 => Track::Audio,
            _ => return Err(FragmentError::Body("unknown track")),
        };
        let flags = records.get_u8();
        if flags >= 1 << 5 {
            return Err(FragmentError::Body("unknown unit flags"));
        }
        let on = |bit: u8| flags & 1 << bit != 0;
        let msn = Msn(records.get_u64_le());
        let discontinuity_sequence = DiscontinuitySeq(records.get_u64_le());
        let init_version = InitVersion(records.get_u32_le());
        let (time, cts, len) = (records.get_i64_le(), records.get_i32_le(), records.get_u32_le() as usize);
        check_times(time, cts)?;
        let (kind, dts) = if on(0) { (config_of(time)?, 0) } else { (UnitKind::Frame, time) };
        need(data, len)?;
        Ok(Self {
            track,
            kind,
            msn,
            discontinuity_sequence,
            init_version,
            dts,
            cts,
            keyframe: on(1),
            boundary: on(2),
            independent: on(3),
            discontinuity: on(4),
            data: data.split_to(len).into(),
        })
    }
}

fn check_times(time: i64, cts: i32) -> Result<(), FragmentError> {
    let sane = (-MAX_TIME..=MAX_TIME).contains(&time) && (-MAX_CTS..=MAX_CTS).contains(&cts);
    if sane { Ok(()) } else { Err(FragmentError::Body("time out of range")) }
}

fn config_of(bandwidth: i64) -> Result<UnitKind, FragmentError> {
    let bandwidth = u64::try_from(bandwidth).ok().filter(|bits| *bits <= MAX_BANDWIDTH);
    bandwidth
        .map(|bandwidth| UnitKind::Config { bandwidth })
        .ok_or(FragmentError::Body("bandwidth out of range"))
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
        fn unit()(flags: u8, msn: u64, disc: u64, init: u32, dts in -MAX_TIME..=MAX_TIME, cts in -MAX_CTS..=MAX_CTS,
                  bandwidth in 0..=MAX_BANDWIDTH,
                  data in proptest::collection::vec(any::<u8>(), 0..3000)) -> MediaUnit {
            let config = flags & 1 != 0;
            let dts = if config { 0 } else { dts };
            MediaUnit {
                track: if flags & 64 == 0 { Track::Video } else { Track::Audio },
                kind: if config { UnitKind::Config { bandwidth } } else { UnitKind::Frame },
                msn: Msn(msn), discontinuity_sequence: DiscontinuitySeq(disc), init_version: InitVersion(init),
                dts, cts, keyframe: flags & 2 != 0, boundary: flags & 4 != 0, independent: flags & 8 != 0,
                discontinuity: flags & 16 != 0, data: Bytes::from(data).into(),
            }
        }
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
            mut unit in unit(),
        ) {
            let sane = (-MAX_TIME..=MAX_TIME).contains(&dts) && (-MAX_CTS..=MAX_CTS).contains(&cts);
            let at = Position { epoch: Epoch(1), generation: Generation(0), seq: 1 };
            (unit.kind, unit.dts, unit.cts) = (UnitKind::Frame, 0, 0);
            let mut message = MediaMessage { epoch: Epoch(1), seq: MediaSeq(1), end: false, units: vec![unit] };
            // The record as a faulty sender would write it: the times are its bytes 22 to 34.
            let mut body = message.encode(1 << 20, &mut Arena::default()).unwrap()[0].slice(fragment::HEADER..).to_vec();
            body[3 + 22..3 + 30].copy_from_slice(&dts.to_le_bytes());
            body[3 + 30..3 + 34].copy_from_slice(&cts.to_le_bytes());
            (message.units[0].dts, message.units[0].cts) = (dts, cts);
            let read = MediaMessage::decode(at, body.clone().into());
            prop_assert_eq!(read.is_ok(), sane);
            prop_assert_eq!(message.encode(1 << 20, &mut Arena::default()).is_ok(), sane);
            if let Ok(read) = read { prop_assert_eq!(read, message); }
            // As a configuration the same field is a bit rate.
            body[3 + 1] |= 1;
            body[3 + 30..3 + 34].fill(0);
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
        fn garbage_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let at = Position { epoch: Epoch(1), generation: Generation(0), seq: 1 };
            let _ = MediaMessage::decode(at, bytes.clone().into());
            let _ = MediaReader::default().push(bytes.into());
        }
    }
}
