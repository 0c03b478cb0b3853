//! The metadata of an object: in its file's trailing box or in a side file.

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::Meta;

/// The last bytes of an MP4 object's file: how a metadata box is known from a box of the media.
const MAGIC: &[u8; 8] = b"mlrcmeta";
/// Size and type of a box (ISO/IEC 14496-12 §4.2).
const BOX_HEADER: usize = 8;
/// The box's size again, and [`MAGIC`].
const BOX_END: usize = 12;
/// The largest metadata box: 2 KiB of user metadata escaped as JSON, and the headers.
pub(super) const MAX_TRAILER: u64 = 8 * 1024;

/// The metadata box found at the end of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Trailer {
    /// The whole box's size in bytes.
    pub(super) len: u64,
    pub(super) meta: Meta,
}

fn extension(key: &str) -> &str {
    key.rsplit('/').next().and_then(|name| name.rsplit_once('.')).map_or("", |(_, extension)| extension)
}

/// True if the object is an ISO base media file, which may end in a `free` box.
pub(super) fn is_bmff(key: &str) -> bool {
    matches!(extension(key), "m4s" | "mp4")
}

/// Returns the metadata that the name alone implies.
pub(super) fn guessed(key: &str) -> Meta {
    match extension(key) {
        "m3u8" => Meta::of_type("application/vnd.apple.mpegurl"),
        "jpg" => Meta::of_type("image/jpeg"),
        "vtt" => Meta::of_type("text/vtt"),
        "json" => Meta::of_type("application/json"),
        _ => Meta::default(),
    }
}

pub(super) fn to_json(meta: &Meta) -> Vec<u8> {
    let mut out = Map::new();
    if let Some(value) = &meta.content_type {
        out.insert("type".into(), Value::from(value.as_str()));
    }
    if let Some(value) = &meta.cache_control {
        out.insert("cache".into(), Value::from(value.as_str()));
    }
    if !meta.user.is_empty() {
        let user = meta.user.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str())));
        out.insert("user".into(), Value::Object(user.collect()));
    }
    Value::Object(out).to_string().into_bytes()
}

pub(super) fn from_json(json: &[u8]) -> Option<Meta> {
    let value: Value = serde_json::from_slice(json).ok()?;
    let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let mut meta = Meta { content_type: text("type"), cache_control: text("cache"), ..Meta::default() };
    for (name, value) in value.get("user").and_then(Value::as_object).into_iter().flatten() {
        meta.user.insert(name.clone(), value.as_str()?.to_owned());
    }
    Some(meta)
}

/// `meta` as a `free` box: header, JSON, the size again, [`MAGIC`].
pub(super) fn trailer(meta: &Meta) -> Bytes {
    let json = to_json(meta);
    let size = (BOX_HEADER + json.len() + BOX_END) as u32;
    let mut out = Vec::with_capacity(size as usize);
    out.extend_from_slice(&size.to_be_bytes());
    out.extend_from_slice(b"free");
    out.extend_from_slice(&json);
    out.extend_from_slice(&size.to_be_bytes());
    out.extend_from_slice(MAGIC);
    out.into()
}

/// Reads the box at the end of `tail`, the last bytes of a file.
pub(super) fn parse_trailer(tail: &[u8]) -> Option<Trailer> {
    let rest = tail.strip_suffix(MAGIC)?;
    let (_, size) = rest.split_last_chunk::<4>()?;
    let len = u32::from_be_bytes(*size) as usize;
    let whole = &tail[tail.len().checked_sub(len)?..];
    let json = whole.get(BOX_HEADER..len.checked_sub(BOX_END)?)?;
    if whole.get(..4)? != size || whole.get(4..BOX_HEADER)? != b"free" {
        return None;
    }
    Some(Trailer { len: len as u64, meta: from_json(json)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailer_gives_back_what_it_was_made_of() {
        let meta = Meta::of_type("video/mp4").cache("immutable").with("msn", "17").with("q", "a\"b\\c");
        let mut file = b"moofmdat".to_vec();
        let made = trailer(&meta);
        file.extend_from_slice(&made);
        assert_eq!(parse_trailer(&file), Some(Trailer { len: made.len() as u64, meta }));
    }

    #[test]
    fn garbage_is_no_trailer() {
        assert_eq!(parse_trailer(b""), None);
        assert_eq!(parse_trailer(MAGIC), None);
        for size in [0u32, 1, 11, 12, 19, 20, 4000, u32::MAX] {
            let mut file = b"xxxxfree{}".to_vec();
            file.extend_from_slice(&size.to_be_bytes());
            file.extend_from_slice(MAGIC);
            assert_eq!(parse_trailer(&file), None, "{size}");
        }
    }
}
