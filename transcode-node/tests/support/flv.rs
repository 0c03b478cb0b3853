//! The pictures of an FLV file with H.264, as orders to a transcoder.

use std::path::Path;

use bytes::{Buf, Bytes};
use millrace_codec::engine::order::{Slot, SourcePicture, VideoSource};
use millrace_media::codec::VideoCodec;

/// Bytes before the first tag: the header and the size of no tag.
const HEADER: usize = 13;
/// The type of tags with video.
const VIDEO: u8 = 9;
const FRAME: u32 = 3_000;

/// A clip of 30 pictures a second.
pub(crate) struct Flv {
    pub(crate) config: VideoSource,
    pub(crate) pictures: Vec<SourcePicture>,
}

impl Flv {
    /// Reads a file that ffmpeg wrote.
    pub(crate) fn read(path: &Path) -> Self {
        let mut file = Bytes::from(std::fs::read(path).unwrap()).slice(HEADER..);
        let (mut record, mut pictures) = (Bytes::new(), Vec::new());
        while file.len() > 11 {
            let kind = file.get_u8();
            let size = file.get_uint(3) as usize;
            file.advance(7);
            let mut tag = file.split_to(size);
            file.advance(4);
            if kind != VIDEO {
                continue;
            }
            let keyframe = tag.get_u8() >> 4 == 1;
            let packet = tag.get_u8();
            let offset = tag.get_int(3);
            match packet {
                0 => record = tag,
                1 => {
                    let slot = pictures.len() as u64;
                    pictures.push(SourcePicture {
                        slot: Slot(slot),
                        pts: slot as i64 * i64::from(FRAME) + offset * 90,
                        duration: FRAME,
                        starts_segment: keyframe,
                        independent: false,
                        encode: true,
                        keyframe,
                        data: tag.into(),
                    });
                }
                _ => {}
            }
        }
        let config = VideoSource {
            codec: VideoCodec::H264,
            record,
            width: 320,
            height: 180,
            pixel_aspect: (1, 1),
            frame_rate_milli: 30_000,
            bitrate: 0,
            version: 1,
        };
        Self { config, pictures }
    }
}
