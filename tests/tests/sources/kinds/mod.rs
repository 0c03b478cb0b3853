//! The table, by kind.

mod aac;
mod audio_times;
mod changes;
mod clocks;
mod codecs;
mod floods;
mod fresh;
mod hints;
mod jitter;
mod keyframes;
mod late;
mod loss;
mod pauses;
mod pixels;
mod sets;

use anyhow::Result;
use futures::future::BoxFuture;

use crate::seen::Case;

/// Rows of one cause.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) cases: fn() -> BoxFuture<'static, Result<Vec<Case>>>,
    /// The repairs that its publishes together must lead to, by reason: the least and the most. No others may be counted.
    pub(crate) repairs: &'static [(&'static str, u64, u64)],
}

/// The whole table.
pub(crate) fn all() -> Vec<Kind> {
    vec![
        Kind { name: "jitter", cases: || Box::pin(jitter::cases()), repairs: jitter::REPAIRS },
        Kind { name: "aac", cases: || Box::pin(aac::cases()), repairs: aac::REPAIRS },
        Kind { name: "keyframes", cases: || Box::pin(keyframes::cases()), repairs: keyframes::REPAIRS },
        Kind { name: "pauses", cases: || Box::pin(pauses::cases()), repairs: pauses::REPAIRS },
        Kind { name: "sets", cases: || Box::pin(sets::cases()), repairs: sets::REPAIRS },
        Kind { name: "pixels", cases: || Box::pin(pixels::cases()), repairs: pixels::REPAIRS },
        Kind { name: "changes", cases: || Box::pin(changes::cases()), repairs: changes::REPAIRS },
        Kind { name: "audio_times", cases: || Box::pin(audio_times::cases()), repairs: audio_times::REPAIRS },
        Kind { name: "clocks", cases: || Box::pin(clocks::cases()), repairs: clocks::REPAIRS },
        Kind { name: "codecs", cases: || Box::pin(codecs::cases()), repairs: codecs::REPAIRS },
        Kind { name: "loss", cases: || Box::pin(loss::cases()), repairs: loss::REPAIRS },
        Kind { name: "late", cases: || Box::pin(late::cases()), repairs: late::REPAIRS },
        Kind { name: "hints", cases: || Box::pin(hints::cases()), repairs: hints::REPAIRS },
        Kind { name: "fresh", cases: || Box::pin(fresh::cases()), repairs: fresh::REPAIRS },
        Kind { name: "floods", cases: || Box::pin(floods::cases()), repairs: floods::REPAIRS },
    ]
}

/// Seconds of media in a row that needs no more.
pub(crate) fn seconds() -> u32 {
    number("MILLRACE_SOURCES_SECONDS").unwrap_or(10)
}

/// Seeds of rows that are random.
pub(crate) fn seeds() -> u64 {
    number("MILLRACE_SOURCES_SEEDS").unwrap_or(1).into()
}

fn number(variable: &str) -> Option<u32> {
    std::env::var(variable).ok()?.parse().ok()
}
