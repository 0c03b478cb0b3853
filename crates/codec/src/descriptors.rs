//! Descriptors that the process which decodes must not get.

use std::io;

/// Marks all open descriptors but the first three so that programs which this process starts do not get them. Rust opens its own
/// so; those that were open when this process was started may not be.
///
/// It is here because the system offers it to `unsafe` code only, and this crate is the one that may have any.
///
/// # Errors
/// When the kernel is older than 5.11.
pub fn withhold_descriptors() -> io::Result<()> {
    let (first, last) = (3u32, u32::MAX);
    // SAFETY: the call takes three numbers; it sets a flag of descriptors, and closes none.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
