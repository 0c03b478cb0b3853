//! `millrace`: the whole platform in one binary.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    if let Some(code) = millrace_transcode::encoders::run_if_ordered(std::env::args_os()) {
        return code;
    }
    let command = millrace::Cli::parse();
    millrace_node::report("millrace", millrace::run(&command))
}
