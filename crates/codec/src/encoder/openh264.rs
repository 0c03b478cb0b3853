//! OpenH264 (BSD), built from its source by the crate that wraps it.

use bytes::Bytes;
use ffmpeg_next::frame;
use openh264::encoder::{
    BitRate, ColorPrimaries, Complexity, Encoder as Wrapped, EncoderConfig, FrameRate, MatrixCoefficients,
    Profile, RateControlMode, TransferCharacteristics, VuiConfig,
};
use openh264::formats::YUVSource;
use openh264::{OpenH264API, Timestamp};

use super::annex_b;
use super::interface::{Coded, Encoder, Settings};
use crate::CodecError;
use crate::av::{Colour, Picture, black};

/// The option of OpenH264's log level (`ENCODER_OPTION_TRACE_LEVEL`), and its value for no log: it writes to stderr past ours.
const TRACE_LEVEL: i32 = 25;
const QUIET: i32 = 0;

/// The encoder. It hands each picture out at once. It has no exact VBV: its rate control aims at the bit rate over some
/// pictures, and may not leave out any, because each place needs one.
pub(super) struct Openh264 {
    encoder: Wrapped,
    record: Bytes,
}

impl Openh264 {
    pub(super) fn open(settings: &Settings) -> Result<Self, CodecError> {
        // The parameter sets come with the first picture alone; they depend on the settings, not on the picture.
        let mut trial = wrapped(settings)?;
        let picture = black(settings.width, settings.height);
        let first = encode(&mut trial, &picture, 0)?;
        Ok(Self { encoder: wrapped(settings)?, record: annex_b::record(&first)? })
    }
}

impl Encoder for Openh264 {
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
        if idr {
            self.encoder.force_intra_frame();
        }
        let coded = annex_b::sample(&encode(&mut self.encoder, picture, time)?);
        if coded.data.is_empty() {
            return Err(CodecError::Malformed { what: "output of OpenH264: it left a picture out" });
        }
        out.push(coded);
        Ok(())
    }

    fn finish(&mut self, _out: &mut Vec<Coded>) -> Result<(), CodecError> {
        Ok(())
    }
}

fn failed(step: &'static str) -> impl FnOnce(openh264::Error) -> CodecError {
    move |error| CodecError::Openh264 { step, message: error.to_string() }
}

fn wrapped(settings: &Settings) -> Result<Wrapped, CodecError> {
    let complexity = match settings.preset.as_deref() {
        Some("low") => Complexity::Low,
        Some("high") => Complexity::High,
        _ => Complexity::Medium,
    };
    let config = EncoderConfig::new()
        .bitrate(BitRate::from_bps(u32::try_from(settings.bitrate).unwrap_or(u32::MAX)))
        .max_frame_rate(FrameRate::from_hz(settings.frame_rate_milli as f32 / 1000.0))
        .rate_control_mode(RateControlMode::Bitrate)
        .skip_frames(false)
        .scene_change_detect(false)
        .profile(Profile::High)
        .complexity(complexity)
        .num_threads(1)
        .vui(vui(&settings.colour));
    let mut encoder =
        Wrapped::with_api_config(OpenH264API::from_source(), config).map_err(failed("opening OpenH264"))?;
    let mut quiet = QUIET;
    // SAFETY: the option takes a pointer to an integer, which outlives the call; the wrapper sets the same one later.
    unsafe { encoder.raw_api().set_option(TRACE_LEVEL, (&raw mut quiet).cast()) };
    Ok(encoder)
}

fn encode(encoder: &mut Wrapped, picture: &frame::Video, time: i64) -> Result<Vec<u8>, CodecError> {
    let time = Timestamp::from_millis((time / 90).max(0) as u64);
    let stream = encoder.encode_at(&Planes(picture), time).map_err(failed("encoding with OpenH264"))?;
    Ok(stream.to_vec())
}

/// The planes of a picture as the wrapper wants them.
struct Planes<'a>(&'a frame::Video);

impl YUVSource for Planes<'_> {
    fn dimensions(&self) -> (usize, usize) {
        (self.0.width() as usize, self.0.height() as usize)
    }

    fn strides(&self) -> (usize, usize, usize) {
        (self.0.stride(0), self.0.stride(1), self.0.stride(2))
    }

    fn y(&self) -> &[u8] {
        self.0.data(0)
    }

    fn u(&self) -> &[u8] {
        self.0.data(1)
    }

    fn v(&self) -> &[u8] {
        self.0.data(2)
    }
}

/// Returns the signalling of the colours that OpenH264 knows; the others stay open.
fn vui(colour: &Colour) -> VuiConfig {
    let primaries = match colour.primaries as u8 {
        1 => ColorPrimaries::Bt709,
        5 => ColorPrimaries::Bt470BG,
        6 => ColorPrimaries::Smpte170M,
        7 => ColorPrimaries::Smpte240M,
        9 => ColorPrimaries::Bt2020,
        _ => ColorPrimaries::Unspecified,
    };
    let transfer = match colour.transfer as u8 {
        1 => TransferCharacteristics::Bt709,
        6 => TransferCharacteristics::Smpte170M,
        13 => TransferCharacteristics::Srgb,
        14 => TransferCharacteristics::Bt2020_10,
        16 => TransferCharacteristics::Smpte2084,
        18 => TransferCharacteristics::Hlg,
        _ => TransferCharacteristics::Unspecified,
    };
    let matrix = match colour.matrix as u8 {
        1 => MatrixCoefficients::Bt709,
        5 => MatrixCoefficients::Bt470Bg,
        6 => MatrixCoefficients::Smpte170M,
        9 => MatrixCoefficients::Bt2020Ncl,
        _ => MatrixCoefficients::Unspecified,
    };
    VuiConfig::new().color_primaries(primaries).transfer_characteristics(transfer).matrix_coefficients(matrix)
}
