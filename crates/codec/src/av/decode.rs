//! Decoding of the source's pictures.

use ffmpeg_next::{codec, decoder, frame};
use millrace_buf::ByteChain;
use millrace_media::codec::VideoCodec;

use super::packet;
use crate::CodecError;
use crate::engine::order::VideoSource;
use crate::error::end_without_memory;

/// Most pixels of a picture that are decoded: those of 4096 × 2304. A larger one would take the memory of a whole ladder.
pub(crate) const MAX_PIXELS: u64 = 4096 * 2304;

/// A decoder of the source's pictures, in one thread: threads of its own would add a picture of delay each.
pub(crate) struct VideoDecoder {
    decoder: decoder::Video,
}

/// A picture that the decoder hands out, in the order of presentation.
pub(crate) struct Decoded {
    /// The ticket that came with its coded picture.
    pub(crate) ticket: i64,
    pub(crate) picture: frame::Video,
    /// True if parts of the picture are concealed.
    pub(crate) damaged: bool,
}

impl VideoDecoder {
    /// Opens the decoder of a source.
    pub(crate) fn open(source: &VideoSource) -> Result<Self, CodecError> {
        crate::init();
        let (id, names) = match source.codec {
            VideoCodec::H264 => (codec::Id::H264, &["h264"][..]),
            VideoCodec::Hevc => (codec::Id::HEVC, &["hevc"][..]),
            VideoCodec::Av1 => (codec::Id::AV1, &["libdav1d", "libgav1", "libaom-av1"][..]),
        };
        let codec = names.iter().find_map(|name| decoder::find_by_name(name)).or_else(|| decoder::find(id));
        let codec = codec.ok_or(CodecError::Missing { codec: source.codec.name() })?;
        let mut context = codec::context::Context::new_with_codec(codec);
        packet::set_extradata(&mut context, &source.record)?;
        // SAFETY: the context is valid and not open yet.
        unsafe {
            (*context.as_mut_ptr()).thread_count = 1;
            (*context.as_mut_ptr()).max_pixels = MAX_PIXELS as i64;
        }
        let opened = context.decoder().open_as(codec).and_then(decoder::Opened::video);
        Ok(Self { decoder: opened.map_err(CodecError::libav("opening the decoder of the source"))? })
    }

    /// Hands a coded picture to the decoder. The pictures that it completes are to be received before the next one is sent.
    pub(crate) fn send(&mut self, data: &ByteChain, ticket: i64, keyframe: bool) -> Result<(), CodecError> {
        let mut packet = packet::of(data)?;
        packet.set_pts(Some(ticket));
        if keyframe {
            packet.set_flags(codec::packet::Flags::KEY);
        }
        self.decoder.send_packet(&packet).map_err(CodecError::libav("decoding a picture"))
    }

    /// Returns the next picture that is complete; `None` if the decoder needs more first, or on an error of its own.
    pub(crate) fn receive(&mut self) -> Option<Decoded> {
        let mut picture = frame::Video::empty();
        match self.decoder.receive_frame(&mut picture) {
            Ok(()) => {}
            Err(
                ffmpeg_next::Error::Eof | ffmpeg_next::Error::Other { errno: ffmpeg_next::error::EAGAIN },
            ) => {
                return None;
            }
            Err(_) => {
                end_without_memory("decoding a picture");
                return None;
            }
        }
        let damaged = picture.is_corrupt() || picture.has_decode_errors();
        Some(Decoded { ticket: picture.pts()?, picture, damaged })
    }

    /// Makes an ended decoder ready for a keyframe.
    pub(crate) fn reset(&mut self) {
        self.decoder.flush();
    }

    /// Tells the decoder that nothing follows: it hands out the pictures that it holds.
    pub(crate) fn end(&mut self) -> Result<(), CodecError> {
        self.decoder.send_eof().map_err(CodecError::libav("ending the decoder of the source"))
    }
}
