//! Pictures on their way to a graphics card.

use std::ptr;

use ffmpeg_next::{ffi, format::Pixel, frame};

use crate::CodecError;

/// Pictures of the pool in a card's memory: those that an encoder without look-ahead and B pictures holds, and some more.
const POOL: i32 = 8;

/// Memory of a card that VA-API reaches.
pub(super) struct Upload(*mut ffi::AVBufferRef);

// SAFETY: libav counts the references to its buffers atomically; this one is used by one thread at a time.
unsafe impl Send for Upload {}

impl Upload {
    /// Opens the first card of the machine.
    pub(super) fn open(width: u32, height: u32) -> Result<Self, CodecError> {
        let error = |code: i32, step| CodecError::libav(step)(ffmpeg_next::Error::from(code));
        let mut device = ptr::null_mut();
        let kind = ffi::AVHWDeviceType::AV_HWDEVICE_TYPE_VAAPI;
        // SAFETY: the references are owned here; the pool keeps its own to the device.
        unsafe {
            let code = ffi::av_hwdevice_ctx_create(&raw mut device, kind, ptr::null(), ptr::null_mut(), 0);
            if code < 0 {
                return Err(error(code, "opening a VA-API device"));
            }
            let pool = Self(ffi::av_hwframe_ctx_alloc(device));
            ffi::av_buffer_unref(&raw mut device);
            if pool.0.is_null() {
                return Err(CodecError::Malformed { what: "memory for the pictures of a card" });
            }
            #[allow(
                clippy::cast_ptr_alignment,
                reason = "libav allocates the structure that it hides behind bytes"
            )]
            let context = (*pool.0).data.cast::<ffi::AVHWFramesContext>();
            (*context).format = ffi::AVPixelFormat::AV_PIX_FMT_VAAPI;
            (*context).sw_format = ffi::AVPixelFormat::AV_PIX_FMT_NV12;
            (*context).width = width as i32;
            (*context).height = height as i32;
            (*context).initial_pool_size = POOL;
            let code = ffi::av_hwframe_ctx_init(pool.0);
            if code < 0 {
                return Err(error(code, "allocating pictures on a card"));
            }
            Ok(pool)
        }
    }

    /// Gives an encoder's context the pool. The encoder takes pictures on the card alone.
    pub(super) fn attach(&self, context: &mut ffi::AVCodecContext) {
        context.pix_fmt = ffi::AVPixelFormat::AV_PIX_FMT_VAAPI;
        // SAFETY: the context frees its reference.
        context.hw_frames_ctx = unsafe { ffi::av_buffer_ref(self.0) };
    }

    /// Copies a picture onto the card.
    pub(super) fn upload(&self, picture: &frame::Video) -> Result<frame::Video, CodecError> {
        let mut on_card = frame::Video::empty();
        // SAFETY: the frames are valid, and the pool outlives the call.
        unsafe {
            let code = ffi::av_hwframe_get_buffer(self.0, on_card.as_mut_ptr(), 0);
            let code = if code < 0 {
                code
            } else {
                ffi::av_hwframe_transfer_data(on_card.as_mut_ptr(), picture.as_ptr(), 0)
            };
            if code < 0 {
                return Err(CodecError::libav("copying a picture onto a card")(ffmpeg_next::Error::from(
                    code,
                )));
            }
        }
        Ok(on_card)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // SAFETY: the reference is owned and dropped once; null is allowed.
        unsafe { ffi::av_buffer_unref(&raw mut self.0) }
    }
}

/// Returns the picture with both colour differences in one plane, as graphics cards take it.
pub(super) fn nv12(picture: &frame::Video) -> frame::Video {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let mut out = frame::Video::new(Pixel::NV12, picture.width(), picture.height());
    let strides: [usize; 2] = [out.stride(0), out.stride(1)];
    for line in 0..height {
        let from = line * picture.stride(0);
        out.data_mut(0)[line * strides[0]..][..width].copy_from_slice(&picture.data(0)[from..from + width]);
    }
    for line in 0..height / 2 {
        let blue = &picture.data(1)[line * picture.stride(1)..][..width / 2];
        let red = &picture.data(2)[line * picture.stride(2)..][..width / 2];
        let pairs = out.data_mut(1)[line * strides[1]..][..width].chunks_exact_mut(2);
        for (pair, (blue, red)) in pairs.zip(blue.iter().zip(red)) {
            pair.copy_from_slice(&[*blue, *red]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_differences_are_interleaved() {
        let mut picture = frame::Video::new(Pixel::YUV420P, 16, 4);
        for (plane, value) in [(0, 7), (1, 50), (2, 200)] {
            picture.data_mut(plane).fill(value);
        }
        let out = nv12(&picture);
        assert!(out.data(0)[..16].iter().all(|sample| *sample == 7));
        assert_eq!(out.data(1)[..4], [50, 200, 50, 200]);
    }
}
