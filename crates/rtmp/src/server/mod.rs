//! The server's side of a publishing session.

mod commands;
mod info;
mod media;
mod session;

pub use info::{ConnectInfo, PublishMode, PublishRequest, Rejection, StreamName};
pub use session::{Event, ServerSession};
