//! The programs under test: where they lie, how they are started, and the end of their output.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::Process;

/// Lines of a log that a failure shows.
const LOG_TAIL_LINES: usize = 40;

/// Starts `command`; its output goes to `{folder}/{name}.log`, appended to.
pub fn spawn(name: &str, folder: &Path, command: Command) -> Result<Process> {
    Process::spawn(command, folder.join(format!("{name}.log"))).with_context(|| name.to_owned())
}

/// The last lines of a program's output, for messages.
pub fn tail(process: &Process) -> String {
    let text = process.output();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LOG_TAIL_LINES);
    format!("--- process {} ---\n{}", process.pid(), lines[from..].join("\n"))
}

/// The built `millrace`: `MILLRACE_BIN`, else the one beside the running test.
pub fn millrace_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("MILLRACE_BIN") {
        return Ok(path.into());
    }
    let test = std::env::current_exe().context("the path of this test")?;
    let found = test.ancestors().skip(1).map(|folder| folder.join("millrace")).find(|path| path.is_file());
    found.context("no millrace binary beside this test: run `cargo build -p millrace` (make test does)")
}

/// A `millrace` command that inherits none of our configuration variables.
pub fn millrace_command() -> Result<Command> {
    Ok(bare(&millrace_binary()?))
}

/// The same for the program of one node, which is beside `millrace`.
pub fn node_command(role: &str) -> Result<Command> {
    let path = millrace_binary()?.with_file_name(format!("millrace-{role}"));
    ensure!(path.is_file(), "no {}: run `cargo build --workspace --bins` (make test does)", path.display());
    Ok(bare(&path))
}

fn bare(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MILLRACE_")) {
        command.env_remove(name);
    }
    command
}
