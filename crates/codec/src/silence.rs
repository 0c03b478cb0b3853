//! Silent AAC-LC for streams that announce audio and send none.

use bytes::Bytes;
use ffmpeg_next::{ChannelLayout, codec, encoder, format, frame};

use crate::CodecError;

/// Samples per AAC-LC frame (ISO/IEC 14496-3 §4.5.1.1, frameLengthFlag 0).
pub const SILENCE_FRAME_SAMPLES: u32 = 1024;

/// Frames encoded before the one that is kept: by then the encoder's window holds nothing but silence.
const WARM_UP_FRAMES: usize = 4;

/// One repeatable frame of silence.
#[derive(Debug, Clone)]
pub struct Silence {
    /// AudioSpecificConfig (ISO/IEC 14496-3 §1.6.2.1) describing [`Self::frame`].
    pub asc: Bytes,
    /// One raw AAC-LC frame, [`SILENCE_FRAME_SAMPLES`] long; it may be repeated without end.
    pub frame: Bytes,
}

/// Encodes silence of this rate (Hz) and channel count (1 or 2).
///
/// # Errors
/// When libav has no AAC encoder or the parameters are none it takes.
pub fn silence(rate: u32, channels: u8) -> Result<Silence, CodecError> {
    crate::init();
    let layout = match channels {
        1 => ChannelLayout::MONO,
        2 => ChannelLayout::STEREO,
        _ => return Err(CodecError::UnsupportedAudio { rate, channels }),
    };
    let asc = audio_specific_config(rate, channels)?;
    let mut encoder = open(rate, layout)?;
    let mut input = frame::Audio::new(format(), SILENCE_FRAME_SAMPLES as usize, layout);
    input.set_rate(rate);
    for plane in 0..input.planes() {
        input.data_mut(plane).fill(0);
    }
    let mut packet = ffmpeg_next::Packet::empty();
    let mut seen = 0;
    let mut pts = 0;
    loop {
        input.set_pts(Some(pts));
        pts += i64::from(SILENCE_FRAME_SAMPLES);
        encoder.send_frame(&input).map_err(CodecError::libav("encoding silence"))?;
        while encoder.receive_packet(&mut packet).is_ok() {
            seen += 1;
            if seen > WARM_UP_FRAMES {
                let data = packet.data().ok_or(CodecError::Malformed { what: "AAC packet" })?;
                return Ok(Silence { asc, frame: Bytes::copy_from_slice(data) });
            }
        }
    }
}

fn format() -> format::Sample {
    format::Sample::F32(format::sample::Type::Planar)
}

fn open(rate: u32, layout: ChannelLayout) -> Result<encoder::audio::Encoder, CodecError> {
    let codec = encoder::find_by_name("aac").ok_or(CodecError::Missing { codec: "aac" })?;
    let context = codec::context::Context::new_with_codec(codec);
    let mut audio = context.encoder().audio().map_err(CodecError::libav("opening the AAC encoder"))?;
    audio.set_rate(rate as i32);
    audio.set_format(format());
    audio.set_channel_layout(layout);
    audio.set_channels(layout.channels());
    audio.set_time_base((1, rate as i32));
    // GLOBAL_HEADER is not asked for: the AudioSpecificConfig is written here, the frame itself is the same.
    audio.open_as(codec).map_err(CodecError::libav("opening the AAC encoder"))
}

/// AudioSpecificConfig for AAC-LC: audioObjectType 2, samplingFrequencyIndex, channelConfiguration.
fn audio_specific_config(rate: u32, channels: u8) -> Result<Bytes, CodecError> {
    const RATES: [u32; 13] =
        [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];
    const AAC_LC: u16 = 2;
    let index = RATES
        .iter()
        .position(|&known| known == rate)
        .ok_or(CodecError::UnsupportedAudio { rate, channels })?;
    let bits = (AAC_LC << 11) | ((index as u16) << 7) | (u16::from(channels) << 3);
    Ok(Bytes::copy_from_slice(&bits.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_small_and_described_by_its_config() {
        let stereo = silence(48_000, 2).unwrap();
        assert_eq!(&stereo.asc[..], &[0x11, 0x90]);
        assert!(!stereo.frame.is_empty() && stereo.frame.len() < 64, "{} bytes", stereo.frame.len());
        let mono = silence(44_100, 1).unwrap();
        assert_eq!(&mono.asc[..], &[0x12, 0x08]);
    }

    #[test]
    fn the_same_parameters_give_the_same_bytes() {
        assert_eq!(silence(48_000, 2).unwrap().frame, silence(48_000, 2).unwrap().frame);
    }

    #[test]
    fn refuses_what_aac_lc_cannot_carry() {
        assert!(matches!(silence(47_999, 2), Err(CodecError::UnsupportedAudio { .. })));
        assert!(matches!(silence(48_000, 7), Err(CodecError::UnsupportedAudio { .. })));
    }
}
