//! From the media that encoders send to the media that decoders take.
//!
//! An intake takes the configuration records and frames of one track as a protocol carries them, and
//! returns configurations and frames in the usual form: access units with 4-byte length prefixes, raw
//! AAC frames, and a configuration before the first frame that needs it. It reads the configuration
//! from the media if the encoder sends none, and counts what it changes in
//! [`RepairCounts`](crate::repair::RepairCounts). It knows no times but the order of presentation.

mod aac;
mod h264;
mod mp3;

pub use aac::{AacIntake, AudioStep};
pub use h264::{H264Intake, VideoStep};
pub use mp3::Mp3Intake;
