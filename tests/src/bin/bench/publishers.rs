//! Processor time and memory per publisher.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_testkit::http::get_ok;
use millrace_tests::known_clip::Clip;
use millrace_tests::load::publisher::{Reel, Tally, publish};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::report::{Report, Row};
use crate::subject::{self, Subject};
use crate::usage::{cpu_seconds, memory_bytes};

/// Length of the looped clip in seconds.
const CLIP_SECONDS: u32 = 10;
/// Publishers are all in, and the first segments cut, before measuring starts.
const WARM_UP: Duration = Duration::from_secs(6);
/// Subjects take turns, so that what else the machine does falls on all.
const ROUNDS: usize = 3;

/// One measurement of one subject.
struct Cost {
    /// Percent of one core, per publisher.
    cpu_percent: f64,
    /// Bytes per publisher above the idle server.
    memory: f64,
    /// As `memory`, at the end of the measurement: shows growth.
    memory_later: f64,
}

/// Starts `count` publishers of a looped 2.5 Mb/s clip.
pub(crate) fn start_all(urls: &[String], reel: &Arc<Reel>, tally: &Arc<Tally>) -> JoinSet<Result<()>> {
    let mut running = JoinSet::new();
    for (number, url) in urls.iter().enumerate() {
        let offset = Duration::from_millis(1000 * number as u64 / urls.len() as u64);
        running.spawn(publish(url.clone(), reel.clone(), offset, tally.clone(), |_| {}));
    }
    running
}

/// The clip that every publisher loops.
pub(crate) async fn reel() -> Result<Arc<Reel>> {
    let clip = Clip::load(CLIP_SECONDS).await?;
    Ok(Arc::new(Reel::open(&clip.path, CLIP_SECONDS)?))
}

async fn measure(subject: &Subject, reel: &Arc<Reel>, seconds: u64) -> Result<Cost> {
    let idle = memory_bytes(subject.pid)?;
    let count = subject.push_urls.len() as f64;
    let tally = Arc::new(Tally::default());
    let mut running = start_all(&subject.push_urls, reel, &tally);
    tokio::time::sleep(WARM_UP).await;
    // A player's first look: from here on the edge follows the stream.
    for url in &subject.hls_urls {
        get_ok(url).await?;
    }
    let per_stream = |bytes: u64| bytes.saturating_sub(idle) as f64 / count;
    let (began, before, memory) = (Instant::now(), cpu_seconds(subject.pid)?, memory_bytes(subject.pid)?);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let used = cpu_seconds(subject.pid)? - before;
    let cpu_percent = 100.0 * used / began.elapsed().as_secs_f64() / count;
    let memory_later = per_stream(memory_bytes(subject.pid)?);
    ensure!(running.try_join_next().is_none(), "{}: a publisher ended early", subject.name);
    tally.stop.store(true, Ordering::Relaxed);
    while let Some(ended) = running.join_next().await {
        ended?.with_context(|| subject.name)?;
    }
    eprintln!("    {}: {cpu_percent:.3} % of a core, {:.1} MB each", subject.name, memory_later / 1e6);
    Ok(Cost { cpu_percent, memory: per_stream(memory), memory_later })
}

fn median(costs: &[Cost], pick: impl Fn(&Cost) -> f64) -> f64 {
    let mut values: Vec<f64> = costs.iter().map(pick).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn cpu(costs: &[Cost]) -> f64 {
    median(costs, |cost| cost.cpu_percent)
}

/// The ingest node alone against nginx-rtmp that only relays, taking turns.
pub(crate) async fn ingest(publishers: usize, seconds: u64) -> Result<Report> {
    let reel = reel().await?;
    let (mut ours, mut peers) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(measure(&subject::ingest_alone(publishers).await?, &reel, seconds).await?);
        peers.push(measure(&subject::nginx(false, publishers).await?, &reel, seconds).await?);
    }
    let (mine, peer) = (cpu(&ours), cpu(&peers));
    let mut report = Report::new("ingest", "ingest");
    let what = format!("CPU per 2.5 Mb/s publisher, {publishers} at once, ingest alone, % of a core");
    report.push(Row::new(&what, "millrace ingest, to NATS", mine).against(peer, 1.5));
    report.push(Row::new(&what, "nginx-rtmp, HLS off", peer));
    Ok(report)
}

/// Millrace's whole path against nginx-rtmp with HLS, taking turns.
pub(crate) async fn against_peers(publishers: usize, seconds: u64) -> Result<Report> {
    let reel = reel().await?;
    let (mut ours, mut peers) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(measure(&subject::millrace(publishers).await?, &reel, seconds).await?);
        peers.push(measure(&subject::nginx(true, publishers).await?, &reel, seconds).await?);
    }
    let (mine, peer) = (cpu(&ours), cpu(&peers));
    let megabytes = |pick: fn(&Cost) -> f64| median(&ours, pick) / 1e6;
    let mut report = Report::new("publishers", "publishers");
    let what = format!("CPU per 2.5 Mb/s publisher, {publishers} at once, % of a core");
    report.push(
        Row::new(&what, "millrace standalone, LL-HLS followed by the edge, on disk", mine).against(peer, 1.0),
    );
    report.push(Row::new(&what, "nginx-rtmp, HLS on", peer));
    let what = "memory per live stream, MB";
    report.push(Row::new(what, "millrace standalone", megabytes(|cost| cost.memory_later)).at_most(8.0));
    report.push(Row::new(
        what,
        &format!("millrace standalone, {seconds} s earlier"),
        megabytes(|cost| cost.memory),
    ));
    Ok(report)
}

/// Cost per publisher as their number grows.
pub(crate) async fn growth(seconds: u64) -> Result<Report> {
    const STEPS: &[usize] = &[1, 10, 40, 100];
    let reel = reel().await?;
    let mut report = Report::new("growth", "growth");
    for &count in STEPS {
        let cost = measure(&subject::millrace(count).await?, &reel, seconds).await?;
        let what = format!("CPU per publisher with {count}, % of a core");
        report.push(Row::new(&what, "millrace standalone", cost.cpu_percent));
        let what = format!("memory per stream with {count}, MB");
        report.push(Row::new(&what, "millrace standalone", cost.memory_later / 1e6));
    }
    Ok(report)
}
