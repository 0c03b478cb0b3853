//! libav behind a small safe API: the only crate that links it.
//!
//! [`H264Decoder`] turns access units into luma planes, for checks of pictures.
//!
//! Decoding untrusted bytes belongs in a process of its own (no network, no credentials); nothing on the live path
//! of the copy rung calls the decoder.
#![deny(unsafe_op_in_unsafe_fn)]

mod av;
mod descriptors;
mod encoder;
pub mod engine;
mod error;
mod h264;

pub use descriptors::withhold_descriptors;
pub use encoder::LibavLicence;
pub use error::CodecError;
pub use h264::{H264Decoder, LumaFrame};

use std::sync::Once;

/// Registers libav once and keeps its own log at errors: it writes to stderr past our tracing.
fn init() {
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        // `init` only fails when libav was built without its own tables.
        if let Err(error) = ffmpeg_next::init() {
            tracing::error!(%error, "libav does not initialise");
        }
        ffmpeg_next::log::set_level(ffmpeg_next::log::Level::Error);
    });
}
