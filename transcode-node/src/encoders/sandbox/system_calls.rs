//! The system calls of a child process.
//!
//! Three filters, of which the kernel takes the strictest answer:
//! - calls that no encoder makes and that only foreign code would: the process is killed at once, and the worker reports
//!   SIGSYS;
//! - `clone3`, whose flags a filter cannot see: answered with ENOSYS, so that the C library uses `clone`, which the third
//!   filter allows for threads alone;
//! - the calls that encoding needs. Everything else is answered with EPERM, not with death: libraries probe for files and
//!   features (the number of processors, the time zone, a faster call of a newer kernel) and go on without, and each release of
//!   them probes for others. What they are refused they do not have, which is all that the filter is for.
//!
//! Reads and writes are allowed on the socket and the error output alone, so that a descriptor that the worker's own starter
//! had left open is of no use.

use std::collections::BTreeMap;
use std::os::fd::RawFd;

use anyhow::Context;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// Calls that end the process.
const DEADLY: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_bpf,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_io_uring_setup,
    libc::SYS_userfaultfd,
    libc::SYS_perf_event_open,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_add_key,
];

/// Calls that are allowed with any arguments: memory, threads, locks, clocks, signals of the process itself.
const ALLOWED: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    // The filter before answers it: of two filters that answer with an error, the one applied later has its say.
    libc::SYS_clone3,
    libc::SYS_membarrier,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_rseq,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_getcpu,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_times,
    libc::SYS_getrusage,
    libc::SYS_getrandom,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_ppoll,
    libc::SYS_close,
    libc::SYS_shutdown,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Calls that are allowed on the socket and, for those that write, on the error output.
const READS: &[i64] = &[libc::SYS_read, libc::SYS_readv, libc::SYS_recvfrom];
const WRITES: &[i64] = &[libc::SYS_write, libc::SYS_writev, libc::SYS_sendto];

/// Calls that drivers of hardware encoders need: they open device files and the tables of the system that describe them.
/// Sockets stay closed.
const FOR_DEVICES: &[i64] = &[
    libc::SYS_openat,
    libc::SYS_ioctl,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_pread64,
    libc::SYS_lseek,
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_eventfd2,
    libc::SYS_sched_setaffinity,
    libc::SYS_getuid,
    libc::SYS_geteuid,
];

/// The descriptor of the error output.
const ERROR_OUTPUT: u64 = 2;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Returns the filters, to be applied in order: the last one takes away the call that applies filters.
pub(super) fn filters(socket: RawFd, devices: bool) -> anyhow::Result<Vec<BpfProgram>> {
    let deadly = DEADLY.iter().map(|call| (*call, Vec::new())).collect();
    let threads_of_old = [(libc::SYS_clone3, Vec::new())].into();
    let no_such_call = SeccompAction::Errno(libc::ENOSYS as u32);
    Ok(vec![
        program(deadly, SeccompAction::Allow, SeccompAction::KillProcess)?,
        program(threads_of_old, SeccompAction::Allow, no_such_call)?,
        program(allowed(socket, devices)?, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow)?,
    ])
}

fn program(rules: Rules, others: SeccompAction, listed: SeccompAction) -> anyhow::Result<BpfProgram> {
    let arch = std::env::consts::ARCH.try_into().context("processor")?;
    Ok(SeccompFilter::new(rules, others, listed, arch)?.try_into()?)
}

fn allowed(socket: RawFd, devices: bool) -> anyhow::Result<Rules> {
    let mut rules: Rules = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_poll, Vec::new());
    let socket = u64::try_from(socket).context("socket")?;
    let of_socket = argument(0, SeccompCmpOp::Eq, socket)?;
    for call in READS {
        rules.insert(*call, vec![of_socket.clone()]);
    }
    for call in WRITES {
        rules.insert(*call, vec![of_socket.clone(), argument(0, SeccompCmpOp::Eq, ERROR_OUTPUT)?]);
    }
    let threads = libc::CLONE_THREAD as u64;
    rules.insert(libc::SYS_clone, vec![argument(0, SeccompCmpOp::MaskedEq(threads), threads)?]);
    rules.insert(libc::SYS_prctl, vec![argument(0, SeccompCmpOp::Eq, libc::PR_SET_NAME as u64)?]);
    // `abort` and a failed assertion signal the process itself, and no other.
    let own = u64::from(std::process::id());
    rules.insert(libc::SYS_tgkill, vec![argument(0, SeccompCmpOp::Eq, own)?]);
    // The filters of the other kinds are in force by then; this one is the last.
    if devices {
        rules.extend(FOR_DEVICES.iter().map(|call| (*call, Vec::new())));
    }
    Ok(rules)
}

fn argument(index: u8, is: SeccompCmpOp, value: u64) -> anyhow::Result<SeccompRule> {
    Ok(SeccompRule::new(vec![SeccompCondition::new(index, SeccompCmpArgLen::Dword, is, value)?])?)
}
