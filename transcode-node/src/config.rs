//! `[transcode]` of the configuration.

use std::net::SocketAddr;
use std::time::Duration;

use millrace_runtime::Section;
use millrace_store::UploaderConfig;
use serde::Deserialize;

/// `[transcode]`: how much this worker takes on and how it stores.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where `/metrics`, `/healthz` and `/readyz` are served; nowhere when absent.
    pub metrics_listen: Option<SocketAddr>,
    /// Streams packaged at once; beyond them the worker does not bid.
    pub max_jobs: u32,
    /// Bytes that may wait for the store, all streams together.
    pub spill_bytes: usize,
    /// Objects sent to the store at the same time.
    pub parallel_uploads: usize,
    /// Seconds running jobs have to move to other workers after a drain began.
    pub drain_s: u32,
}

impl Default for Config {
    fn default() -> Self {
        let uploads = UploaderConfig::default();
        Self {
            metrics_listen: None,
            // A copy rung costs well under a percent of a core.
            max_jobs: 200,
            spill_bytes: uploads.max_bytes,
            parallel_uploads: uploads.parallel,
            drain_s: 30,
        }
    }
}

impl Config {
    /// Bounds of the upload queue.
    pub(crate) fn uploads(&self) -> UploaderConfig {
        UploaderConfig {
            max_bytes: self.spill_bytes,
            parallel: self.parallel_uploads,
            ..UploaderConfig::default()
        }
    }

    /// How long a drain may take.
    pub(crate) fn drain(&self) -> Duration {
        Duration::from_secs(u64::from(self.drain_s))
    }
}

impl Section for Config {
    const NAME: &'static str = "transcode";

    fn check(&self) -> Result<(), (&'static str, String)> {
        if self.max_jobs == 0 {
            return Err(("max_jobs", "a worker takes at least one job".to_owned()));
        }
        if self.parallel_uploads == 0 {
            return Err(("parallel_uploads", "at least one object must be sent at a time".to_owned()));
        }
        Ok(())
    }
}
