//! The client: bounds of each request, and its answer.

use std::sync::Once;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::HeaderMap;
use reqwest::redirect::Policy;

use crate::destinations::{CheckedResolver, Destinations};
use crate::error::RequestError;
use crate::request::Request;

/// Idle connections kept for each service: one request at a time is the rule, a burst opens more.
const IDLE_CONNECTIONS: usize = 4;

/// Time for which an idle connection is kept: below the keep-alive time of common servers (Puma 20 s, nginx 75 s).
const IDLE_TIME: Duration = Duration::from_secs(15);

/// The bounds of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest time until the connection stands, TLS included.
    pub connect: Duration,
    /// Longest time from the start of the request to the last byte of its answer.
    pub total: Duration,
    /// Largest number of bytes of an answer's body.
    pub answer_bytes: usize,
}

/// The answer to a request, with any status.
#[derive(Debug, Clone)]
pub struct Response {
    /// The HTTP status code.
    pub status: u16,
    headers: HeaderMap,
    /// The whole body, as it was sent.
    pub body: Bytes,
}

impl Response {
    /// Returns the value of a header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns true for a status from 200 to 299.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Sends requests within its limits. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    limits: Limits,
    destinations: Destinations,
}

impl Client {
    /// Creates a client.
    ///
    /// # Errors
    /// The TLS library refused its configuration.
    pub fn new(limits: Limits, destinations: Destinations) -> Result<Self, RequestError> {
        install_crypto();
        let http = reqwest::Client::builder()
            .user_agent(concat!("millrace/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .no_proxy()
            // An answer that is inflated could not be bounded by the bytes that came.
            .no_gzip()
            .connect_timeout(limits.connect)
            .timeout(limits.total)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .pool_idle_timeout(IDLE_TIME)
            .dns_resolver(std::sync::Arc::new(CheckedResolver(destinations)))
            .build()
            .map_err(|error| RequestError::of(&error, "the HTTP client".to_owned()))?;
        Ok(Self { http, limits, destinations })
    }

    /// Sends the request once and reads the whole answer.
    pub async fn send(&self, request: Request) -> Result<Response, RequestError> {
        let Request { method, target, headers, body } = request;
        let origin = target.origin();
        // A name goes through the checked resolver; an address in the URL does not.
        if !target.may_lead_to(self.destinations) {
            return Err(RequestError::Forbidden { origin });
        }
        let sent = self.http.request(method, target.url().clone()).headers(headers).body(body).send().await;
        let mut answer = sent.map_err(|error| RequestError::of(&error, origin.clone()))?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let mut body = BytesMut::new();
        loop {
            match answer.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() > self.limits.answer_bytes => {
                    return Err(RequestError::TooLong { origin, limit: self.limits.answer_bytes });
                }
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => return Ok(Response { status, headers, body: body.freeze() }),
                Err(error) => return Err(RequestError::of(&error, origin)),
            }
        }
    }
}

/// Chooses the cryptography of TLS for the process, unless another part has chosen already.
fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}
