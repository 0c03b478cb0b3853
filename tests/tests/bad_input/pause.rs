//! A server whose process is stopped for a while and goes on, as with a virtual machine that is moved.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_tests::standalone::Standalone;

use crate::{Neighbour, counter};

/// The time for which the process is stopped: longer than every deadline of a publisher and than its lease.
const PAUSE: Duration = Duration::from_secs(20);
/// The time from a publish's start to the pause.
const BEFORE: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread")]
async fn publish_goes_on_without_loss_after_the_process_was_stopped_for_20_s() -> Result<()> {
    let mut server = Standalone::start().await?;
    let neighbour = Neighbour::start(&server, 40).await?;
    tokio::time::sleep(BEFORE).await;
    server.process().pause();
    tokio::time::sleep(PAUSE).await;
    server.process().resume();
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
