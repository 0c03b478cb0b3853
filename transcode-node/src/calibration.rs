//! The trial of the encoders at the start of a node: which of them work, and how much this machine can encode.
//!
//! It runs beside the first jobs. Until it has ended the worker takes its encoders and the usual speed of a core for granted.

use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;

use anyhow::bail;
use millrace_codec::LibavLicence;
use millrace_wire::message::job::{CORE_COST, PIXELS_PER_UNIT};

use crate::codec_policy::CodecPolicy;
use crate::config::Config;
use crate::encoders::{ChildSettings, ProbeReport, ProcessEncoders, probe};
use crate::metrics::Metrics;
use crate::worker::Worker;

/// Checks that the libav that this program is linked with is within the licence policy.
///
/// # Errors
/// When it is not, with what is allowed.
pub(crate) fn check_licence(policy: CodecPolicy) -> anyhow::Result<()> {
    let licence = LibavLicence::linked();
    if policy == CodecPolicy::Lgpl && licence.is_gpl() {
        bail!(
            "codec_policy = \"lgpl\" excludes the libav that this program is linked with ({}); allowed are a libav under the \
             LGPL, as scripts/libav-lgpl builds it, and the encoders {}",
            licence.name,
            policy.allowed()
        );
    }
    Ok(())
}

/// Returns the cost units of all cores together, at the usual speed.
pub(crate) fn usual_capacity() -> u64 {
    available_parallelism().map_or(1, NonZero::get) as u64 * CORE_COST
}

/// The trial's clip takes a third of the time of what is broadcast, in pixels: on the machine of `docs/PERFORMANCE.md` the
/// ladder `standard` of 1080p at 30 pictures a second takes 1.3 to 1.6 cores for 160 cost units, and the clip shows 147 million
/// pixels a second.
const EASE_OF_CLIP: u64 = 3;

/// Returns the cost units of all cores together, at a measured speed.
fn capacity(pixels_per_second: u64) -> u64 {
    let cores = available_parallelism().map_or(1, NonZero::get) as u64;
    (cores * pixels_per_second / (EASE_OF_CLIP * PIXELS_PER_UNIT)).max(1)
}

/// Tries the encoders, leaves out those that do not work, and sets the worker's capacity by the speed of the first.
pub(crate) async fn run(
    config: Arc<Config>,
    encoders: Arc<ProcessEncoders>,
    metrics: Arc<Metrics>,
    worker: Worker,
) {
    let settings = encoders.settings();
    match probe(&settings).await {
        Ok(report) => apply(&config, &settings, &report, &encoders, &metrics, &worker),
        Err(error) => {
            tracing::error!(
                error = format!("{error:#}"),
                "the encoders cannot be used: streams are copied only"
            );
            encoders.use_only(Vec::new());
            worker.limit(config.admission_to_copy());
        }
    }
}

fn apply(
    config: &Config,
    settings: &ChildSettings,
    report: &ProbeReport,
    encoders: &ProcessEncoders,
    metrics: &Metrics,
    worker: &Worker,
) {
    for trial in &report.encoders {
        let usable = i64::from(trial.refused.is_none());
        metrics.encoder_usable.with(&[trial.kind.name()]).set(usable);
        if let Some(reason) = &trial.refused {
            tracing::warn!(
                encoder = trial.kind.name(),
                reason,
                "the encoder does not work here; the next one is used"
            );
        }
    }
    let isolated = report.isolation.holds(settings.opens_devices());
    if !isolated {
        tracing::error!(isolation = ?report.isolation, "the encoders' process is not isolated: streams are copied only");
    }
    let usable = if isolated { report.usable() } else { Vec::new() };
    let Some((first, speed)) = usable.first().copied().zip(report.pixels_per_second) else {
        tracing::error!("no encoder works here: streams are copied only");
        encoders.use_only(Vec::new());
        worker.limit(config.admission_to_copy());
        return;
    };
    metrics.encoder_speed.set(speed as i64);
    let limits = config.admission(capacity(speed));
    tracing::info!(encoder = first.name(), pixels_per_second = speed, ?limits, "encoders tried");
    encoders.use_only(usable);
    worker.limit(limits);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_follows_from_the_measured_speed() {
        let cores = usual_capacity() / CORE_COST;
        let usual = EASE_OF_CLIP * PIXELS_PER_UNIT * CORE_COST;
        assert_eq!(capacity(usual), cores * CORE_COST);
        assert_eq!(capacity(usual / 2), cores * CORE_COST / 2);
        assert_eq!(capacity(0), 1);
    }

    #[test]
    fn libav_under_the_gpl_is_refused_by_the_policy_without_it() {
        assert!(check_licence(CodecPolicy::Gpl).is_ok());
        let refused = check_licence(CodecPolicy::Lgpl).map_err(|error| error.to_string());
        if LibavLicence::linked().is_gpl() {
            let reason = refused.unwrap_err();
            assert!(reason.contains("scripts/libav-lgpl") && reason.contains("openh264"), "{reason}");
        } else {
            assert_eq!(refused, Ok(()));
        }
    }
}
