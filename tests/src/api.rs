//! A client of the control API.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use millrace_testkit::http::shared_client;
use millrace_testkit::wait;

/// The time that ingest has to read what an encoder sent before it left, and control to learn that it has left.
const LEAVE_LIMIT: Duration = Duration::from_secs(10);

/// Control's API at one address, as its administrator.
#[derive(Debug, Clone)]
pub struct Api {
    base: String,
    token: String,
}

/// The answer to the creation of a livestream.
#[derive(Debug, Clone, Deserialize)]
pub struct Livestream {
    /// The id the API knows it by.
    pub id: String,
    /// The public id in viewers' URLs.
    pub playback_id: String,
    /// The stream key, which the API returns only once.
    pub stream_key: String,
    /// The RTMP URL of the application, without the key.
    pub rtmp_url: String,
    /// The URL of the multivariant playlist.
    pub hls_url: String,
}

impl Livestream {
    /// The URL encoders take that have a single field for server and key.
    pub fn push_url(&self) -> String {
        format!("{}/{}", self.rtmp_url.trim_end_matches('/'), self.stream_key)
    }
}

impl Api {
    /// A client of the API at `base` (`http://host:port`).
    pub fn new(base: &str, token: &str) -> Self {
        Self { base: base.trim_end_matches('/').to_owned(), token: token.to_owned() }
    }

    /// Any request: the status and the JSON body (`null` when empty).
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value)> {
        let url = format!("{}/api/v1{path}", self.base);
        let mut request = shared_client().request(method.clone(), &url).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.with_context(|| format!("{method} {url}"))?;
        let status = response.status();
        let text = response.text().await.with_context(|| format!("body of {method} {url}"))?;
        let value = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).context(text)? };
        Ok((status, value))
    }

    async fn expect(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let (status, value) = self.call(method.clone(), path, body).await?;
        if !status.is_success() {
            bail!("{method} {path}: {status}: {value}");
        }
        Ok(value)
    }

    /// A livestream with default settings.
    pub async fn create(&self, title: &str) -> Result<Livestream> {
        self.create_with(json!({ "title": title })).await
    }

    /// A livestream from a whole request.
    pub async fn create_with(&self, request: Value) -> Result<Livestream> {
        let value = self.expect(Method::POST, "/livestreams", Some(&request)).await?;
        serde_json::from_value(value.clone()).with_context(|| format!("a livestream: {value}"))
    }

    /// Fetches the status of a livestream.
    pub async fn status(&self, id: &str) -> Result<Value> {
        self.expect(Method::GET, &format!("/livestreams/{id}/status"), None).await
    }

    /// Ends the livestream once ingest has taken everything that its encoder sent before it left.
    ///
    /// An encoder's process may be gone while its last bytes still wait in the server's socket. A stop at that moment
    /// is an operator's order to disconnect a publisher, so those bytes are not media of the livestream.
    pub async fn stop_after_encoder(&self, id: &str) -> Result<()> {
        wait::value("the publisher to have left", LEAVE_LIMIT, || async {
            let status = self.status(id).await.ok()?;
            let state = status["health"]["state"].as_str()?;
            (!matches!(state, "ok" | "degraded")).then_some(())
        })
        .await?;
        self.stop(id).await
    }

    /// Ends the livestream, even while its encoder sends.
    pub async fn stop(&self, id: &str) -> Result<()> {
        self.expect(Method::POST, &format!("/livestreams/{id}/stop"), None).await.map(drop)
    }
}
