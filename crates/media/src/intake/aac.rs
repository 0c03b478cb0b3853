//! The intake of AAC.

use std::collections::VecDeque;

use bytes::Bytes;
use millrace_buf::ByteChain;

use crate::codec::CodecError;
use crate::codec::aac::{AacError, AdtsHeader, FRAME_SAMPLES};
use crate::frame::AudioConfig;
use crate::repair::{Repair, RepairCounts};

/// One step of the audio track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AudioStep {
    /// A configuration that differs from the one before, and that the frames behind it need.
    Config(AudioConfig),
    /// A frame.
    Frame {
        /// Samples from the time of the message to the frame's, at the rate of the configuration.
        offset: u32,
        /// A raw data block.
        data: ByteChain,
    },
}

/// The intake of one publish's AAC audio.
///
/// ADTS headers are removed, and give the configuration if the encoder sends no AudioSpecificConfig.
#[derive(Debug, Default)]
pub struct AacIntake {
    config: Option<AudioConfig>,
    /// True if `config` was made of an ADTS header, so that another header replaces it.
    is_of_adts: bool,
    repairs: RepairCounts,
    steps: VecDeque<AudioStep>,
}

impl AacIntake {
    /// Returns the counts of all repairs so far.
    pub const fn repairs(&self) -> &RepairCounts {
        &self.repairs
    }

    /// Returns the oldest step that was not returned yet.
    pub fn poll(&mut self) -> Option<AudioStep> {
        self.steps.pop_front()
    }

    /// Returns the sampling rate of the configuration in Hz; 0 before there is one.
    pub fn rate(&self) -> u32 {
        self.config.as_ref().map_or(0, |config| config.rate)
    }

    /// Takes a configuration record: an AudioSpecificConfig, or an ADTS header. An error if it is
    /// malformed or describes audio that players do not decode.
    pub fn record(&mut self, record: Bytes) -> Result<(), CodecError> {
        if record.is_empty() {
            self.repairs.add(Repair::EmptyConfig, 1);
            return Ok(());
        }
        let header = AdtsHeader::parse(&record.clone().into());
        let record = header.map_or(Ok(record), |header| header.config())?;
        self.is_of_adts = header.is_some();
        self.configure(record)
    }

    /// Takes the frames of a message. An error if an ADTS header describes audio that players do not
    /// decode.
    pub fn frames(&mut self, mut data: ByteChain) -> Result<(), CodecError> {
        if data.is_empty() {
            self.repairs.add(Repair::EmptyMessage, 1);
            return Ok(());
        }
        let mut offset = 0;
        while let Some(header) = AdtsHeader::parse(&data) {
            if header.frame_bytes > data.len() {
                return Err(AacError::Truncated.into());
            }
            self.repairs.add(Repair::AdtsHeaderRemoved, 1);
            if self.config.is_none() || self.is_of_adts {
                self.is_of_adts = true;
                self.configure(header.config()?)?;
            }
            let frame = data.slice(header.header_bytes..header.frame_bytes);
            if !frame.is_empty() {
                self.steps.push_back(AudioStep::Frame { offset, data: frame });
                offset += FRAME_SAMPLES;
            }
            data.skip(header.frame_bytes);
        }
        if !data.is_empty() {
            self.steps.push_back(AudioStep::Frame { offset, data });
        }
        Ok(())
    }

    fn configure(&mut self, record: Bytes) -> Result<(), CodecError> {
        let config = AudioConfig::from_asc(record)?;
        if self.config.as_ref() != Some(&config) {
            self.config = Some(config.clone());
            self.steps.push_back(AudioStep::Config(config));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADTS: &[u8] = &[0xff, 0xf1, 0x4c, 0x80, 0x01, 0x3f, 0xfc];

    fn steps(intake: &mut AacIntake) -> Vec<AudioStep> {
        std::iter::from_fn(|| intake.poll()).collect()
    }

    fn frame(offset: u32, data: &'static [u8]) -> AudioStep {
        AudioStep::Frame { offset, data: Bytes::from_static(data).into() }
    }

    #[test]
    fn adts_headers_are_removed_and_give_the_configuration() {
        let mut intake = AacIntake::default();
        intake.frames(ByteChain::from([ADTS, &[1, 2], ADTS, &[3, 4]].concat())).unwrap();
        let config = AudioStep::Config(AudioConfig::aac_lc(48_000, 2).unwrap());
        assert_eq!(steps(&mut intake), [config, frame(0, &[1, 2]), frame(FRAME_SAMPLES, &[3, 4])]);
        assert_eq!(intake.repairs().get(Repair::AdtsHeaderRemoved), 2);
        assert!(intake.frames(ByteChain::from([ADTS, &[1]].concat())).is_err(), "cut short");
    }

    #[test]
    fn record_stays_in_force_whatever_adts_headers_say() {
        let mut intake = AacIntake::default();
        intake.record(Bytes::from_static(&[0x12, 0x10])).unwrap();
        intake.frames(ByteChain::from([ADTS, &[1, 2]].concat())).unwrap();
        intake.record(Bytes::from_static(&[0x12, 0x10])).unwrap();
        intake.frames(Bytes::from_static(&[9]).into()).unwrap();
        let config = AudioStep::Config(AudioConfig::aac_lc(44_100, 2).unwrap());
        assert_eq!(steps(&mut intake), [config, frame(0, &[1, 2]), frame(0, &[9])]);
    }

    #[test]
    fn record_may_be_an_adts_header_or_empty() {
        let mut intake = AacIntake::default();
        intake.record(Bytes::new()).unwrap();
        intake.frames(ByteChain::new()).unwrap();
        assert_eq!(steps(&mut intake), []);
        intake.record(Bytes::from_static(ADTS)).unwrap();
        assert_eq!(steps(&mut intake), [AudioStep::Config(AudioConfig::aac_lc(48_000, 2).unwrap())]);
        assert_eq!((intake.repairs().get(Repair::EmptyConfig), intake.repairs().total()), (1, 2));
    }
}
