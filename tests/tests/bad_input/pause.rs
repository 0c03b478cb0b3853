//! A server whose process is stopped for a while and goes on, as with a virtual machine that is moved.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_tests::standalone::{Standalone, TOKEN, address};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::peer::connect_from;
use crate::{HOME, Neighbour, counter};

/// The time for which the process is stopped: longer than every deadline of a publisher and than its lease.
const PAUSE: Duration = Duration::from_secs(20);
/// The time from a publish's start to the pause.
const BEFORE: Duration = Duration::from_secs(4);
/// Time in which the server reads the first half of a request; below every deadline of HTTP.
const HALF_READ: Duration = Duration::from_millis(500);
/// A request is answered within this time after the pause.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// A request of which the server has one half before the pause; the other half waits in its socket when it goes on.
struct HalfSent {
    socket: TcpStream,
    rest: String,
    status: &'static str,
}

impl HalfSent {
    async fn send(url: &str, [first, rest]: [String; 2], status: &'static str) -> Result<Self> {
        let mut socket = connect_from(HOME, &address(url)?).await?;
        socket.write_all(first.as_bytes()).await.context("the first half")?;
        Ok(Self { socket, rest, status })
    }

    /// One for each state that a client can be in: its head is unfinished, or its body is.
    async fn all(server: &Standalone) -> Result<Vec<Self>> {
        let (edge, control) = (&server.ready().edge, &server.ready().control);
        let head = || ["GET /healthz HT".to_owned(), "TP/1.1\r\nhost: x\r\n\r\n".to_owned()];
        let body = [r#"{"title":"#, r#""half"}"#];
        let create = format!(
            "POST /api/v1/livestreams HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{}",
            body.concat().len(),
            body[0]
        );
        Ok(vec![
            Self::send(edge, head(), "200").await?,
            Self::send(control, head(), "200").await?,
            Self::send(control, [create, body[1].to_owned()], "201").await?,
        ])
    }

    async fn send_rest(&mut self) -> Result<()> {
        self.socket.write_all(self.rest.as_bytes()).await.context("the second half")
    }

    async fn expect_answer(mut self) -> Result<()> {
        let expected = format!("HTTP/1.1 {}", self.status);
        let mut answer = vec![0; expected.len()];
        let read = tokio::time::timeout(ANSWER_LIMIT, self.socket.read_exact(&mut answer)).await;
        read.context("no answer")?.context("the connection was closed")?;
        ensure!(answer == expected.as_bytes(), "{}", String::from_utf8_lossy(&answer));
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_and_requests_go_on_without_loss_after_the_process_was_stopped_for_20_s() -> Result<()> {
    let mut server = Standalone::start().await?;
    let neighbour = Neighbour::start(&server, 40).await?;
    tokio::time::sleep(BEFORE).await;
    let mut requests = HalfSent::all(&server).await?;
    tokio::time::sleep(HALF_READ).await;
    server.process().pause();
    for request in &mut requests {
        request.send_rest().await?;
    }
    tokio::time::sleep(PAUSE).await;
    server.process().resume();
    for request in requests {
        request.expect_answer().await.context("a request of which half had come before the pause")?;
    }
    let closed = "millrace_ingest_closed_total";
    for reason in ["idle", "timeout", "connection_lost", "bitrate_exceeded", "message_rate_exceeded"] {
        let count = counter(&server, closed, &format!("reason=\"{reason}\"")).await?;
        ensure!(count == 0, "the publisher was closed: {reason}");
    }
    let log = server.process().output();
    ensure!(log.contains("the process was stopped and goes on"), "the log does not tell of the pause");
    // All frames, no discontinuity: one epoch.
    neighbour.lost_nothing(&mut server).await.context("after the pause")
}
