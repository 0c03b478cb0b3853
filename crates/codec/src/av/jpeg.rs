//! Pictures as JPEG.

use bytes::Bytes;
use ffmpeg_next::{Packet, codec, encoder, ffi, format::Pixel, frame};

use super::frame::share;
use crate::CodecError;

/// The quantiser of a JPEG, from 1 (best) to 31: about 40 kB for 640 × 360.
const QUANTISER: i32 = 5;

/// Encodes a picture of 8-bit 4:2:0 and full range as JPEG.
pub(crate) fn jpeg(picture: &frame::Video) -> Result<Bytes, CodecError> {
    crate::init();
    let codec = encoder::find_by_name("mjpeg").ok_or(CodecError::Missing { codec: "mjpeg" })?;
    let context = codec::context::Context::new_with_codec(codec).encoder();
    let mut video = context.video().map_err(CodecError::libav("preparing the encoder of JPEG"))?;
    video.set_width(picture.width());
    video.set_height(picture.height());
    video.set_format(Pixel::YUVJ420P);
    video.set_time_base((1, 1));
    // SAFETY: the context is valid and not open yet.
    unsafe {
        let context = video.as_mut_ptr();
        (*context).flags |= ffi::AV_CODEC_FLAG_QSCALE as i32;
        (*context).global_quality = QUANTISER * ffi::FF_QP2LAMBDA;
        (*context).color_range = ffi::AVColorRange::AVCOL_RANGE_JPEG;
        (*context).thread_count = 1;
    }
    let mut encoder = video.open().map_err(CodecError::libav("opening the encoder of JPEG"))?;
    let mut frame = share(picture)?;
    frame.set_format(Pixel::YUVJ420P);
    frame.set_pts(Some(0));
    // SAFETY: the frame is valid and its own.
    unsafe { (*frame.as_mut_ptr()).quality = QUANTISER * ffi::FF_QP2LAMBDA };
    encoder.send_frame(&frame).map_err(CodecError::libav("encoding a JPEG"))?;
    encoder.send_eof().map_err(CodecError::libav("encoding a JPEG"))?;
    let mut packet = Packet::empty();
    encoder.receive_packet(&mut packet).map_err(CodecError::libav("encoding a JPEG"))?;
    Ok(Bytes::copy_from_slice(packet.data().unwrap_or_default()))
}

/// Returns a black picture of 8-bit 4:2:0 and full range.
pub(crate) fn black(width: u32, height: u32) -> frame::Video {
    let mut picture = frame::Video::new(Pixel::YUV420P, width, height);
    for plane in 0..picture.planes() {
        picture.data_mut(plane).fill(if plane == 0 { 0 } else { 128 });
    }
    picture
}

/// Copies a picture of 8-bit 4:2:0 into a larger one, at an even position.
pub(crate) fn paste(into: &mut frame::Video, picture: &frame::Video, x: u32, y: u32) {
    for plane in 0..picture.planes().min(into.planes()) {
        let shift = u32::from(plane > 0);
        let (width, height) = (picture.plane_width(plane) as usize, picture.plane_height(plane) as usize);
        let (from, to) = (picture.stride(plane), into.stride(plane));
        let start = (y >> shift) as usize * to + (x >> shift) as usize;
        for line in 0..height {
            let source = picture.data(plane).get(line * from..line * from + width);
            let target = into.data_mut(plane).get_mut(start + line * to..start + line * to + width);
            if let (Some(source), Some(target)) = (source, target) {
                target.copy_from_slice(source);
            }
        }
    }
}
