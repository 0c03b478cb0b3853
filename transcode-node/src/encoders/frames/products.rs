//! Products as frames.

use bytes::{Buf, BufMut, Bytes};
use millrace_buf::ByteChain;
use millrace_codec::engine::order::{RungIndex, Slot};
use millrace_codec::engine::product::{CodedPicture, Condition, Product};

use super::{Frame, FrameError, flags, json};

const RUNG_STARTED: u8 = 1;
const RUNG_DROPPED: u8 = 2;
const PICTURE: u8 = 3;
const AUDIO_STARTED: u8 = 4;
const SOUND: u8 = 5;
const THUMBNAIL: u8 = 6;
const CONDITION: u8 = 7;
const REPORT: u8 = 8;
const FLUSHED: u8 = 9;
const FAILED: u8 = 10;
const REFUSED: u8 = 11;
const SHEET: u8 = 12;

/// Bytes of a picture's fixed fields: rung, place, places, presentation time, flags.
const PICTURE_FIELDS: usize = 1 + 8 + 4 + 8 + 1;
/// Bytes of a sheet's fixed fields: number, tiles, presentation time.
const SHEET_FIELDS: usize = 4 + 1 + 8;
/// Bytes of the fixed field of sounds and thumbnails: presentation time.
const TIME_FIELD: usize = 8;
/// The longest reason that a child gives for its end.
const MAX_REASON: usize = 1024;

const IDR: u8 = 1;
const REPEATS: u8 = 2;

/// A message of the child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChildMessage {
    /// A product of the engine.
    Product(Product),
    /// The engine cannot go on, for this reason; the process ends.
    Failed(String),
}

/// Returns the frame of a product; media are shared.
pub fn encode_product(product: Product) -> Frame {
    match product {
        Product::RungStarted(start) => Frame::json(RUNG_STARTED, &start),
        Product::RungDropped { rung, source_version } => Frame::json(RUNG_DROPPED, &(rung, source_version)),
        Product::Refused(refusal) => Frame::json(REFUSED, &refusal),
        Product::Picture(picture) => {
            let mut fields = Vec::with_capacity(PICTURE_FIELDS);
            fields.put_u8(picture.rung.0);
            fields.put_u64(picture.slot.0);
            fields.put_u32(picture.slots);
            fields.put_i64(picture.pts);
            fields.put_u8(u8::from(picture.idr) * IDR + u8::from(picture.repeats) * REPEATS);
            Frame::new(PICTURE, &fields, picture.data.into())
        }
        Product::AudioStarted(start) => Frame::json(AUDIO_STARTED, &start),
        Product::Sound { pts, data } => Frame::new(SOUND, &pts.to_be_bytes(), data.into()),
        Product::Thumbnail { pts, jpeg } => Frame::new(THUMBNAIL, &pts.to_be_bytes(), jpeg.into()),
        Product::Sheet { number, tiles, first_pts, jpeg } => {
            let mut fields = Vec::with_capacity(SHEET_FIELDS);
            fields.put_u32(number);
            fields.put_u8(tiles);
            fields.put_i64(first_pts);
            Frame::new(SHEET, &fields, jpeg.into())
        }
        Product::Condition { condition, begins } => Frame::json(CONDITION, &(condition, begins)),
        Product::Report(report) => Frame::json(REPORT, &report),
        Product::Flushed => Frame::new(FLUSHED, &[], ByteChain::new()),
    }
}

/// Returns the frame of the reason why the child ends.
pub fn encode_failure(reason: &str) -> Frame {
    let end = reason.floor_char_boundary(MAX_REASON);
    Frame::new(FAILED, &reason.as_bytes()[..end], ByteChain::new())
}

/// Reads a message of the child.
///
/// # Errors
/// When the frame is no product.
pub fn decode_product(kind: u8, mut body: Bytes) -> Result<ChildMessage, FrameError> {
    let product = match kind {
        RUNG_STARTED => Product::RungStarted(json("start of a rung", &body)?),
        RUNG_DROPPED => {
            let (rung, source_version) = json("dropped rung", &body)?;
            Product::RungDropped { rung, source_version }
        }
        REFUSED => Product::Refused(json("refusal", &body)?),
        PICTURE if body.len() > PICTURE_FIELDS => {
            let (rung, slot, slots) = (RungIndex(body.get_u8()), Slot(body.get_u64()), body.get_u32());
            let pts = body.get_i64();
            let flags = flags("picture", body.get_u8(), 2)?;
            let (idr, repeats) = (flags & IDR != 0, flags & REPEATS != 0);
            Product::Picture(CodedPicture { rung, slot, slots, pts, idr, repeats, data: body })
        }
        PICTURE => return Err(FrameError::Body("picture")),
        AUDIO_STARTED => Product::AudioStarted(json("start of audio", &body)?),
        SOUND if body.len() > TIME_FIELD => Product::Sound { pts: body.get_i64(), data: body },
        SOUND => return Err(FrameError::Body("sound")),
        THUMBNAIL if body.len() > TIME_FIELD => Product::Thumbnail { pts: body.get_i64(), jpeg: body },
        SHEET if body.len() > SHEET_FIELDS => {
            let (number, tiles, first_pts) = (body.get_u32(), body.get_u8(), body.get_i64());
            Product::Sheet { number, tiles, first_pts, jpeg: body }
        }
        SHEET => return Err(FrameError::Body("sheet of a storyboard")),
        THUMBNAIL => return Err(FrameError::Body("thumbnail")),
        CONDITION => {
            let (condition, begins): (Condition, bool) = json("condition", &body)?;
            Product::Condition { condition, begins }
        }
        REPORT => Product::Report(json("report", &body)?),
        FLUSHED if body.is_empty() => Product::Flushed,
        FLUSHED => return Err(FrameError::Body("end of a flush")),
        FAILED if body.len() <= MAX_REASON => {
            return Ok(ChildMessage::Failed(String::from_utf8_lossy(&body).into_owned()));
        }
        FAILED => return Err(FrameError::Body("reason")),
        other => return Err(FrameError::Kind(other)),
    };
    Ok(ChildMessage::Product(product))
}
