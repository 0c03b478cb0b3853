//! Orphaned logs: a log whose writer is gone, and that no session will find another writer for.
//!
//! Control takes an epoch of its own for the stream and writes its log. If the broadcast is over, the log ends it. If the
//! publisher is away, the log is sealed and grows by GAPs until the publisher's next epoch, because players give up on a
//! playlist that stands still.

use bytes::Bytes;
use millrace_wire::fact::{Fact, Gap, Origin, StreamState};
use millrace_wire::fragment::FragmentError;
use millrace_wire::ids::{Epoch, Generation, Msn, UnixMillis};
use millrace_wire::message::announce::{EpochAnnouncement, EpochPhase};
use millrace_wire::message::repair::{RepairReply, RepairRequest};

use crate::log::writer::{EncodedMessage, LogWriter};
use crate::machine::Machine;
use crate::state::checkpoint::is_complete;
use crate::state::gaps::{following, listed_through, share, unfinished, while_away, window_end};
use crate::state::query::{target_duration, window_start};
use crate::time::Millis;

/// The only generation of an epoch that control takes.
pub const GENERATION: Generation = Generation(1);

/// The parameters of a takeover, taken from control's claim of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TakeoverParams {
    /// The epoch that control has taken.
    pub epoch: Epoch,
    /// True if the broadcast is over; false if the publisher is away.
    pub over: bool,
    /// The highest media sequence number that earlier epochs may have used.
    pub used: Msn,
    /// Wall clock of the takeover.
    pub wall: UnixMillis,
    /// Length of the playlists' window in seconds.
    pub window_s: u32,
}

/// An input of an orphaned log.
#[derive(Debug)]
pub enum Input {
    /// A message from `epoch.{stream}`, which any leading control may have published.
    Epoch(EpochAnnouncement),
    /// Time has passed; nothing else has happened.
    Tick,
}

/// The log of an epoch that control has taken.
#[derive(Debug)]
pub struct OrphanLog {
    epoch: Epoch,
    window_s: u32,
    writer: LogWriter,
}

impl Machine for OrphanLog {
    type Input = Input;
    type Output = EncodedMessage;
    /// A fact could not be encoded: the log cannot go on.
    type Error = FragmentError;

    fn handle(&mut self, now: Millis, input: Input) -> Result<(), FragmentError> {
        if let Input::Epoch(announcement) = input {
            self.on_epoch(now, &announcement)?;
        }
        self.writer.retransmit(now);
        Ok(())
    }

    fn handle_timeout(&mut self, now: Millis) -> Result<(), FragmentError> {
        self.handle(now, Input::Tick)
    }

    fn poll_output(&mut self) -> Option<EncodedMessage> {
        self.writer.poll_output()
    }

    fn next_timeout(&self) -> Option<Millis> {
        self.writer.next_timeout()
    }

    /// An orphaned log answers requests until its owner drops it: only control knows how long its epoch is announced.
    fn is_done(&self) -> bool {
        false
    }
}

impl OrphanLog {
    /// Opens the log on `base`, closes what is open there, and seals or ends it. The outputs are to be published only after
    /// control has recorded the epoch.
    pub fn open(
        now: Millis,
        params: TakeoverParams,
        base: StreamState,
        max_payload: usize,
    ) -> Result<Self, FragmentError> {
        let TakeoverParams { epoch, over, used, wall, window_s } = params;
        // Of a log that a follower still has, or whose checkpoint is complete, nothing more was shown.
        let is_known_to_its_end = base.origin == Origin::Log || is_complete(&base);
        let mut facts: Vec<_> = unfinished(&base).map(Fact::Gap).collect();
        if !over || !is_known_to_its_end {
            facts.extend(used_numbers(&base, used, wall).into_iter().map(Fact::Gap));
        }
        match over {
            true if base.ended => {}
            true => facts.push(Fact::End),
            false => facts.push(Fact::Seal { last: base.slots.back().map(|slot| slot.msn) }),
        }
        let writer = LogWriter::open(now, (epoch, GENERATION), base, max_payload)?;
        let mut log = Self { epoch, window_s, writer };
        log.announce_all(now, facts)?;
        Ok(log)
    }

    /// Returns the log's state: the reply to a snapshot request, and what its checkpoint is taken of.
    pub fn state(&self) -> &StreamState {
        self.writer.state()
    }

    /// Takes a repair request from `ring.live` and returns the reply.
    pub fn repair(&mut self, now: Millis, request: &RepairRequest) -> RepairReply {
        self.writer.repair(now, request)
    }

    /// Follows control's announcements, as a worker's job does.
    fn on_epoch(&mut self, now: Millis, announcement: &EpochAnnouncement) -> Result<(), FragmentError> {
        if announcement.epoch != self.epoch || self.state().ended {
            return Ok(());
        }
        match announcement.phase {
            EpochPhase::Away { gaps_through: Some(through), .. } => {
                let gaps = while_away(self.state(), through, None);
                self.announce_all(now, gaps.into_iter().map(Fact::Gap))?;
                let first = window_start(self.state(), u64::from(self.window_s) * 1_000);
                self.announce_all(now, first.map(|first| Fact::Trim { first }))
            }
            EpochPhase::Ended => {
                let gaps: Vec<_> = unfinished(self.state()).map(Fact::Gap).collect();
                self.announce_all(now, gaps.into_iter().chain([Fact::End]))
            }
            EpochPhase::Open | EpochPhase::Away { .. } => Ok(()),
        }
    }

    fn announce_all(
        &mut self,
        now: Millis,
        facts: impl IntoIterator<Item = Fact>,
    ) -> Result<(), FragmentError> {
        facts.into_iter().try_for_each(|fact| self.writer.announce(now, &fact, Bytes::new()))
    }
}

/// Returns GAPs for the numbers up to `used` that `base` does not list; they share the time until `wall`.
fn used_numbers(base: &StreamState, used: Msn, wall: UnixMillis) -> Vec<Gap> {
    let through = listed_through(base, used);
    let missing = base.slots.back().map_or(0, |newest| through.0.saturating_sub(newest.msn.0));
    let elapsed_ms = wall.0.saturating_sub(window_end(base).0);
    following(base, through, share(elapsed_ms, missing, target_duration(base.target_duration)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use millrace_wire::fact::{MediaDuration, RenditionSegment, RenditionState, SegmentEntry, SegmentSlot};
    use millrace_wire::ids::{BroadcastId, DiscontinuitySeq, FactSeq, InitVersion, Rendition};

    use super::*;
    use crate::state::apply;

    /// Segments 0 to 4 of 2 s each from wall clock 0 on.
    fn state() -> StreamState {
        let mut state = apply::empty(BroadcastId::from_u128(1));
        (state.target_duration, state.epoch) = (4, Epoch(1));
        state.renditions.insert(Rendition::video(), RenditionState::default());
        for n in 0..5 {
            let segment = SegmentEntry {
                generation: GENERATION,
                seq: FactSeq(0),
                duration: MediaDuration::from_millis(2_000),
                independent: true,
                bytes: 1,
                parts: 0,
            };
            let init_version = InitVersion(0);
            let track =
                RenditionSegment { init_version, parts: vec![], segment: Some(segment), stored: true };
            state.slots.push_back(Arc::new(SegmentSlot {
                msn: Msn(n),
                epoch: Epoch(1),
                discontinuity_sequence: DiscontinuitySeq(0),
                program_date_time: UnixMillis(n * 2_000),
                gap: None,
                rendition_gaps: BTreeMap::new(),
                tracks: BTreeMap::from([(Rendition::video(), track)]),
            }));
        }
        state
    }

    fn orphan_log(state: &StreamState, over: bool, used: u64) -> OrphanLog {
        let wall = UnixMillis(16_000);
        let params = TakeoverParams { epoch: Epoch(9), over, used: Msn(used), wall, window_s: 20 };
        OrphanLog::open(Millis(0), params, state.clone(), 1 << 16).unwrap()
    }

    fn gaps(state: &StreamState) -> Vec<(u64, u64, u64)> {
        let listed =
            |slot: &Arc<SegmentSlot>| Some((slot.msn.0, slot.program_date_time.0, slot.gap?.as_millis()));
        state.slots.iter().filter_map(listed).collect()
    }

    #[test]
    fn orphan_log_lists_used_numbers_as_gaps_and_grows_while_the_publisher_is_away() {
        // 6 s of absence for 4 numbers.
        let mut log = orphan_log(&state(), false, 8);
        assert!(log.state().sealed);
        let listed = [(5, 10_000, 1_500), (6, 11_500, 1_500), (7, 13_000, 1_500), (8, 14_500, 1_500)];
        assert_eq!(gaps(log.state()), listed);
        let mut announcement = EpochAnnouncement {
            stream: millrace_wire::ids::StreamId::from_u128(1),
            playback: "00112233445566778899aabbccddeeff".parse().unwrap(),
            broadcast: BroadcastId::from_u128(1),
            epoch: Epoch(9),
            session: None,
            phase: EpochPhase::Away {
                gaps_through: Some(Msn(11)),
                discontinuity_sequence: DiscontinuitySeq(0),
            },
        };
        for _ in 0..2 {
            log.handle(Millis(1), Input::Epoch(announcement.clone())).unwrap();
            let listed = [(9, 16_000, 4_000), (10, 20_000, 4_000), (11, 24_000, 4_000)];
            assert_eq!(gaps(log.state())[4..], listed);
        }
        assert!(log.state().first_msn > Msn(0), "the window moves");
        announcement.phase = EpochPhase::Ended;
        log.handle(Millis(2), Input::Epoch(announcement.clone())).unwrap();
        let seq = log.state().seq;
        log.handle(Millis(3), Input::Epoch(announcement)).unwrap();
        assert!(log.state().ended && log.state().seq == seq, "ended once");
    }

    #[test]
    fn orphan_log_lists_no_gaps_when_more_than_512_numbers_are_missing() {
        let log = orphan_log(&state(), false, 600);
        assert!(log.state().sealed && gaps(log.state()).is_empty());
    }

    #[test]
    fn orphan_log_ends_after_used_numbers_only_if_its_base_is_an_incomplete_checkpoint() {
        let checkpoint = state();
        assert_eq!(gaps(orphan_log(&checkpoint, true, 6).state()).len(), 2);
        let followed = StreamState { origin: Origin::Log, ..checkpoint.clone() };
        let sealed = StreamState { sealed: true, ..checkpoint.clone() };
        for (known, facts) in [(followed, 1), (sealed, 1), (StreamState { ended: true, ..checkpoint }, 0)] {
            let log = orphan_log(&known, true, 6);
            assert!(log.state().ended && gaps(log.state()).is_empty());
            assert_eq!(log.state().seq, FactSeq(facts));
        }
    }
}
