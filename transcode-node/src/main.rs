//! `millrace-transcode`: this node as a program of its own.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use millrace_node::{Program, Role, report};
use millrace_transcode::Transcode;

fn main() -> ExitCode {
    if let Some(code) = millrace_transcode::encoders::run_if_ordered(std::env::args_os()) {
        return code;
    }
    let program = Program::<Transcode>::parse();
    let loaded = program.load(std::env::vars_os().collect());
    report(Transcode::PROGRAM, loaded.and_then(|tree| program.run(&tree)))
}
