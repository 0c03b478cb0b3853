//! Publishers whose unfinished messages fill the memory of the server, and what it holds when they have gone.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_testkit::wait;
use millrace_tests::standalone::Standalone;

use crate::HOME;
use crate::peer::Peer;

/// Publishers at once.
const PUBLISHERS: usize = 8;
/// Bytes of each one's unfinished messages; a connection may hold 12 MiB.
const UNFINISHED: usize = 11_000_000;
/// Memory that may be left of the flood, in bytes.
const LEFT: u64 = 40_000_000;
/// The allocator gives back what was free for ten seconds.
const GIVEN_BACK_LIMIT: Duration = Duration::from_mins(1);

/// Returns the resident memory of a process in bytes.
fn resident(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("the process's status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("its resident memory")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().context("a number")?;
    Ok(kilobytes * 1024)
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_of_unfinished_messages_is_given_back_when_their_publishers_have_gone() -> Result<()> {
    let mut server = Standalone::start().await?;
    let pid = server.process().pid();
    let before = resident(pid)?;
    let mut peers = Vec::new();
    for number in 0..PUBLISHERS {
        let live = server.api().create(&format!("unfinished {number}")).await?;
        let mut peer = Peer::publish(HOME, &live.push_url()).await?;
        peer.begin_messages(UNFINISHED).await?;
        peers.push(peer);
    }
    let full = before + (PUBLISHERS * UNFINISHED / 2) as u64;
    wait::value("the flood in the server's memory", GIVEN_BACK_LIMIT, || async {
        (resident(pid).ok()? > full).then_some(())
    })
    .await?;
    drop(peers);
    let given_back = wait::value("the memory to be given back", GIVEN_BACK_LIMIT, || async {
        resident(pid).ok().filter(|now| *now < before + LEFT)
    });
    given_back.await.with_context(|| format!("{before} bytes before, {:?} now", resident(pid)))?;
    ensure!(server.process().is_running(), "the server ended");
    Ok(())
}
