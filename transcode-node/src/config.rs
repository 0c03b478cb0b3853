//! The section `[transcode]` of the configuration.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use millrace_codec::engine::order::EncoderKind;
use millrace_node::{LadderTemplate, LadderTemplates};
use millrace_protocol::admission::AdmissionLimits;
use millrace_runtime::Section;
use millrace_store::UploaderConfig;
use serde::Deserialize;

use crate::codec_policy::CodecPolicy;

/// The share of the capacity that is reserved for copied streams is one in this many: a node full of encoders can still
/// take all streams of an event.
const COPY_SHARE: u64 = 4;

/// The least capacity that is taken without a setting: one ladder `standard`, of 160 cost units, fits beside the reserve. A
/// machine that is too slow for it leaves rungs out, which its viewers notice less than a copy alone.
const LEAST_CAPACITY: u64 = 220;
/// The least memory of a process that encodes: that of a small picture, its decoder and one encoder.
const MIN_ENCODER_MEMORY: u64 = 128 << 20;
/// The lowest priority.
const MAX_NICE: i32 = 19;
/// Threads beyond which an encoder gains nothing and loses quality.
const MAX_ENCODER_THREADS: u32 = 64;

/// The settings of `[transcode]`: how many jobs the worker takes and how it uploads.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The address that `/metrics`, `/healthz` and `/readyz` are served on; they are not served when it is absent.
    pub metrics_listen: Option<SocketAddr>,
    /// Streams that are packaged at once; a worker that has as many does not bid.
    pub max_jobs: u32,
    /// Cost units of all jobs together; a copied stream costs one. As many as `max_jobs` when absent.
    pub capacity: Option<u64>,
    /// Of these, the units that only copied streams may take. A quarter when absent.
    pub copy_reserve: Option<u64>,
    /// Bytes that may wait for the store, all streams together.
    pub spill_bytes: usize,
    /// Objects sent to the store at the same time.
    pub parallel_uploads: usize,
    /// Seconds that running jobs have to move to other workers after a drain began.
    pub drain_s: u32,
    /// The encoders of H.264 that may be opened, in the order of preference; those on the CPU when empty.
    pub encoders: Vec<EncoderKind>,
    /// The licences of the software that encodes.
    pub codec_policy: CodecPolicy,
    /// Threads that the encoders of one stream use together; 0 lets the encoders choose.
    pub encoder_threads: u32,
    /// Bytes of memory of the process that encodes one stream.
    pub encoder_memory_bytes: u64,
    /// Nice value of that process, 0 to 19: what packages streams comes first.
    pub encoder_nice: i32,
    /// The operator's templates of ladders, by name; control resolves them, from the same section.
    pub templates: BTreeMap<String, LadderTemplate>,
}

impl Default for Config {
    fn default() -> Self {
        let uploads = UploaderConfig::default();
        Self {
            metrics_listen: None,
            // A copy rung costs well under a percent of a core.
            max_jobs: 200,
            capacity: None,
            copy_reserve: None,
            spill_bytes: uploads.max_bytes,
            parallel_uploads: uploads.parallel,
            drain_s: 30,
            encoders: Vec::new(),
            codec_policy: CodecPolicy::default(),
            encoder_threads: 0,
            // A ladder of a 2160p source takes about 1 GB.
            encoder_memory_bytes: 2 << 30,
            // At 5 a process gets a third of what the node's own threads get when both want the processor.
            encoder_nice: 5,
            templates: BTreeMap::new(),
        }
    }
}

impl Config {
    /// Returns the bounds of the upload queue.
    pub(crate) fn uploads(&self) -> UploaderConfig {
        UploaderConfig {
            max_bytes: self.spill_bytes,
            parallel: self.parallel_uploads,
            ..UploaderConfig::default()
        }
    }

    /// Returns the limits on the worker's jobs; `measured` are the cost units of this machine.
    pub(crate) fn admission(&self, measured: u64) -> AdmissionLimits {
        // A machine too weak to encode still copies as many streams as it may package, and tries one ladder.
        let least = LEAST_CAPACITY.max(u64::from(self.max_jobs));
        let capacity = self.capacity.unwrap_or(measured.max(least));
        let copy_reserve = self.copy_reserve.unwrap_or(capacity / COPY_SHARE);
        AdmissionLimits { jobs: self.max_jobs as usize, capacity, copy_reserve }
    }

    fn check_encoding(&self) -> Result<(), (&'static str, String)> {
        self.codec_policy.check(&self.encoders).map_err(|reason| ("encoders", reason))?;
        if self.encoder_memory_bytes < MIN_ENCODER_MEMORY {
            return Err(("encoder_memory_bytes", format!("at least {MIN_ENCODER_MEMORY} bytes are needed")));
        }
        if !(0..=MAX_NICE).contains(&self.encoder_nice) {
            return Err(("encoder_nice", format!("nice values go from 0 to {MAX_NICE}")));
        }
        if self.encoder_threads > MAX_ENCODER_THREADS {
            return Err(("encoder_threads", format!("at most {MAX_ENCODER_THREADS} are of use")));
        }
        Ok(())
    }

    /// Returns the limits on the worker's jobs when nothing can be encoded.
    pub(crate) fn admission_to_copy(&self) -> AdmissionLimits {
        let limits = self.admission(0);
        AdmissionLimits { copy_reserve: limits.capacity, ..limits }
    }

    /// Returns the longest time a drain may take.
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
        let AdmissionLimits { capacity, copy_reserve, .. } = self.admission(0);
        if capacity == 0 {
            return Err(("capacity", "a worker takes at least one job".to_owned()));
        }
        if copy_reserve > capacity {
            return Err(("copy_reserve", format!("the capacity is {capacity}")));
        }
        if self.parallel_uploads == 0 {
            return Err(("parallel_uploads", "at least one object must be sent at a time".to_owned()));
        }
        self.check_encoding()?;
        LadderTemplates::new(self.templates.clone()).check().map_err(|rule| ("templates", rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_derives_capacity_from_max_jobs_unless_it_is_set() {
        let limits = |config: Config| {
            let AdmissionLimits { jobs, capacity, copy_reserve } = config.admission(0);
            (jobs, capacity, copy_reserve)
        };
        assert_eq!(limits(Config::default()), (200, 220, 55));
        assert_eq!(limits(Config { max_jobs: 8, ..Config::default() }), (8, 220, 55));
        assert_eq!(limits(Config { max_jobs: 400, ..Config::default() }), (400, 400, 100));
        let given = Config { capacity: Some(1_000), copy_reserve: Some(0), ..Config::default() };
        assert_eq!(limits(given), (200, 1_000, 0));
        for (wrong, key) in [
            (Config { max_jobs: 0, ..Config::default() }, "max_jobs"),
            (Config { capacity: Some(0), ..Config::default() }, "capacity"),
            (Config { encoder_nice: 20, ..Config::default() }, "encoder_nice"),
            (Config { encoder_memory_bytes: 1 << 20, ..Config::default() }, "encoder_memory_bytes"),
            (Config { encoder_threads: 65, ..Config::default() }, "encoder_threads"),
            (
                Config {
                    codec_policy: CodecPolicy::Lgpl,
                    encoders: vec![EncoderKind::X264],
                    ..Config::default()
                },
                "encoders",
            ),
            (Config { capacity: Some(9), copy_reserve: Some(10), ..Config::default() }, "copy_reserve"),
        ] {
            assert_eq!(wrong.check().map_err(|(key, _)| key), Err(key));
        }
        assert!(Config::default().check().is_ok());
    }
}
