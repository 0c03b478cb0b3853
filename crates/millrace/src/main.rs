//! `millrace`: the whole platform in one binary.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let command = millrace::Cli::parse();
    millrace_node::report("millrace", millrace::run(&command))
}
