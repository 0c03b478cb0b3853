//! The chunk layer (RTMP 1.0, 5.3): messages cut into chunks on interleaved chunk streams.

mod assembly;
mod header;
mod reader;
mod stream;
mod writer;

pub use header::{BasicHeader, RawHeader};
pub use reader::{ChunkReader, ExtendedTimestamps};
pub use writer::ChunkWriter;

/// Chunk size that both peers start with (RTMP 5.3).
pub const INITIAL_CHUNK_BYTES: usize = 128;
/// Largest chunk size that can be announced (RTMP 5.4.1: the top bit is zero).
pub const MAX_CHUNK_BYTES: u32 = 0x7fff_ffff;
/// The 24-bit timestamp value that announces an extended timestamp of 32 bits (RTMP 5.3.1.3).
pub const EXTENDED: u32 = 0x00ff_ffff;
/// Longest header of a chunk: basic header 3, message header 11, extended timestamp 4 (RTMP 5.3.1).
pub const MAX_HEADER_BYTES: usize = 3 + 11 + 4;
/// Largest message length that fits its 24-bit field.
pub const MAX_MESSAGE_FIELD: usize = 0x00ff_ffff;
