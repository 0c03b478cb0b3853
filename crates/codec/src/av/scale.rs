//! Scaling to 8-bit 4:2:0.

use ffmpeg_next::{ffi, format::Pixel, frame};

use super::frame::{Picture, Pool, is_full_range};
use crate::CodecError;

/// The filter: measured beside the others in docs/PERFORMANCE.md.
const FILTER: i32 = ffi::SWS_BICUBIC;

/// The properties of a picture that its scaler depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    format: Pixel,
    width: u32,
    height: u32,
    full_range: bool,
    matrix: ffi::AVColorSpace,
}

impl Shape {
    fn of(picture: &frame::Video) -> Self {
        // SAFETY: the frame is valid for the borrow.
        let matrix = unsafe { (*picture.as_ptr()).colorspace };
        let full_range = is_full_range(picture);
        Self {
            format: plain(picture.format()),
            width: picture.width(),
            height: picture.height(),
            full_range,
            matrix,
        }
    }
}

/// Returns the format without the old marking of its range, which [`Shape::full_range`] has.
fn plain(format: Pixel) -> Pixel {
    match format {
        Pixel::YUVJ420P => Pixel::YUV420P,
        Pixel::YUVJ422P => Pixel::YUV422P,
        Pixel::YUVJ444P => Pixel::YUV444P,
        Pixel::YUVJ440P => Pixel::YUV440P,
        Pixel::YUVJ411P => Pixel::YUV411P,
        other => other,
    }
}

/// Scales pictures to one size. It stays in the thread that made it.
pub(crate) struct Scaler {
    width: u32,
    height: u32,
    /// True for the full range and the matrix of JPEG (BT.601), false for limited range and the source's matrix.
    for_jpeg: bool,
    pool: Pool,
    context: Option<(Shape, Context)>,
}

impl Scaler {
    /// A scaler to limited range and the source's matrix, for encoders.
    pub(crate) const fn new(width: u32, height: u32) -> Self {
        Self { width, height, for_jpeg: false, pool: Pool::new(width, height), context: None }
    }

    /// A scaler to full range and the matrix of BT.601.
    pub(crate) const fn for_jpeg(width: u32, height: u32) -> Self {
        Self { width, height, for_jpeg: true, pool: Pool::new(width, height), context: None }
    }

    /// Returns the picture in the scaler's size and range, 8-bit 4:2:0: shared if it is so already.
    pub(crate) fn scale(&mut self, picture: &Picture) -> Result<Picture, CodecError> {
        let shape = Shape::of(picture);
        let same_size = (shape.width, shape.height) == (self.width, self.height);
        if same_size && shape.format == Pixel::YUV420P && shape.full_range == self.for_jpeg {
            return Ok(picture.clone());
        }
        if self.context.as_ref().is_none_or(|(known, _)| *known != shape) {
            self.context = Some((shape, Context::new(shape, self.width, self.height, self.for_jpeg)?));
        }
        let Some((_, context)) = &mut self.context else {
            return Err(CodecError::Malformed { what: "scaler" });
        };
        self.pool.picture(|target| context.run(picture, target))
    }
}

struct Context {
    raw: *mut ffi::SwsContext,
    for_jpeg: bool,
}

impl Context {
    fn new(from: Shape, width: u32, height: u32, for_jpeg: bool) -> Result<Self, CodecError> {
        const FAILED: CodecError =
            CodecError::Malformed { what: "picture format: there is no conversion from it" };
        let options = [
            (c"srcw", i64::from(from.width)),
            (c"srch", i64::from(from.height)),
            (c"src_format", i64::from(ffi::AVPixelFormat::from(from.format) as i32)),
            (c"src_range", i64::from(from.full_range)),
            (c"dstw", i64::from(width)),
            (c"dsth", i64::from(height)),
            (c"dst_format", i64::from(ffi::AVPixelFormat::AV_PIX_FMT_YUV420P as i32)),
            (c"dst_range", i64::from(for_jpeg)),
            (c"sws_flags", i64::from(FILTER)),
        ];
        // SAFETY: the context is allocated here and freed by `Drop`; the options and tables outlive the calls.
        unsafe {
            let context = Self { raw: ffi::sws_alloc_context(), for_jpeg };
            if context.raw.is_null() {
                return Err(FAILED);
            }
            for (name, value) in options {
                ffi::av_opt_set_int(context.raw.cast(), name.as_ptr(), value, 0);
            }
            if ffi::sws_init_context(context.raw, std::ptr::null_mut(), std::ptr::null_mut()) < 0 {
                return Err(FAILED);
            }
            // The matrix stays the source's; only samples of red, green and blue are converted, by that of BT.709.
            let matrix = match from.matrix {
                ffi::AVColorSpace::AVCOL_SPC_RGB => ffi::SWS_CS_ITU709,
                matrix => matrix as i32,
            };
            let source = ffi::sws_getCoefficients(matrix);
            let target = if for_jpeg { ffi::sws_getCoefficients(ffi::SWS_CS_ITU601) } else { source };
            let unit = 1 << 16;
            let (full, jpeg) = (i32::from(from.full_range), i32::from(for_jpeg));
            ffi::sws_setColorspaceDetails(context.raw, source, full, target, jpeg, 0, unit, unit);
            Ok(context)
        }
    }

    fn run(&mut self, from: &frame::Video, to: &mut frame::Video) -> Result<(), CodecError> {
        // SAFETY: the context was made for the shape of `from` and for the size and format of `to`, which the pool allocates.
        let lines = unsafe {
            let (source, target) = (from.as_ptr(), to.as_mut_ptr());
            (*target).color_range = if self.for_jpeg {
                ffi::AVColorRange::AVCOL_RANGE_JPEG
            } else {
                ffi::AVColorRange::AVCOL_RANGE_MPEG
            };
            (*target).colorspace =
                if self.for_jpeg { ffi::AVColorSpace::AVCOL_SPC_SMPTE170M } else { (*source).colorspace };
            ffi::sws_scale(
                self.raw,
                (*source).data.as_ptr().cast(),
                (*source).linesize.as_ptr(),
                0,
                (*source).height,
                (*target).data.as_ptr(),
                (*target).linesize.as_ptr(),
            )
        };
        if lines <= 0 {
            return Err(CodecError::Malformed { what: "picture: scaling it failed" });
        }
        Ok(())
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the context is owned and freed once; null is allowed.
        unsafe { ffi::sws_freeContext(self.raw) }
    }
}
