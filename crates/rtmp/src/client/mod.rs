//! The publishing client, for restreaming and load generation.

mod config;
mod session;

pub use config::{ClientConfig, UrlError};
pub use session::{ClientEvent, ClientSession};
