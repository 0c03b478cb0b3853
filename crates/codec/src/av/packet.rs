//! Coded media as libav takes it.

use std::ptr;

use ffmpeg_next::{Packet, codec, ffi};
use millrace_buf::ByteChain;

use crate::CodecError;

/// Returns a packet with the bytes of a chain. This is the one copy: libav wants them in one piece, with zeros behind.
pub(super) fn of(data: &ByteChain) -> Result<Packet, CodecError> {
    let mut packet = Packet::new(data.len());
    let mut rest = packet.data_mut().ok_or(CodecError::Malformed { what: "empty frame" })?;
    for slice in data.iter() {
        let (head, tail) = rest.split_at_mut(slice.len());
        head.copy_from_slice(slice);
        rest = tail;
    }
    Ok(packet)
}

/// Gives a decoder that is not open yet its configuration record.
pub(super) fn set_extradata(context: &mut codec::context::Context, record: &[u8]) -> Result<(), CodecError> {
    if record.is_empty() {
        return Ok(());
    }
    // SAFETY: the context is valid and not open yet; libav frees the record, which has its padding.
    unsafe {
        let context = context.as_mut_ptr();
        let padded = record.len() + ffi::AV_INPUT_BUFFER_PADDING_SIZE as usize;
        (*context).extradata = ffi::av_mallocz(padded).cast();
        if (*context).extradata.is_null() {
            return Err(CodecError::Malformed { what: "memory for the configuration record" });
        }
        ptr::copy_nonoverlapping(record.as_ptr(), (*context).extradata, record.len());
        (*context).extradata_size = record.len() as i32;
    }
    Ok(())
}
