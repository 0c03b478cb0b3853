//! The watchdog of a child: when its silence means that it hangs.
//!
//! A child reports once a second, whether it has work or not. One that is silent and takes no processor time is stopped or
//! blocked; one that takes some may be slow, and is given more time. Looks are counted, not time, so that a pause of the whole
//! machine is one look.

use std::time::Duration;

/// Time between two looks.
pub(super) const LOOK: Duration = Duration::from_millis(500);
/// Looks without a word and without processor time after which a child has stopped: two reports are missing, and each further
/// second makes the rungs later.
const STILL_LOOKS: u32 = 4;
/// Looks without a word after which a child hangs although it takes processor time: six reports are missing, and no picture takes
/// so long.
const SILENT_LOOKS: u32 = 12;
/// Both before its first word: the process is being started.
const STARTING_LOOKS: (u32, u32) = (10, 24);
/// Looks after which a child hangs that only reports while a flush waits: the end of a stream waits for it.
const FLUSH_LOOKS: u32 = 10;
/// Looks without a word after which a child is no longer taken for slow: a stopped one is not helped by fewer rungs.
const UNSURE_LOOKS: u32 = 2;

/// The state of a child at a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It works.
    Lives,
    /// It has said nothing for a while, and may be stopped.
    Unsure,
    /// It hangs: it made nothing for this time.
    Hangs(Duration),
}

/// The looks at one child.
#[derive(Debug, Default)]
pub(super) struct Watchdog {
    has_spoken: bool,
    /// Looks since its last word, and those of them since which it has taken no processor time.
    silent: u32,
    still: u32,
    /// Looks since its last product other than a report, while a flush waits.
    flushing: u32,
    processor_time: Option<u64>,
}

impl Watchdog {
    /// Notes a word of the child; `is_report` is true for one that tells no more than that the child takes orders.
    pub(super) fn hears(&mut self, is_report: bool) {
        (self.has_spoken, self.silent, self.still) = (true, 0, 0);
        if !is_report {
            self.flushing = 0;
        }
    }

    /// Looks at the child. `processor_time` is what it has taken so far, in any unit; `None` if that is not known.
    pub(super) fn look(&mut self, is_flushing: bool, processor_time: Option<u64>) -> State {
        let runs = processor_time.is_some() && self.processor_time != processor_time;
        self.processor_time = processor_time;
        self.silent += 1;
        self.still = if runs { 0 } else { self.still + 1 };
        self.flushing = if is_flushing { self.flushing + 1 } else { 0 };
        let (still, silent) = if self.has_spoken { (STILL_LOOKS, SILENT_LOOKS) } else { STARTING_LOOKS };
        let limits = [(self.still, still), (self.silent, silent), (self.flushing, FLUSH_LOOKS)];
        if let Some((looks, _)) = limits.into_iter().find(|(looks, limit)| looks > limit) {
            return State::Hangs(LOOK * (looks - 1));
        }
        if self.silent > UNSURE_LOOKS { State::Unsure } else { State::Lives }
    }
}

/// Returns the processor time that a process has taken, in the kernel's ticks.
pub(super) fn processor_time(pid: u32) -> Option<u64> {
    // proc_pid_stat(5): utime and stime are fields 14 and 15; the name in parentheses is field 2 and may hold anything.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(ticks()? + ticks()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks until a child hangs, which takes processor time at each `runs`-th look and speaks at each `speaks`-th.
    fn looks(mut watchdog: Watchdog, is_flushing: bool, runs: u64, speaks: u64) -> Option<u64> {
        (1u64..200).find(|look| {
            if look.is_multiple_of(speaks) {
                watchdog.hears(true);
            }
            matches!(watchdog.look(is_flushing, Some(look / runs)), State::Hangs(_))
        })
    }

    fn heard() -> Watchdog {
        let mut watchdog = Watchdog::default();
        watchdog.hears(false);
        watchdog
    }

    #[test]
    fn silent_child_hangs_sooner_if_it_takes_no_processor_time() {
        const NEVER: u64 = 1_000;
        assert_eq!(looks(heard(), false, NEVER, NEVER), Some(6), "the first look learns the time");
        assert_eq!(looks(heard(), false, 1, NEVER), Some(13));
        assert_eq!(looks(Watchdog::default(), false, NEVER, NEVER), Some(12), "a start");
        // A slow one runs for a moment each second.
        assert_eq!(looks(heard(), false, 2, 8), None);
    }

    #[test]
    fn child_that_only_reports_hangs_while_a_flush_waits() {
        assert_eq!(looks(heard(), false, 1, 2), None);
        assert_eq!(looks(heard(), true, 1, 2), Some(11));
    }

    #[test]
    fn processor_time_of_this_process_grows() {
        let before = processor_time(std::process::id()).unwrap();
        while processor_time(std::process::id()).unwrap() == before {
            std::hint::spin_loop();
        }
        assert_eq!(processor_time(u32::MAX), None);
    }
}
