//! Stand-ins for encoder, packager, control and store: a unit is its number, a part is a list of numbers.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use millrace_protocol::job::Packaged;
use millrace_protocol::takeover::Closing;
use millrace_wire::fact::{MediaDuration, Part, Segment, TrackInfo, TrackMedia};
use millrace_wire::ids::*;
use millrace_wire::message::announce::{EpochAnnouncement, EpochPhase};
use millrace_wire::message::control::{ClaimGrant, PublishLimits, SealReport, StreamSettings};
use millrace_wire::message::media::{FrameUnit, MediaUnit, Track};

pub const UNIT_MS: u64 = 40;
pub const SEGMENT_UNITS: u64 = 50;
const PART_UNITS: usize = 5;
/// Wall clock at simulated time 0.
pub const WALL: u64 = 1_800_000_000_000;

pub fn stream() -> StreamId {
    StreamId::from_u128(1)
}
pub fn playback() -> PlaybackId {
    "00112233445566778899aabbccddeeff".parse().unwrap()
}
pub fn rendition(track: Track) -> Rendition {
    if track == Track::Video { Rendition::video() } else { Rendition::audio() }
}

pub fn unit(
    track: Track,
    number: u64,
    msn: Msn,
    discontinuity: DiscontinuitySeq,
    boundary: bool,
) -> MediaUnit {
    MediaUnit::Frame(FrameUnit {
        track,
        msn,
        discontinuity_sequence: discontinuity,
        init_version: InitVersion(0),
        dts: (number * UNIT_MS) as i64,
        cts: 0,
        keyframe: boundary,
        boundary,
        independent: true,
        discontinuity: false,
        data: Bytes::copy_from_slice(&number.to_le_bytes()).into(),
    })
}

/// Numbers in a part or segment.
pub fn numbers(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks_exact(8).map(|c| u64::from_le_bytes(c.try_into().unwrap())).collect()
}

#[derive(Default)]
struct Open {
    msn: Msn,
    discontinuity: DiscontinuitySeq,
    part: u32,
    pending: Vec<Bytes>,
    units: u64,
    pdt: u64,
}

/// Deterministic: the same units give the same parts.
#[derive(Default)]
pub struct ToyPackager {
    open: BTreeMap<Track, Open>,
    started: bool,
}

impl ToyPackager {
    pub fn push(&mut self, units: &[MediaUnit], out: &mut Vec<Packaged>) {
        for u in units.iter().filter_map(MediaUnit::frame) {
            if !std::mem::replace(&mut self.started, true) {
                announce_tracks(out);
            }
            if self.open.get(&u.track).is_some_and(|o| o.msn != u.msn) {
                self.close(u.track, out);
            }
            let open = self.open.entry(u.track).or_insert_with(|| Open {
                msn: u.msn,
                discontinuity: u.discontinuity_sequence,
                pdt: WALL + u.dts as u64,
                ..Open::default()
            });
            open.pending.push(u.data.contiguous());
            open.units += 1;
            if open.pending.len() == PART_UNITS {
                part(u.track, open, out);
            }
        }
    }
    pub fn flush(&mut self, out: &mut Vec<Packaged>) {
        self.close(Track::Video, out);
        self.close(Track::Audio, out);
    }
    fn close(&mut self, track: Track, out: &mut Vec<Packaged>) {
        let Some(mut open) = self.open.remove(&track) else { return };
        part(track, &mut open, out);
        // Segments turn out bigger than declared now and then; a successor does not know what was declared before.
        out.push(init(track, open.msn.0 / 4));
        out.push(Packaged::Segment(Segment {
            rendition: rendition(track),
            msn: open.msn,
            parts: open.part,
            duration: MediaDuration::from_millis(open.units * UNIT_MS),
            independent: true,
            bytes: open.units * 8,
            discontinuity_sequence: open.discontinuity,
            program_date_time: UnixMillis(open.pdt),
            init_version: InitVersion(0),
        }));
    }
}

fn announce_tracks(out: &mut Vec<Packaged>) {
    for track in [Track::Video, Track::Audio] {
        out.push(init(track, 1));
        let target = MediaDuration::from_millis(200);
        out.push(Packaged::PartTarget { rendition: rendition(track), target });
    }
}

fn init(track: Track, bandwidth: u64) -> Packaged {
    let info = TrackInfo {
        media: TrackMedia::Audio { channels: 2, sample_rate: 48_000 },
        codecs: "x".into(),
        bandwidth,
        timescale: 1000,
    };
    let bytes = Bytes::from_static(b"init");
    Packaged::Init { rendition: rendition(track), version: InitVersion(0), info, bytes }
}

fn part(track: Track, open: &mut Open, out: &mut Vec<Packaged>) {
    if open.pending.is_empty() {
        return;
    }
    let mut bytes = BytesMut::new();
    let units = open.pending.len() as u64;
    open.pending.drain(..).for_each(|b| bytes.put(b));
    let part = Part {
        rendition: rendition(track),
        msn: open.msn,
        part: PartIndex(open.part),
        duration: MediaDuration::from_millis(units * UNIT_MS),
        independent: open.part == 0,
        bytes: bytes.len() as u64,
        discontinuity_sequence: open.discontinuity,
        program_date_time: UnixMillis(open.pdt),
        init_version: InitVersion(0),
        gap: false,
    };
    open.part += 1;
    out.push(Packaged::Part(part, bytes.freeze().into()));
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
    /// GAPs count from here.
    granted: u64,
    ended_since: Option<u64>,
    by_control: bool,
    pub ended_reported: bool,
}

pub const LEASE_MS: u64 = 3000;
/// An author has this long to seal before it is looked for.
const LOOK_MS: u64 = 5000;
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
    /// The highest number that may be in use, now or by the time everybody has heard of the next epoch.
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
            epoch: self.epoch,
            first_msn: first,
            discontinuity_sequence: discontinuity,
            continues,
            follows,
            lease_ms: LEASE_MS as u32,
            limits: PublishLimits::default(),
            settings: StreamSettings { window: 30, ..StreamSettings::default() },
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
    pub fn needs_author(&self, now: u64) -> bool {
        match (self.phase, self.ended_since) {
            (EpochPhase::Open, _) => false,
            (EpochPhase::Away { .. }, _) => self.by_control || now - self.away_since >= LOOK_MS,
            (EpochPhase::Ended, since) => {
                !self.ended_reported && since.is_some_and(|at| self.by_control || now - at >= LOOK_MS)
            }
        }
    }
    /// An epoch of control's own.
    pub fn take_up(&mut self, now: u64) -> Closing {
        let used = self.used(now);
        (self.open, self.sealed, self.released) = (used, Some(used), true);
        self.epoch = Epoch(WALL + now).max(self.epoch.next());
        (self.granted, self.by_control) = (now, true);
        Closing { epoch: self.epoch, over: !self.is_away(), used, wall: UnixMillis(WALL + now), window_s: 30 }
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
            && let n @ 1.. = (now - self.away_since.max(self.granted)) / 4000
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
