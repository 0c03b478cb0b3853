//! Decoded pictures, which several encoders read at once, and the memory they lie in.

use std::sync::Arc;

use ffmpeg_next::{ffi, format::Pixel, frame};

use crate::CodecError;
use crate::error::end_without_memory;

/// A decoded or scaled picture. Cloning shares the samples.
pub(crate) type Picture = Arc<frame::Video>;

/// The lines from which on players take unsignalled colours for those of BT.709; below it, for those of BT.601.
const HD_LINES: u32 = 720;

/// The meaning of a picture's sample values (ISO/IEC 23091-2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Colour {
    pub(crate) primaries: ffi::AVColorPrimaries,
    pub(crate) transfer: ffi::AVColorTransferCharacteristic,
    pub(crate) matrix: ffi::AVColorSpace,
}

impl Colour {
    /// Returns the colours of a source picture. Those that the source does not signal are the ones that players assume
    /// for its size, because they would assume others for a smaller rung.
    pub(crate) fn of(picture: &frame::Video) -> Self {
        use ffi::{AVColorPrimaries as P, AVColorSpace as M, AVColorTransferCharacteristic as T};
        // SAFETY: the frame is valid for the borrow.
        let (primaries, transfer, matrix) = unsafe {
            let frame = picture.as_ptr();
            ((*frame).color_primaries, (*frame).color_trc, (*frame).colorspace)
        };
        if is_hdr(transfer) {
            // Rungs of such a source are converted for standard displays.
            return Self {
                primaries: P::AVCOL_PRI_BT709,
                transfer: T::AVCOL_TRC_BT709,
                matrix: M::AVCOL_SPC_BT709,
            };
        }
        let high = picture.height() >= HD_LINES;
        let matrix = match matrix {
            M::AVCOL_SPC_UNSPECIFIED if high => M::AVCOL_SPC_BT709,
            M::AVCOL_SPC_UNSPECIFIED => M::AVCOL_SPC_SMPTE170M,
            // Samples of red, green and blue are converted by the matrix of BT.709.
            M::AVCOL_SPC_RGB => M::AVCOL_SPC_BT709,
            known => known,
        };
        let primaries = match primaries {
            P::AVCOL_PRI_UNSPECIFIED if high => P::AVCOL_PRI_BT709,
            P::AVCOL_PRI_UNSPECIFIED => P::AVCOL_PRI_SMPTE170M,
            known => known,
        };
        let transfer = match transfer {
            T::AVCOL_TRC_UNSPECIFIED if high => T::AVCOL_TRC_BT709,
            T::AVCOL_TRC_UNSPECIFIED => T::AVCOL_TRC_SMPTE170M,
            known => known,
        };
        Self { primaries, transfer, matrix }
    }
}

/// True for the curves of high dynamic range (BT.2100).
fn is_hdr(transfer: ffi::AVColorTransferCharacteristic) -> bool {
    use ffi::AVColorTransferCharacteristic as T;
    matches!(transfer, T::AVCOL_TRC_SMPTE2084 | T::AVCOL_TRC_ARIB_STD_B67)
}

/// True if the samples use the values from 0 to 255, not from 16 to 235.
pub(crate) fn is_full_range(picture: &frame::Video) -> bool {
    use Pixel::{YUVJ411P, YUVJ420P, YUVJ422P, YUVJ440P, YUVJ444P};
    let range = picture.color_range() == ffmpeg_next::color::Range::JPEG;
    range || matches!(picture.format(), YUVJ411P | YUVJ420P | YUVJ422P | YUVJ440P | YUVJ444P)
}

/// Returns a frame of its own with the same samples, shared. An encoder's marks (time, type of picture) go on it.
pub(crate) fn share(picture: &frame::Video) -> Result<frame::Video, CodecError> {
    let mut own = frame::Video::empty();
    // SAFETY: both frames are valid; libav counts the references to the samples.
    let code = unsafe { ffi::av_frame_ref(own.as_mut_ptr(), picture.as_ptr()) };
    if code < 0 {
        return Err(CodecError::libav("sharing a picture")(ffmpeg_next::Error::from(code)));
    }
    Ok(own)
}

/// Pictures of one size in 8-bit 4:2:0, used again once every reader has dropped them.
pub(crate) struct Pool {
    width: u32,
    height: u32,
    pictures: Vec<Picture>,
}

impl Pool {
    /// Most pictures kept for later use: what the queues to the encoders hold, and some in work.
    const KEPT: usize = 12;

    pub(crate) const fn new(width: u32, height: u32) -> Self {
        Self { width, height, pictures: Vec::new() }
    }

    /// Returns a picture that `write` has filled.
    pub(crate) fn picture(
        &mut self,
        write: impl FnOnce(&mut frame::Video) -> Result<(), CodecError>,
    ) -> Result<Picture, CodecError> {
        let free = self.pictures.iter_mut().position(|picture| {
            // SAFETY: the frame is valid and this is its only owner; a reader inside libav holds a reference of its own.
            Arc::get_mut(picture)
                .is_some_and(|frame| unsafe { ffi::av_frame_is_writable(frame.as_mut_ptr()) } > 0)
        });
        let mut picture = match free {
            Some(free) => self.pictures.swap_remove(free),
            None => Arc::new(frame::Video::new(Pixel::YUV420P, self.width, self.height)),
        };
        let frame = Arc::get_mut(&mut picture).ok_or(CodecError::Malformed { what: "pool of pictures" })?;
        if frame.planes() == 0 {
            end_without_memory("scaling a picture");
            return Err(CodecError::Malformed { what: "memory for a picture" });
        }
        write(frame)?;
        if self.pictures.len() < Self::KEPT {
            self.pictures.push(picture.clone());
        }
        Ok(picture)
    }
}
