//! The interface of an encoder.

use bytes::Bytes;

use crate::CodecError;
use crate::av::{Colour, Picture};

/// The settings of an encoder, which together with the kind decide its parameter sets: equal settings give equal ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Bits per second that VBV holds.
    pub(crate) bitrate: u64,
    /// Thousandths of frames per second.
    pub(crate) frame_rate_milli: u32,
    pub(crate) preset: Option<String>,
    pub(crate) threads: u32,
    pub(crate) colour: Colour,
}

/// A coded picture, in the order in which the pictures were given.
pub(crate) struct Coded {
    pub(crate) idr: bool,
    /// NAL units with length prefixes of four bytes, slices alone.
    pub(crate) data: Bytes,
}

/// An open encoder. It hands out the coded pictures in the order of the pictures, some of them later.
pub(crate) trait Encoder {
    /// Returns the AVCDecoderConfigurationRecord of its pictures.
    fn record(&self) -> Bytes;

    /// Encodes a picture: an IDR picture if `idr`, else never one. `time` in ticks of 90 kHz rises from picture to picture.
    fn encode(
        &mut self,
        picture: &Picture,
        time: i64,
        idr: bool,
        out: &mut Vec<Coded>,
    ) -> Result<(), CodecError>;

    /// Hands out the pictures that it still holds. No picture may follow.
    fn finish(&mut self, out: &mut Vec<Coded>) -> Result<(), CodecError>;
}

/// Time in the VBV's buffer, as a part of a second: half a second keeps the peak of a segment of 2 s within 1.25 times the
/// declared rate, and a player that has just switched up loads the IDR picture in a quarter of a segment's time.
pub(super) const VBV_MILLIS: u64 = 500;
