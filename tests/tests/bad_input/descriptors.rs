//! Clients that use up the descriptors of a server, and what is left for others.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use millrace_testkit::{http, wait};
use millrace_tests::standalone::{Standalone, address};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::peer::{Peer, connect_from};
use crate::{CLOSE_LIMIT, CROWD, HOME, Neighbour, bytes, counter};

/// The usual soft limit of open files, here the hard one, too.
const OPEN_FILES: u32 = 1_024;
/// Requests whose body never comes: they would take all descriptors.
const POSTS: usize = 990;
/// A quarter of the connections of a process with [`OPEN_FILES`]: an eighth of them is its reserve.
const PER_ADDRESS: usize = 1_024 * 7 / 8 / 4;
/// A client is answered within this time, however many others wait.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_never_come_leave_descriptors_for_viewers_and_publishers() -> Result<()> {
    let mut server = Standalone::start_with_open_files(OPEN_FILES).await?;
    let neighbour = Neighbour::start(&server, 30).await?;
    let edge = address(&server.ready().edge)?;
    let playback = neighbour.live.hls_url.split('/').rev().nth(1).context("a playback id")?.to_owned();
    let head = format!("POST /live/{playback}/beacon HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n");
    let mut posts = JoinSet::new();
    for _ in 0..POSTS {
        let mut socket = connect_from(CROWD, &edge).await?;
        // A connection that is closed unread refuses the request.
        let _ = socket.write_all(head.as_bytes()).await;
        posts.spawn(async move { bytes::until_closed(&mut socket).await });
    }
    let turned_away = "millrace_edge_http_turned_away_connections_total";
    let refused = wait::value("connections of one address to be refused", ANSWER_LIMIT, || async {
        let refused = counter(&server, turned_away, "connections_per_address").await.ok()?;
        (refused == POSTS - PER_ADDRESS).then_some(refused)
    })
    .await?;
    ensure!(counter(&server, turned_away, "").await? == refused, "another limit was reached too");

    let began = Instant::now();
    http::get_text(&neighbour.live.hls_url).await.context("a viewer beside them")?;
    let other = server.api().create("another").await.context("the API beside them")?;
    let peer = Peer::publish(HOME, &other.push_url()).await.context("a publisher beside them")?;
    ensure!(began.elapsed() < ANSWER_LIMIT, "the others waited for {:?}", began.elapsed());
    drop(peer);

    let mut answered = 0;
    while let Some(got) = posts.join_next().await {
        answered += usize::from(got.context("a client")?? > 0);
    }
    // The others were closed unread.
    ensure!(answered == PER_ADDRESS, "{answered} of the bodies that never came were answered 408");
    neighbour.lost_nothing(&mut server).await
}

/// Sends `request` to `address`, reads until the server closes, and returns the answer with the time until then.
async fn until_ended(address: &str, request: &str) -> Result<(String, Duration)> {
    let mut socket = connect_from(HOME, address).await?;
    let began = Instant::now();
    socket.write_all(request.as_bytes()).await.context("sending")?;
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(CLOSE_LIMIT, socket.read_to_end(&mut answer)).await;
    ensure!(ended.is_ok(), "still open after {CLOSE_LIMIT:?}: {request:?}");
    Ok((String::from_utf8_lossy(&answer).into_owned(), began.elapsed()))
}

#[tokio::test(flavor = "multi_thread")]
async fn http_states_without_progress_end_at_their_deadlines() -> Result<()> {
    let server = Standalone::start().await?;
    let (edge, control) = (address(&server.ready().edge)?, address(&server.ready().control)?);
    let beacon = "/live/00000000000000000000000000000000/beacon";
    let body_of = |path: &str, framing: &str| format!("POST {path} HTTP/1.1\r\nhost: x\r\n{framing}\r\n\r\n");
    let token =
        "authorization: Bearer test-admin-token-0123456789abcdef\r\ncontent-type: application/json\r\n";
    let create = format!("{token}content-length: 100");
    // Where a request comes to, what is sent of it, and the status that the client gets: none, if no head was complete.
    let rows = [
        (&edge, "GET / HTTP/1.1\r\nhost:".to_owned(), "408"),
        (&control, "GET /healthz HTT".to_owned(), "408"),
        (&edge, body_of(beacon, "content-length: 100"), "408"),
        (&control, body_of("/api/v1/livestreams", &create), "408"),
        // Answered without the body; what comes of it is not waited for.
        (&control, body_of("/api/v1/livestreams", "content-length: 100"), "401"),
        (&edge, body_of("/nothing", "content-length: 100"), "404"),
        (&control, body_of("/api/v1/livestreams", "transfer-encoding: chunked"), "401"),
        (&edge, body_of("/nothing", "transfer-encoding: chunked"), "404"),
    ];
    let mut peers = JoinSet::new();
    for (address, request, status) in rows {
        let address = address.clone();
        peers.spawn(async move {
            let (answer, after) = until_ended(&address, &request).await?;
            ensure!(
                answer.starts_with(&format!("HTTP/1.1 {status}")),
                "{request:?}: {answer:?} after {after:?}"
            );
            anyhow::Ok(())
        });
    }
    while let Some(peer) = peers.join_next().await {
        peer.context("a client")??;
    }
    Ok(())
}
