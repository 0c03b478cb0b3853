//! H.264 access units to luma planes.

use ffmpeg_next::{Packet, codec, decoder, frame};

use crate::CodecError;

/// The largest side a decoded picture may have: H.264 level 6.2 tops out below it.
const MAX_SIDE: u32 = 16_384;

/// One decoded picture's luma plane, rows packed without padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LumaFrame {
    /// Presentation time as given with the access unit.
    pub pts: i64,
    /// The width of the picture in pixels.
    pub width: u32,
    /// The height of the picture in pixels.
    pub height: u32,
    /// `width * height` samples, row by row.
    pub luma: Vec<u8>,
}

/// Decodes access units in AVCC form (ISO/IEC 14496-15 §5.3.3), in decoding order.
pub struct H264Decoder {
    decoder: decoder::Video,
    parameter_sets: Vec<u8>,
    length_size: usize,
    started: bool,
}

impl H264Decoder {
    /// A decoder for the stream that `avcc` (AVCDecoderConfigurationRecord, ISO/IEC 14496-15 §5.3.3.1) describes.
    ///
    /// # Errors
    /// When the record is malformed or libav has no H.264 decoder.
    pub fn new(avcc: &[u8]) -> Result<Self, CodecError> {
        crate::init();
        let (parameter_sets, length_size) = annex_b_parameter_sets(avcc)?;
        let codec = decoder::find(codec::Id::H264).ok_or(CodecError::Missing { codec: "h264" })?;
        let decoder = codec::context::Context::new_with_codec(codec)
            .decoder()
            .open_as(codec)
            .and_then(decoder::Opened::video)
            .map_err(CodecError::libav("opening the H.264 decoder"))?;
        Ok(Self { decoder, parameter_sets, length_size, started: false })
    }

    /// Feeds one access unit and returns the pictures that are ready, in presentation order.
    ///
    /// # Errors
    /// When the unit is not AVCC or libav finds it undecodable.
    pub fn decode(&mut self, access_unit: &[u8], pts: i64) -> Result<Vec<LumaFrame>, CodecError> {
        let mut data = if self.started { Vec::new() } else { self.parameter_sets.clone() };
        append_annex_b(&mut data, access_unit, self.length_size)?;
        self.started = true;
        let mut packet = Packet::copy(&data);
        packet.set_pts(Some(pts));
        self.decoder.send_packet(&packet).map_err(CodecError::libav("decoding an access unit"))?;
        self.ready()
    }

    /// Returns the pictures still held for reordering.
    ///
    /// # Errors
    /// When libav fails to flush.
    pub fn finish(mut self) -> Result<Vec<LumaFrame>, CodecError> {
        self.decoder.send_eof().map_err(CodecError::libav("flushing the decoder"))?;
        self.ready()
    }

    fn ready(&mut self) -> Result<Vec<LumaFrame>, CodecError> {
        let mut pictures = Vec::new();
        let mut picture = frame::Video::empty();
        while self.decoder.receive_frame(&mut picture).is_ok() {
            pictures.push(luma(&picture)?);
        }
        Ok(pictures)
    }
}

fn luma(picture: &frame::Video) -> Result<LumaFrame, CodecError> {
    let (width, height) = (picture.width(), picture.height());
    if width == 0 || height == 0 || width > MAX_SIDE || height > MAX_SIDE {
        return Err(CodecError::Malformed { what: "picture size" });
    }
    let stride = picture.stride(0);
    let rows = picture.data(0).chunks(stride).take(height as usize);
    let luma = rows.flat_map(|row| &row[..width as usize]).copied().collect();
    Ok(LumaFrame { pts: picture.pts().unwrap_or_default(), width, height, luma })
}

const START_CODE: [u8; 4] = [0, 0, 0, 1];

/// The SPS and PPS of an `avcC` record in Annex B form, and the size of its NAL length fields.
fn annex_b_parameter_sets(avcc: &[u8]) -> Result<(Vec<u8>, usize), CodecError> {
    const MALFORMED: CodecError = CodecError::Malformed { what: "avcC record" };
    let mut rest = avcc.get(5..).ok_or(MALFORMED)?;
    let length_size = usize::from(avcc[4] & 3) + 1;
    let mut sets = Vec::new();
    for mask in [0x1F, 0xFF] {
        let (&count, tail) = rest.split_first().ok_or(MALFORMED)?;
        rest = tail;
        for _ in 0..count & mask {
            let (length, tail) = rest.split_first_chunk::<2>().ok_or(MALFORMED)?;
            let (set, tail) =
                tail.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or(MALFORMED)?;
            sets.extend_from_slice(&START_CODE);
            sets.extend_from_slice(set);
            rest = tail;
        }
    }
    Ok((sets, length_size))
}

fn append_annex_b(out: &mut Vec<u8>, mut avcc: &[u8], length_size: usize) -> Result<(), CodecError> {
    const MALFORMED: CodecError = CodecError::Malformed { what: "access unit" };
    while !avcc.is_empty() {
        let (length, tail) = avcc.split_at_checked(length_size).ok_or(MALFORMED)?;
        let length = length.iter().fold(0, |sum, &byte| (sum << 8) | usize::from(byte));
        let (unit, tail) = tail.split_at_checked(length).ok_or(MALFORMED)?;
        out.extend_from_slice(&START_CODE);
        out.extend_from_slice(unit);
        avcc = tail;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_malformed_records_and_units() {
        for bad in [&[][..], &[1, 66, 0, 30, 0xFF], &[1, 66, 0, 30, 0xFF, 0xE1, 0, 9, 1]] {
            assert!(H264Decoder::new(bad).is_err(), "{bad:?}");
        }
        assert!(append_annex_b(&mut Vec::new(), &[0, 0, 0, 9, 1], 4).is_err());
    }

    #[test]
    fn parameter_sets_become_annex_b() {
        let record = [1, 66, 0, 30, 0xFF, 0xE1, 0, 2, 0x67, 1, 1, 0, 1, 0x68];
        let (sets, length_size) = annex_b_parameter_sets(&record).unwrap();
        assert_eq!(length_size, 4);
        assert_eq!(sets, [0, 0, 0, 1, 0x67, 1, 0, 0, 0, 1, 0x68]);
    }
}
