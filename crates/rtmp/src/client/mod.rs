//! The publishing client's side of a session: restreaming and load generation.

mod config;
mod session;

pub use config::{ClientConfig, UrlError};
pub use session::{ClientEvent, ClientSession};
