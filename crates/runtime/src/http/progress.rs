//! The decision to end an HTTP connection that makes no progress. It reads no clock: [`Progress::tick`] gets the time.

use std::time::Duration;

use super::cut::Cut;

/// The deadlines of a connection. None of them passes while the process is stopped.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// Time between two looks at a connection. The other times are exact to this one, and a request costs no timer.
    pub look: Duration,
    /// The time in which a client must finish the head of its first request, counted from the connection's acceptance.
    pub first_head: Duration,
    /// The time in which a client must finish the head of its second or a later request on a connection, counted from the
    /// first look that finds it begun.
    pub head: Duration,
    /// The time in which the rest of a body must come whose request has been answered, counted from the first look after it.
    pub body: Duration,
    /// The time after which an unfinished answer must have gone on by `write_min_bytes`.
    pub write_window: Duration,
    /// The bytes that a client must take of its answers in each `write_window`.
    pub write_min_bytes: u64,
    /// The time after which a connection without any traffic is closed, counted from the first look that finds none.
    pub idle: Duration,
}

/// Time for the first head, which a client sends with its connection.
const FIRST_HEAD_DEADLINE: Duration = Duration::from_secs(5);
/// See [`Deadlines::look`].
const LOOK: Duration = Duration::from_secs(5);
/// A head is some kilobytes, which a client on a poor mobile link sends within a few seconds.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// The time from the head of a request to the end of its body; counted from the answer for one that is answered before, and
/// found out within the time between two looks at the connection then. The largest body that a node takes is some kilobytes, and
/// a client on a poor mobile link sends it within some seconds.
pub const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// The kernel reports room in its send buffer in steps of a third of the buffer, which a slow but steady reader takes some
/// seconds for.
const WRITE_WINDOW: Duration = Duration::from_secs(20);
/// 2 KiB a second, a quarter of the lowest bit rate at which sound alone is sent. A client below that rate plays nothing;
/// it only holds memory.
const WRITE_MIN_BYTES: u64 = 40 << 10;
/// Longer than the pause between two requests of a player that waits for a new playlist, and than the 60 s for which load
/// balancers keep connections, so that they are the ones to close them.
const IDLE_DEADLINE: Duration = Duration::from_secs(75);

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            look: LOOK,
            first_head: FIRST_HEAD_DEADLINE,
            head: HEAD_DEADLINE,
            body: BODY_DEADLINE,
            write_window: WRITE_WINDOW,
            write_min_bytes: WRITE_MIN_BYTES,
            idle: IDLE_DEADLINE,
        }
    }
}

/// What the handlers of a connection do at this moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Handling {
    /// A handler runs.
    pub(super) running: bool,
    /// Bytes have come since the last handler began that belong to no handler's request.
    pub(super) unhandled: bool,
    /// A part of the last request's body was left unread by its handler.
    pub(super) unread_body: bool,
    /// The number of requests whose handler has begun.
    pub(super) requests: u32,
}

/// The progress of one connection since the last look at it.
#[derive(Debug)]
pub(super) struct Progress {
    deadlines: Deadlines,
    active: bool,
    blocked: bool,
    sent: bool,
    accepted: u64,
    opened: Duration,
    head: Option<(Duration, u32)>,
    write_since: Option<Duration>,
    idle_since: Option<Duration>,
}

impl Progress {
    /// Begins with a connection that is accepted `now`.
    pub(super) fn new(deadlines: Deadlines, now: Duration) -> Self {
        Self {
            deadlines,
            opened: now,
            active: true,
            blocked: false,
            sent: false,
            accepted: 0,
            head: None,
            write_since: None,
            idle_since: None,
        }
    }

    /// Notes bytes that have come.
    pub(super) fn received(&mut self) {
        self.active = true;
    }

    /// Notes bytes of an answer that the kernel has taken.
    pub(super) fn accepted(&mut self, bytes: usize) {
        self.accepted += bytes as u64;
        self.blocked = false;
        self.sent = true;
        self.active = true;
    }

    /// Notes that the kernel takes no more of an answer at this moment.
    pub(super) fn blocked(&mut self) {
        self.blocked = true;
    }

    /// Looks at the connection. The result is the reason to end it, if there is one; it stays until the connection goes on.
    pub(super) fn tick(&mut self, now: Duration, handling: Handling) -> Option<Cut> {
        let active = std::mem::take(&mut self.active);
        // A request that came during an answer is handled after it.
        let is_answering = std::mem::take(&mut self.sent) || self.blocked;
        self.judge_write(now).or_else(|| self.judge_head(now, handling, is_answering)).or_else(|| {
            if active || self.blocked || handling.running {
                self.idle_since = None;
                return None;
            }
            let since = *self.idle_since.get_or_insert(now);
            (now.saturating_sub(since) >= self.deadlines.idle).then_some(Cut::Idle)
        })
    }

    fn judge_write(&mut self, now: Duration) -> Option<Cut> {
        if !self.blocked {
            self.write_since = None;
            self.accepted = 0;
            return None;
        }
        if self.write_since.is_none() {
            // The window begins here: bytes taken earlier do not count for it.
            self.accepted = 0;
        }
        let since = *self.write_since.get_or_insert(now);
        if now.saturating_sub(since) < self.deadlines.write_window {
            return None;
        }
        if self.accepted < self.deadlines.write_min_bytes {
            return Some(Cut::SlowReader);
        }
        self.write_since = Some(now);
        self.accepted = 0;
        None
    }

    /// Judges the time that the client takes for the next head, or for the rest of a body that is not read any more.
    fn judge_head(&mut self, now: Duration, handling: Handling, is_answering: bool) -> Option<Cut> {
        if handling.requests == 0 {
            return (now.saturating_sub(self.opened) >= self.deadlines.first_head).then_some(Cut::SlowHead);
        }
        let is_due = handling.unhandled || handling.unread_body;
        if !is_due || handling.running || is_answering {
            self.head = None;
            return None;
        }
        let begun = self.head.filter(|(_, requests)| *requests == handling.requests);
        let (since, _) = *self.head.insert(begun.unwrap_or((now, handling.requests)));
        let (limit, cut) = if handling.unread_body {
            (self.deadlines.body, Cut::SlowBody)
        } else {
            (self.deadlines.head, Cut::SlowHead)
        };
        (now.saturating_sub(since) >= limit).then_some(cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Handling = Handling { running: false, unhandled: false, unread_body: false, requests: 1 };

    struct World {
        now: Duration,
        progress: Progress,
    }

    impl World {
        fn new() -> Self {
            let now = Duration::from_secs(1_000);
            Self { now, progress: Progress::new(Deadlines::default(), now) }
        }

        /// Ticks for `time` with `each` before every tick, and returns the first cut with the seconds until it.
        fn run(
            &mut self,
            time: Duration,
            handling: Handling,
            mut each: impl FnMut(&mut Progress),
        ) -> Option<(Cut, u64)> {
            let start = self.now;
            while self.now < start + time {
                each(&mut self.progress);
                self.now += LOOK;
                if let Some(cut) = self.progress.tick(self.now, handling) {
                    return Some((cut, self.now.saturating_sub(start).as_secs()));
                }
            }
            None
        }
    }

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn reader_that_takes_nothing_is_cut_after_the_write_window() {
        let cut = World::new().run(HOUR, NOTHING, Progress::blocked);
        assert_eq!(cut, Some((Cut::SlowReader, 25)), "the window and one look");
    }

    #[test]
    fn reader_below_the_minimum_rate_is_cut_and_one_above_it_is_not() {
        let each = |bytes: usize| {
            move |progress: &mut Progress| {
                progress.accepted(bytes);
                progress.blocked();
            }
        };
        let per_tick = WRITE_MIN_BYTES as usize / 4;
        assert_eq!(World::new().run(HOUR, NOTHING, each(per_tick + 1)), None);
        let cut = World::new().run(HOUR, NOTHING, each(per_tick - 1));
        assert!(matches!(cut, Some((Cut::SlowReader, 25))), "{cut:?}");
    }

    #[test]
    fn reader_that_finished_its_answer_in_time_begins_a_new_window() {
        let mut world = World::new();
        for _ in 0..100 {
            assert_eq!(world.run(LOOK * 3, NOTHING, Progress::blocked), None);
            assert_eq!(world.run(LOOK, NOTHING, |progress| progress.accepted(10)), None);
        }
    }

    #[test]
    fn later_head_that_is_not_finished_is_cut_even_if_bytes_trickle_in() {
        let begun = Handling { unhandled: true, ..NOTHING };
        let cut = World::new().run(HOUR, begun, Progress::received);
        assert_eq!(cut, Some((Cut::SlowHead, 15)), "the deadline and one look");
        // The request has come while an answer is sent, and waits for its turn.
        let sent = |progress: &mut Progress| {
            progress.accepted(100_000);
            progress.blocked();
        };
        assert_eq!(World::new().run(HOUR, begun, sent), None);
        // Each tick finds another head begun.
        let mut world = World::new();
        for requests in 1..=100 {
            let begun = Handling { requests, ..begun };
            assert_eq!(world.run(HEAD_DEADLINE, begun, Progress::received), None);
        }
    }

    #[test]
    fn first_head_that_does_not_come_is_cut_whether_bytes_came_or_not() {
        let none = Handling { requests: 0, ..NOTHING };
        assert_eq!(World::new().run(HOUR, none, |_| ()), Some((Cut::SlowHead, 5)));
        let begun = Handling { unhandled: true, ..none };
        assert_eq!(World::new().run(HOUR, begun, Progress::received), Some((Cut::SlowHead, 5)));
    }

    #[test]
    fn body_of_an_answered_request_that_does_not_come_is_cut_even_if_bytes_trickle_in() {
        let left = Handling { unread_body: true, ..NOTHING };
        assert_eq!(
            World::new().run(HOUR, left, |_| ()),
            Some((Cut::SlowBody, 15)),
            "the deadline and one look"
        );
        let begun = Handling { unhandled: true, ..left };
        assert_eq!(World::new().run(HOUR, begun, Progress::received), Some((Cut::SlowBody, 15)));
        let answered = |progress: &mut Progress| progress.accepted(1);
        assert_eq!(World::new().run(HOUR, left, answered), None, "its answer is still being sent");
    }

    #[test]
    fn connection_without_traffic_is_cut_beyond_the_keep_alive_time_unless_a_handler_runs() {
        let cut = World::new().run(HOUR, NOTHING, |_| ());
        assert_eq!(cut, Some((Cut::Idle, 85)), "the first look finds the connection new");
        assert_eq!(World::new().run(HOUR, Handling { running: true, ..NOTHING }, |_| ()), None);
        assert_eq!(World::new().run(HOUR, NOTHING, Progress::received), None);
    }
}
