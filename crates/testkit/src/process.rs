//! Processes that a test starts, signals and takes down with it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A running program with its output in a file; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, appending what it prints to `log`.
    pub fn spawn(mut command: Command, log: impl AsRef<Path>) -> anyhow::Result<Self> {
        let log = log.as_ref().to_path_buf();
        let name = command.get_program().to_string_lossy().into_owned();
        let out = File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let child = command.spawn().map_err(|error| anyhow::anyhow!("start {name}: {error}"))?;
        Ok(Self { child, name, log })
    }

    /// Returns the id of the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it printed so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// True if the process has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// `kill -9`, and waits for its end.
    pub fn kill(&mut self) {
        // Both fail only for a process that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Stops the process without ending it (SIGSTOP).
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Continues a stopped process (SIGCONT).
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let line = format!("kill -{name} {}", self.child.id());
        let done = Command::new("sh").args(["-c", &line]).stderr(Stdio::null()).status();
        tracing::debug!(signal = name, process = %self.name, ok = ?done, "signal sent");
    }

    /// Waits for its end; fails with its output after `timeout`.
    pub async fn wait(&mut self, timeout: Duration) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            anyhow::ensure!(
                Instant::now() < deadline,
                "{} still runs after {timeout:?}:\n{}",
                self.name,
                self.output()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
