//! RTMP for Millrace: a bounded, sans-IO, zero-copy server and client.
//!
//! Nothing here reads a socket or a clock. The caller owns the socket and a `BytesMut`, lets
//! [`server::ServerSession::prepare_read`] reserve room in it, reads into it, and pulls events:
//!
//! ```
//! use bytes::BytesMut;
//! use millrace_rtmp::{Event, Limits, ServerSession};
//! use std::time::Duration;
//!
//! # fn turn(session: &mut ServerSession, buf: &mut BytesMut, now: Duration) -> Result<(), millrace_rtmp::RtmpError> {
//! while let Some(event) = session.next_event(now, buf)? {
//!     match event {
//!         Event::ConnectRequested(_) => session.accept_connect()?,
//!         Event::PublishRequested(_) => session.accept_publish(now)?,
//!         Event::Video { .. } | Event::Audio { .. } => {}
//!         _ => {}
//!     }
//! }
//! while let Some(bytes) = session.poll_transmit() { /* write to the socket */ }
//! # Ok(()) }
//! # let mut s = ServerSession::new(Limits::default(), Duration::ZERO);
//! # turn(&mut s, &mut BytesMut::new(), Duration::ZERO).unwrap();
//! ```
//!
//! # The part of rml_rtmp
//! The handshake is rml_rtmp's (plain and digest). Its chunk reader, AMF0 and command parser are not used on
//! the wire, because hostile or merely unusual input makes them panic, overflow the stack or lose
//! synchronisation; `tests/library_faults.rs` keeps each fault reproduced. Its chunk writer and reader
//! serve as the independent peer in `tests/cross_check.rs`. No type of rml_rtmp crosses this crate's API.
//!
//! # Memory
//! A message that lies in one chunk is a slice of the read buffer; a message of several chunks is
//! assembled with one copy. Every buffer is bounded by [`limits::Limits`].
#![forbid(unsafe_code)]

pub mod amf;
pub mod chunk;
pub mod client;
pub mod error;
mod handshake;
pub mod limits;
pub mod message;
mod metadata;
pub mod server;
mod transmit;

pub use amf::Value;
pub use client::{ClientConfig, ClientEvent, ClientSession};
pub use error::{ErrorKind, Location, Phase, RtmpError};
pub use limits::Limits;
pub use message::{Message, MessageType};
pub use metadata::{AacInfo, StreamInfo};
pub use server::{
    ConnectInfo, Event, PublishMode, PublishRequest, Refusal, Rejection, ServerSession, StreamName,
};
