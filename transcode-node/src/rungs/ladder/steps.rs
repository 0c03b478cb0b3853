//! The steps of the source.

use millrace_buf::ByteChain;
use millrace_media::frame::{AudioConfig, VideoConfig};
use millrace_media::packager::PartTiming;

use super::segments::{Place, Span};

/// One step of the source, in order.
#[derive(Debug)]
pub(super) enum Step {
    /// A segment begins.
    Segment(Span),
    /// The pictures from here on have this configuration.
    Video(Box<VideoStart>),
    /// A picture.
    Picture(Picture),
    /// The audio frames from here on have this configuration, of this version within the epoch.
    Audio(u32, AudioConfig),
    /// An audio frame.
    Sound(Sound),
}

/// The configuration of pictures.
#[derive(Debug, Clone)]
pub(super) struct VideoStart {
    /// Its version within the epoch.
    pub(super) version: u32,
    /// The segment of the first picture that has it.
    pub(super) msn: u64,
    /// The configuration.
    pub(super) config: VideoConfig,
    /// Bits per second that ingest declares.
    pub(super) bit_rate: u64,
    /// The part timing of the source's own rendition.
    pub(super) timing: PartTiming,
}

/// A picture of the source and its place.
#[derive(Debug, Clone)]
pub(super) struct Picture {
    /// The place.
    pub(super) place: Place,
    /// Presentation time in 90 kHz ticks.
    pub(super) pts: i64,
    /// True if a decoder can start here.
    pub(super) keyframe: bool,
    /// True if the place begins a part that a rung goes on with behind the parts of its predecessor.
    pub(super) independent: bool,
    /// The coded bytes.
    pub(super) data: ByteChain,
}

/// An audio frame of the source.
#[derive(Debug, Clone)]
pub(super) struct Sound {
    /// Presentation time in samples of the source's rate.
    pub(super) pts: i64,
    /// Presentation time in 90 kHz ticks.
    pub(super) ticks: i64,
    /// The coded bytes.
    pub(super) data: ByteChain,
}
