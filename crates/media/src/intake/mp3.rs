//! The intake of MP3.

use std::collections::VecDeque;

use bytes::Bytes;
use millrace_buf::ByteChain;

use super::AudioStep;
use crate::codec::mp3::Mp3Header;
use crate::codec::{AudioCodec, CodecError};
use crate::frame::AudioConfig;

/// Bytes of a frame header.
const HEADER_BYTES: usize = 4;

/// The intake of one publish's MP3 audio, whose frame headers are its configuration.
#[derive(Debug, Default)]
pub struct Mp3Intake {
    config: Option<AudioConfig>,
    steps: VecDeque<AudioStep>,
}

impl Mp3Intake {
    /// Returns the oldest step that was not returned yet.
    pub fn poll(&mut self) -> Option<AudioStep> {
        self.steps.pop_front()
    }

    /// Returns the sampling rate of the newest frame in Hz; 0 before there is one.
    pub fn rate(&self) -> u32 {
        self.config.as_ref().map_or(0, |config| config.rate)
    }

    /// Takes the frames of a message. An error if bytes that are no frame come where one must begin.
    pub fn frames(&mut self, mut data: ByteChain) -> Result<(), CodecError> {
        let mut offset = 0;
        while !data.is_empty() {
            let header: Bytes = data.slice(0..data.len().min(HEADER_BYTES)).contiguous();
            let length = Mp3Header::frame_bytes(&header)?.unwrap_or(data.len()).clamp(1, data.len());
            let config = AudioConfig::parse(AudioCodec::Mp3, header)?;
            let samples = config.frame_samples;
            if self.config.as_ref() != Some(&config) {
                self.config = Some(config.clone());
                self.steps.push_back(AudioStep::Config(config));
            }
            self.steps.push_back(AudioStep::Frame { offset, data: data.slice(0..length) });
            offset += samples;
            data.skip(length);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a frame of 64 kb/s at 48 kHz: 192 bytes, filled with `byte`.
    fn frame(byte: u8) -> Vec<u8> {
        let mut frame = vec![byte; 192];
        frame[..4].copy_from_slice(&[0xff, 0xfb, 0x54, 0x64]);
        frame
    }

    #[test]
    fn frames_of_one_message_are_parted_and_the_first_gives_the_configuration() {
        let mut intake = Mp3Intake::default();
        intake.frames(ByteChain::from([frame(1), frame(2)].concat())).unwrap();
        intake.frames(ByteChain::from(frame(3))).unwrap();
        let steps: Vec<AudioStep> = std::iter::from_fn(|| intake.poll()).collect();
        let [AudioStep::Config(config), frames @ ..] = &steps[..] else { panic!("{steps:?}") };
        assert_eq!((config.codec, config.rate, config.channels), (AudioCodec::Mp3, 48_000, 2));
        let of = |offset, byte| AudioStep::Frame { offset, data: ByteChain::from(frame(byte)) };
        assert_eq!(frames, [of(0, 1), of(1_152, 2), of(0, 3)]);
        assert_eq!(intake.rate(), 48_000);
    }

    #[test]
    fn bytes_that_are_no_frame_are_an_error() {
        for bytes in [&[1u8, 2, 3, 4][..], &[0xff], &[0xff, 0xfd, 0x90, 0x64]] {
            assert!(Mp3Intake::default().frames(ByteChain::from(bytes.to_vec())).is_err(), "{bytes:x?}");
        }
    }
}
