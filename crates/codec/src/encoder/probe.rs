//! The encoders of a machine, tried by opening them, and their licences.

use std::ffi::{CStr, c_char};
use std::sync::Arc;

use ffmpeg_next::ffi;

use super::interface::Settings;
use super::kinds::open;
use crate::CodecError;
use crate::av::{Colour, black};
use crate::engine::order::EncoderKind;

/// The licence of the libav that is linked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibavLicence {
    /// The licence's name, as libav gives it.
    pub name: String,
    /// The options that libav was configured with.
    pub configuration: String,
}

impl LibavLicence {
    /// Returns the licence of the libav that is linked.
    pub fn linked() -> Self {
        let text = |pointer: *const c_char| {
            // SAFETY: libav returns strings of the program's whole life.
            unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
        };
        // SAFETY: the calls have no preconditions.
        let (name, configuration) = unsafe { (ffi::avcodec_license(), ffi::avcodec_configuration()) };
        Self { name: text(name), configuration: text(configuration) }
    }

    /// True if libav, as it is built, is under the GPL as a whole.
    pub fn is_gpl(&self) -> bool {
        let mut options = self.configuration.split_whitespace();
        options.any(|option| option == "--enable-gpl")
            || (self.name.contains("GPL") && !self.name.contains("LGPL"))
    }
}

impl EncoderKind {
    /// All kinds, the ones of graphics cards first.
    pub const ALL: [Self; 5] = [Self::Nvenc, Self::Qsv, Self::Vaapi, Self::X264, Self::Openh264];

    /// True if the encoder itself is under the GPL.
    pub const fn is_gpl(self) -> bool {
        matches!(self, Self::X264)
    }

    /// Opens an encoder of the kind and encodes two pictures, which tells whether it works here.
    ///
    /// # Errors
    /// When it does not, with the reason.
    pub fn probe(self) -> Result<(), CodecError> {
        const SIZE: (u32, u32) = (640, 360);
        let (width, height) = SIZE;
        let picture = Arc::new(black(width, height));
        let colour = Colour::of(&picture);
        let (preset, threads) = (None, 1);
        let settings =
            Settings { width, height, bitrate: 1_000_000, frame_rate_milli: 30_000, preset, threads, colour };
        let mut encoder = open(self, &settings)?;
        let mut coded = Vec::new();
        encoder.encode(&picture, 0, true, &mut coded)?;
        encoder.encode(&picture, 3000, false, &mut coded)?;
        encoder.finish(&mut coded)?;
        match &coded[..] {
            [first, second] if first.idr && !second.idr => Ok(()),
            _ => Err(CodecError::Malformed {
                what: "output of the encoder: an IDR picture and another were ordered",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoders_on_the_cpu_open_and_those_without_their_card_say_why_not() {
        EncoderKind::X264.probe().unwrap();
        EncoderKind::Openh264.probe().unwrap();
        for kind in EncoderKind::ALL {
            if let Err(error) = kind.probe() {
                assert!(error.to_string().len() > 10, "{kind}: {error}");
            }
        }
    }

    #[test]
    fn licence_of_a_libav_with_gpl_parts_is_the_gpl() {
        let licence = |name: &str, configuration: &str| LibavLicence {
            name: name.to_owned(),
            configuration: configuration.to_owned(),
        };
        assert!(licence("GPL version 2 or later", "--prefix=/usr --enable-gpl").is_gpl());
        assert!(licence("GPL version 3 or later", "").is_gpl());
        assert!(!licence("LGPL version 2.1 or later", "--prefix=/usr --disable-gpl").is_gpl());
        assert!(!LibavLicence::linked().configuration.is_empty());
    }
}
