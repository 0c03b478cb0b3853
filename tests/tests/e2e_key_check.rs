//! A site whose own service owns the stream keys: its encoder publishes with one, its players open the URL with the key, and the
//! show ends when the encoder stops. The service stands in from the site's description, not from types of this project.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use millrace_testkit::programs::{spawn, tail};
use millrace_testkit::servers::KeyService;
use millrace_testkit::{ffmpeg, http, wait};
use millrace_tests::known_clip::{Clip, seconds};
use millrace_tests::publish::push;
use millrace_tests::standalone::Standalone;
use reqwest::Method;
use serde_json::Value;

const KEY: &str = "5ec5e70123456789abcdef0123456789";
/// A process that starts, or a change that becomes visible, on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);
/// The time within which the site counts on the end of a show after its encoder left, and a busy machine's.
const END_LIMIT: Duration = Duration::from_secs(12);

/// Returns the livestreams that the API lists.
async fn listed(server: &Standalone) -> Vec<Value> {
    let answer = server.api().call(Method::GET, "/livestreams", None).await;
    let list = answer.ok().map(|(_, list)| list["livestreams"].clone()).unwrap_or_default();
    list.as_array().cloned().unwrap_or_default()
}

/// Waits until the only livestream has the status, and returns it.
async fn only_one_with(server: &Standalone, status: &str, limit: Duration) -> Result<Value> {
    wait::value(&format!("one livestream that is {status}"), limit, || async {
        let list = listed(server).await;
        (list.len() == 1 && list[0]["status"] == status).then(|| list[0].clone())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn encoder_and_players_of_a_site_with_keys_of_its_own_work_with_the_key_alone() -> Result<()> {
    let service = KeyService::start().await?;
    service.answer(KEY, 200, r#"{"stream_key":"x","isActive":true,"title":"Evening show","expiresAt":null}"#);
    let url = service.url();
    let configuration = format!(
        "[ingest]\nkey_check_url = '{url}'\nkey_check_shape = 'lookup'\n[edge]\nkey_alias = true\n[log]\nfilter = 'debug'\n"
    );
    let mut server = Standalone::start_with(&configuration).await?;
    let watched = format!("{}/live/{KEY}/index.m3u8", server.ready().edge);
    ensure!(http::get(&watched).await?.status == 404, "the key is not known before its first publish");

    let clip = Clip::numbered(seconds(12)).await?;
    let address = format!("{}/{KEY}", server.ready().rtmp);
    let mut encoder = push(&clip, &address, server.folder())?;
    let live = only_one_with(&server, "live", LIMIT).await?;
    ensure!(live["title"] == "Evening show", "{live}");

    // The edge remembers for two seconds that it did not know the key, and bounds the tries of an address: a page asks now and then.
    let page = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
    let began = Instant::now();
    while page.get(&watched).send().await?.status() != 302 {
        ensure!(began.elapsed() < LIMIT, "the edge does not know the key of a livestream that is live");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // A player of that site: ffmpeg opens the URL with the key and decodes pictures.
    let mut player = ffmpeg::ffmpeg();
    player.args(["-i", &watched, "-t", "3", "-f", "null", "-"]);
    let mut player = spawn("ffmpeg-player", server.folder(), player)?;
    let status = player.wait(LIMIT).await?;
    ensure!(status.success(), "the player failed: {status}\n{}", tail(&player));
    // hls.js sends the page's origin, follows the redirect and loads everything below the public id.
    let answer = page.get(&watched).header("origin", "https://site.example").send().await?;
    ensure!(answer.status() == 302, "{answer:?}");
    let location = answer.headers()["location"].to_str()?.to_owned();
    ensure!(answer.headers()["access-control-allow-origin"] == "*" && !location.contains(KEY), "{location}");
    let multivariant = http::get_text(&format!("{}{location}", server.ready().edge)).await?;
    ensure!(!multivariant.contains(KEY), "{multivariant}");

    // The encoder stops in order: the show is over within the site's ten seconds.
    let status = encoder.wait(LIMIT).await?;
    ensure!(status.success(), "the encoder failed: {status}\n{}", tail(&encoder));
    let left = Instant::now();
    only_one_with(&server, "ended", END_LIMIT).await?;
    ensure!(left.elapsed() < END_LIMIT, "ended after {:?}", left.elapsed());

    // The next show with the same key is a broadcast of the same livestream.
    wait::value("the next broadcast", LIMIT, || async {
        let mut encoder = push(&clip, &address, server.folder()).ok()?;
        let live = only_one_with(&server, "live", Duration::from_secs(8)).await.is_ok();
        encoder.kill();
        live.then_some(())
    })
    .await?;
    let log = server.process().output();
    ensure!(log.contains("publisher granted an epoch"), "no log of the publish\n{log}");
    ensure!(!log.contains(KEY), "the log shows the key");
    Ok(())
}
