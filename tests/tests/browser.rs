//! A real Chromium opens the watch page and the dashboard, in the states that viewers and operators find them in.
#![forbid(unsafe_code)]

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use millrace_testkit::programs::{spawn, tail};
use millrace_testkit::wait;
use millrace_testkit::{Process, http};
use millrace_tests::api::Livestream;
use millrace_tests::known_clip::{Clip, ClipSpec, seconds};
use millrace_tests::load::publisher::{Reel, Tally, publish};
use millrace_tests::publish::push;
use millrace_tests::standalone::{Standalone, TOKEN};
use millrace_tests::tape::Tape;
use serde_json::{Value, json};
use tokio::sync::RwLock;

/// Start of the browser, start of the stream, and the seconds it has to play, on a busy machine.
const LIMIT: Duration = Duration::from_mins(1);
/// Start of the browser, and the time that each change of the network takes on a busy machine.
const LADDER_LIMIT: Duration = Duration::from_secs(165);
/// The time after which a page knows that its publisher is away. Half of it is the browser's: a look takes 50 ms, and axe
/// may be at work.
const AWAY_LIMIT: Duration = Duration::from_secs(2);

/// The test that measures time takes it alone, and the others take it together: a browser beside the measured one doubles the
/// time, whatever the page does.
static PROCESSOR: RwLock<()> = RwLock::const_new(());

/// A script of `tests/browser` at work.
struct Script(Process);

impl Script {
    fn run(server: &Standalone, script: &str, arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new("node");
        command.arg(std::env::current_dir()?.join("browser").join(script)).args(arguments);
        Ok(Self(spawn(script, server.folder(), command)?))
    }

    /// Waits for a line that begins with `start`, and returns its rest.
    async fn says(&mut self, start: &str) -> Result<String> {
        let process = &mut self.0;
        let end = tokio::time::Instant::now() + LIMIT;
        loop {
            let output = process.output();
            if let Some(rest) = output.lines().find_map(|line| line.strip_prefix(start)) {
                return Ok(rest.trim().to_owned());
            }
            ensure!(
                process.is_running() && tokio::time::Instant::now() < end,
                "no {start:?}\n{}",
                tail(process)
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the page has been seen in `state`, and returns the unix time in milliseconds of that moment.
    async fn sees(&mut self, state: &str) -> Result<u64> {
        let rest = self.says(&format!("seen {state} at ")).await?;
        rest.split(' ').next().unwrap_or_default().parse().context("the time of a state")
    }

    /// Waits for the end of the script, which has found nothing wrong.
    async fn succeeds(mut self) -> Result<()> {
        let status = self.0.wait(LIMIT).await?;
        ensure!(status.success(), "{}", tail(&self.0));
        Ok(())
    }
}

fn page(server: &Standalone, live: &Livestream) -> String {
    format!("{}/watch/{}", server.ready().edge.trim_end_matches('/'), live.playback_id)
}

fn small(seconds_long: u32) -> ClipSpec {
    ClipSpec { width: 640, height: 360, ..seconds(seconds_long) }
}

fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_page_starts_by_itself_and_plays_without_a_stall() -> Result<()> {
    let _processor = PROCESSOR.read().await;
    let server = Standalone::start().await?;
    let live = server.api().create("browser").await?;
    let arguments = [&page(&server, &live), "--seconds", "10", "--start-within", "25"];
    let mut browser = Script::run(&server, "watch.mjs", &arguments)?;
    let clip = Clip::numbered(small(30)).await?;
    let encoder = push(&clip, &live.push_url(), server.folder())?;
    let status = browser.0.wait(LIMIT).await?;
    ensure!(status.success(), "{}\n{}", tail(&browser.0), tail(&encoder));
    Ok(())
}

/// The least of several openings is judged, because other programs may be at work, too.
#[tokio::test(flavor = "multi_thread")]
async fn watch_page_shows_a_picture_within_its_limit_on_a_cold_and_on_a_warm_edge() -> Result<()> {
    let _processor = PROCESSOR.write().await;
    let server = Standalone::start().await?;
    let (one, two) = (server.api().create("one").await?, server.api().create("two").await?);
    let clip = Clip::numbered(small(30)).await?;
    let _encoders =
        (push(&clip, &one.push_url(), server.folder())?, push(&clip, &two.push_url(), server.folder())?);
    for live in [&one, &two] {
        wait::value("a publisher", LIMIT, || async {
            (server.api().status(&live.id).await.ok()?["status"] == "live").then_some(())
        })
        .await?;
    }
    // A stream that has just begun would be joined at its first segment.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let arguments = ["3", &page(&server, &one), &page(&server, &two)];
    let mut browser = Script::run(&server, "join.mjs", &arguments)?;
    let line = browser.says("{").await?;
    let report: Value = serde_json::from_str(&format!("{{{line}"))?;
    let least =
        |name: &str| report[name].as_array().and_then(|all| all.iter().filter_map(Value::as_u64).min());
    ensure!(least("cold").is_some_and(|ms| ms <= 1200), "{report}");
    ensure!(least("warm").is_some_and(|ms| ms <= 700), "{report}");
    browser.succeeds().await
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_page_says_that_its_publisher_is_away_goes_on_by_itself_and_knows_the_end() -> Result<()> {
    let _processor = PROCESSOR.read().await;
    let server = Standalone::start().await?;
    let live = server.api().create("An evening & more").await?;
    let states = ["waiting", "playing:live", "away", "playing", "ended"];
    let mut arguments = vec!["--title", "An evening & more"];
    let url = page(&server, &live);
    arguments.splice(0..0, [url.as_str()]);
    arguments.extend(states);
    let mut browser = Script::run(&server, "states.mjs", &arguments)?;
    browser.sees("waiting").await?;
    let clip = Clip::numbered(small(30)).await?;
    let mut encoder = push(&clip, &live.push_url(), server.folder())?;
    browser.sees("playing:live").await?;
    let left = unix_ms();
    encoder.kill();
    let noticed = browser.sees("away").await?;
    ensure!(noticed - left <= AWAY_LIMIT.as_millis() as u64, "noticed after {} ms", noticed - left);
    let _encoder = push(&clip, &live.push_url(), server.folder())?;
    browser.sees("playing").await?;
    server.api().stop(&live.id).await?;
    browser.succeeds().await
}

/// OBS's automatic interval is 250 frames: 8.3 s.
#[tokio::test(flavor = "multi_thread")]
async fn watch_page_of_a_long_keyframe_interval_is_close_to_the_newest_part_within_thirty_seconds()
-> Result<()> {
    let _processor = PROCESSOR.read().await;
    let server = Standalone::start().await?;
    let live = server.api().create("browser").await?;
    let clip = Clip::numbered(ClipSpec { gop: 250, ..small(50) }).await?;
    let _encoder = push(&clip, &live.push_url(), server.folder())?;
    // Between two keyframes: the last one is most of an interval old.
    tokio::time::sleep(Duration::from_secs(14)).await;
    let url = page(&server, &live);
    Script::run(&server, "states.mjs", &[&url, "--within", "30", "playing:live"])?.succeeds().await
}

/// Such a player begins three target durations behind the end of the playlist.
#[tokio::test(flavor = "multi_thread")]
async fn player_without_low_latency_is_within_eight_seconds_of_the_live_edge() -> Result<()> {
    let _processor = PROCESSOR.read().await;
    let server = Standalone::start().await?;
    let (one, two) = (server.api().create("one").await?, server.api().create("two").await?);
    let clip = |gop| Clip::numbered(ClipSpec { gop, ..small(40) });
    let _encoders = (
        push(&clip(30).await?, &one.push_url(), server.folder())?,
        push(&clip(60).await?, &two.push_url(), server.folder())?,
    );
    // A playlist shorter than the distance is joined at its beginning.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let arguments = ["8", "8", &one.hls_url, &two.hls_url];
    Script::run(&server, "plain.mjs", &arguments)?.succeeds().await
}

/// Chromium's decoder fails at pictures that refer to the GOP before the one it starts in.
#[tokio::test(flavor = "multi_thread")]
async fn watch_page_joins_an_open_gop_at_a_keyframe_that_is_no_idr_picture() -> Result<()> {
    let _processor = PROCESSOR.read().await;
    let server = Standalone::start().await?;
    let live = server.api().create("browser").await?;
    let _encoder = push(&Clip::open_gop(40).await?, &live.push_url(), server.folder())?;
    // The only IDR picture is out of reach of a player that joins near the newest part.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let url = page(&server, &live);
    Script::run(&server, "states.mjs", &[&url, "--within", "10", "playing:live"])?.succeeds().await
}

/// No browser decodes from a gradual refresh on.
#[tokio::test(flavor = "multi_thread")]
async fn watch_page_of_a_stream_without_keyframes_says_that_it_waits_for_one() -> Result<()> {
    let _processor = PROCESSOR.read().await;
    let server = Standalone::start().await?;
    let live = server.api().create("browser").await?;
    let mut refreshed = push(&Clip::intra_refresh(40).await?, &live.push_url(), server.folder())?;
    let url = page(&server, &live);
    let mut browser = Script::run(&server, "states.mjs", &[&url, "--within", "30", "keyless", "playing"])?;
    browser.sees("keyless").await?;
    // An encoder with keyframes takes its place.
    refreshed.kill();
    let _encoder = push(&Clip::numbered(small(30)).await?, &live.push_url(), server.folder())?;
    browser.succeeds().await
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_page_of_a_stream_of_sound_shows_its_title_and_its_level() -> Result<()> {
    let _processor = PROCESSOR.read().await;
    let server = Standalone::start().await?;
    let live = server.api().create("Radio").await?;
    let _encoder = push(&Clip::tone(40).await?, &live.push_url(), server.folder())?;
    let url = page(&server, &live);
    Script::run(&server, "states.mjs", &[&url, "--title", "Radio", "playing:sound"])?.succeeds().await
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_page_plays_sound_that_begins_late_and_was_not_announced() -> Result<()> {
    let _processor = PROCESSOR.read().await;
    let server = Standalone::start().await?;
    let live = server.api().create("browser").await?;
    let clip = Clip::numbered(small(40)).await?;
    let reel = Arc::new(Reel::open(&clip.path, 40)?.with_late_sound(9_000));
    let tally = Arc::new(Tally::default());
    let encoder = tokio::spawn(publish(live.push_url(), reel, Duration::ZERO, tally.clone(), |_| {}));
    let url = page(&server, &live);
    let mut browser = Script::run(&server, "states.mjs", &[&url, "playing:silent", "playing:heard"])?;
    browser.sees("playing:silent").await?;
    browser.succeeds().await?;
    tally.stop.store(true, Ordering::Relaxed);
    encoder.await??;
    Ok(())
}

/// Noise of 1.5 Mb/s beside a tone.
async fn heavy(server: &Standalone, seconds_long: u32) -> Result<Clip> {
    let arguments = format!(
        "-f lavfi -i testsrc2=s=640x360:r=30:d={seconds_long},noise=alls=12:allf=t -f lavfi -i sine=r=48000:d={seconds_long} \
         -c:a aac -b:a 96k -ac 2 -c:v libx264 -preset ultrafast -g 60 -sc_threshold 0 -pix_fmt yuv420p -b:v 1500k -minrate 1500k \
         -maxrate 1500k -bufsize 1500k"
    );
    let file = server.folder().join("heavy.flv");
    Tape::made(&format!("heavy-{seconds_long}"), &arguments).await?.write(&file)?;
    Clip::open(&file)
}

/// Numbered pictures under noise of 3 Mb/s, which a ladder of two rungs divides into steps of about a half.
async fn numbered_noise(server: &Standalone, seconds_long: u32) -> Result<Clip> {
    let spec = ClipSpec { gop: 1, b_frames: 0, ..small(seconds_long) };
    let arguments = "-vf noise=alls=12:allf=t -c:a copy -c:v libx264 -preset ultrafast -g 60 -sc_threshold 0 -pix_fmt yuv420p \
                     -b:v 3000k -minrate 3000k -maxrate 3000k -bufsize 3000k";
    let file = server.folder().join("noise.flv");
    Tape::encoded(&format!("numbered-noise-{seconds_long}"), spec, arguments).await?.write(&file)?;
    Clip::open(&file)
}

/// The steps go down to one and a half times what the next rung declares, as a real network's do, and up again: for each player a
/// network of its own. From a network that was faster by far than the source, hls.js with its defaults goes down only after ten seconds,
/// when its estimate has fallen, and its buffer does not reach that far. It waits long before it moves up, too, so any rung above the
/// lowest will do for it.
#[tokio::test(flavor = "multi_thread")]
async fn watch_page_and_hls_js_follow_the_network_down_and_up_the_ladder_without_a_stall() -> Result<()> {
    let _processor = PROCESSOR.write().await;
    // A rung that is left out on a busy machine would be no choice of the players.
    let server = Standalone::start_with("[transcode]\ncapacity = 5000\nencoder_nice = 0\n").await?;
    let ladder = json!([
        { "height": 240, "bitrate": 1_300_000, "preset": "ultrafast" },
        { "height": 144, "bitrate": 600_000, "preset": "ultrafast" },
    ]);
    let live = server.api().create_with(json!({ "title": "ladder", "ladder": ladder })).await?;
    let encoder = push(&numbered_noise(&server, 170).await?, &live.push_url(), server.folder())?;
    // hls.js without its low-latency mode begins three target durations before the end of a playlist. At the beginning of a stream that
    // may be a GAP in the rungs, if the machine is busy, and hls.js 1.7.4 stands still where each variant it tries begins with one.
    let source = live.hls_url.replace("/index.m3u8", "/video/index.m3u8");
    wait::value("segments to begin with", LIMIT, || async {
        (http::get_text(&source).await.ok()?.matches("#EXTINF").count() >= 8).then_some(())
    })
    .await?;
    let url = live.hls_url.as_str();
    let arguments =
        [url, "page", "plain", "low", "--", "8000:360:20", "2250:240:15", "1150:144:15", "0:240+"];
    let mut browser = Script::run(&server, "steady.mjs", &arguments)?;
    let status = browser.0.wait(LADDER_LIMIT).await?;
    ensure!(status.success(), "{}\n{}", tail(&browser.0), tail(&encoder));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_page_of_audio_rescue_plays_audio_alone_on_a_very_slow_network_and_comes_back() -> Result<()> {
    let _processor = PROCESSOR.write().await;
    let server = Standalone::start().await?;
    let live = server.api().create_with(json!({ "title": "rescue", "ladder": "audio_rescue" })).await?;
    let encoder = push(&heavy(&server, 170).await?, &live.push_url(), server.folder())?;
    let url = page(&server, &live);
    let mut browser = Script::run(&server, "ladder.mjs", &[&url, "0:360", "200:sound:steep", "0:360:steep"])?;
    let status = browser.0.wait(LADDER_LIMIT).await?;
    ensure!(status.success(), "{}\n{}", tail(&browser.0), tail(&encoder));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn dashboard_is_usable_by_keyboard_and_its_badge_follows_the_publisher() -> Result<()> {
    let _processor = PROCESSOR.read().await;
    let server = Standalone::start().await?;
    let mut browser = Script::run(&server, "dashboard.mjs", &[&server.ready().control, TOKEN])?;
    let key = browser.says("created ").await?;
    let live: Livestream = serde_json::from_value(json!({
        "id": "", "playback_id": "", "hls_url": "", "stream_key": key, "rtmp_url": server.ready().rtmp,
    }))?;
    let clip = Clip::numbered(small(30)).await?;
    let mut encoder = push(&clip, &live.push_url(), server.folder())?;
    browser.says("live").await?;
    encoder.kill();
    browser.succeeds().await
}

#[tokio::test]
async fn scripts_of_the_watch_page_pass_their_tests() -> Result<()> {
    let _processor = PROCESSOR.read().await;
    let folder = tempfile::tempdir()?;
    let mut command = Command::new("node");
    let web = std::env::current_dir()?.join("../edge-node/web");
    // Node 20 takes a folder, later ones a pattern; names work everywhere.
    let tests =
        std::fs::read_dir(web.join("test"))?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    ensure!(!tests.is_empty(), "no tests in {}", web.display());
    command.arg("--test").args(tests).current_dir(web);
    let mut process = spawn("node-test", folder.path(), command)?;
    let status = process.wait(LIMIT).await?;
    ensure!(status.success(), "{}", process.output());
    Ok(())
}
