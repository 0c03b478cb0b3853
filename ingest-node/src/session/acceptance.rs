//! The codecs and picture sizes that are accepted from every protocol.

use millrace_media::codec::{AudioCodec, VideoCodec};
use millrace_media::frame::{AudioConfig, TrackConfig, VideoConfig};
use millrace_wire::message::control::PublishLimits;

use super::source::MediaFault;

/// Refuses codecs that players do not decode. MP3 is accepted where the livestream is encoded, so that viewers get AAC.
pub(super) fn check_codec(config: &TrackConfig, limits: &PublishLimits) -> Result<(), MediaFault> {
    let text = match config {
        TrackConfig::Audio(AudioConfig { codec: AudioCodec::Mp3, .. }) if limits.encodes => return Ok(()),
        TrackConfig::Audio(AudioConfig { codec: AudioCodec::Mp3, .. }) => {
            "MP3 is not accepted on a livestream that is copied: choose AAC in the encoder, or give the livestream a ladder"
                .to_owned()
        }
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
    use bytes::Bytes;

    use super::*;

    #[test]
    fn mp3_is_accepted_where_the_livestream_is_encoded() {
        let header = Bytes::from_static(&[0xff, 0xfb, 0x94, 0x64]);
        let mp3 = TrackConfig::Audio(AudioConfig::parse(AudioCodec::Mp3, header).unwrap());
        let limits = |encodes| PublishLimits { encodes, ..PublishLimits::default() };
        assert!(check_codec(&mp3, &limits(true)).is_ok());
        let refused = check_codec(&mp3, &limits(false)).unwrap_err();
        assert!(
            refused.to_string().starts_with("MP3 is not accepted on a livestream that is copied"),
            "{refused}"
        );
    }

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
