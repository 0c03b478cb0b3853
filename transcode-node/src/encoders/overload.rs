//! Shedding: which rungs are encoded while the machine is too slow for all of them.
//!
//! The lag is the media between the newest place that was ordered and the newest that the slowest encoded rung has handed in.
//! A transcoder that catches up, as after its start, has a large lag that shrinks; one that is too slow has one that does not.
//! The highest rung costs the most and goes first. The copy rung is not concerned: it is packaged without the transcoder.

/// A lag beyond this, in milliseconds, that does not shrink sheds a rung: a part comes later than players wait for by then.
pub const SHED_LAG_MS: u64 = 2_000;
/// A lag that shrinks by less than this many milliseconds a second does not count as catching up.
pub const CATCH_UP_MS: u64 = 100;
/// Samples in a row that must be too slow before a rung is shed: one late second is no overload.
pub const SLOW_SAMPLES: u32 = 3;
/// A lag below this, in milliseconds, is calm: the delay of decoder and encoder themselves is about half of it.
pub const CALM_LAG_MS: u64 = 1_000;
/// Milliseconds after a change until the next one: it takes effect at the next boundary of a segment, and shows after that.
pub const SETTLE_MS: u64 = 6_000;
/// Milliseconds of calm after which the highest shed rung is taken back at first.
pub const CALM_MS: u64 = 20_000;
/// The longest such time: each rung that had to be shed again soon after doubles it.
pub const MAX_CALM_MS: u64 = 320_000;
/// A rung that is shed within this many milliseconds after one was taken back was taken back too early.
pub const TOO_EARLY_MS: u64 = 60_000;

/// Decides how many of a job's rungs are encoded.
#[derive(Debug, Clone)]
pub struct Overload {
    rungs: usize,
    shed: usize,
    last_lag: u64,
    slow: u32,
    changed_at: Option<u64>,
    calm_since: Option<u64>,
    calm_ms: u64,
    taken_back_at: Option<u64>,
}

impl Overload {
    /// Creates the decision for a job of so many rungs, all of which are encoded at first.
    pub const fn new(rungs: usize) -> Self {
        Self {
            rungs,
            shed: 0,
            last_lag: 0,
            slow: 0,
            changed_at: None,
            calm_since: None,
            calm_ms: CALM_MS,
            taken_back_at: None,
        }
    }

    /// Returns the number of rungs, from the highest on, that are not to be encoded.
    pub const fn shed(&self) -> usize {
        self.shed
    }

    /// Forgets the lag: a new transcoder starts with none. What is shed stays shed.
    pub fn restarted(&mut self, now_ms: u64) {
        (self.last_lag, self.slow, self.calm_since) = (0, 0, None);
        self.changed_at = Some(now_ms);
    }

    /// Takes the lag, about once a second. True if the number of shed rungs has changed.
    pub fn sample(&mut self, now_ms: u64, lag_ms: u64) -> bool {
        let catches_up = lag_ms + CATCH_UP_MS <= self.last_lag;
        self.last_lag = lag_ms;
        let is_slow = lag_ms > SHED_LAG_MS && !catches_up;
        self.slow = if is_slow { self.slow.saturating_add(1) } else { 0 };
        if lag_ms >= CALM_LAG_MS {
            self.calm_since = None;
        } else {
            self.calm_since.get_or_insert(now_ms);
        }
        if self.changed_at.is_some_and(|at| now_ms.saturating_sub(at) < SETTLE_MS) {
            return false;
        }
        if self.slow >= SLOW_SAMPLES && self.shed < self.rungs {
            self.shed_one(now_ms);
            return true;
        }
        let calm_for = self.calm_since.map_or(0, |since| now_ms.saturating_sub(since));
        if self.shed > 0 && calm_for >= self.calm_ms {
            self.shed -= 1;
            self.taken_back_at = Some(now_ms);
            self.change(now_ms);
            return true;
        }
        if self.taken_back_at.is_some_and(|at| now_ms.saturating_sub(at) >= TOO_EARLY_MS) {
            (self.calm_ms, self.taken_back_at) = (CALM_MS, None);
        }
        false
    }

    fn shed_one(&mut self, now_ms: u64) {
        self.shed += 1;
        if self.taken_back_at.take().is_some() {
            self.calm_ms = (self.calm_ms * 2).min(MAX_CALM_MS);
        }
        self.change(now_ms);
    }

    fn change(&mut self, now_ms: u64) {
        (self.slow, self.calm_since, self.changed_at) = (0, None, Some(now_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Milliseconds of the machine's time that a rung takes for a second of media.
    const RUNG_MS: i64 = 400;

    /// A machine that has `room` milliseconds for its rungs in each second; what is lacking adds to the lag.
    struct Machine {
        overload: Overload,
        room: i64,
        lag: i64,
        now: u64,
        changes: Vec<(u64, usize)>,
    }

    impl Machine {
        fn new(rungs: usize, room: i64) -> Self {
            Self { overload: Overload::new(rungs), room, lag: 300, now: 0, changes: Vec::new() }
        }

        fn run(&mut self, seconds: u64) {
            for _ in 0..seconds {
                self.now += 1000;
                let active = (self.overload.rungs - self.overload.shed()) as i64;
                self.lag = (self.lag + RUNG_MS * active - self.room).max(300);
                if self.overload.sample(self.now, self.lag as u64) {
                    self.changes.push((self.now / 1000, self.overload.shed()));
                }
            }
        }
    }

    #[test]
    fn nothing_is_shed_while_the_machine_keeps_up() {
        let mut machine = Machine::new(3, 1300);
        machine.run(600);
        assert_eq!(machine.changes, []);
    }

    #[test]
    fn large_lag_that_shrinks_sheds_nothing() {
        let mut machine = Machine::new(3, 1700);
        machine.lag = 20_000;
        machine.run(120);
        assert_eq!((machine.changes.as_slice(), machine.lag), (&[][..], 300));
    }

    #[test]
    fn rungs_are_shed_from_the_top_one_by_one_until_the_machine_keeps_up() {
        let mut machine = Machine::new(3, 600);
        machine.run(30);
        let shed: Vec<usize> = machine.changes.iter().map(|(_, shed)| *shed).collect();
        assert_eq!(shed, [1, 2]);
        let (first, second) = (machine.changes[0].0, machine.changes[1].0);
        assert!(first <= 10 && second - first >= SETTLE_MS / 1000, "{:?}", machine.changes);
    }

    #[test]
    fn machine_without_room_for_any_rung_sheds_all_and_no_more() {
        let mut machine = Machine::new(2, -100);
        machine.run(300);
        assert_eq!(machine.overload.shed(), 2);
        assert_eq!(machine.changes.len(), 2);
    }

    #[test]
    fn shed_rung_is_taken_back_after_a_calm_time() {
        let mut machine = Machine::new(2, 600);
        machine.run(15);
        assert_eq!(machine.overload.shed(), 1);
        machine.room = 1300;
        machine.run(60);
        assert_eq!(machine.overload.shed(), 0);
        let [(shed, 1), (back, 0)] = machine.changes[..] else { panic!("{:?}", machine.changes) };
        assert!(back - shed >= CALM_MS / 1000, "{:?}", machine.changes);
    }

    #[test]
    fn rung_that_must_be_shed_again_soon_waits_twice_as_long_each_time_up_to_a_limit() {
        let mut machine = Machine::new(2, 600);
        machine.run(3600);
        let back: Vec<u64> =
            machine.changes.iter().filter(|(_, shed)| *shed == 0).map(|(second, _)| *second).collect();
        let waits: Vec<u64> = back.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]), "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= MAX_CALM_MS / 1000 + 60), "{waits:?}");
        assert!(waits.last().is_some_and(|wait| *wait >= MAX_CALM_MS / 1000), "{waits:?}");
    }
}
