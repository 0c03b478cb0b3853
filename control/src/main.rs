//! The program `millrace-control`: the control node as a process of its own.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use millrace_control::Control;
use millrace_node::{Program, Role, report};

fn main() -> ExitCode {
    let program = Program::<Control>::parse();
    let loaded = program.load(std::env::vars_os().collect());
    report(Control::PROGRAM, loaded.and_then(|tree| program.run(&tree)))
}
