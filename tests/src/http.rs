//! One HTTP client, and fetching a body whole.

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use reqwest::{Client, StatusCode};

/// Longer than any held playlist request; a hang is a failure, not a stuck test.
const REQUEST_LIMIT: Duration = Duration::from_secs(15);

/// The client of this process, with keep-alive.
pub fn client() -> &'static Client {
    static CLIENT: OnceLock<Client> = OnceLock::new();
    CLIENT.get_or_init(|| {
        // An error means that another test of this process installed it first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Client::builder().timeout(REQUEST_LIMIT).no_proxy().build().unwrap_or_default()
    })
}

/// A body, or the status and text of the refusal.
pub async fn get(url: &str) -> Result<Bytes> {
    let response = client().get(url).send().await.with_context(|| format!("GET {url}"))?;
    let status = response.status();
    let body = response.bytes().await.with_context(|| format!("body of {url}"))?;
    if status != StatusCode::OK {
        bail!("GET {url}: {status}: {}", String::from_utf8_lossy(&body));
    }
    Ok(body)
}

/// As [`get`], for text.
pub async fn get_text(url: &str) -> Result<String> {
    String::from_utf8(get(url).await?.to_vec()).with_context(|| format!("{url} is not UTF-8"))
}

/// Resolves a playlist's reference against the playlist's own URL (RFC 3986 §5.2, as far as playlists need it).
pub fn resolve(base: &str, reference: &str) -> Result<String> {
    let base = reqwest::Url::parse(base).with_context(|| format!("URL {base}"))?;
    Ok(base.join(reference).with_context(|| format!("reference {reference}"))?.to_string())
}
