//! Decoding, resampling and encoding of sound.

use std::ptr;

use bytes::{BufMut, Bytes, BytesMut};
use ffmpeg_next::{ChannelLayout, Packet, codec, decoder, encoder, ffi, format, frame};
use millrace_buf::ByteChain;
use millrace_media::codec::AudioCodec;

use super::packet;
use crate::CodecError;
use crate::engine::order::AudioSource;

/// Rate of all encoded sound, in Hz.
pub(crate) const RATE: i64 = 48_000;
/// Samples of an AAC frame.
pub(crate) const FRAME: usize = 1024;
/// Samples of the left and the right channel.
pub(crate) type Stereo = [Vec<f32>; 2];

/// A decoder of the source's sound.
pub(crate) struct AudioDecoder(decoder::Audio);

impl AudioDecoder {
    /// Opens the decoder of a source.
    pub(crate) fn open(source: &AudioSource) -> Result<Self, CodecError> {
        crate::init();
        let (id, record) = match source.codec {
            AudioCodec::Aac => (codec::Id::AAC, source.record.clone()),
            AudioCodec::Mp3 => (codec::Id::MP3, Bytes::new()),
            AudioCodec::Opus => (codec::Id::OPUS, opus_head(&source.record)),
        };
        let codec = decoder::find(id).ok_or(CodecError::Missing { codec: source.codec.name() })?;
        let mut context = codec::context::Context::new_with_codec(codec);
        packet::set_extradata(&mut context, &record)?;
        // SAFETY: the context is valid and not open yet.
        unsafe {
            let context = context.as_mut_ptr();
            (*context).sample_rate = i32::try_from(source.rate).unwrap_or(0);
            ffi::av_channel_layout_default(&raw mut (*context).ch_layout, i32::from(source.channels));
            (*context).thread_count = 1;
        }
        let opened = context.decoder().open_as(codec).and_then(decoder::Opened::audio);
        Ok(Self(opened.map_err(CodecError::libav("opening the decoder of the audio"))?))
    }

    /// Hands a coded frame to the decoder, with its presentation time in samples of the source's rate.
    pub(crate) fn send(&mut self, data: &ByteChain, pts: i64) -> Result<(), CodecError> {
        let mut packet = packet::of(data)?;
        packet.set_pts(Some(pts));
        self.0.send_packet(&packet).map_err(CodecError::libav("decoding an audio frame"))
    }

    /// Returns the next decoded frame.
    pub(crate) fn receive(&mut self) -> Option<frame::Audio> {
        let mut frame = frame::Audio::empty();
        self.0.receive_frame(&mut frame).ok()?;
        (frame.samples() > 0 && frame.rate() > 0).then_some(frame)
    }

    /// Tells the decoder that nothing follows.
    pub(crate) fn end(&mut self) {
        // What an ended decoder does not hand out is silence.
        let _ = self.0.send_eof();
    }
}

/// Returns an `OpusHead` (RFC 7845 §5.1) for the content of an OpusSpecificBox. It skips no samples: the frames' times count
/// them, and a decoder that begins in the middle has nothing to skip.
fn opus_head(record: &Bytes) -> Bytes {
    let [_, channels, _, _, rate @ .., family] =
        record.first_chunk::<11>().copied().unwrap_or([0, 2, 0, 0, 0, 0, 187, 128, 0, 0, 0]);
    let mut head = BytesMut::with_capacity(32);
    head.put_slice(b"OpusHead\x01");
    head.put_u8(channels);
    head.put_u16_le(0);
    head.put_u32_le(u32::from_be_bytes([rate[0], rate[1], rate[2], rate[3]]));
    head.put_u16_le(u16::from_be_bytes([rate[4], rate[5]]));
    head.put_u8(family);
    head.put_slice(record.get(11..).unwrap_or_default());
    head.freeze()
}

/// A converter of decoded sound to stereo of 48 kHz.
pub(crate) struct Resampler(*mut ffi::SwrContext);

impl Resampler {
    /// Most channels of a source: those of 7.1.
    const CHANNELS: u16 = 8;

    /// A converter for frames like this one.
    pub(crate) fn of(frame: &frame::Audio) -> Result<Self, CodecError> {
        const FAILED: CodecError =
            CodecError::Malformed { what: "sound format: there is no conversion from it" };
        if frame.channels() == 0 || frame.channels() > Self::CHANNELS {
            return Err(FAILED);
        }
        let mut context = Self(ptr::null_mut());
        // SAFETY: the layouts outlive the calls, which copy them; the context is freed by `Drop`.
        unsafe {
            let mut stereo: ffi::AVChannelLayout = std::mem::zeroed();
            ffi::av_channel_layout_default(&raw mut stereo, 2);
            let mut layout: ffi::AVChannelLayout = std::mem::zeroed();
            let source = &raw const (*frame.as_ptr()).ch_layout;
            if (*source).order == ffi::AVChannelOrder::AV_CHANNEL_ORDER_UNSPEC {
                ffi::av_channel_layout_default(&raw mut layout, i32::from(frame.channels()));
            } else if ffi::av_channel_layout_copy(&raw mut layout, source) < 0 {
                return Err(FAILED);
            }
            let planar = ffi::AVSampleFormat::AV_SAMPLE_FMT_FLTP;
            let (form, rate) = (frame.format().into(), frame.rate() as i32);
            let code = ffi::swr_alloc_set_opts2(
                &raw mut context.0,
                &raw mut stereo,
                planar,
                RATE as i32,
                &raw mut layout,
                form,
                rate,
                0,
                ptr::null_mut(),
            );
            ffi::av_channel_layout_uninit(&raw mut layout);
            if code < 0 || context.0.is_null() {
                return Err(FAILED);
            }
            // A mix of several channels stays below full scale instead of being clipped.
            ffi::av_opt_set_double(context.0.cast(), c"rematrix_maxval".as_ptr(), 1.0, 0);
            if frame.channels() == 1 {
                // One channel sounds from both sides, as loud as it is.
                ffi::swr_set_matrix(context.0, [1.0, 1.0].as_ptr(), 1);
            }
            if ffi::swr_init(context.0) < 0 {
                return Err(FAILED);
            }
        }
        Ok(context)
    }

    /// Converts a frame without its first `skip` samples. Samples that the filter still needs come with the next one.
    pub(crate) fn convert(&mut self, frame: &frame::Audio, skip: usize) -> Result<Stereo, CodecError> {
        let count = frame.samples().saturating_sub(skip);
        let mut planes = [ptr::null::<u8>(); Self::CHANNELS as usize];
        // SAFETY: the frame has a plane for each channel, or one for all, of at least `samples` samples.
        unsafe {
            let width = ffi::av_get_bytes_per_sample(frame.format().into()).max(0) as usize;
            let (used, step) = if frame.is_planar() {
                (usize::from(frame.channels()), width)
            } else {
                (1, width * usize::from(frame.channels()))
            };
            for (at, plane) in planes.iter_mut().enumerate().take(used) {
                *plane = (*(*frame.as_ptr()).extended_data.add(at)).add(skip * step);
            }
        }
        self.run(planes.as_mut_ptr(), count)
    }

    /// Returns the samples that the filter still holds. Nothing may follow.
    pub(crate) fn drain(&mut self) -> Result<Stereo, CodecError> {
        self.run(ptr::null_mut(), 0)
    }

    fn run(&mut self, input: *mut *const u8, count: usize) -> Result<Stereo, CodecError> {
        // SAFETY: the context is initialised, `input` holds `count` samples of its format, and the output has the room asked for.
        unsafe {
            let room = ffi::swr_get_out_samples(self.0, count as i32).max(0) as usize;
            let mut out = [vec![0f32; room], vec![0f32; room]];
            let mut planes = [out[0].as_mut_ptr().cast::<u8>(), out[1].as_mut_ptr().cast()];
            let made = ffi::swr_convert(self.0, planes.as_mut_ptr(), room as i32, input, count as i32);
            if made < 0 {
                return Err(CodecError::libav("resampling")(ffmpeg_next::Error::from(made)));
            }
            for channel in &mut out {
                channel.truncate(made as usize);
            }
            Ok(out)
        }
    }
}

impl Drop for Resampler {
    fn drop(&mut self) {
        // SAFETY: the context is owned and freed once; null is allowed.
        unsafe { ffi::swr_free(&raw mut self.0) }
    }
}

/// An encoder of AAC-LC of 48 kHz in stereo.
pub(crate) struct AacEncoder(encoder::audio::Encoder);

impl AacEncoder {
    pub(crate) fn open(bitrate: u64) -> Result<Self, CodecError> {
        crate::init();
        let codec = encoder::find_by_name("aac").ok_or(CodecError::Missing { codec: "aac" })?;
        let context = codec::context::Context::new_with_codec(codec).encoder();
        let mut audio = context.audio().map_err(CodecError::libav("preparing the encoder of the audio"))?;
        audio.set_rate(RATE as i32);
        audio.set_format(format::Sample::F32(format::sample::Type::Planar));
        audio.set_bit_rate(bitrate as usize);
        audio.set_time_base((1, RATE as i32));
        // SAFETY: the context is valid and not open yet.
        unsafe {
            ffi::av_channel_layout_default(&raw mut (*audio.as_mut_ptr()).ch_layout, 2);
            (*audio.as_mut_ptr()).flags |= ffi::AV_CODEC_FLAG_GLOBAL_HEADER as i32;
        }
        Ok(Self(audio.open().map_err(CodecError::libav("opening the encoder of the audio"))?))
    }

    /// Encodes a frame of 1024 samples. Returns the coded frames that are complete, each with the time of the samples that
    /// a decoder makes of it.
    pub(crate) fn encode(&mut self, pts: i64, samples: &Stereo) -> Result<Vec<(i64, Bytes)>, CodecError> {
        let form = format::Sample::F32(format::sample::Type::Planar);
        let mut frame = frame::Audio::new(form, FRAME, ChannelLayout::STEREO);
        frame.set_rate(RATE as u32);
        frame.set_pts(Some(pts));
        for (at, channel) in samples.iter().enumerate() {
            frame.plane_mut::<f32>(at)[..FRAME].copy_from_slice(&channel[..FRAME]);
        }
        self.0.send_frame(&frame).map_err(CodecError::libav("encoding an audio frame"))?;
        Ok(self.receive())
    }

    /// Returns the coded frames that the encoder still holds. Nothing may follow.
    pub(crate) fn finish(&mut self) -> Vec<(i64, Bytes)> {
        // An encoder that cannot be ended has nothing to hand in.
        let _ = self.0.send_eof();
        self.receive()
    }

    fn receive(&mut self) -> Vec<(i64, Bytes)> {
        let (mut packet, mut out) = (Packet::empty(), Vec::new());
        while self.0.receive_packet(&mut packet).is_ok() {
            // The encoder's delay is one frame, and its times count it.
            if let (Some(pts), Some(data)) = (packet.pts(), packet.data()) {
                out.push((pts, Bytes::copy_from_slice(data)));
            }
        }
        out
    }
}
