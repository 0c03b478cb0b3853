//! Viewers of a cluster whose players are not ours: counting them at two edges, the length of their playlists, and the bucket that
//! they read without an edge.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use millrace_testkit::http::shared_client;
use millrace_testkit::{MinioServer, http, wait};
use millrace_tests::api::Api;
use millrace_tests::cluster::{Cluster, Node};
use millrace_tests::known_clip::{Clip, seconds};
use millrace_tests::load::viewer::media_playlists;
use millrace_tests::playlist::Media;
use millrace_tests::publish::push;
use reqwest::Method;
use tokio::task::JoinHandle;

/// A cluster takes both cores: these tests take turns.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
/// The time within which counts are right.
const RIGHT_WITHIN: Duration = Duration::from_secs(10);
/// Start of a stream on a busy machine.
const START: Duration = Duration::from_secs(20);

/// A player without any id: it reloads a playlist and fetches each new segment, as VLC does.
fn player(playlist: String, agent: &'static str, cmcd: Option<&'static str>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let get = async |url: &str| {
            let mut request = shared_client().get(url).header("user-agent", agent);
            if let Some(sid) = cmcd {
                request = request.header("cmcd-session", format!("sf=h,sid=\"{sid}\""));
            }
            request.send().await.ok()?.error_for_status().ok()?.bytes().await.ok()
        };
        let mut newest = String::new();
        loop {
            if let Some(text) = get(&playlist).await
                && let Ok(media) = Media::parse(&String::from_utf8_lossy(&text))
                && let Some(segment) = media.segments.iter().rev().find(|segment| !segment.gap)
                && segment.uri != newest
            {
                newest.clone_from(&segment.uri);
                if let Ok(url) = http::resolve(&playlist, &newest) {
                    get(&url).await;
                }
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
}

async fn until_viewers(api: &Api, id: &str, viewers: u64, what: &str) -> Result<()> {
    let began = Instant::now();
    wait::value(&format!("{viewers} viewers: {what}"), RIGHT_WITHIN, || async {
        (api.status(id).await.ok()?["viewer_count"] == viewers).then_some(())
    })
    .await?;
    println!("{viewers} viewers after {:.1} s: {what}", began.elapsed().as_secs_f64());
    Ok(())
}

/// A heartbeat of a page with this browser; without a session it asks for one.
async fn heartbeat(playlist: &str, agent: &str, body: serde_json::Value) -> Result<serde_json::Value> {
    let url = playlist.replace("/index.m3u8", "/beacon");
    let request = shared_client().post(url).header("user-agent", agent).json(&body);
    Ok(request.send().await?.error_for_status()?.json().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn viewers_of_every_kind_count_once_over_two_edges_within_ten_seconds() -> Result<()> {
    let _turn = TURN.lock().await;
    let nodes = [Node::Control, Node::Ingest, Node::Transcode(1), Node::Edge(1), Node::Edge(2)];
    let cluster = Cluster::start_with(&nodes).await?;
    let clip = Clip::numbered(seconds(90)).await?;
    let api = cluster.api();
    let live = api.create("viewers").await?;
    let id = &live.id;
    let mut encoder = push(&clip, &live.push_url(), cluster.folder())?;
    let mains = [1, 2].map(|edge| cluster.hls_url(edge, &live.playback_id));
    let mut playlists = Vec::new();
    for main in &mains {
        let found = wait::value("a playlist", START, || async { media_playlists(main).await.ok() }).await?;
        playlists.push(found.first().context("a media playlist")?.clone());
    }
    // The requests for playlists so far were those of a client without user agent: they begin no viewer, or there would be two.
    let vlc = [0, 1].map(|edge| player(playlists[edge].clone(), "VLC/3.0.18", None));
    until_viewers(&api, id, 1, "one player at both edges").await?;
    let safari = player(playlists[1].clone(), "AppleCoreMedia/1.0.0", None);
    let cmcd = ["a", "b"].map(|sid| player(playlists[0].clone(), "hls.js", Some(sid)));
    until_viewers(&api, id, 4, "another player, and two of one browser that CMCD tells apart").await?;
    // Our page in the browser that plays at the other edge: its heartbeats add none.
    let session =
        heartbeat(&mains[0], "AppleCoreMedia/1.0.0", serde_json::json!({})).await?["session"].clone();
    let body = serde_json::json!({ "session": session });
    heartbeat(&mains[0], "AppleCoreMedia/1.0.0", body.clone()).await?;
    // Each edge signs sessions with a secret of its own here.
    let second =
        heartbeat(&mains[1], "AppleCoreMedia/1.0.0", serde_json::json!({})).await?["session"].clone();
    heartbeat(&mains[1], "AppleCoreMedia/1.0.0", serde_json::json!({ "session": second })).await?;
    until_viewers(&api, id, 5, "a page and its player are one, a second page is another").await?;
    let leaving = serde_json::json!({ "session": second, "leaving": true });
    heartbeat(&mains[1], "AppleCoreMedia/1.0.0", leaving).await?;
    until_viewers(&api, id, 4, "the second page has left").await?;
    vlc[0].abort();
    safari.abort();
    let leaving = serde_json::json!({ "session": session, "leaving": true });
    heartbeat(&mains[0], "AppleCoreMedia/1.0.0", leaving).await?;
    until_viewers(&api, id, 3, "one has left, the other goes on at one edge").await?;
    vlc[1].abort();
    cmcd.iter().for_each(JoinHandle::abort);
    until_viewers(&api, id, 0, "all have left").await?;
    ensure!(encoder.is_running(), "the stream was on all the time");
    figures(&api, id).await
}

/// The broadcast's figures: five viewers at the most, each of them unique. They are written every fifteen seconds.
async fn figures(api: &Api, id: &str) -> Result<()> {
    wait::value("the broadcast's figures", START, || async {
        let (_, answer) = api.call(Method::GET, &format!("/livestreams/{id}/analytics"), None).await.ok()?;
        let audience = &answer["broadcasts"][0];
        // Samples five seconds apart may miss the shortest state.
        let peak = (4..=5).contains(&audience["peak_viewers"].as_u64()?);
        let watched = audience["watch_seconds"].as_u64()? > 20;
        let course = !audience["concurrent"].as_array()?.is_empty();
        (peak && watched && course && audience["unique_viewers"] == 5).then_some(())
    })
    .await
}

/// Waits until the playlist is full, and returns its newest versions.
async fn full_playlists(url: &str, segments: usize) -> Result<Vec<Media>> {
    let read = async || Media::parse(&http::get_text(url).await?);
    let is_full = async || {
        read().await.ok().filter(|playlist| playlist.segments.len() >= segments && !playlist.segments[0].gap)
    };
    wait::value("a full playlist", START * 2, || async { is_full().await }).await?;
    let mut playlists = Vec::new();
    for _ in 0..20 {
        playlists.push(read().await?);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(playlists)
}

/// Lets anyone read the cluster's bucket, as an operator of a bucket that players read does.
fn open_bucket(cluster: &Cluster) -> Result<String> {
    let bucket = format!("{}/millrace", cluster.minio.url());
    let policy = serde_json::json!({ "Version": "2012-10-17", "Statement": [{ "Effect": "Allow", "Principal": "*",
        "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::millrace/live/*"] }] });
    let user = format!("{}:{}", MinioServer::ACCESS_KEY, MinioServer::SECRET_KEY);
    let status = std::process::Command::new("curl")
        .args(["-sfS", "--aws-sigv4", "aws:amz:us-east-1:s3", "-X", "PUT", "--user", &user])
        .args(["-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD"])
        .args(["-d", &policy.to_string(), &format!("{bucket}?policy=")])
        .status()?;
    ensure!(status.success(), "the policy of the bucket was not taken");
    Ok(bucket)
}

#[tokio::test(flavor = "multi_thread")]
async fn playlists_list_as_many_segments_as_asked_and_the_bucket_plays_without_an_edge() -> Result<()> {
    let _turn = TURN.lock().await;
    let cluster =
        Cluster::start_with(&[Node::Control, Node::Ingest, Node::Transcode(1), Node::Edge(1)]).await?;
    let clip = Clip::numbered(seconds(90)).await?;
    let api = cluster.api();
    let three = api.create_with(serde_json::json!({ "title": "three", "list_segments": 3 })).await?;
    let five = serde_json::json!({ "title": "five", "list_segments": 5, "publish_playlist": true });
    let five = api.create_with(five).await?;
    let _encoders =
        [push(&clip, &three.push_url(), cluster.folder())?, push(&clip, &five.push_url(), cluster.folder())?];
    let main = cluster.hls_url(1, &three.playback_id);
    let media = wait::value("a playlist", START, || async { media_playlists(&main).await.ok() }).await?;
    for playlist in full_playlists(media.first().context("a media playlist")?, 3).await? {
        // The start moves on just after a segment is complete.
        ensure!((3..=4).contains(&playlist.segments.len()), "{:?}", playlist.segments);
        ensure!(!playlist.parts.is_empty(), "low-latency parts stay");
    }
    let bucket = format!("{}/live/{}", open_bucket(&cluster)?, five.playback_id);
    let playlists = full_playlists(&format!("{bucket}/video/index.m3u8"), 5).await?;
    ensure!(playlists.iter().any(|playlist| playlist.segments.len() == 5), "{:?}", playlists.last());
    for playlist in &playlists {
        ensure!((5..=6).contains(&playlist.segments.len()), "{:?}", playlist.segments);
        // A playlist follows its segments, by names that resolve beside it.
        let newest = playlist.segments.last().context("a segment")?;
        http::get_ok(&http::resolve(&format!("{bucket}/video/index.m3u8"), &newest.uri)?).await?;
    }
    let found = millrace_testkit::ffmpeg::probe(&format!("{bucket}/index.m3u8")).await?;
    let kinds: Vec<_> =
        found["streams"].as_array().context("streams")?.iter().map(|one| &one["codec_name"]).collect();
    ensure!(kinds.iter().any(|kind| *kind == "h264") && kinds.iter().any(|kind| *kind == "aac"), "{found}");
    Ok(())
}
