//! The CPU time and memory of processes, from `/proc`.

use std::path::Path;

use anyhow::{Context, Result};

/// `USER_HZ`: the kernel's unit of processor time in `/proc`, 100 on every Linux of our platforms.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process and everything it started that still runs.
pub(crate) fn family(root: u32) -> Result<Vec<u32>> {
    let mut found = vec![root];
    let mut at = 0;
    while let Some(&pid) = found.get(at) {
        at += 1;
        for task in
            std::fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid}"))?
        {
            let children = std::fs::read_to_string(task?.path().join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    Ok(found)
}

/// Processor seconds a family has used so far, user and system.
pub(crate) fn cpu_seconds(root: u32) -> Result<f64> {
    let mut ticks = 0;
    for pid in family(root)? {
        let stat =
            std::fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid}"))?;
        // Fields 14 and 15, counted behind the name, which may hold anything but ends with the last parenthesis.
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        ticks += rest
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum::<u64>();
    }
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

/// Memory of a family: shared pages divided among their users.
pub(crate) fn memory_bytes(root: u32) -> Result<u64> {
    let mut kilobytes = 0;
    for pid in family(root)? {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = std::fs::read_to_string(Path::new(&path)).with_context(|| path.clone())?;
        let pss = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss")?;
        kilobytes += pss.trim().trim_end_matches("kB").trim().parse::<u64>().context("Pss")?;
    }
    Ok(kilobytes * 1024)
}
