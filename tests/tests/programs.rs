//! The programs of single nodes, as an operator meets them.
#![forbid(unsafe_code)]

use std::process::Output;

use anyhow::{Context, Result, ensure};
use millrace_testkit::programs::{millrace_command, node_command};

const ROLES: [&str; 4] = ["ingest", "transcode", "edge", "control"];

fn run(role: &str, arguments: &[&str]) -> Result<Output> {
    node_command(role)?.args(arguments).output().with_context(|| role.to_owned())
}

#[test]
fn node_programs_describe_themselves_and_take_their_flags() -> Result<()> {
    let flags = |help: &[u8]| -> Vec<String> {
        let help = String::from_utf8_lossy(help);
        let words = help.split_whitespace().filter(|word| word.starts_with("--"));
        words.map(|word| word.trim_matches(|c: char| !c.is_alphabetic() && c != '-').to_owned()).collect()
    };
    for role in ROLES {
        let own = run(role, &["--help"])?;
        let command = millrace_command()?.args([role, "--help"]).output()?;
        ensure!(own.status.success() && command.status.success(), "{role}");
        for flag in flags(&command.stdout) {
            ensure!(flags(&own.stdout).contains(&flag), "millrace-{role} has no {flag}");
        }
        let first =
            |output: &Output| String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned);
        ensure!(first(&own).is_some() && first(&own) == first(&command), "{role}: {:?}", first(&own));
        let version = run(role, &["--version"])?;
        ensure!(String::from_utf8_lossy(&version.stdout).starts_with(&format!("millrace-{role} ")));
    }
    Ok(())
}

#[test]
fn node_programs_read_their_sections_of_a_shared_file() -> Result<()> {
    let file = "../deploy/config/cluster.toml";
    for role in ROLES {
        for arguments in [["check-config", "--config", file], ["--config", file, "check-config"]] {
            let output = run(role, &arguments)?;
            ensure!(output.status.success(), "{role}: {}", String::from_utf8_lossy(&output.stderr));
        }
        let set = format!("{role}.no_such_key=1");
        let output = run(role, &["check-config", "--set", &set])?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let start = format!("millrace-{role}: configuration: {role}.no_such_key: unknown key");
        ensure!(!output.status.success() && text.starts_with(&start), "{text}");
        ensure!(text.lines().count() == 1, "{text}");
    }
    Ok(())
}

#[test]
fn node_programs_run_health_checks() -> Result<()> {
    for role in ROLES {
        let output = run(role, &["healthcheck", "http://127.0.0.1:1/readyz"])?;
        ensure!(output.status.code() == Some(1), "{role}: {:?}", output.status);
        // The variable that images set does not disturb it.
        let output = node_command(role)?
            .env("MILLRACE_CONFIG", "/nowhere")
            .args(["healthcheck", "http://127.0.0.1:1/readyz"])
            .output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(text.contains("127.0.0.1:1"), "{text}");
    }
    Ok(())
}
