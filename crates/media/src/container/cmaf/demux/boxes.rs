//! Walking boxes (ISO/IEC 14496-12 §4.2) of untrusted bytes.

use bytes::{Buf, Bytes};

use crate::codec::CodecError;

/// An error in the bytes of a CMAF file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DemuxError {
    /// A box or a field ends before its size.
    #[error("{0} is truncated")]
    Truncated(&'static str),
    /// A box that is required and missing.
    #[error("no {0} box")]
    Missing(&'static str),
    /// A feature that this crate does not write.
    #[error("unsupported: {0}")]
    Unsupported(&'static str),
    /// A configuration record that cannot be read.
    #[error("configuration record in the sample entry: {0}")]
    Record(#[from] CodecError),
}

/// The type of a box.
pub(super) type Kind = [u8; 4];

/// Splits off the next box; returns its type, its body and its whole size.
pub(super) fn next_box(rest: &mut Bytes) -> Result<Option<(Kind, Bytes, usize)>, DemuxError> {
    if rest.is_empty() {
        return Ok(None);
    }
    let size = take_u32(rest, "box")? as usize;
    let kind = take_u32(rest, "box")?.to_be_bytes();
    let body = size.checked_sub(8).filter(|body| *body <= rest.len()).ok_or(DemuxError::Truncated("box"))?;
    Ok(Some((kind, rest.split_to(body), size)))
}

/// Returns the body of the first child box of this type.
pub(super) fn child(parent: &Bytes, kind: Kind) -> Result<Option<Bytes>, DemuxError> {
    let mut rest = parent.clone();
    while let Some((found, body, _)) = next_box(&mut rest)? {
        if found == kind {
            return Ok(Some(body));
        }
    }
    Ok(None)
}

/// Reads a 32-bit field of the box `what`.
pub(super) fn take_u32(data: &mut Bytes, what: &'static str) -> Result<u32, DemuxError> {
    if data.len() < 4 { Err(DemuxError::Truncated(what)) } else { Ok(data.get_u32()) }
}

/// Skips a field of the box `what`.
pub(super) fn skip(data: &mut Bytes, count: usize, what: &'static str) -> Result<(), DemuxError> {
    if data.len() < count {
        return Err(DemuxError::Truncated(what));
    }
    data.advance(count);
    Ok(())
}
