//! The processes that encode for a worker, found by their parent.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_testkit::wait;

/// The argument by which the program knows that it is such a process.
const COMMAND: &str = "encoder";
/// Time from the first media of a stream to its process, on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Returns the ids of the processes that encode for the process `parent`, oldest first.
pub fn encoders_of(parent: u32) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let mut found: Vec<u32> = ids.filter(|id| is_encoder_of(*id, parent)).collect();
    found.sort_unstable();
    found
}

fn is_encoder_of(id: u32, parent: u32) -> bool {
    let Ok(command) = std::fs::read(format!("/proc/{id}/cmdline")) else { return false };
    let Ok(status) = std::fs::read_to_string(format!("/proc/{id}/status")) else { return false };
    let is_encoder = command.split(|byte| *byte == 0).nth(1) == Some(COMMAND.as_bytes());
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let is_dead = field("State:").is_some_and(|state| state.starts_with(['Z', 'X']));
    is_encoder && !is_dead && field("PPid:") == Some(parent.to_string().as_str())
}

/// Waits until a process that is none of `known` encodes for `parent`, and returns it.
pub async fn new_encoder_of(parent: u32, known: &[u32]) -> Result<u32> {
    wait::value("a process that encodes", START_LIMIT, || async {
        encoders_of(parent).into_iter().find(|id| !known.contains(id))
    })
    .await
}

/// Sends a signal to a process by the signal's name.
pub fn signal(id: u32, name: &str) -> Result<()> {
    let status = Command::new("sh")
        .args(["-c", &format!("kill -{name} {id}")])
        .stderr(Stdio::null())
        .status()
        .context("sh")?;
    ensure!(status.success(), "process {id} does not take {name}: it has ended");
    Ok(())
}

/// Slows a process down while it lives: of each period it runs for the given share only.
#[derive(Debug)]
pub struct Slowed {
    task: tokio::task::JoinHandle<()>,
    id: u32,
}

/// One turn of a slowed process: shorter than the silence that counts as a hang, and long beside the time that a signal takes.
const PERIOD: Duration = Duration::from_secs(1);

impl Slowed {
    /// Slows the process `id` down to `percent` of its time.
    pub fn down_to(id: u32, percent: u32) -> Self {
        let task = tokio::spawn(async move {
            let runs = PERIOD * percent / 100;
            while signal(id, "STOP").is_ok() {
                tokio::time::sleep(PERIOD.saturating_sub(runs)).await;
                if signal(id, "CONT").is_err() {
                    return;
                }
                tokio::time::sleep(runs).await;
            }
        });
        Self { task, id }
    }
}

impl Drop for Slowed {
    fn drop(&mut self) {
        self.task.abort();
        // It may have ended.
        let _ = signal(self.id, "CONT");
    }
}
