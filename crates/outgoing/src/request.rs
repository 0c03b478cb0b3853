//! One request, before it is sent.

use bytes::Bytes;
use millrace_runtime::Secret;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use crate::target::Target;

/// A request to be sent by a [`Client`](crate::Client). Its headers and body are never printed.
#[derive(Clone)]
pub struct Request {
    pub(crate) method: Method,
    pub(crate) target: Target,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Request {
    /// Creates a GET request.
    pub fn get(target: Target) -> Self {
        Self { method: Method::GET, target, headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// Creates a `DELETE` request without a body.
    pub fn delete(target: Target) -> Self {
        Self { method: Method::DELETE, ..Self::get(target) }
    }

    /// Creates a POST request with a JSON body.
    pub fn post_json(target: Target, body: impl Into<Bytes>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Self { method: Method::POST, target, headers, body: body.into() }
    }

    /// Adds a header, such as the signature of the body. A value with control characters is left out, and so is a name
    /// that is none; neither can come from a signature, an id or a time.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        if let (Ok(name), Ok(mut value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
            value.set_sensitive(true);
            self.headers.insert(name, value);
        }
        self
    }

    /// Adds `Authorization: Bearer` with the secret, unless the secret is empty.
    #[must_use]
    pub fn bearer(self, secret: &Secret<String>) -> Self {
        if secret.expose().is_empty() {
            return self;
        }
        self.header("authorization", &format!("Bearer {}", secret.expose()))
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.target)
    }
}
