//! The parts of libav that the transcoder uses, behind a safe interface.

mod decode;
mod frame;
mod jpeg;
mod packet;
mod scale;
mod sound;
mod tone;

pub(crate) use decode::{Decoded, MAX_PIXELS, VideoDecoder};
pub(crate) use frame::{Colour, Picture, is_full_range, share};
pub(crate) use jpeg::{black, jpeg, paste};
pub(crate) use scale::Scaler;
pub(crate) use sound::{AacEncoder, AudioDecoder, FRAME, RATE, Resampler, Stereo};
pub(crate) use tone::{Curve, ToneMap};
