//! Measures the delay of viewers and the time in which a stream starts.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use millrace_media::container::cmaf::demux::parse_fragments;
use millrace_media::container::flv::FlvVideo;
use millrace_media::container::flv::file::TagKind;
use millrace_testkit::{http, wait};
use millrace_tests::cluster::{Cluster, Node};
use millrace_tests::load::publisher::{Shot, Tally, publish};
use millrace_tests::load::viewer::{self, follow, media_playlists};
use millrace_tests::playlist::Media;
use tokio::time::Instant;

use crate::publishers::{reel, start_all};
use crate::report::{Report, Row};
use crate::subject;
use crate::usage::cpu_seconds;

/// The start-up of the stream is no part of the delay of parts.
const WARM_UP: Duration = Duration::from_secs(4);
/// Long enough for any failover worth its name.
const AFTER_KILL: Duration = Duration::from_secs(12);
/// A part that was on its way when the worker died arrives within this.
const IN_FLIGHT: Duration = Duration::from_millis(100);
/// The number of times a stream is started.
const STARTS: usize = 5;

/// When each access unit was last sent.
type SentTimes = Arc<Mutex<HashMap<Bytes, Instant>>>;

fn note(times: &SentTimes, shot: &Shot) {
    if shot.kind == TagKind::Video
        && let Ok(Some(FlvVideo::Nalus { data, .. })) = FlvVideo::parse(shot.body.clone())
    {
        let data = data.contiguous();
        times.lock().unwrap_or_else(PoisonError::into_inner).insert(data, Instant::now());
    }
}

/// From the last frame of a part leaving the publisher to that part, whole, at a viewer (playlist reload included), in one
/// process and through a cluster: alone, and with `others` publishers beside.
pub(crate) async fn frame_to_part(others: usize, seconds: u64) -> Result<Report> {
    let mut report = Report::new("latency", "latency");
    for others in [0, others] {
        let subject = subject::millrace(1 + others).await?;
        let delays =
            beside(&subject.push_urls[1..], &subject.push_urls[0], &subject.hls_urls[0], seconds).await?;
        push(&mut report, "standalone", others, &delays, [Some(15.0), Some(50.0)]);
    }
    for others in [0, others] {
        let cluster = Cluster::start().await?;
        let (live, mut urls) = (cluster.api().create("bench").await?, Vec::new());
        for _ in 0..others {
            urls.push(cluster.api().create("beside").await?.push_url());
        }
        let hls_url = cluster.hls_url(1, &live.playback_id);
        let delays = beside(&urls, &live.push_url(), &hls_url, seconds).await?;
        push(&mut report, "cluster", others, &delays, [None, Some(100.0)]);
    }
    Ok(report)
}

/// [`part_delays`] while `others` publish too.
async fn beside(others: &[String], push_url: &str, hls_url: &str, seconds: u64) -> Result<Vec<f64>> {
    let tally = Arc::new(Tally::default());
    let mut running = start_all(others, &reel().await?, &tally);
    let delays = part_delays(push_url, hls_url, seconds).await?;
    tally.stop.store(true, Ordering::Relaxed);
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok(delays)
}

fn push(report: &mut Report, what: &str, others: usize, delays: &[f64], bars: [Option<f64>; 2]) {
    let beside = if others == 0 { String::new() } else { format!(", {others} publishers beside") };
    let who = format!("millrace {what}{beside}, {} parts", delays.len());
    for ((name, share), bar) in [("p50", 0.5), ("p99", 0.99)].into_iter().zip(bars) {
        let what = format!("last frame of a part sent → part fetched, {name}, ms");
        let row = Row::new(&what, &who, at(delays, share));
        eprintln!("    {who}: {name} {:.2} ms", at(delays, share));
        report.push(match bar {
            Some(bar) => row.at_most(bar),
            None => row,
        });
    }
}

/// The value below which `share` of the sorted values lie.
fn at(sorted: &[f64], share: f64) -> f64 {
    sorted.get((sorted.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN)
}

/// The delays in milliseconds, sorted.
async fn part_delays(push_url: &str, hls_url: &str, seconds: u64) -> Result<Vec<f64>> {
    let tally = Arc::new(Tally::default());
    let times = SentTimes::default();
    let noted = times.clone();
    let publisher = tokio::spawn(publish(
        push_url.to_owned(),
        reel().await?,
        Duration::ZERO,
        tally.clone(),
        move |shot| {
            note(&noted, shot);
        },
    ));
    let playlists =
        wait::value("the stream", Duration::from_secs(20), || async { media_playlists(hls_url).await.ok() })
            .await?;
    tokio::time::sleep(WARM_UP).await;

    let watching = Arc::new(viewer::Tally::default());
    stop_after(seconds, &watching);
    let mut delays = Vec::new();
    follow(&playlists[0], &watching, |_, bytes| {
        let arrived = Instant::now();
        let parts = parse_fragments(&bytes).unwrap_or_default();
        let last = parts.last().and_then(|part| part.samples.last());
        let sent = last.and_then(|sample| {
            times.lock().unwrap_or_else(PoisonError::into_inner).get(&sample.data).copied()
        });
        delays.extend(sent.map(|sent| (arrived - sent).as_secs_f64() * 1000.0));
    })
    .await?;
    tally.stop.store(true, Ordering::Relaxed);
    publisher.await??;
    if delays.is_empty() {
        bail!("no part was matched with a frame");
    }
    // The first is the part that was already there.
    delays.remove(0);
    delays.sort_by(f64::total_cmp);
    Ok(delays)
}

fn stop_after(seconds: u64, tally: &Arc<viewer::Tally>) {
    let tally = tally.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        tally.stop.store(true, Ordering::Relaxed);
    });
}

/// The longest a viewer waits for a part around the `kill -9` of the worker that has the stream.
pub(crate) async fn failover() -> Result<Report> {
    let mut cluster = Cluster::start().await?;
    let live = cluster.api().create("bench").await?;
    let hls_url = cluster.hls_url(1, &live.playback_id);
    let tally = Arc::new(Tally::default());
    let publisher =
        tokio::spawn(publish(live.push_url(), reel().await?, Duration::ZERO, tally.clone(), |_| {}));
    let playlists =
        wait::value("the stream", Duration::from_secs(20), || async { media_playlists(&hls_url).await.ok() })
            .await?;
    let watching = Arc::new(viewer::Tally::default());
    let (url, counted) = (playlists[0].clone(), watching.clone());
    let viewer = tokio::spawn(async move {
        let mut arrivals = Vec::new();
        follow(&url, &counted, |_, _| arrivals.push(Instant::now())).await.map(|()| arrivals)
    });
    let busy = busiest_worker(&mut cluster).await?;
    let killed = Instant::now();
    cluster.kill(busy)?;
    tokio::time::sleep(AFTER_KILL).await;
    watching.stop.store(true, Ordering::Relaxed);
    let arrivals = viewer.await??;
    tally.stop.store(true, Ordering::Relaxed);
    publisher.await??;
    let next =
        arrivals.iter().find(|arrival| **arrival > killed + IN_FLIGHT).context("no part after the kill")?;
    let mut report = Report::new("failover", "failover");
    let row = Row::new(
        "worker kill -9 → next part at a viewer, s",
        "millrace cluster",
        (*next - killed).as_secs_f64(),
    );
    report.push(row.at_most(2.0));
    Ok(report)
}

/// The worker that used the processor while the stream ran has the stream.
async fn busiest_worker(cluster: &mut Cluster) -> Result<Node> {
    let workers = [Node::Transcode(1), Node::Transcode(2)];
    let mut before = Vec::new();
    for worker in workers {
        before.push(cpu_seconds(cluster.node(worker)?.pid())?);
    }
    tokio::time::sleep(WARM_UP).await;
    let mut used = Vec::new();
    for (worker, before) in workers.into_iter().zip(before) {
        used.push((cpu_seconds(cluster.node(worker)?.pid())? - before, worker));
    }
    used.into_iter().max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, worker)| worker).context("no worker")
}

/// From the first frame to a playlist that a player can start with.
pub(crate) async fn first_playlist() -> Result<Report> {
    let reel = reel().await?;
    let subject = subject::millrace(STARTS).await?;
    let mut starts = Vec::new();
    for (push_url, hls_url) in subject.push_urls.iter().zip(&subject.hls_urls) {
        let first = Arc::new(Mutex::new(None));
        let noted = first.clone();
        let tally = Arc::new(Tally::default());
        let publisher =
            tokio::spawn(publish(push_url.clone(), reel.clone(), Duration::ZERO, tally.clone(), move |_| {
                noted.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
            }));
        wait::value("a playable playlist", Duration::from_secs(20), || playable(hls_url)).await?;
        let playable = Instant::now();
        let began = first.lock().unwrap_or_else(PoisonError::into_inner).context("nothing was sent")?;
        starts.push((playable - began).as_secs_f64() * 1000.0);
        tally.stop.store(true, Ordering::Relaxed);
        publisher.await??;
    }
    starts.sort_by(f64::total_cmp);
    let mut report = Report::new("start", "start");
    let row = Row::new(
        "first frame sent → first playable playlist, median, ms",
        "millrace standalone",
        starts[STARTS / 2],
    );
    report.push(row.at_most(500.0));
    Ok(report)
}

/// Both media playlists list something that can be fetched.
async fn playable(hls_url: &str) -> Option<()> {
    for url in media_playlists(hls_url).await.ok()? {
        let playlist = Media::parse(&http::get_text(&url).await.ok()?).ok()?;
        let uri = http::resolve(&url, playlist.references().last()?).ok()?;
        http::get_ok(&uri).await.ok()?;
    }
    Some(())
}
