//! The description of a rendition as its stored initialisation section gives it.

use millrace_media::frame::TrackConfig;
use millrace_wire::fact::{TrackInfo, TrackMedia};

/// Returns the description that an initialisation section gives of its track; the section does not state the bandwidth.
pub fn track_info(config: &TrackConfig) -> TrackInfo {
    match config {
        TrackConfig::Video(video) => TrackInfo {
            media: TrackMedia::Video {
                width: video.width,
                height: video.height,
                frame_rate_milli: video.frame_rate.map(|(ticks, per)| {
                    let milli = u64::from(ticks) * 1_000 / u64::from(per.max(1));
                    u32::try_from(milli).unwrap_or(u32::MAX)
                }),
            },
            codecs: video.codecs.clone(),
            bandwidth: 0,
            timescale: 90_000,
        },
        TrackConfig::Audio(audio) => TrackInfo {
            media: TrackMedia::Audio { channels: audio.channels, sample_rate: audio.rate },
            codecs: audio.codecs.clone(),
            bandwidth: 0,
            timescale: audio.rate,
        },
    }
}
