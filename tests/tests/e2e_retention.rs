//! Retention on a real cluster: what workers stored leaves the bucket once it is out of the window, although the workers die,
//! drain, and the publisher is taken over; no playlist lists a segment that was deleted.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_state::{StateStore, Tx};
use millrace_store::{ObjectStore, list_all};
use millrace_testkit::programs::tail;
use millrace_testkit::{http, wait};
use millrace_tests::api::Livestream;
use millrace_tests::cluster::{Cluster, Node};
use millrace_tests::known_clip::{Clip, seconds};
use millrace_tests::playlist::{Media, Multivariant};
use millrace_tests::publish::push;
use millrace_wire::object_names::{ObjectKind, ObjectName, stream_prefix, thumbnail};
use millrace_wire::state_keys;
use serde_json::{Value, json};

/// The live window in seconds; with target durations of 2 s a stored segment stays for 10 s in playlists and 12 s after.
const WINDOW_S: u32 = 4;
/// The longest time a segment may stay: window, grace period, a round of retention, and a busy machine.
const DELETION_LIMIT: Duration = Duration::from_mins(1);
/// A clip of 36 s, and an encoder that takes its time to disconnect.
const CLIP_LIMIT: Duration = Duration::from_secs(90);

/// Creates a livestream with a window shorter than the API would give it.
async fn create(cluster: &Cluster) -> Result<Livestream> {
    let live = cluster
        .api()
        .create_with(json!({ "title": "retention", "target_duration_s": 2, "reconnect_window_s": 300 }))
        .await?;
    let state = cluster.state().await?;
    let key = state_keys::stream(live.id.parse()?);
    let record = state.get(&key).await?.context("the livestream's record")?;
    let mut stream: Value = serde_json::from_slice(&record.value)?;
    stream["settings"]["window"] = json!(WINDOW_S);
    state.commit(Tx::new().put(key, stream.to_string())).await?;
    Ok(live)
}

/// The media objects of the stream in the bucket: all but its newest picture, which is one object that is written again.
async fn bucket(store: &impl ObjectStore, live: &Livestream) -> Result<BTreeSet<ObjectName>> {
    let playback = live.playback_id.parse()?;
    let picture = thumbnail(playback);
    let entries = list_all(store, &stream_prefix(playback), 10_000).await?;
    let media = entries.into_iter().filter(|entry| entry.key != picture);
    media.map(|entry| entry.key.parse().with_context(|| entry.key.clone())).collect()
}

/// The objects that the playlists of an edge list: complete segments that are no gaps, and initialisation sections.
async fn listed(hls_url: &str) -> Result<BTreeSet<ObjectName>> {
    let main = Multivariant::parse(&http::get_text(hls_url).await?)?;
    let mut names = BTreeSet::new();
    for uri in main.variants.iter().chain(&main.audio) {
        let url = http::resolve(hls_url, uri)?;
        let playlist = Media::parse(&http::get_text(&url).await?)?;
        for segment in playlist.segments.iter().filter(|segment| !segment.gap) {
            for uri in [&segment.uri, &segment.init] {
                let url = http::resolve(&url, uri)?;
                let path = url.split_once("/live/").map(|(_, path)| format!("live/{path}"));
                names.insert(path.context("a path")?.parse().with_context(|| url.clone())?);
            }
        }
    }
    Ok(names)
}

/// The newest media sequence number of the objects.
fn newest(names: &BTreeSet<ObjectName>) -> u64 {
    let numbers = names.iter().filter_map(|name| match name.kind {
        ObjectKind::Segment(msn, _) => Some(msn.0),
        _ => None,
    });
    numbers.max().unwrap_or_default()
}

/// Waits until a worker has stored two segments beyond `newest`: the one that was struck has a successor.
async fn stored_beyond(store: &impl ObjectStore, live: &Livestream, newest_before: u64) -> Result<()> {
    wait::value("segments of the successor", CLIP_LIMIT, || async {
        let names = bucket(store, live).await.ok()?;
        (newest(&names) >= newest_before + 2).then_some(())
    })
    .await
}

/// The media playlists of a stream as one viewer reads them.
struct Playlists {
    urls: Vec<String>,
    newest: Vec<Media>,
}

impl Playlists {
    async fn open(hls_url: &str) -> Result<Self> {
        let main = Multivariant::parse(&http::get_text(hls_url).await?)?;
        let uris = main.variants.iter().chain(&main.audio);
        let urls = uris.map(|uri| http::resolve(hls_url, uri)).collect::<Result<_>>()?;
        let mut playlists = Self { urls, newest: Vec::new() };
        playlists.read().await?;
        Ok(playlists)
    }

    /// Reads them once more; an error if one is refused or goes back.
    async fn read(&mut self) -> Result<()> {
        let mut newest = Vec::new();
        for url in &self.urls {
            newest.push(Media::parse(&http::get_text(url).await?)?);
        }
        for (now, before) in newest.iter().zip(&self.newest) {
            let wrong = now.violations_after(before);
            ensure!(wrong.is_empty(), "{wrong:?}");
        }
        self.newest = newest;
        Ok(())
    }

    /// Reads them until it holds for all.
    async fn until(&mut self, what: &str, holds: impl Fn(&Media) -> bool) -> Result<()> {
        let end = tokio::time::Instant::now() + CLIP_LIMIT;
        while !self.newest.iter().all(&holds) {
            ensure!(tokio::time::Instant::now() < end, "no {what}: {:?}", self.newest);
            tokio::time::sleep(Duration::from_millis(200)).await;
            self.read().await?;
        }
        Ok(())
    }
}

fn epochs(names: &BTreeSet<ObjectName>) -> BTreeSet<u64> {
    names.iter().map(|name| name.epoch.0).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_outlives_killed_and_drained_workers_and_a_takeover() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let live = create(&cluster).await?;
    let store = cluster.store();
    let clip = Clip::numbered(seconds(36)).await?;
    let first = push(&clip, &live.push_url(), cluster.folder())?;
    wait::value("stored segments", CLIP_LIMIT, || async {
        bucket(&store, &live).await.ok().filter(|names| names.len() >= 6).map(drop)
    })
    .await?;
    let before = bucket(&store, &live).await?;
    // Which of the two workers holds the job is the cluster's choice: each is struck once.
    cluster.kill(Node::Transcode(1))?;
    cluster.start_node(Node::Transcode(1)).await?;
    stored_beyond(&store, &live, newest(&before)).await?;
    let between = bucket(&store, &live).await?;
    cluster.drain(Node::Transcode(2)).await?;
    cluster.start_node(Node::Transcode(2)).await?;
    stored_beyond(&store, &live, newest(&between)).await?;
    ensure!(epochs(&before).len() == 1, "one session so far: {before:?}");

    // The second encoder takes the stream over. Nothing of the first session stays, whichever worker stored it.
    let mut second = push(&clip, &live.push_url(), cluster.folder())?;
    let hls_url = cluster.hls_url(1, &live.playback_id);
    wait::value("only the new session's objects", CLIP_LIMIT, || async {
        let names = bucket(&store, &live).await.ok()?;
        let gone = epochs(&names).is_disjoint(&epochs(&before));
        (gone && !names.is_empty()).then_some(())
    })
    .await
    .with_context(|| cluster.tails())?;
    drop(first);
    let status = second.wait(CLIP_LIMIT).await?;
    ensure!(status.success(), "the encoder failed\n{}\n{}", tail(&second), cluster.tails());

    // The publisher is away for longer than the window: the playlists go on as GAPs alone.
    let mut playlists = Playlists::open(&hls_url).await?;
    let is_gaps = |media: &Media| media.open_parts == 0 && media.segments.iter().all(|segment| segment.gap);
    playlists.until("GAPs alone", is_gaps).await.with_context(|| cluster.tails())?;
    let end = playlists.newest.iter().map(Media::next_msn).max().unwrap_or_default();
    playlists.until("another GAP", |media| media.next_msn() > end).await?;

    // A third session, of an encoder that connects again within the reconnect window, is stopped while it publishes: the end leaves its last playlist, whole, and nothing else.
    let earlier = epochs(&bucket(&store, &live).await?);
    let third = push(&clip, &live.push_url(), cluster.folder())?;
    let is_back = |media: &Media| media.segments.last().is_some_and(|segment| !segment.gap);
    playlists.until("media behind the GAPs", is_back).await.with_context(|| cluster.tails())?;
    wait::value("a window of the third session", CLIP_LIMIT, || async {
        let names = listed(&hls_url).await.ok()?;
        let segments = names.iter().filter(|name| matches!(name.kind, ObjectKind::Segment(..))).count();
        // Three target durations stay listed (RFC 8216, section 6.2.2): three segments of each rendition.
        (segments >= 2 * 3 && epochs(&names).is_disjoint(&earlier)).then_some(())
    })
    .await
    .with_context(|| cluster.tails())?;
    cluster.api().stop(&live.id).await?;
    drop(third);
    wait::value("the last playlist's objects alone", DELETION_LIMIT, || async {
        let (names, listed) = (bucket(&store, &live).await.ok()?, listed(&hls_url).await.ok()?);
        (names == listed && !names.is_empty()).then_some(())
    })
    .await
    .with_context(|| cluster.tails())?;
    Ok(())
}
