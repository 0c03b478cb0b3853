//! A low-latency viewer: blocking playlist reloads, every part once, bytes counted and thrown away.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use tokio::time::Instant;

use crate::playlist::{Media, Multivariant};
use millrace_testkit::http;

/// A playlist that is not there yet, or an answer without news, is asked again after this.
const RETRY: Duration = Duration::from_millis(100);
/// A buffer that a player would have played empty: five parts of the default length.
const STALL: Duration = Duration::from_secs(1);

/// The counts of all viewers of a run together.
#[derive(Debug, Default)]
pub struct Tally {
    /// The number of playlists fetched.
    pub playlists: AtomicU64,
    /// Parts, and segments where there are no parts.
    pub media: AtomicU64,
    /// The bytes of media received.
    pub bytes: AtomicU64,
    /// The number of requests that failed.
    pub errors: AtomicU64,
    /// Times a viewer waited longer than its buffer for the next part.
    pub stalls: AtomicU64,
    /// Set to end the run.
    pub stop: AtomicBool,
}

/// Media playlists of the first variant and its audio.
pub async fn media_playlists(hls_url: &str) -> Result<Vec<String>> {
    let main = Multivariant::parse(&http::get_text(hls_url).await?)?;
    main.variants
        .iter()
        .take(1)
        .chain(main.audio.iter().take(1))
        .map(|uri| http::resolve(hls_url, uri))
        .collect()
}

/// The URL that is answered when something newer than `playlist` exists (RFC 8216bis §6.2.5.2).
pub fn next_url(url: &str, playlist: &Media) -> String {
    let msn = playlist.media_sequence + playlist.segments.len() as u64;
    if playlist.parts.is_empty() {
        url.to_owned()
    } else {
        format!("{url}?_HLS_msn={msn}&_HLS_part={}", playlist.open_parts)
    }
}

/// Follows one media playlist until the tally is stopped or the stream ends; `got` sees each part or segment.
pub async fn follow(url: &str, tally: &Tally, mut got: impl FnMut(&str, Bytes)) -> Result<()> {
    let mut last: Option<Media> = None;
    let mut fetched = Instant::now();
    while !tally.stop.load(Ordering::Relaxed) {
        let ask = last.as_ref().map_or_else(|| url.to_owned(), |playlist| next_url(url, playlist));
        let Ok(text) = http::get_text(&ask).await else {
            tally.errors.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(RETRY).await;
            continue;
        };
        tally.playlists.fetch_add(1, Ordering::Relaxed);
        let playlist = Media::parse(&text).with_context(|| ask.clone())?;
        let known = last.as_ref().map(Media::references).unwrap_or_default();
        let references = playlist.references();
        // A viewer that joins starts at the newest, as players do.
        let fresh: Vec<_> = match &last {
            None => references.last().into_iter().copied().collect(),
            Some(_) => references.iter().filter(|uri| !known.contains(uri)).copied().collect(),
        };
        if fresh.is_empty() && last.is_some() {
            tokio::time::sleep(RETRY).await;
        }
        for uri in fresh {
            let uri = http::resolve(url, uri)?;
            match http::get_ok(&uri).await {
                Ok(bytes) => {
                    tally.media.fetch_add(1, Ordering::Relaxed);
                    tally.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    if last.is_some() && fetched.elapsed() > STALL {
                        tally.stalls.fetch_add(1, Ordering::Relaxed);
                    }
                    fetched = Instant::now();
                    got(&uri, bytes);
                }
                Err(_) => {
                    tally.errors.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        if playlist.ended {
            break;
        }
        last = Some(playlist);
    }
    Ok(())
}
