//! Keyframes of a copied stream for its pictures: one every ten seconds.

use std::collections::BTreeMap;

use millrace_buf::ByteChain;
use millrace_codec::engine::order::VideoSource;
use millrace_link::media_convert::media_event;
use millrace_media::frame::{MediaEvent, TrackConfig};
use millrace_wire::message::media::{FrameUnit, MediaMessage, MediaUnit, Track};

/// 90 kHz ticks of media between two pictures.
const INTERVAL: i64 = 10 * 90_000;
/// Configurations that are remembered: media messages name one of the newest.
const MAX_CONFIGS: usize = 4;

/// A keyframe and the configuration that its decoder needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) source: VideoSource,
    pub(crate) data: ByteChain,
}

/// Chooses the keyframes that become pictures.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    configs: BTreeMap<u32, VideoSource>,
    last: Option<i64>,
}

impl Sampler {
    /// Looks at the next media message; returns a keyframe if a picture is due.
    pub(crate) fn look(&mut self, message: &MediaMessage) -> Option<Snapshot> {
        message.units.iter().fold(None, |found, unit| self.look_at(unit).or(found))
    }

    fn look_at(&mut self, unit: &MediaUnit) -> Option<Snapshot> {
        match unit {
            MediaUnit::Config(config) if config.codec.track() == Track::Video => {
                self.configure(unit.clone(), config.bit_rate);
                None
            }
            MediaUnit::Frame(frame)
                if frame.track == Track::Video && frame.keyframe && self.is_due(frame.dts) =>
            {
                self.sample(frame)
            }
            MediaUnit::Config(_) | MediaUnit::Frame(_) => None,
        }
    }

    fn configure(&mut self, unit: MediaUnit, bitrate: u64) {
        let Ok(MediaEvent::Init { config: TrackConfig::Video(config), version }) = media_event(unit) else {
            return;
        };
        let source = VideoSource {
            codec: config.codec,
            record: config.record,
            width: config.width,
            height: config.height,
            pixel_aspect: config.pixel_aspect,
            frame_rate_milli: 0,
            bitrate,
            version,
        };
        self.configs.insert(version, source);
        if self.configs.len() > MAX_CONFIGS {
            self.configs.pop_first();
        }
    }

    /// Remembers a configuration of version 0.
    #[cfg(test)]
    pub(super) fn configure_for_test(&mut self) {
        let source = VideoSource {
            codec: millrace_media::codec::VideoCodec::H264,
            record: bytes::Bytes::new(),
            width: 160,
            height: 90,
            pixel_aspect: (1, 1),
            frame_rate_milli: 0,
            bitrate: 0,
            version: 0,
        };
        self.configs.insert(0, source);
    }

    /// True if the last picture is old enough, or of a time that has been left.
    fn is_due(&self, dts: i64) -> bool {
        self.last.is_none_or(|last| dts < last || dts - last >= INTERVAL)
    }

    fn sample(&mut self, frame: &FrameUnit) -> Option<Snapshot> {
        let source = self.configs.get(&frame.init_version.0)?.clone();
        self.last = Some(frame.dts);
        Some(Snapshot { source, data: frame.data.clone() })
    }
}
