//! Publishes as the field has them, by kind of habit, each from the encoder's bytes to decoded pictures and sound.
//!
//! All rows run beside the clock and at once, so the table takes little longer than its longest row. Arguments
//! choose rows whose name contains one of them; without any, all run:
//!
//! ```sh
//! cargo test -p millrace-tests --test sources -- jitter clocks/step
//! ```
//!
//! `MILLRACE_SOURCES_VERBOSE=1` prints what was measured of rows that passed, too; `MILLRACE_SOURCES_SECONDS` and
//! `MILLRACE_SOURCES_SEEDS` make a campaign of it (`make test-sources`).
#![forbid(unsafe_code)]
#![allow(clippy::expect_used)]

mod browser;
mod decode;
mod judge;
mod kinds;
mod operator;
mod runner;
mod seen;
mod want;
mod watch;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(runner::run(&arguments))
}
