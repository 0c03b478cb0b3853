//! HTTP requests to services that are not part of the cluster: the key check, callbacks and webhooks.
//!
//! A [`Client`] bounds each request: time to connect, time in all, bytes of the answer. It follows no redirect, uses no
//! proxy of the environment, and connects only to addresses its [`Destinations`] allow; the addresses that the name
//! resolved to are checked and are the ones it connects to, so that a second look-up cannot lead elsewhere. No error
//! names more of a URL than its origin: paths and queries carry keys.
#![forbid(unsafe_code)]

mod client;
mod destinations;
mod error;
mod request;
mod target;

pub use client::{Client, Limits, Response};
pub use destinations::Destinations;
pub use error::RequestError;
pub use request::Request;
pub use target::{Target, TargetError};
