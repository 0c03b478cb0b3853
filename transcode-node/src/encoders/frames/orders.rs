//! Orders as frames.

use bytes::{Buf, BufMut, Bytes};
use millrace_codec::engine::order::{Order, Slot, SourcePicture, SourceSound};

use super::{Frame, FrameError, flags, json};

const START: u8 = 1;
const VIDEO_CONFIG: u8 = 2;
const PICTURE: u8 = 3;
const AUDIO_CONFIG: u8 = 4;
const SOUND: u8 = 5;
const ENCODE: u8 = 6;
const FLUSH: u8 = 7;

/// Bytes of a picture's fixed fields: place, presentation time, duration, flags.
const PICTURE_FIELDS: usize = 8 + 8 + 4 + 1;
/// Bytes of a sound's fixed fields: presentation time, flags.
const SOUND_FIELDS: usize = 8 + 1;

const STARTS_SEGMENT: u8 = 1;
const INDEPENDENT: u8 = 2;
const ENCODED: u8 = 4;
const KEYFRAME: u8 = 8;

/// Returns the frame of an order; media are shared.
pub fn encode_order(order: Order) -> Frame {
    match order {
        Order::Start(plan) => Frame::json(START, &plan),
        Order::VideoConfig(source) => Frame::json(VIDEO_CONFIG, &source),
        Order::Picture(picture) => {
            let mut fields = Vec::with_capacity(PICTURE_FIELDS);
            fields.put_u64(picture.slot.0);
            fields.put_i64(picture.pts);
            fields.put_u32(picture.duration);
            fields.put_u8(picture_flags(&picture));
            Frame::new(PICTURE, &fields, picture.data)
        }
        Order::AudioConfig(source) => Frame::json(AUDIO_CONFIG, &source),
        Order::Sound(sound) => {
            let mut fields = Vec::with_capacity(SOUND_FIELDS);
            fields.put_i64(sound.pts);
            fields.put_u8(u8::from(sound.encode));
            Frame::new(SOUND, &fields, sound.data)
        }
        Order::Encode(rungs) => Frame::json(ENCODE, &rungs),
        Order::Flush => Frame::new(FLUSH, &[], millrace_buf::ByteChain::new()),
    }
}

fn picture_flags(picture: &SourcePicture) -> u8 {
    let SourcePicture { starts_segment, independent, encode, keyframe, .. } = *picture;
    let bits = [
        (starts_segment, STARTS_SEGMENT),
        (independent, INDEPENDENT),
        (encode, ENCODED),
        (keyframe, KEYFRAME),
    ];
    bits.into_iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum()
}

/// Reads an order.
///
/// # Errors
/// When the frame is no order.
pub fn decode_order(kind: u8, mut body: Bytes) -> Result<Order, FrameError> {
    Ok(match kind {
        START => Order::Start(json("plan", &body)?),
        VIDEO_CONFIG => Order::VideoConfig(json("video configuration", &body)?),
        PICTURE if body.len() > PICTURE_FIELDS => {
            let (slot, pts, duration) = (Slot(body.get_u64()), body.get_i64(), body.get_u32());
            let flags = flags("picture", body.get_u8(), 4)?;
            Order::Picture(SourcePicture {
                slot,
                pts,
                duration,
                starts_segment: flags & STARTS_SEGMENT != 0,
                independent: flags & INDEPENDENT != 0,
                encode: flags & ENCODED != 0,
                keyframe: flags & KEYFRAME != 0,
                data: body.into(),
            })
        }
        PICTURE => return Err(FrameError::Body("picture")),
        AUDIO_CONFIG => Order::AudioConfig(json("audio configuration", &body)?),
        SOUND if body.len() > SOUND_FIELDS => {
            let pts = body.get_i64();
            let encode = flags("sound", body.get_u8(), 1)? != 0;
            Order::Sound(SourceSound { pts, encode, data: body.into() })
        }
        SOUND => return Err(FrameError::Body("sound")),
        ENCODE => Order::Encode(json("list of rungs", &body)?),
        FLUSH if body.is_empty() => Order::Flush,
        FLUSH => return Err(FrameError::Body("flush")),
        other => return Err(FrameError::Kind(other)),
    })
}
