//! The memory allocator of every program.

/// jemalloc gives back what a flood of connections or large messages has taken: within ten seconds the process is as
/// small as before. glibc's allocator keeps it for ever (`docs/PERFORMANCE.md`).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
