//! Encoders of H.264, one interface over all of them.

mod annex_b;
mod interface;
mod kinds;
mod libav;
mod openh264;
mod probe;
mod upload;

pub(crate) use interface::{Coded, Encoder, Settings};
pub(crate) use kinds::open;
pub use probe::LibavLicence;
