//! A real Chromium opens the watch page before the stream starts, and plays it when it does.
#![forbid(unsafe_code)]

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use millrace_testkit::programs::{spawn, tail};
use millrace_tests::known_clip::{Clip, ClipSpec, seconds};
use millrace_tests::publish::push;
use millrace_tests::standalone::Standalone;

/// Start of the browser, start of the stream, and the seconds it has to play.
const LIMIT: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread")]
async fn watch_page_starts_by_itself_and_plays_without_a_stall() -> Result<()> {
    let server = Standalone::start().await?;
    let live = server.api().create("browser").await?;
    let page = format!("{}/watch/{}", server.ready().edge.trim_end_matches('/'), live.playback_id);
    let mut command = Command::new("node");
    command.arg(std::env::current_dir()?.join("browser/watch.mjs"));
    command.arg(&page).args(["--seconds", "10", "--start-within", "25"]);
    let mut browser = spawn("browser", server.folder(), command)?;

    let clip = Clip::numbered(ClipSpec { width: 640, height: 360, ..seconds(30) }).await?;
    let encoder = push(&clip, &live.push_url(), server.folder())?;
    let status = browser.wait(LIMIT).await?;
    ensure!(status.success(), "{}\n{}", tail(&browser), tail(&encoder));
    Ok(())
}
