//! Habits of encoders' bytes: parameter sets in pictures, start codes, stray bytes, other headers.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::{AVC_HEADER_BYTES, Tag, TagKind, Tape};

/// NAL unit types of ISO/IEC 14496-10, table 7-1.
const SPS: u8 = 7;
const PPS: u8 = 8;

/// Splits NAL units with lengths of four bytes; what does not parse is left out.
pub fn nal_units(mut data: &[u8]) -> Vec<Bytes> {
    let mut units = Vec::new();
    while let Some((length, rest)) = data.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let Some((unit, rest)) = rest.split_at_checked(length) else { break };
        units.push(Bytes::copy_from_slice(unit));
        data = rest;
    }
    units
}

/// Splits NAL units behind start codes (ISO/IEC 14496-10, annex B).
pub fn annex_b_units(data: &[u8]) -> Vec<Bytes> {
    let mut starts: Vec<usize> = Vec::new();
    let mut at = 0;
    while at + 3 <= data.len() {
        if data[at..at + 3] == [0, 0, 1] {
            starts.push(at + 3);
            at += 3;
        } else {
            at += 1;
        }
    }
    let ends = starts.iter().skip(1).map(|start| start - 3).chain([data.len()]);
    let unit = |(start, end): (&usize, usize)| trimmed(&data[*start..end]);
    starts.iter().zip(ends).map(unit).filter(|unit| !unit.is_empty()).collect()
}

/// A NAL unit without the zero bytes behind it (ISO/IEC 14496-10, B.1).
pub fn trimmed(unit: &[u8]) -> Bytes {
    let end = unit.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    Bytes::copy_from_slice(&unit[..end])
}

/// True if lengths cover all bytes but a few zeros at the end.
fn has_lengths(mut data: &[u8]) -> bool {
    while let Some((length, rest)) = data.split_first_chunk::<4>() {
        match rest.split_at_checked(u32::from_be_bytes(*length) as usize) {
            Some((_, rest)) => data = rest,
            None => return false,
        }
    }
    data.iter().all(|byte| *byte == 0)
}

/// The coded slices of a picture, whatever stands around them: two pictures with the same slices are the same.
pub fn slices(data: &[u8]) -> Vec<Bytes> {
    // A length of 256 to 511 bytes reads like a start code: only bytes that are no lengths are start codes.
    let units = if has_lengths(data) { nal_units(data) } else { annex_b_units(data) };
    let is_slice = |unit: &Bytes| unit.first().is_some_and(|first| matches!(first & 0x1f, 1..=5));
    units.iter().filter(|unit| is_slice(unit)).map(|unit| trimmed(unit)).collect()
}

/// Joins NAL units with lengths of four bytes.
pub fn with_lengths(units: &[Bytes]) -> Bytes {
    let mut out = BytesMut::new();
    for unit in units {
        out.put_u32(unit.len() as u32);
        out.put_slice(unit);
    }
    out.freeze()
}

/// Joins NAL units with start codes of four bytes.
pub fn with_start_codes(units: &[Bytes]) -> Bytes {
    let mut out = BytesMut::new();
    for unit in units {
        out.put_u32(1);
        out.put_slice(unit);
    }
    out.freeze()
}

/// The parameter sets in an AVCDecoderConfigurationRecord (ISO/IEC 14496-15, 5.3.3.1).
pub fn parameter_sets(record: &[u8]) -> Vec<Bytes> {
    let mut units = Vec::new();
    let mut rest = &record[5..];
    for mask in [0x1f, 0xff] {
        let Some((count, after)) = rest.split_first() else { break };
        rest = after;
        for _ in 0..count & mask {
            let length = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
            units.push(Bytes::copy_from_slice(&rest[2..2 + length]));
            rest = &rest[2 + length..];
        }
    }
    units
}

impl Tag {
    /// Replaces the payload behind the FLV header.
    pub fn set_media(&mut self, media: &[u8]) {
        let header = if self.kind == TagKind::Video { AVC_HEADER_BYTES } else { 2 };
        self.body = [&self.body[..header], media].concat().into();
    }
}

impl Tape {
    /// The parameter sets of the first video sequence header.
    pub fn sets(&self) -> Vec<Bytes> {
        let header = self.tags.iter().find(|tag| tag.kind == TagKind::Video && tag.is_header());
        header.map(|tag| parameter_sets(&tag.media())).unwrap_or_default()
    }

    /// Changes the AudioSpecificConfig of each audio sequence header.
    #[must_use]
    pub fn map_audio_config(self, change: impl Fn(&mut Vec<u8>)) -> Self {
        self.map(|tag| {
            if tag.kind == TagKind::Audio && tag.is_header() {
                let mut config = tag.media().to_vec();
                change(&mut config);
                tag.set_media(&config);
            }
        })
    }

    /// Drops the sequence headers of one kind.
    #[must_use]
    pub fn without_headers(self, kind: TagKind) -> Self {
        self.keep(|tag| tag.kind != kind || !tag.is_header())
    }

    /// Puts the parameter sets into each keyframe, in front of its slices.
    #[must_use]
    pub fn sets_in_keyframes(self) -> Self {
        let sets = self.sets();
        self.map_pictures(|_, tag| {
            if tag.is_keyframe() {
                let mut units = sets.clone();
                let is_set = |unit: &Bytes| matches!(unit[0] & 0x1f, SPS | PPS);
                units.extend(nal_units(&tag.media()).into_iter().filter(|unit| !is_set(unit)));
                tag.set_media(&with_lengths(&units));
            }
        })
    }

    /// Rewrites each picture's NAL units.
    #[must_use]
    pub fn map_units(self, join: impl Fn(&[Bytes]) -> Bytes) -> Self {
        self.map_pictures(|_, tag| {
            let media = join(&nal_units(&tag.media()));
            tag.set_media(&media);
        })
    }

    /// Appends `count` zero bytes to each NAL unit, counted in its length.
    #[must_use]
    pub fn zeros_behind_units(self, count: usize) -> Self {
        self.map_units(|units| {
            let padded = |unit: &Bytes| Bytes::from([&unit[..], &vec![0; count]].concat());
            with_lengths(&units.iter().map(padded).collect::<Vec<_>>())
        })
    }

    /// Appends bytes behind the last NAL unit of each picture, which no length counts.
    #[must_use]
    pub fn bytes_behind_pictures(self, stray: &[u8]) -> Self {
        self.map_units(|units| Bytes::from([&with_lengths(units)[..], stray].concat()))
    }

    /// Sends the pictures with start codes in place of lengths.
    #[must_use]
    pub fn annex_b(self) -> Self {
        self.map_units(with_start_codes)
    }

    /// Sends video as Enhanced RTMP with this four-character code: sequence start and coded frames.
    #[must_use]
    pub fn enhanced_video(self, four_cc: &[u8; 4]) -> Self {
        const SEQUENCE_START: u8 = 0;
        const CODED_FRAMES: u8 = 1;
        self.map(|tag| {
            if tag.kind == TagKind::Video && tag.body.len() > AVC_HEADER_BYTES {
                let frame_type = tag.body[0] & 0xf0;
                let (packet, from) = match tag.body[1] {
                    0 => (SEQUENCE_START, AVC_HEADER_BYTES),
                    _ => (CODED_FRAMES, 2),
                };
                let first = 0x80 | frame_type | packet;
                tag.body = [&[first], &four_cc[..], &tag.body[from..]].concat().into();
            }
        })
    }

    /// Sends audio as Enhanced RTMP with this four-character code: sequence start and coded frames.
    #[must_use]
    pub fn enhanced_audio(self, four_cc: &[u8; 4]) -> Self {
        self.map(|tag| {
            if tag.kind == TagKind::Audio && tag.body.len() > 2 {
                let first = 0x90 | u8::from(tag.body[1] != 0);
                tag.body = [&[first], &four_cc[..], &tag.body[2..]].concat().into();
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_the_same_in_every_framing() {
        let units = [Bytes::from_static(&[0x67, 1]), Bytes::from_static(&[0x65, 9, 8, 7])];
        let expected = vec![units[1].clone()];
        assert_eq!(slices(&with_lengths(&units)), expected);
        assert_eq!(slices(&with_start_codes(&units)), expected);
        let padded = [Bytes::from_static(&[0x65, 9, 8, 7, 0, 0])];
        assert_eq!(slices(&with_lengths(&padded)), expected);
        assert_eq!(annex_b_units(&[0, 0, 0, 1, 0x67, 1, 0, 0, 1, 0x65, 9, 8, 7, 0]), units.to_vec());
    }

    #[test]
    fn parameter_sets_are_read_from_a_record() {
        let record = [1, 66, 0, 30, 0xff, 0xe1, 0, 2, 0x67, 5, 1, 0, 1, 0x68];
        assert_eq!(parameter_sets(&record), [Bytes::from_static(&[0x67, 5]), Bytes::from_static(&[0x68])]);
    }
}
