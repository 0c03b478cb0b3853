//! `millrace-ingest`: this node as a program of its own.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use millrace_ingest::Ingest;
use millrace_node::{Program, Role, report};

fn main() -> ExitCode {
    let program = Program::<Ingest>::parse();
    let loaded = program.load(std::env::vars_os().collect());
    report(Ingest::PROGRAM, loaded.and_then(|tree| program.run(&tree)))
}
