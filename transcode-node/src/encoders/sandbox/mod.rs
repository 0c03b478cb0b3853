//! What the child process may do, set by the process itself before it reads a byte of a publisher's media.
//!
//! The worker starts the process with an empty environment and no descriptors but the socket, the null device and the pipe for
//! its last words. Everything else follows here, because `fork` and `exec` leave no safe moment for it: limits of memory and
//! descriptors, priority, the death with its worker, and the system calls it may make.
//!
//! The process keeps the worker's process group out of reach of a terminal: it has a group of its own, set by the worker, so
//! that an interrupt from the keyboard drains the worker and does not end its encoders first.

mod system_calls;

use std::os::fd::RawFd;

use anyhow::{Context, bail};
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};
use seccompiler::apply_filter_all_threads;

/// Descriptors that the process may have open: its three, the socket's second one, and those of a hardware encoder.
const DESCRIPTORS: u64 = 64;

/// The limits of a child process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Bytes of writable memory. The heap's reservations of address space do not count, as they would for a limit of the
    /// address space: glibc reserves 64 MiB for each thread that allocates.
    pub(super) memory_bytes: u64,
    /// Nice value: the worker's own threads, which package the copy rung, come first.
    pub(super) nice: i32,
    /// True if device files may be opened and driven, for encoders in hardware.
    pub(super) devices: bool,
}

/// Gives up everything that encoding does not need. From here on `socket` and the error output are all that the process can
/// read and write.
///
/// # Errors
/// When the kernel refuses a part of it: then nothing may be decoded here.
pub(super) fn enter(limits: Limits, socket: RawFd) -> anyhow::Result<()> {
    if std::env::vars_os().next().is_some() {
        bail!("the environment is not empty: this command is started by the worker");
    }
    let set = |resource, value| {
        rustix::process::setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })
    };
    // A core file would hold the publisher's pictures.
    set(Resource::Core, 0).context("limit of core files")?;
    set(Resource::Nofile, DESCRIPTORS).context("limit of descriptors")?;
    set(Resource::Data, limits.memory_bytes).context("limit of memory")?;
    rustix::process::setpriority_process(None, limits.nice).context("priority")?;
    // The socket ends with the worker, too, but a process that hangs does not read it.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).context("death with the worker")?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).context("no traces")?;
    rustix::thread::set_no_new_privs(true).context("no new privileges")?;
    for filter in system_calls::filters(socket, limits.devices).context("filter of system calls")? {
        // All threads: the allocator may have started one.
        apply_filter_all_threads(&filter).context("filter of system calls")?;
    }
    Ok(())
}
