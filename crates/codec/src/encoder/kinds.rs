//! The kinds of encoders, and their opening.

use std::fmt;

use super::interface::{Encoder, Settings};
use super::{libav, openh264};
use crate::CodecError;
use crate::engine::order::EncoderKind;

/// Opens an encoder of a kind.
pub(crate) fn open(kind: EncoderKind, settings: &Settings) -> Result<Box<dyn Encoder>, CodecError> {
    crate::init();
    match kind {
        EncoderKind::X264 => Ok(Box::new(libav::LibavEncoder::open(&libav::X264, settings)?)),
        EncoderKind::Nvenc => Ok(Box::new(libav::LibavEncoder::open(&libav::NVENC, settings)?)),
        EncoderKind::Qsv => Ok(Box::new(libav::LibavEncoder::open(&libav::QSV, settings)?)),
        EncoderKind::Openh264 => Ok(Box::new(openh264::Openh264::open(settings)?)),
        EncoderKind::Vaapi => Ok(Box::new(libav::LibavEncoder::open(&libav::VAAPI, settings)?)),
    }
}

impl EncoderKind {
    /// Returns the name that the configuration uses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::X264 => "x264",
            Self::Openh264 => "openh264",
            Self::Nvenc => "nvenc",
            Self::Vaapi => "vaapi",
            Self::Qsv => "qsv",
        }
    }
}

impl fmt::Display for EncoderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
