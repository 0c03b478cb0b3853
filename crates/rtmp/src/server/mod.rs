//! The server's side of a connection that publishes.

mod aggregate;
mod commands;
mod event;
mod info;
mod media;
mod session;

pub use event::Event;
pub use info::{ConnectInfo, PublishMode, PublishRequest, Rejection, StreamName};
pub use session::ServerSession;
