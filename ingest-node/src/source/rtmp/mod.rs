//! RTMP and RTMPS: sockets, the handshake and commands of a connection, and FLV bodies as source events.

mod connection;
mod listener;
mod media;
mod tls;
mod transport;

pub(crate) use listener::Listener;
pub(crate) use tls::Certificate;
