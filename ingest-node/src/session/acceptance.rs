//! The codecs and picture sizes that are accepted from every protocol.

use millrace_media::codec::{AudioCodec, VideoCodec};
use millrace_media::frame::{AudioConfig, TrackConfig, VideoConfig};
use millrace_wire::message::control::PublishLimits;

use super::source::MediaFault;

/// Refuses codecs that no worker packages yet.
pub(super) fn check_codec(config: &TrackConfig) -> Result<(), MediaFault> {
    let text = match config {
        TrackConfig::Video(VideoConfig { codec: VideoCodec::H264, .. })
        | TrackConfig::Audio(AudioConfig { codec: AudioCodec::Aac, .. }) => return Ok(()),
        TrackConfig::Video(video) => format!("{} is not accepted: choose H.264 in the encoder", video.codec),
        TrackConfig::Audio(audio) => format!("{} is not accepted: choose AAC in the encoder", audio.codec),
    };
    Err(MediaFault::CodecNotAccepted(text))
}

/// Refuses a picture larger than the limit in either orientation.
pub(super) fn check_picture(width: u32, height: u32, limits: &PublishLimits) -> Result<(), MediaFault> {
    let PublishLimits { max_width, max_height, .. } = *limits;
    // An encoder in portrait mode turns the frame by a quarter.
    let turned = width <= max_height && height <= max_width;
    if (width > max_width || height > max_height) && !turned {
        return Err(MediaFault::PictureTooLarge { width, height, max_width, max_height });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picture_limit_holds_in_either_orientation() {
        let limits = PublishLimits { max_width: 1_920, max_height: 1_080, ..PublishLimits::default() };
        for (width, height, allowed) in
            [(1_920, 1_080, true), (1_080, 1_920, true), (1_921, 1_080, false), (1_200, 1_200, false)]
        {
            assert_eq!(check_picture(width, height, &limits).is_ok(), allowed, "{width}x{height}");
        }
    }
}
