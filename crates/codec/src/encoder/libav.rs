//! The encoders that libav wraps: libx264 and those of graphics cards.

use bytes::Bytes;
use ffmpeg_next::{Dictionary, Packet, codec, encoder, ffi, picture};

use super::annex_b;
use super::interface::{Coded, Encoder, Settings, VBV_MILLIS};
use super::upload::{Upload, nv12};
use crate::CodecError;
use crate::av::{Picture, share};

/// An encoder of libav and the options that make it keep the places' rules.
pub(super) struct Description {
    name: &'static str,
    input: Input,
    preset: &'static str,
    /// Options that go with the default preset.
    tuning: &'static [(&'static str, &'static str)],
    options: &'static [(&'static str, &'static str)],
}

/// The form in which an encoder takes pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    /// In planes.
    Planar,
    /// With both colour differences in one plane.
    Nv12,
    /// On a card that VA-API reaches.
    Vaapi,
}

/// Pictures that x264 looks ahead, which is the encoder's whole delay: 167 ms at 30 pictures a second. Ten pictures look
/// no better, three and none look worse (docs/PERFORMANCE.md).
const LOOK_AHEAD: u32 = 5;

/// libx264. Keyframes stand where they are forced and nowhere else; one thread a rung, because the rungs already run side by
/// side, and threads within a picture (slices) cost bits.
pub(super) const X264: Description = Description {
    name: "libx264",
    input: Input::Planar,
    preset: "veryfast",
    // A fifth of the CPU time for a loss that the look-ahead more than makes up for (docs/PERFORMANCE.md).
    tuning: &[("subq", "1")],
    options: &[
        ("forced-idr", "1"),
        ("x264-params", "scenecut=0:open-gop=0:sliced-threads=0:sync-lookahead=0:nal-hrd=none:annexb=1"),
    ],
};

/// NVIDIA's encoder.
pub(super) const NVENC: Description = Description {
    name: "h264_nvenc",
    input: Input::Planar,
    preset: "p4",
    tuning: &[],
    options: &[
        ("forced-idr", "1"),
        ("no-scenecut", "1"),
        ("rc", "cbr"),
        ("zerolatency", "1"),
        ("delay", "0"),
    ],
};

/// Intel's Quick Sync Video.
pub(super) const QSV: Description = Description {
    name: "h264_qsv",
    input: Input::Nv12,
    preset: "veryfast",
    tuning: &[],
    options: &[("forced_idr", "1"), ("look_ahead", "0"), ("async_depth", "1")],
};

/// The encoder behind VA-API, on the machine's first card.
pub(super) const VAAPI: Description = Description {
    name: "h264_vaapi",
    input: Input::Vaapi,
    preset: "",
    tuning: &[],
    options: &[("async_depth", "1"), ("idr_interval", "0")],
};

/// An open encoder of libav.
pub(super) struct LibavEncoder {
    encoder: encoder::video::Encoder,
    record: Bytes,
    input: Input,
    upload: Option<Upload>,
}

impl LibavEncoder {
    pub(super) fn open(description: &Description, settings: &Settings) -> Result<Self, CodecError> {
        let codec = encoder::find_by_name(description.name);
        let codec = codec.ok_or(CodecError::Missing { codec: description.name })?;
        let context = codec::context::Context::new_with_codec(codec).encoder();
        let mut video = context.video().map_err(CodecError::libav("preparing an encoder"))?;
        // SAFETY: the context is valid and not open yet.
        let context = unsafe { &mut *video.as_mut_ptr() };
        prepare(context, settings);
        let mut upload = None;
        match description.input {
            Input::Planar => {}
            Input::Nv12 => context.pix_fmt = ffi::AVPixelFormat::AV_PIX_FMT_NV12,
            Input::Vaapi => {
                let card = Upload::open(settings.width, settings.height)?;
                card.attach(context);
                upload = Some(card);
            }
        }
        let mut options = Dictionary::new();
        options.set("preset", settings.preset.as_deref().unwrap_or(description.preset));
        if settings.preset.is_none() {
            for (name, value) in description.tuning {
                options.set(name, value);
            }
        }
        options.set("rc-lookahead", &LOOK_AHEAD.to_string());
        for (name, value) in description.options {
            options.set(name, value);
        }
        let encoder = video.open_with(options).map_err(CodecError::libav("opening an encoder"))?;
        // SAFETY: an open context has its header, or none.
        let header = unsafe {
            let context = encoder.as_ptr();
            if (*context).extradata.is_null() {
                return Err(CodecError::Malformed { what: "header of an encoder: there is none" });
            }
            std::slice::from_raw_parts((*context).extradata, (*context).extradata_size.max(0) as usize)
        };
        let record = annex_b::record(header)?;
        Ok(Self { encoder, record, input: description.input, upload })
    }

    fn receive(&mut self, out: &mut Vec<Coded>) {
        let mut packet = Packet::empty();
        while self.encoder.receive_packet(&mut packet).is_ok() {
            out.push(annex_b::sample(packet.data().unwrap_or_default()));
        }
    }
}

/// Sets what the codec's context says of every encoder alike.
fn prepare(context: &mut ffi::AVCodecContext, settings: &Settings) {
    let rate = i64::try_from(settings.bitrate).unwrap_or(i64::MAX);
    context.width = settings.width as i32;
    context.height = settings.height as i32;
    context.pix_fmt = ffi::AVPixelFormat::AV_PIX_FMT_YUV420P;
    context.time_base = ffi::AVRational { num: 1, den: 90_000 };
    context.framerate = ffi::AVRational { num: settings.frame_rate_milli.max(1) as i32, den: 1000 };
    context.sample_aspect_ratio = ffi::AVRational { num: 1, den: 1 };
    context.bit_rate = rate;
    context.rc_max_rate = rate;
    context.rc_buffer_size = i32::try_from(settings.bitrate * VBV_MILLIS / 1000).unwrap_or(i32::MAX);
    context.gop_size = i32::MAX >> 1;
    context.max_b_frames = 0;
    context.thread_count = settings.threads.max(1) as i32;
    context.thread_type = ffi::FF_THREAD_FRAME;
    context.flags |= (ffi::AV_CODEC_FLAG_GLOBAL_HEADER | ffi::AV_CODEC_FLAG_CLOSED_GOP) as i32;
    context.color_range = ffi::AVColorRange::AVCOL_RANGE_MPEG;
    context.color_primaries = settings.colour.primaries;
    context.color_trc = settings.colour.transfer;
    context.colorspace = settings.colour.matrix;
}

impl Encoder for LibavEncoder {
    fn record(&self) -> Bytes {
        self.record.clone()
    }

    fn encode(
        &mut self,
        picture: &Picture,
        time: i64,
        idr: bool,
        out: &mut Vec<Coded>,
    ) -> Result<(), CodecError> {
        let mut frame = match (&self.upload, self.input) {
            (Some(card), _) => card.upload(&nv12(picture))?,
            (None, Input::Nv12) => nv12(picture),
            (None, _) => share(picture)?,
        };
        frame.set_pts(Some(time));
        // The source's own type of picture would be taken for a wish.
        frame.set_kind(if idr { picture::Type::I } else { picture::Type::None });
        self.encoder.send_frame(&frame).map_err(CodecError::libav("encoding a picture"))?;
        self.receive(out);
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<Coded>) -> Result<(), CodecError> {
        self.encoder.send_eof().map_err(CodecError::libav("ending an encoder"))?;
        self.receive(out);
        Ok(())
    }
}
