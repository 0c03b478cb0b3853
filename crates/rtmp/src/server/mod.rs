//! The server's side of a connection that publishes.

mod aggregate;
mod commands;
mod event;
mod info;
mod keepalive;
mod media;
mod rate;
mod session;

pub use event::{Event, Refusal};
pub use info::{ConnectInfo, PublishMode, PublishRequest, Rejection, StreamName};
pub use session::ServerSession;
