//! Publishers with a key that send messages as fast as the socket takes them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use millrace_testkit::http;
use millrace_tests::playlist::Multivariant;
use millrace_tests::standalone::Standalone;

use crate::peer::Peer;
use crate::{DENIED, HOME, Neighbour, counter};

/// The time for which publishers flood the server, one after the other.
const FLOOD: Duration = Duration::from_secs(6);
/// The longest time between two parts of the neighbour: parts of 200 ms, on a machine that the flood and this test share.
const LATE: Duration = Duration::from_millis(1_500);

/// Follows a media playlist for `time`; returns the longest time between two new parts.
async fn longest_wait(playlist: String, time: Duration) -> Result<Duration> {
    let (began, mut newest, mut longest) = (Instant::now(), String::new(), Duration::ZERO);
    let mut changed = Instant::now();
    while began.elapsed() < time {
        let text = http::get_text(&playlist).await?;
        let part = text.lines().rfind(|line| line.starts_with("#EXT-X-PART:")).unwrap_or_default();
        longest = longest.max(changed.elapsed());
        if part != newest {
            part.clone_into(&mut newest);
            changed = Instant::now();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(longest)
}

#[tokio::test(flavor = "multi_thread")]
async fn message_flood_ends_with_its_reason_and_leaves_a_neighbours_parts_in_time() -> Result<()> {
    let mut server = Standalone::start().await?;
    let neighbour = Neighbour::start(&server, 16).await?;
    let hls = neighbour.live.hls_url.clone();
    let main = Multivariant::parse(&http::get_text(&hls).await?)?;
    let playlist = http::resolve(&hls, main.variants.first().context("a variant")?)?;
    let watching = tokio::spawn(longest_wait(playlist, FLOOD));

    let flooder = server.api().create("flooder").await?;
    let (began, mut floods) = (Instant::now(), 0);
    while began.elapsed() < FLOOD {
        let mut peer = Peer::publish(HOME, &flooder.push_url()).await.context("a flooder")?;
        peer.flood(&[0x57]).await?;
        let end = peer.until_closed().await?;
        // A reset may overtake the status: the flood goes on while the server closes.
        ensure!(end.code.is_none() || end.code.as_deref() == Some(DENIED), "{end:?}");
        floods += 1;
    }
    let longest = watching.await??;
    ensure!(longest < LATE, "a neighbour's part came {longest:?} after the one before it");
    let ended = counter(&server, "millrace_ingest_closed_total", "message_rate_exceeded").await?;
    ensure!(ended == floods, "{ended} of {floods} floods ended for their rate");
    neighbour.lost_nothing(&mut server).await
}
