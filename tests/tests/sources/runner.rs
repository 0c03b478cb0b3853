//! Runs the table: a server for each kind, all rows of a kind at once, and a line for each row.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use millrace_testkit::programs::tail;
use millrace_tests::standalone::Standalone;
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::browser::{self, Job};
use crate::kinds::{self, Kind};
use crate::operator::repairs;
use crate::seen::{Case, Seen, run as run_case};

/// Kinds that run side by side: with all of them at once the machine's cores, not the encoders, would set the pace.
const KINDS_AT_ONCE: usize = 4;
/// Time between the starts of two rows of a kind: encoders do not all start in one moment.
const START_INTERVAL: Duration = Duration::from_millis(250);

/// Memory that a kind's publishers may cost together: a dozen of them with their windows take half of it.
const PEAK_MEMORY_MB: u64 = 250;

/// The result of one row.
struct Row {
    name: String,
    faults: Vec<String>,
    details: String,
}

/// Runs the rows that the arguments choose and prints them as libtest does.
pub(crate) async fn run(arguments: &[String]) -> ExitCode {
    let wanted: Vec<String> = arguments.iter().filter(|text| !text.starts_with('-')).cloned().collect();
    let began = Instant::now();
    let verbose = std::env::var_os("MILLRACE_SOURCES_VERBOSE").is_some();
    let permits = Arc::new(Semaphore::new(KINDS_AT_ONCE));
    let mut tasks = JoinSet::new();
    for kind in kinds::all() {
        let (permits, wanted) = (Arc::clone(&permits), wanted.clone());
        tasks.spawn(async move {
            let _permit = permits.acquire_owned().await;
            let name = kind.name;
            run_kind(kind, &wanted).await.unwrap_or_else(|error| {
                vec![Row {
                    name: name.to_owned(),
                    faults: vec![format!("{error:#}")],
                    details: String::new(),
                }]
            })
        });
    }
    let (mut passed, mut failed) = (0, 0);
    while let Some(rows) = tasks.join_next().await {
        for row in rows.unwrap_or_else(|error| vec![panicked(&error)]) {
            let good = row.faults.is_empty();
            println!("test {} ... {}", row.name, if good { "ok" } else { "FAILED" });
            for fault in &row.faults {
                println!("  - {fault}");
            }
            if verbose || !good {
                println!("{}", row.details);
            }
            *if good { &mut passed } else { &mut failed } += 1;
        }
    }
    let result = if failed == 0 { "ok" } else { "FAILED" };
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "\ntest result: {result}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out; \
         finished in {seconds:.2}s\n"
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn panicked(error: &tokio::task::JoinError) -> Row {
    Row { name: "a kind".to_owned(), faults: vec![error.to_string()], details: String::new() }
}

async fn run_kind(kind: Kind, wanted: &[String]) -> Result<Vec<Row>> {
    let mut cases = (kind.cases)().await.with_context(|| kind.name.to_owned())?;
    for case in &mut cases {
        case.name = format!("{}/{}", kind.name, case.name);
    }
    let all = cases.len();
    cases.retain(|case| wanted.is_empty() || wanted.iter().any(|text| case.name.contains(text.as_str())));
    if cases.is_empty() {
        return Ok(Vec::new());
    }
    let is_whole = cases.len() == all;
    let mut server = Standalone::start().await?;
    let seen = run_cases(&cases, &server).await?;
    let memory = peak_memory_mb(server.process().pid());
    let counted = repairs(&server.ready().control, "millrace_ingest_repairs").await?;
    let ended = if server.process().is_running() { String::new() } else { tail(server.process()) };
    let mut rows: Vec<Row> = Vec::new();
    let folders: Vec<_> = seen.iter().map(|(_, folder)| folder.path().to_owned()).collect();
    let jobs = cases.iter().zip(&seen).zip(&folders).filter(|((case, _), _)| case.chromium);
    let jobs: Vec<Job> =
        jobs.filter_map(|((case, (seen, _)), folder)| Job::new(case, seen.as_ref().ok()?, folder)).collect();
    let held = browser::hold(&jobs, server.folder()).await?;
    for (case, (seen, _folder)) in cases.iter().zip(&seen) {
        let mut row = Row { name: case.name.clone(), faults: Vec::new(), details: String::new() };
        match seen {
            Err(error) => row.faults.push(format!("{error:#}")),
            Ok(seen) => {
                row.faults = case.want.faults(seen);
                row.details = seen.to_string();
                if case.chromium {
                    let held = held.get(&case.name);
                    row.faults.extend(browser::faults(held, seen, case));
                    let held = held.map(ToString::to_string).unwrap_or_default();
                    row.details.extend(["\n  Chromium: ".to_owned(), held]);
                }
            }
        }
        rows.push(row);
    }
    // A choice of rows does not lead to all the repairs.
    let mut faults = if is_whole { count_faults(kind.repairs, &counted) } else { Vec::new() };
    faults.extend((!ended.is_empty()).then_some(ended));
    if memory > PEAK_MEMORY_MB {
        faults.push(format!("the server took {memory} MB, at most {PEAK_MEMORY_MB} wanted"));
    }
    let details = format!("  repairs: {counted:?}; peak memory {memory} MB");
    rows.push(Row { name: format!("{}/counted", kind.name), faults, details });
    Ok(rows)
}

/// The most memory that a process had at once (`VmHWM`); 0 if it is gone.
fn peak_memory_mb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or_default() / 1024
}

type Outcome = (Result<Seen>, TempDir);

async fn run_cases(cases: &[Case], server: &Standalone) -> Result<Vec<Outcome>> {
    let runs = cases.iter().zip(0_u32..).map(|(case, number)| async move {
        tokio::time::sleep(START_INTERVAL * number).await;
        let folder = TempDir::with_prefix("millrace-sources-")?;
        let seen = run_case(case, server, folder.path()).await;
        anyhow::Ok((seen, folder))
    });
    futures::future::try_join_all(runs).await
}

/// The repairs that a kind calls for against what the node counted.
fn count_faults(wanted: &[(&str, u64, u64)], counted: &BTreeMap<String, u64>) -> Vec<String> {
    let mut faults = Vec::new();
    for (reason, least, most) in wanted {
        let count = counted.get(*reason).copied().unwrap_or_default();
        if !(*least..=*most).contains(&count) {
            faults.push(format!("{reason} was counted {count} times, wanted {least} to {most}"));
        }
    }
    let is_known = |reason: &str| wanted.iter().any(|(known, ..)| *known == reason);
    let unknown = counted.iter().filter(|(reason, _)| !is_known(reason));
    faults.extend(unknown.map(|(reason, count)| format!("{reason} was counted {count} times, wanted none")));
    faults
}
