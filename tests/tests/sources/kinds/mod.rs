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
}

/// The whole table.
pub(crate) fn all() -> Vec<Kind> {
    vec![
        Kind { name: "jitter", cases: || Box::pin(jitter::cases()) },
        Kind { name: "aac", cases: || Box::pin(aac::cases()) },
        Kind { name: "keyframes", cases: || Box::pin(keyframes::cases()) },
        Kind { name: "pauses", cases: || Box::pin(pauses::cases()) },
        Kind { name: "sets", cases: || Box::pin(sets::cases()) },
        Kind { name: "pixels", cases: || Box::pin(pixels::cases()) },
        Kind { name: "changes", cases: || Box::pin(changes::cases()) },
        Kind { name: "audio_times", cases: || Box::pin(audio_times::cases()) },
        Kind { name: "clocks", cases: || Box::pin(clocks::cases()) },
        Kind { name: "codecs", cases: || Box::pin(codecs::cases()) },
        Kind { name: "loss", cases: || Box::pin(loss::cases()) },
        Kind { name: "late", cases: || Box::pin(late::cases()) },
        Kind { name: "hints", cases: || Box::pin(hints::cases()) },
        Kind { name: "fresh", cases: || Box::pin(fresh::cases()) },
        Kind { name: "floods", cases: || Box::pin(floods::cases()) },
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
