//! A stand-in for control: its rules for one stream, reduced to what the protocol needs.

use millrace_protocol::takeover::TakeoverParams;
use millrace_wire::ids::*;
use millrace_wire::message::announce::{EpochAnnouncement, EpochPhase};
use millrace_wire::message::control::{ClaimGrant, PublishLimits, SealReport, StreamSettings};

use super::packager::{SEGMENT_UNITS, UNIT_MS};

/// Wall clock at simulated time 0.
pub const WALL: u64 = 1_800_000_000_000;

pub fn stream() -> StreamId {
    StreamId::from_u128(1)
}

pub fn playback() -> PlaybackId {
    "00112233445566778899aabbccddeeff".parse().unwrap()
}

/// Control's rules for one stream, reduced to what the protocol needs.
pub struct ToyControl {
    pub epoch: Epoch,
    pub session: Option<SessionId>,
    pub phase: EpochPhase,
    first: Msn,
    open: Msn,
    sealed: Option<Msn>,
    gaps: Option<Msn>,
    discontinuity: DiscontinuitySeq,
    renewed: u64,
    pub released: bool,
    away_since: u64,
    /// The time from which GAPs are counted.
    granted: u64,
    ended_since: Option<u64>,
    by_control: bool,
    pub ended_reported: bool,
}

pub const LEASE_MS: u64 = 3000;
/// A log writer has this long to seal before control looks for it.
const LOOK_MS: u64 = 5000;
/// TARGETDURATION, and the duration of each GAP while the publisher is away.
const TARGET_MS: u64 = 2_000;
/// Ingest cuts no shorter segments.
const MIN_SEGMENT_MS: u64 = UNIT_MS * SEGMENT_UNITS;

impl ToyControl {
    pub fn new() -> Self {
        Self {
            epoch: Epoch(0),
            session: None,
            phase: EpochPhase::Open,
            first: Msn(0),
            open: Msn(0),
            sealed: None,
            gaps: None,
            discontinuity: DiscontinuitySeq(0),
            renewed: 0,
            released: false,
            away_since: 0,
            granted: 0,
            ended_since: None,
            by_control: false,
            ended_reported: false,
        }
    }

    /// Returns the highest number that may be in use by the time every node knows the next epoch.
    fn used(&self, now: u64) -> Msn {
        let open = if self.released {
            self.open
        } else if self.sealed.is_some() {
            self.open.next()
        } else {
            self.open.plus(2 + (now - self.renewed) / MIN_SEGMENT_MS)
        };
        let used = self.sealed.map_or(open, |s| s.max(open));
        self.gaps.map_or(used, |g| g.max(used))
    }

    pub fn claim(&mut self, now: u64, session: SessionId) -> ClaimGrant {
        let continues = self.session.is_some();
        let follows = continues.then_some(self.epoch);
        let first = if continues { self.used(now).next() } else { Msn((WALL + now) / 1000) };
        let discontinuity = if continues { self.discontinuity.next() } else { DiscontinuitySeq(0) };
        *self = Self {
            epoch: Epoch(WALL + now).max(self.epoch.next()),
            session: Some(session),
            first,
            open: first,
            discontinuity,
            renewed: now,
            ..Self::new()
        };
        ClaimGrant {
            stream: stream(),
            playback: playback(),
            broadcast: BroadcastId::from_u128(1),
            airing: millrace_wire::ids::Airing::FIRST,
            epoch: self.epoch,
            first_msn: first,
            discontinuity_sequence: discontinuity,
            continues,
            follows,
            lease_ms: LEASE_MS as u32,
            limits: PublishLimits::default(),
            settings: StreamSettings {
                window: 30,
                target_duration: (TARGET_MS / 1_000) as u32,
                ..StreamSettings::default()
            },
        }
    }

    pub fn renew(
        &mut self,
        now: u64,
        epoch: Epoch,
        open: Option<Msn>,
        discontinuity: DiscontinuitySeq,
    ) -> bool {
        if epoch != self.epoch || self.sealed.is_some() || self.phase == EpochPhase::Ended {
            return false;
        }
        self.open = self.open.max(open.unwrap_or(self.open));
        self.discontinuity = self.discontinuity.max(discontinuity);
        self.renewed = now;
        self.phase = EpochPhase::Open;
        true
    }

    pub fn release(&mut self, now: u64, epoch: Epoch, open: Option<Msn>, discontinuity: DiscontinuitySeq) {
        if epoch == self.epoch && self.phase == EpochPhase::Open {
            self.open = self.open.max(open.unwrap_or(self.open));
            self.discontinuity = self.discontinuity.max(discontinuity);
            self.released = true;
            self.away(now);
        }
    }

    fn away(&mut self, now: u64) {
        self.away_since = now;
        self.phase = EpochPhase::Away { gaps_through: None, discontinuity_sequence: self.discontinuity };
    }

    pub fn sealed(&mut self, report: &SealReport) -> bool {
        if report.epoch == self.epoch {
            let last = report.last.unwrap_or(Msn(self.first.0 - 1));
            self.sealed = Some(self.sealed.map_or(last, |s| s.max(last)));
            self.discontinuity = self.discontinuity.max(report.discontinuity_sequence);
            self.ended_reported |= report.ended;
        }
        true
    }

    pub fn end(&mut self, now: u64) {
        self.phase = EpochPhase::Ended;
        self.ended_since = Some(now);
    }

    pub fn is_away(&self) -> bool {
        matches!(self.phase, EpochPhase::Away { .. })
    }

    pub fn needs_writer(&self, now: u64) -> bool {
        match (self.phase, self.ended_since) {
            (EpochPhase::Open, _) => false,
            (EpochPhase::Away { .. }, _) => self.by_control || now - self.away_since >= LOOK_MS,
            (EpochPhase::Ended, since) => {
                !self.ended_reported && since.is_some_and(|at| self.by_control || now - at >= LOOK_MS)
            }
        }
    }

    /// Takes an epoch of control's own.
    pub fn take_over(&mut self, now: u64) -> TakeoverParams {
        let used = self.used(now);
        (self.open, self.sealed, self.released) = (used, Some(used), true);
        self.epoch = Epoch(WALL + now).max(self.epoch.next());
        (self.granted, self.by_control) = (now, true);
        TakeoverParams {
            epoch: self.epoch,
            over: !self.is_away(),
            used,
            wall: UnixMillis(WALL + now),
            window_s: 30,
        }
    }

    pub fn tick(&mut self, now: u64) {
        if self.session.is_none() {
            return;
        }
        if self.phase == EpochPhase::Open && now > self.renewed + LEASE_MS {
            self.away(now);
        }
        if let EpochPhase::Away { .. } = self.phase
            && let Some(sealed) = self.sealed
            && let n @ 1.. = (now - self.away_since.max(self.granted)) / TARGET_MS
        {
            self.gaps = self.gaps.max(Some(sealed.plus(n)));
            self.phase =
                EpochPhase::Away { gaps_through: self.gaps, discontinuity_sequence: self.discontinuity };
        }
    }

    pub fn announcement(&self) -> Option<EpochAnnouncement> {
        Some(EpochAnnouncement {
            stream: stream(),
            playback: playback(),
            broadcast: BroadcastId::from_u128(1),
            epoch: self.epoch,
            session: Some(self.session?).filter(|_| !self.by_control),
            phase: self.phase,
        })
    }
}
