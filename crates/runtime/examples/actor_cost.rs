//! Measures the cost of an actor: time to start and to end one, and memory while it is up.
//!
//! `cargo run --release -p millrace-runtime --example actor_cost -- 1000 10000`
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use millrace_runtime::{ActorId, Policy, Process, Supervisor, block_on};

/// Returns the resident memory of this process in bytes.
fn resident() -> anyhow::Result<i64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: i64 = statm.split_whitespace().nth(1).unwrap_or_default().parse()?;
    Ok(pages * 4_096)
}

async fn measure(count: usize) -> anyhow::Result<()> {
    let process = Process::default();
    let supervisor = Supervisor::start("bench", &process.metrics, &process.drain, &process.actors)?;
    let before = resident()?;
    let start = Instant::now();
    let mut children = Vec::with_capacity(count);
    for number in 0..count {
        let child = supervisor.spawn(ActorId::new("bench", number), Policy::once(), |context| async move {
            context.stop.cancelled().await;
            Ok(())
        });
        children.push(child.await?);
    }
    let started = start.elapsed();
    let bytes = resident()? - before;
    let asked = Instant::now();
    process.actors.status("bench", "0").await?;
    let asked = asked.elapsed();
    let stop = Instant::now();
    for child in &children {
        child.stop();
    }
    for child in &mut children {
        child.ended().await;
    }
    let each = |total: Duration| total.as_nanos() / count as u128;
    println!(
        "{count} actors: {} ns to start, {} ns to end, {} bytes each; a status takes {asked:?}",
        each(started),
        each(stop.elapsed()),
        bytes / count as i64,
    );
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let counts: Result<Vec<usize>, _> = std::env::args().skip(1).map(|count| count.parse()).collect();
    block_on(async {
        // The first round pays for threads and allocator arenas.
        measure(100).await?;
        for count in counts? {
            measure(count).await?;
        }
        Ok(())
    })?
}
