//! Fetching over HTTP as a viewer would.

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use reqwest::header::HeaderMap;

/// A complete HTTP response.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status code.
    pub status: u16,
    /// The headers of the response.
    pub headers: HeaderMap,
    /// The body of the response.
    pub body: Bytes,
}

impl Answer {
    /// Returns the body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A client with connections kept alive and a time limit of 30 s a request, longer than any blocking reload.
pub fn client() -> reqwest::Client {
    static CLIENT: OnceLock<()> = OnceLock::new();
    // Installed already by the code under test: just as good.
    CLIENT.get_or_init(|| drop(rustls::crypto::ring::default_provider().install_default()));
    reqwest::Client::builder()
        .timeout(Duration::from_secs(30))
        .no_proxy()
        .build()
        .expect("an HTTP client without options that can fail")
}

/// Fetches `url`, following no redirect's surprise: any status is an answer.
pub async fn get(url: &str) -> anyhow::Result<Answer> {
    fetch(client().get(url)).await
}

/// Sends a prepared request and reads the response.
pub async fn fetch(request: reqwest::RequestBuilder) -> anyhow::Result<Answer> {
    let answer = request.send().await?;
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    Ok(Answer { status, headers, body: answer.bytes().await? })
}

/// The HTTP client that the tests of this process share; it keeps connections alive.
pub fn shared_client() -> &'static reqwest::Client {
    static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
    CLIENT.get_or_init(client)
}

/// Fetches `url` with the shared client and returns the body of a 200 answer.
///
/// # Errors
/// Any other status fails with the status and the answer's text.
pub async fn get_ok(url: &str) -> anyhow::Result<Bytes> {
    let answer = fetch(shared_client().get(url)).await.with_context(|| format!("GET {url}"))?;
    anyhow::ensure!(answer.status == 200, "GET {url}: {}: {}", answer.status, answer.text());
    Ok(answer.body)
}

/// Fetches `url` as [`get_ok`] does and returns the body as UTF-8 text.
pub async fn get_text(url: &str) -> anyhow::Result<String> {
    String::from_utf8(get_ok(url).await?.to_vec()).with_context(|| format!("{url} is not UTF-8"))
}

/// Resolves a playlist's reference against the playlist's own URL (RFC 3986, section 5.2).
pub fn resolve(base: &str, reference: &str) -> anyhow::Result<String> {
    let base = reqwest::Url::parse(base).with_context(|| format!("URL {base}"))?;
    Ok(base.join(reference).with_context(|| format!("reference {reference}"))?.to_string())
}
